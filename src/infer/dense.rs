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
use crate::tensor::Tensor;

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

/// Runs a 2D network on the slices across its axis, some at a time.
fn predict_slices(network: &UNet, parameters: &Parameters, volume: &Tensor) -> Result<Vec<f32>> {
    let (device, config) = (volume.device(), network.config());
    let (axis, classes, channels) = (config.slice_axis, config.classes, volume.channels());
    let shape = [volume.shape()[1], volume.shape()[2], volume.shape()[3]];
    let plane = Plane::new(shape, axis);
    let (voxels, mut probabilities) = (volume.to_vec()?, vec![0.0; shape.iter().product::<usize>() * classes]);
    for first in (0..shape[axis]).step_by(SLICES) {
        let count = SLICES.min(shape[axis] - first);
        let slices: Vec<f32> = (first..first + count).flat_map(|slice| plane.cut(&voxels, channels, slice)).collect();
        let batch = [count, 1, plane.sides[0], plane.sides[1], channels];
        let tape = Tape::new(device, Mode::Eval);
        let x = tape.constant(Tensor::from_slice(device, &batch, Role::Data, &slices)?);
        let logits = network.forward(&tape, parameters, &x)?;
        let part = to_probabilities(&tape, logits)?;
        for (i, slice) in part.chunks_exact(plane.len() * classes).enumerate() {
            plane.put(slice, classes, first + i, &mut probabilities);
        }
    }
    Ok(probabilities)
}

/// The planes of a volume across one axis.
#[derive(Clone, Copy, Debug)]
pub struct Plane {
    /// Sides of a plane: the other two axes, in their order.
    pub sides: [usize; 2],
    /// Distance in voxels between neighbours along each of them.
    strides: [usize; 2],
    /// Distance in voxels between planes.
    step: usize,
}

impl Plane {
    /// Planes of a volume of `shape` across `axis` (0, 1 or 2).
    pub fn new(shape: [usize; 3], axis: usize) -> Self {
        let strides = [shape[1] * shape[2], shape[2], 1];
        let [a, b] = [[1, 2], [0, 2], [0, 1]][axis];
        Self { sides: [shape[a], shape[b]], strides: [strides[a], strides[b]], step: strides[axis] }
    }

    /// Voxels of a plane.
    #[allow(clippy::len_without_is_empty)] // a plane without voxels does not occur
    pub fn len(&self) -> usize {
        self.sides[0] * self.sides[1]
    }

    /// Where the plane's voxels lie in the volume, in the plane's order.
    fn places(self, plane: usize) -> impl Iterator<Item = usize> {
        let row = move |i: usize| plane * self.step + i * self.strides[0];
        (0..self.sides[0]).flat_map(move |i| (0..self.sides[1]).map(move |j| row(i) + j * self.strides[1]))
    }

    /// The values of one plane of `[voxels, channels]`.
    pub fn cut<T: Copy>(self, volume: &[T], channels: usize, plane: usize) -> Vec<T> {
        self.places(plane).flat_map(|voxel| &volume[voxel * channels..][..channels]).copied().collect()
    }

    /// The inverse of [`Plane::cut`].
    pub fn put<T: Copy>(self, values: &[T], channels: usize, plane: usize, volume: &mut [T]) {
        for (value, voxel) in values.chunks_exact(channels).zip(self.places(plane)) {
            volume[voxel * channels..][..channels].copy_from_slice(value);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::Plane;

    #[test]
    fn planes_across_every_axis_are_cut_and_put_back() {
        let shape = [2, 3, 4];
        let volume: Vec<u32> = (0..48).collect();
        assert_eq!(Plane::new(shape, 0).cut(&volume, 2, 1), (24..48).collect::<Vec<_>>());
        assert_eq!(Plane::new(shape, 1).cut(&volume, 1, 2), [8, 9, 10, 11, 20, 21, 22, 23]);
        assert_eq!(Plane::new(shape, 2).cut(&volume, 1, 3), [3, 7, 11, 15, 19, 23]);
        for axis in 0..3 {
            let (plane, mut back) = (Plane::new(shape, axis), vec![0; 48]);
            (0..shape[axis]).for_each(|i| plane.put(&plane.cut(&volume, 2, i), 2, i, &mut back));
            assert_eq!(back, volume);
        }
    }
}
