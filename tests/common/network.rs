//! The networks of the golden files.

use std::path::Path;

use ossnet::checkpoint::model;
use ossnet::device::Device;
use ossnet::models::{OssNet, OssNetConfig};
use ossnet::nn::Parameters;
use ossnet::ops::activation::Activation;
use ossnet::rng::Rng;

use super::fixture::Fixture;

/// The engine's configuration of an official one, as the golden files store it.
pub fn configuration(fixture: &Fixture) -> OssNetConfig {
    let config = fixture.config();
    let flag = |name: &str| config[name].as_bool().unwrap();
    let skip_encoder = config["encoder"] == "ConvolutionalEncoderSkip";
    let channels: Vec<(usize, usize)> = serde_json::from_value(config["encoder_channels"].clone()).unwrap();
    let features: Vec<(usize, usize)> = serde_json::from_value(config["decoder_features"].clone()).unwrap();
    let half: Vec<usize> = match fixture.get("volume") {
        Some(volume) => volume.shape()[2..].to_vec(),
        None => vec![128, 128, 80],
    };
    OssNetConfig {
        name: "fixture".into(),
        image_channels: channels[0].0,
        classes: config["number_of_classes"].as_u64().unwrap() as usize,
        volume_shape: [half[0] * 2, half[1] * 2, half[2] * 2],
        encoder_channels: channels,
        skip_encoder,
        encoder_output_shape: if skip_encoder {
            serde_json::from_value(config["encoder_output_shape"].clone()).unwrap()
        } else {
            None
        },
        auxiliary: flag("encoder_segmentation_mapping"),
        patches: flag("patches"),
        mid_range: flag("large_patches"),
        fourier: flag("decoder_fourier_input_features"),
        width: features[0].1,
        blocks: features.len(),
        activation: Activation::PADE,
        dropout: config["dropout"].as_f64().unwrap() as f32,
        reference: true,
    }
}

/// A network of that configuration with the weights of an official file.
pub fn official(device: &Device, config: OssNetConfig, weights: &Path) -> (OssNet, Parameters) {
    let mut parameters = Parameters::new(device);
    let network = OssNet::new(config, &mut parameters, &mut Rng::new(0)).unwrap();
    model::load_weights(&mut parameters, weights).unwrap();
    (network, parameters)
}

/// `[batch, channels, D, H, W]` → `[batch, D, H, W, channels]`.
pub fn channels_last(values: &[f32], shape: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let (channels, space) = (shape[1], shape[2..].iter().product::<usize>());
    let mut out = Vec::with_capacity(values.len());
    for item in values.chunks_exact(channels * space) {
        for voxel in 0..space {
            out.extend((0..channels).map(|channel| item[channel * space + voxel]));
        }
    }
    (vec![shape[0], shape[2], shape[3], shape[4], channels], out)
}
