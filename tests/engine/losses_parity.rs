//! Losses and their gradients agree with what the official code computed (`tests/fixtures/losses.npz`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::common::cuda::{assert_clean, cuda_device};
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::nn::Parameters;
use ossnet::ops::{BinaryLoss, CrossEntropy, Prediction, binary_loss, cross_entropy};
use ossnet::tape::{Mode, Tape, Var};
use ossnet::tensor::Tensor;

/// The official code computed in f32: a few roundings of 6e-8 in each element, and in the mean.
const TOLERANCE: f64 = 1e-6;

/// The arrays of the fixture, all f32 or f64 in C order.
fn load() -> BTreeMap<String, Vec<f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/losses.npz");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        // Version 1: magic, version, u16 length of the header, header.
        let (header, data) = bytes[10..].split_at(u16::from_le_bytes([bytes[8], bytes[9]]).into());
        let header = std::str::from_utf8(header).unwrap();
        assert!(header.contains("'fortran_order': False"), "{header}");
        let values = match header.contains("'<f4'") {
            true => data.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value).into()).collect(),
            false => data.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value)).collect(),
        };
        arrays.insert(member.name().unwrap().trim_end_matches(".npy").to_owned(), values);
    }
    arrays
}

/// The CPU and CUDA.
fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::cpu(1, 1 << 20).unwrap()).chain(cuda_device(1))
}

/// A loss and the gradient of its predictions.
fn run(
    device: &Device,
    shape: &[usize],
    prediction: &[f64],
    label: &[f64],
    loss: impl Fn(&Tape, &Var, &Var) -> ossnet::Result<Var>,
) -> (f64, Vec<f64>) {
    let tape = Tape::new(device, Mode::Train);
    let tensor = |shape: &[usize], values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        Tensor::from_slice(device, shape, Role::Data, &values).unwrap()
    };
    let x = tape.input(tensor(shape, prediction));
    let y = tape.constant(tensor(&[2, 50, 1], label));
    let loss = loss(&tape, &x, &y).unwrap();
    let value = f64::from(loss.tensor().to_vec().unwrap()[0]);
    tape.backward(loss, &mut Parameters::new(device)).unwrap();
    assert_clean();
    (value, tape.gradient(&x).unwrap().to_vec().unwrap().into_iter().map(f64::from).collect())
}

#[test]
fn binary_losses() {
    let arrays = load();
    let plain = BinaryLoss { prediction: Prediction::Probabilities, reference: true, ..BinaryLoss::default() };
    for (name, options) in [
        ("bce", plain),
        ("bce_boot08", BinaryLoss { keep: 0.8, ..plain }),
        ("bce_ls01", BinaryLoss { label_smoothing: 0.1, ..plain }),
        ("bce_w", BinaryLoss { label_weights: [2.0, 0.5], ..plain }),
        ("focal2", BinaryLoss { gamma: 2.0, ..plain }),
        ("focal2_boot05", BinaryLoss { gamma: 2.0, keep: 0.5, ..plain }),
        ("focal15", BinaryLoss { gamma: 1.5, ..plain }),
    ] {
        let loss = |tape: &Tape, x: &Var, y: &Var| binary_loss(tape, x, y, options);
        for device in devices() {
            let (value, gradient) = run(&device, &[2, 50, 1], &arrays["p"], &arrays["y"], loss);
            let official = arrays[name][0];
            assert!((value - official).abs() <= TOLERANCE * official, "{name}: {value}, officially {official}");
            let official = &arrays[&format!("{name}_grad")];
            let scale = official.iter().fold(0.0f64, |max, slope| max.max(slope.abs()));
            assert_eq!(gradient.len(), official.len());
            for (i, (ours, official)) in gradient.iter().zip(official).enumerate() {
                assert!((ours - official).abs() <= TOLERANCE * scale, "{name}[{i}]: {ours}, officially {official}");
                assert_eq!(*ours == 0.0, *official == 0.0, "{name}[{i}]: {ours}, officially {official}");
            }
        }
    }
}

#[test]
fn losses_of_several_classes() {
    let arrays = load();
    // The official labels are one-hot.
    let labels: Vec<f64> =
        arrays["ym"].chunks(4).map(|row| row.iter().position(|&y| y == 1.0).unwrap() as f64).collect();
    for (name, gamma) in [("ce_multi", 0.0), ("focal_multi", 2.0)] {
        let options = CrossEntropy { prediction: Prediction::Probabilities, gamma, reference: true };
        let loss = |tape: &Tape, x: &Var, y: &Var| cross_entropy(tape, x, y, options);
        for device in devices() {
            let (value, _) = run(&device, &[2, 50, 4], &arrays["pm"], &labels, loss);
            let official = arrays[name][0];
            assert!((value - official).abs() <= TOLERANCE * official, "{name}: {value}, officially {official}");
        }
    }
}
