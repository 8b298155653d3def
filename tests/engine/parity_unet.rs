//! The residual U-Nets equal MONAI's: logits, loss and every gradient, in 3D and 2D.
//!
//! Reference figures are f64 (stored as f32). How far an f32 engine may be from them is told by how far f32 PyTorch is,
//! which the golden files record.

use std::path::Path;

use crate::common::fixture::{self, Fixture};
use ossnet::checkpoint::model;
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::models::{UNet, UNetConfig};
use ossnet::nn::Parameters;
use ossnet::ops::{self, BinaryLoss, Prediction};
use ossnet::rng::Rng;
use ossnet::tape::{Mode, Tape};
use ossnet::tensor::Tensor;

/// Our error may be this many times PyTorch's own in f32.
const TIMES: f64 = 6.0;

/// The network of a golden file: its channels are the first axes of the down units' weights.
fn configuration(fixture: &Fixture) -> UNetConfig {
    let input = fixture.array("x_i8").shape().to_vec();
    let gradients = fixture.with_prefix("grad/");
    let mut channels = Vec::new();
    let mut path = "model".to_string();
    while let Some(weight) = gradients.get(format!("{path}.0.conv.unit0.conv.weight").as_str()) {
        channels.push(weight.shape()[0]);
        path += ".1.submodule";
    }
    channels.push(gradients[format!("{path}.conv.unit0.conv.weight").as_str()].shape()[0]);
    let strides = vec![2; channels.len() - 1];
    UNetConfig { channels, strides, ..UNetConfig::standard(input.len() - 2, input[1], 1) }
}

/// `[batch, channels, (D,) H, W]` → `[batch, D, H, W, channels]`, `D` 1 in 2D.
fn channels_last(values: &[f32], shape: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let (channels, space) = (shape[1], shape[2..].iter().product::<usize>());
    let values = values
        .chunks_exact(channels * space)
        .flat_map(|item| {
            (0..space).flat_map(move |voxel| (0..channels).map(move |channel| item[channel * space + voxel]))
        })
        .collect();
    let mut sides = shape[2..].to_vec();
    if sides.len() == 2 {
        sides.insert(0, 1);
    }
    (vec![shape[0], sides[0], sides[1], sides[2], channels], values)
}

fn files() -> Vec<Fixture> {
    let files: Vec<Fixture> = ["tiny_unet*.npz", "off_unet*.npz"].into_iter().flat_map(Fixture::all).collect();
    assert!(files.len() >= 2, "the repository's two U-Net files");
    files
}

#[test]
fn logits_loss_and_gradients() {
    for fixture in files() {
        let device = Device::cpu(2, 4 << 30).unwrap();
        let mut parameters = Parameters::new(&device);
        let network = UNet::new(configuration(&fixture), &mut parameters, &mut Rng::new(0)).unwrap();
        // A 2D kernel has an axis of length 1 more here than in MONAI.
        let flat = |shape: &[usize]| match network.config().dimensions {
            2 if shape.len() == 5 => [&shape[..2], &shape[3..]].concat(),
            _ => shape.to_vec(),
        };
        let shapes: Vec<(String, Vec<usize>)> =
            parameters.iter().map(|p| (p.name().to_string(), flat(p.value().shape()))).collect();
        let weights = fixture.state_with(shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())));
        model::fill(&mut parameters, &weights, Path::new("fixture")).unwrap();

        let tape = Tape::new(&device, Mode::Train);
        let tensor = |name: &str, scale: f32| {
            let shape = fixture.array(name).shape().to_vec();
            let values: Vec<f32> = fixture.f32(name).iter().map(|v| v / scale).collect();
            let (shape, values) = channels_last(&values, &shape);
            tape.constant(Tensor::from_slice(&device, &shape, Role::Data, &values).unwrap())
        };
        let logits = network.forward(&tape, &parameters, &tensor("x_i8", 16.0)).unwrap();
        let double = fixture.f32("logits_f64");
        let scale = double.iter().fold(0f32, |max, x| max.max(x.abs()));
        let error = |values: &[f32]| values.iter().zip(&double).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        // One channel: channels-first and channels-last are the same order.
        let (mine, theirs) = (error(&logits.tensor().to_vec().unwrap()), error(&fixture.f32("logits_f32")));
        assert!(
            f64::from(mine) <= TIMES * f64::from(theirs) + 4.0 * f64::from(f32::EPSILON * scale),
            "{}: logits off by {mine:.2e}, PyTorch by {theirs:.2e}",
            fixture.name
        );

        let probabilities = ops::sigmoid(&tape, &logits).unwrap();
        let options = BinaryLoss { prediction: Prediction::Probabilities, reference: true, ..BinaryLoss::default() };
        let loss = ops::binary_loss(&tape, &probabilities, &tensor("y", 1.0), options).unwrap();
        let expected = fixture.f64("loss")[1];
        // The loss is an average of f32 terms: a few units of rounding.
        assert!(
            (f64::from(loss.tensor().to_vec().unwrap()[0]) - expected).abs() < 2e-6 * expected,
            "{}: loss",
            fixture.name
        );
        drop((logits, probabilities));
        tape.backward(loss, &mut parameters).unwrap();
        gradients(&fixture, &parameters);
    }
}

fn gradients(fixture: &Fixture, parameters: &Parameters) {
    let (full, samples) = (fixture.with_prefix("grad/"), fixture.with_prefix("gsample/"));
    let statistics = fixture.with_prefix("gstat/");
    let largest = full.values().flat_map(|array| array.to_f32().into_owned()).fold(0f32, |max, g| max.max(g.abs()));
    for parameter in parameters.iter() {
        let name = parameter.name();
        let ours = parameter.gradient().unwrap_or_else(|| panic!("no gradient of {name}")).to_vec().unwrap();
        let (ours, theirs) = match (full.get(name), samples.get(name)) {
            (Some(array), _) => (ours, array.to_f32().into_owned()),
            (None, Some(array)) => (fixture::sample(&ours), array.to_f32().into_owned()),
            (None, None) => panic!("{}: nothing to compare the gradient of {name} with", fixture.name),
        };
        let scale = theirs.iter().fold(1e-6 * largest, |max, g| max.max(g.abs()));
        let scale = statistics.get(name).map_or(scale, |array| array.to_f32()[2].max(1e-6 * largest));
        let mine = ours.iter().zip(&theirs).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        // Sums over tens of thousands of voxels that nearly cancel keep about 1e-5 of their largest terms; a bias before
        // a normalisation has gradient 0: terms as large as the largest gradients cancel, each rounded a few times.
        let allowed = ((TIMES * fixture.gradient_error(name) + 1e-5) as f32 * scale).max(8.0 * f32::EPSILON * largest);
        assert!(mine <= allowed, "{}: gradient of {name} off by {mine:.2e}, allowed {allowed:.2e}", fixture.name);
    }
}
