//! OSS-Nets answer as the official PyTorch code does: predictions, latents, loss, every gradient, running statistics.
//!
//! Reference figures are f64. How far an f32 engine may be from them is told by how far f32 PyTorch is, which the golden
//! files record: a few times that (another order of summation), plus a few units of f32 rounding.

use std::path::Path;

use crate::common::fixture::{self, Fixture};
use crate::common::network::{channels_last, configuration};
use ossnet::checkpoint::model;
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::models::OssNet;
use ossnet::nn::Parameters;
use ossnet::nn::optim::{Optimizer, OptimizerSettings};
use ossnet::ops::{self, BinaryLoss, Prediction, patch_conv::PatchSource};
use ossnet::rng::Rng;
use ossnet::tape::{Mode, Tape, Var};
use ossnet::tensor::Tensor;

/// Our error may be this many times PyTorch's own in f32.
const TIMES: f64 = 4.0;

/// The network of a golden file with its weights, and its inputs.
struct Case {
    fixture: Fixture,
    device: Device,
    network: OssNet,
    parameters: Parameters,
}

impl Case {
    fn open(fixture: Fixture) -> Self {
        let device = Device::cpu(2, 8 << 30).unwrap();
        let mut parameters = Parameters::new(&device);
        let network = OssNet::new(configuration(&fixture), &mut parameters, &mut Rng::new(0)).unwrap();
        let shapes: Vec<(String, Vec<usize>)> =
            parameters.iter().map(|p| (p.name().to_string(), p.value().shape().to_vec())).collect();
        let weights = fixture.state_with(shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())));
        model::fill(&mut parameters, &weights, Path::new("fixture")).unwrap();
        Self { fixture, device, network, parameters }
    }

    fn tensor(&self, shape: &[usize], values: &[f32]) -> Tensor {
        Tensor::from_slice(&self.device, shape, Role::Data, values).unwrap()
    }

    fn volume(&self) -> Tensor {
        let (shape, values) = match self.fixture.get("volume") {
            Some(volume) => (volume.shape().to_vec(), self.fixture.f32("volume")),
            None => {
                let large = Fixture::open(&fixture::path("vol_128x128x80_i8.npz"));
                let values = large.f32("volume_i8").iter().map(|v| v / 16.0).collect();
                (vec![1, 4, 128, 128, 80], values)
            }
        };
        let (shape, values) = channels_last(&values, &shape);
        self.tensor(&shape, &values)
    }

    fn points(&self, name: &str, width: usize) -> Tensor {
        let values = self.fixture.f32(name);
        self.tensor(&[values.len() / width, width], &values)
    }

    fn patches(&self) -> Option<Tensor> {
        let (name, scale) = if self.fixture.get("patches").is_some() { ("patches", 1.0) } else { ("patches_i8", 16.0) };
        let shape = self.fixture.get(name)?.shape().to_vec();
        let values: Vec<f32> = self.fixture.f32(name).iter().map(|v| v / scale).collect();
        Some(self.tensor(&[shape[0] * shape[1], shape[2], 343], &values))
    }

    /// Latents, low-resolution logits, logits.
    fn forward(&self, tape: &Tape) -> (Var, Option<Var>, Var) {
        let volume = tape.constant(self.volume());
        let encoding = self.network.encode(tape, &self.parameters, &volume).unwrap();
        let coordinates = tape.constant(self.points("coords", 3));
        let patches = self.network.config().patches.then(|| tape.constant(self.patches().unwrap()));
        let source = patches.as_ref().map(PatchSource::Patches);
        let logits = self.network.decode(tape, &self.parameters, &encoding, &coordinates, source).unwrap();
        (encoding.latents, encoding.auxiliary, logits)
    }

    /// The official loss of a forward pass.
    fn loss(&self, tape: &Tape, probabilities: &Var, auxiliary: Option<Var>) -> Var {
        let options = BinaryLoss { prediction: Prediction::Probabilities, reference: true, ..BinaryLoss::default() };
        let labels = tape.constant(self.points("labels", 1));
        let loss = ops::binary_loss(tape, probabilities, &labels, options).unwrap();
        let Some(auxiliary) = auxiliary.filter(|_| self.fixture.get("train_loss_seg").is_some()) else { return loss };
        let seg = self.tensor(auxiliary.shape(), &self.fixture.f32("seg_label"));
        let low = ops::sigmoid(tape, &auxiliary).unwrap();
        let low = ops::binary_loss(tape, &low, &tape.constant(seg), options).unwrap();
        ops::scale_add(tape, &loss, &low, 0.1).unwrap()
    }

    fn probabilities(tape: &Tape, logits: &Var) -> Vec<f32> {
        ops::sigmoid(tape, logits).unwrap().tensor().to_vec().unwrap()
    }

    /// Fails if `ours` is farther from the f64 figures than [`TIMES`] PyTorch's f32 ones, plus 4 units of rounding.
    fn compare(&self, what: &str, ours: &[f32]) {
        let (single, double) = (self.fixture.f32(&format!("{what}_f32")), self.fixture.f64(&format!("{what}_f64")));
        self.close(what, ours, double, &single);
    }

    fn close(&self, what: &str, ours: &[f32], double: &[f64], single: &[f32]) {
        assert_eq!(ours.len(), double.len(), "{}: {what}", self.fixture.name);
        let scale = double.iter().fold(0f64, |max, x| max.max(x.abs()));
        let theirs = single.iter().zip(double).fold(0f64, |max, (&a, b)| max.max((f64::from(a) - b).abs()));
        let mine = ours.iter().zip(double).fold(0f64, |max, (&a, b)| max.max((f64::from(a) - b).abs()));
        let allowed = TIMES * theirs + 4.0 * f64::from(f32::EPSILON) * scale;
        assert!(mine <= allowed, "{}: {what} off by {mine:.2e}, PyTorch by {theirs:.2e}", self.fixture.name);
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let patterns = ["tiny_*_brats.npz", "tiny_*_lits.npz", "off_*.npz", "off128_*.npz"];
    let files = patterns.into_iter().flat_map(fixture::find).filter(|path| {
        let unet = path.to_string_lossy().contains("unet");
        let whole = !path.to_string_lossy().contains("off128") || !fixture::find("vol_128x128x80_i8.npz").is_empty();
        !unet && whole
    });
    files.map(|path| Case::open(Fixture::open(&path)))
}

#[test]
fn evaluation() {
    for case in cases() {
        let tape = Tape::new(&case.device, Mode::Eval);
        let (latents, auxiliary, logits) = case.forward(&tape);
        case.compare("eval_latent", &latents.tensor().to_vec().unwrap());
        case.compare("eval_pred", &Case::probabilities(&tape, &logits));
        if let Some(auxiliary) = auxiliary.filter(|_| case.fixture.get("eval_seg_f64").is_some()) {
            case.compare("eval_seg", &Case::probabilities(&tape, &auxiliary));
        }
    }
}

#[test]
fn training() {
    for mut case in cases() {
        let tape = Tape::new(&case.device, Mode::Train);
        let (_, auxiliary, logits) = case.forward(&tape);
        let probabilities = ops::sigmoid(&tape, &logits).unwrap();
        case.compare("train_pred", &probabilities.tensor().to_vec().unwrap());
        let loss = case.loss(&tape, &probabilities, auxiliary);
        let [single, double] = case.fixture.f64("train_loss")[..] else { panic!("two losses") };
        case.close("train_loss", &[loss.tensor().to_vec().unwrap()[0]], &[double], &[single as f32]);
        drop((logits, probabilities));
        tape.backward(loss, &mut case.parameters).unwrap();
        gradients(&case);
        running_statistics(&case);
    }
}

/// Whole training steps: losses of twenty follow those of the PyTorch peer (`benches/peers/oss_net.py`) in f64, as closely as
/// that peer in f32 does.
#[test]
fn twenty_steps() {
    let text = include_str!("../fixtures/trajectory_tiny_full.json");
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    let losses = |kind: &str| serde_json::from_value::<Vec<f64>>(golden[kind]["losses"].clone()).unwrap();
    let (double, single) = (losses("float64"), losses("float32"));
    assert_eq!(double.len(), 20);
    let mut case = Case::open(Fixture::open(&fixture::path("tiny_full_brats.npz")));
    let settings = OptimizerSettings { activation_rate: None, ..OptimizerSettings::default() };
    let mut optimizer = Optimizer::new(settings, &case.parameters).unwrap();
    let mut ours = Vec::new();
    for _ in &double {
        let tape = Tape::new(&case.device, Mode::Train);
        let (latents, auxiliary, logits) = case.forward(&tape);
        let probabilities = ops::sigmoid(&tape, &logits).unwrap();
        let loss = case.loss(&tape, &probabilities, auxiliary);
        drop((latents, logits, probabilities));
        ours.push(loss.tensor().to_vec().unwrap()[0]);
        case.parameters.clear_gradients();
        tape.backward(loss, &mut case.parameters).unwrap();
        optimizer.step(&mut case.parameters, 1.0).unwrap();
    }
    let single: Vec<f32> = single.iter().map(|&loss| loss as f32).collect();
    case.close("losses of twenty steps", &ours, &double, &single);
}

/// Every gradient, in full or by samples and statistics.
fn gradients(case: &Case) {
    let fixture = &case.fixture;
    let (full, samples) = (fixture.with_prefix("grad/"), fixture.with_prefix("gsample/"));
    let statistics = fixture.with_prefix("gstat/");
    let largest = full.values().flat_map(|array| array.to_f32().into_owned()).fold(0f32, |max, g| max.max(g.abs()));
    let mut seen = 0;
    for parameter in case.parameters.iter() {
        let name = parameter.name();
        let ours =
            parameter.gradient().unwrap_or_else(|| panic!("{}: no gradient of {name}", fixture.name)).to_vec().unwrap();
        let (ours_seen, theirs) = match (full.get(name), samples.get(name)) {
            (Some(array), _) => (ours.clone(), array.to_f32().into_owned()),
            (None, Some(array)) => (fixture::sample(&ours), array.to_f32().into_owned()),
            (None, None) => panic!("{}: nothing to compare the gradient of {name} with", fixture.name),
        };
        seen += 1;
        let scale = theirs.iter().fold(1e-6 * largest, |max, g| max.max(g.abs()));
        let scale = statistics.get(name).map_or(scale, |array| array.to_f32()[2].max(1e-6 * largest));
        let mine = ours_seen.iter().zip(&theirs).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / scale;
        // The stored gradients are f32: rounding them alone costs 6e-8 of each. A sum of thousands of terms that nearly
        // cancel keeps about 1e-5 of its largest terms, whatever its order.
        let allowed = TIMES * typical_error(fixture, name, &case.parameters) + 1e-5;
        // A bias before a normalisation has gradient 0: terms as large as the largest gradients cancel, each rounded a few
        // times on its way.
        if mine * scale <= 8.0 * f32::EPSILON * largest {
            continue;
        }
        assert!(
            f64::from(mine) <= allowed,
            "{}: gradient of {name} off by {mine:.2e}, allowed {allowed:.2e}",
            fixture.name
        );
    }
    assert_eq!(seen, full.len() + samples.len(), "{}: gradients that no parameter has", fixture.name);
}

/// What f32 PyTorch achieves on gradients like that of `name`: the largest error among parameters of its kind (the last
/// part of the name). The error of one tensor of a few elements is one draw of a random variable; its kind has a scale.
fn typical_error(fixture: &Fixture, name: &str, parameters: &Parameters) -> f64 {
    let kind = |name: &str| name.rsplit('.').next().unwrap().to_string();
    let alike = parameters.iter().map(|p| p.name()).filter(|other| kind(other) == kind(name));
    // Biases before a normalisation have gradient 0, and errors that mean nothing.
    alike
        .filter(|other| *other != "encoder.final_mapping.0.bias")
        .fold(0.0, |max, p| fixture.gradient_error(p).max(max))
}

fn named_weights(parameters: &Parameters) -> Vec<(String, Vec<f32>)> {
    let values = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    model::weights(parameters).iter().map(|entry| (entry.name().to_string(), values(&entry.bytes().unwrap()))).collect()
}

/// What one training step made of the running statistics.
fn running_statistics(case: &Case) {
    let expected = case.fixture.with_prefix("buffer_after_train_fwd/");
    let ours = named_weights(&case.parameters);
    for (name, array) in expected {
        let (_, ours) = ours.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no buffer {name}"));
        let theirs = array.to_f32();
        let scale = theirs.iter().fold(1e-3f32, |max, x| max.max(x.abs()));
        for (a, b) in ours.iter().zip(theirs.iter()) {
            // Both are f32 statistics of the same numbers, a tenth of which are new.
            assert!((a - b).abs() <= 5e-6 * scale, "{}: {name} is {a}, expected {b}", case.fixture.name);
        }
    }
}

#[test]
fn official_checkpoints_load() {
    let files = fixture::find("tiny_*_brats.pt");
    for file in &files {
        let fixture = Fixture::open(&file.with_extension("npz"));
        let case = Case::open(fixture);
        let mut parameters = Parameters::new(&case.device);
        OssNet::new(configuration(&case.fixture), &mut parameters, &mut Rng::new(1)).unwrap();
        model::load_weights(&mut parameters, file).unwrap();
        assert_eq!(named_weights(&parameters), named_weights(&case.parameters), "{}", file.display());
    }
    assert!(!files.is_empty(), "no official checkpoints beside the golden files");
}
