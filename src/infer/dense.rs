//! Dense prediction: a probability for every voxel of a volume.

use crate::data::Volume;
use crate::device::Device;
use crate::error::Result;
use crate::memory::{Phase, Role};
use crate::models::{Network, OssNet, UNet};
use crate::nn::Parameters;
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self};
use crate::tape::{Mode, Tape, Var};
use crate::tensor::{DType, Tensor};

/// Points that are decoded at once by default.
pub const CHUNK: usize = 1 << 14;

/// Slices that a 2D network takes at once.
const SLICES: usize = 16;

/// Probabilities `[voxels, classes]` (C order, on the host) of one normalised volume `[1, D, H, W, channels]` whose sides
/// the network admits. `chunk` points (0: [`CHUNK`]) are decoded at once.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn predict(network: &Network, parameters: &Parameters, volume: &Tensor, chunk: usize) -> Result<Vec<f32>> {
    let device = volume.device().clone();
    device.in_phase(Phase::Evaluate, || match network {
        Network::UNet(network) if network.config().dimensions == 2 => predict_slices(network, parameters, volume),
        Network::UNet(network) => {
            let tape = Tape::new(&device, Mode::Eval);
            let x = tape.constant(volume.clone());
            let logits = network.forward(&tape, parameters, &x)?;
            to_probabilities(&tape, logits)
        }
        Network::OssNet(network) => predict_points(network, parameters, volume, chunk, &device),
    })
}

/// Volumes of one shape and number of channels as a batch `[batch, D, H, W, channels]`.
///
/// # Errors
/// No memory.
pub fn volume_tensor(device: &Device, volumes: &[&Volume]) -> Result<Tensor> {
    let ([d, h, w], channels) = (volumes[0].shape, volumes[0].channels);
    let voxels: Vec<f32> = volumes.iter().flat_map(|volume| volume.voxels.iter().copied()).collect();
    Tensor::from_slice(device, &[volumes.len(), d, h, w, channels], Role::Data, &voxels)
}

/// Runs a 2D network on the axial slices (planes of the first two axes), some at a time.
fn predict_slices(network: &UNet, parameters: &Parameters, volume: &Tensor) -> Result<Vec<f32>> {
    let (device, shape, classes) = (volume.device(), volume.shape(), network.config().classes);
    let (plane, depth) = (shape[1] * shape[2], shape[3]);
    let mut probabilities = vec![0.0; plane * depth * classes];
    for first in (0..depth).step_by(SLICES) {
        let count = SLICES.min(depth - first);
        let slices = axial_slices(volume, first, count)?;
        let tape = Tape::new(device, Mode::Eval);
        let x = tape.constant(slices);
        let logits = network.forward(&tape, parameters, &x)?;
        let part = to_probabilities(&tape, logits)?;
        for (i, values) in part.chunks_exact(classes).enumerate() {
            let (slice, pixel) = (first + i / plane, i % plane);
            probabilities[(pixel * depth + slice) * classes..][..classes].copy_from_slice(values);
        }
    }
    Ok(probabilities)
}

/// The axial slices `first..first + count` of `[1, X, Y, Z, C]` as a batch `[count, 1, X, Y, C]`.
///
/// # Errors
/// No memory.
pub fn axial_slices(volume: &Tensor, first: usize, count: usize) -> Result<Tensor> {
    let (device, shape) = (volume.device(), volume.shape());
    let (plane, depth, channels) = (shape[1] * shape[2], shape[3], shape[4]);
    let mut slices = Tensor::empty(device, &[count, 1, shape[1], shape[2], channels], DType::F32, Role::Data)?;
    let voxels = volume.data();
    for (i, values) in slices.data_mut().chunks_exact_mut(channels).enumerate() {
        let (slice, pixel) = (first + i / plane, i % plane);
        values.copy_from_slice(&voxels[(pixel * depth + slice) * channels..][..channels]);
    }
    Ok(slices)
}

/// Decodes every voxel, chunk by chunk.
fn predict_points(
    network: &OssNet,
    parameters: &Parameters,
    volume: &Tensor,
    chunk: usize,
    device: &Device,
) -> Result<Vec<f32>> {
    let config = network.config();
    let chunk = if chunk == 0 { CHUNK } else { chunk };
    let tape = Tape::new(device, Mode::Eval);
    let volume = tape.constant(volume.clone());
    let half = ops::avg_pool(&tape, &volume, [2; 3], [2; 3])?;
    let encoding = network.encode(&tape, parameters, &half)?;
    drop(half);
    let (shape, mut probabilities) = (volume.shape().to_vec(), Vec::new());
    let voxels: usize = shape[1..4].iter().product();
    for first in (0..voxels).step_by(chunk) {
        let count = chunk.min(voxels - first);
        let indices: Vec<f32> = (first..first + count)
            .flat_map(|voxel| {
                let plane = shape[2] * shape[3];
                [voxel / plane, voxel / shape[3] % shape[2], voxel % shape[3]].map(|index| index as f32)
            })
            .collect();
        let coordinates = tape.constant(Tensor::from_slice(device, &[count, 3], Role::Data, &indices)?);
        let source = config.patches.then_some(PatchSource::Volume {
            volume: &volume,
            coordinates: &coordinates,
            options: config.patch_options(false),
        });
        let logits = network.decode(&tape, parameters, &encoding, &coordinates, source)?;
        probabilities.extend(to_probabilities(&tape, logits)?);
    }
    Ok(probabilities)
}

fn to_probabilities(tape: &Tape, logits: Var) -> Result<Vec<f32>> {
    let classes = logits.shape()[logits.shape().len() - 1];
    let probabilities = if classes == 1 { ops::sigmoid(tape, &logits)? } else { ops::softmax(tape, &logits)? };
    probabilities.tensor().to_vec()
}
