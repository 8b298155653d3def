//! The decoder folded for one volume: see [`crate::ops::fused_decoder`].

use super::{Decoder, Encoding, OssNet};
use crate::error::Result;
use crate::models::OssNetConfig;
use crate::models::config::FOURIER_FREQUENCIES;
use crate::nn::{Parameters, folded_layer};
use crate::ops::fused_decoder::{self, FoldedDecoder};
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self};
use crate::tape::{Tape, Var};

impl OssNet {
    /// The decoder folded for the one volume of `encoding`, for many calls of [`OssNet::decode_folded`]; `None` where it
    /// cannot be: layers too wide for the device's tiles, several volumes.
    ///
    /// # Errors
    /// No memory.
    pub fn fold(&self, tape: &Tape, parameters: &Parameters, encoding: &Encoding) -> Result<Option<FoldedDecoder>> {
        let device = tape.device();
        let (storage, config) = (self.precision.storage(), &self.config);
        let possible = FoldedDecoder::is_possible(device.target(), storage, config.width, config.activation);
        if !possible || encoding.latents.shape()[0] != 1 {
            return Ok(None);
        }
        device.in_layer("decoder", || {
            let parts = self.decoder.parts(tape, parameters, config, &encoding.latents)?;
            parts.map(|parts| FoldedDecoder::new(device, &parts, storage)).transpose()
        })
    }

    /// The logits that [`OssNet::decode`] gives, of the volume that `folded` was folded for.
    ///
    /// # Errors
    /// Shapes that do not fit, a missing patch source, or no memory.
    pub fn decode_folded(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        folded: &FoldedDecoder,
        coordinates: &Var,
        patches: Option<PatchSource<'_>>,
    ) -> Result<Var> {
        tape.device().in_layer("decoder", || {
            let features = || self.decoder.point_features(tape, parameters, &self.config, coordinates, patches);
            let x = tape.at(self.precision, features)?;
            Ok(tape.constant(folded.logits(&x.tensor())?))
        })
    }
}

impl Decoder {
    /// The values of all layers for one volume; `None` of a decoder without blocks.
    pub(super) fn parts(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        config: &OssNetConfig,
        latents: &Var,
    ) -> Result<Option<fused_decoder::Decoder>> {
        let input_latent = ops::select(tape, latents, 0)?;
        let Some(residual) = self.blocks.first().and_then(|block| block.residual.as_ref()) else { return Ok(None) };
        let residual = folded_layer(tape, parameters, residual, Some(&input_latent), None, None)?;
        let mut layers = Vec::with_capacity(2 * self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let latent = if config.skip_encoder { ops::select(tape, latents, i + 1)? } else { input_latent.clone() };
            let shared = (i == 0).then_some(&input_latent);
            let norms = [&block.first_norm, &block.second_norm].map(|norm| Some((norm, &latent)));
            let [first, second] = norms;
            layers.push(folded_layer(tape, parameters, &block.first, shared, first, Some(&block.act))?);
            layers.push(folded_layer(tape, parameters, &block.second, None, second, Some(&block.final_act))?);
        }
        let last = tape.parameter(parameters, self.last.weight).tensor();
        let (features, activation) = (config.point_features(), config.activation);
        let coordinates = if config.fourier { 2 * FOURIER_FREQUENCIES } else { 0 };
        Ok(Some(fused_decoder::Decoder { features, coordinates, residual, layers, last, activation }))
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::memory::Role;
    use crate::models::{Encoding, OssNet, OssNetConfig};
    use crate::nn::Parameters;
    use crate::ops::patch_conv::PatchSource;
    use crate::ops::testing::{Array, assert_clean, compare, every_device, oss_nets};
    use crate::rng::Rng;
    use crate::tape::{Mode, Tape};
    use crate::tensor::Tensor;

    const SIDE: usize = 16;
    const POINTS: usize = 20;

    /// Logits of a network with random weights, layer by layer and folded.
    fn logits(device: &Device, config: &OssNetConfig) -> [Vec<f32>; 2] {
        let (mut parameters, mut rng) = (Parameters::new(device), Rng::new(5));
        let network = OssNet::new(config.clone(), &mut parameters, &mut rng).unwrap();
        for parameter in parameters.iter_mut() {
            let values = parameter.value().to_vec().unwrap();
            let values: Vec<f32> = values.iter().map(|value| value * 1.1 + 0.05 * rng.normal()).collect();
            parameter.value_and_gradient().0.write(&values).unwrap();
        }
        let tape = Tape::new(device, Mode::Eval);
        let constant =
            |array: Array| tape.constant(Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap());
        let volume = constant(Array::random(&[1, SIDE, SIDE, SIDE, 2], 1));
        let coordinates = constant(Array::random(&[POINTS, 3], 2).map(|x| (8.0 + 8.0 * x).floor()));
        let latents = constant(Array::random(&[1, config.latents(), config.latent_features()], 3));
        let encoding = Encoding { latents, auxiliary: None };
        let source = || {
            let options = config.patch_options(false);
            config.patches.then_some(PatchSource::Volume { volume: &volume, coordinates: &coordinates, options })
        };
        let layers = network.decode(&tape, &parameters, &encoding, &coordinates, source()).unwrap();
        let folded = network.fold(&tape, &parameters, &encoding).unwrap().unwrap();
        let folded = network.decode_folded(&tape, &parameters, &folded, &coordinates, source()).unwrap();
        [layers, folded].map(|logits| logits.tensor().to_vec().unwrap())
    }

    /// As many features enter the first block as it has: its residual is a layer all the same.
    #[test]
    fn as_many_features_as_the_width() {
        let config = OssNetConfig::sample("o-net", 2, [SIDE; 3]).unwrap();
        let config =
            OssNetConfig { skip_encoder: true, encoder_output_shape: Some([3, 7, 1]), width: 24, blocks: 2, ..config };
        assert_eq!(config.decoder_inputs(), config.width);
        let [layers, folded] = logits(&Device::cpu(1, 1 << 26).unwrap(), &config);
        let expected: Vec<f64> = layers.iter().map(|&logit| f64::from(logit)).collect();
        assert!(expected.windows(2).any(|pair| pair[0] != pair[1]));
        // As below.
        compare("folded", &folded, &expected, 5e-6);
        let error = OssNetConfig { reference: true, ..config }.check().unwrap_err().to_string();
        assert!(error.contains("24") && error.contains("width"), "{error}");
    }

    #[test]
    fn official_configurations() {
        for (i, name) in oss_nets().into_iter().enumerate() {
            let config = OssNetConfig::sample(name, 2, [SIDE; 3]).unwrap();
            let config = OssNetConfig { width: 24, blocks: 2, classes: 1 + i % 3, reference: i % 2 == 1, ..config };
            let mut expected: Option<Vec<f64>> = None;
            for device in every_device() {
                let ours = logits(&device, &config);
                assert_clean();
                let expected = expected.get_or_insert_with(|| ours[0].iter().map(|&logit| f64::from(logit)).collect());
                // Both round each of six layers' sums by some units of 2^-24, differently.
                for (how, ours) in ["layer by layer", "folded"].into_iter().zip(&ours) {
                    compare(&format!("{name} {how} on {device:?}"), ours, expected, 5e-6);
                }
            }
        }
    }
}
