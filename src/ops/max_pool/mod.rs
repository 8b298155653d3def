//! Max pooling of volumes: `y[b, o, c] = max over window(o) of x[b, i, c]`.
//!
//! * `x` `[batch, D, H, W, C]` → `y` `[batch, D', H', W', C]`.
//! * [`max_pool`]: `window(o) = o·stride .. o·stride + kernel` on each axis, without padding. An axis of length 1 (an
//!   image's depth) takes kernel and stride 1.
//! * [`adaptive_max_pool`]: PyTorch's bins `⌊o·n/n'⌋ .. ⌈(o + 1)·n/n'⌉`, for any output length `n'`; where the output
//!   is longer than the input the bins repeat voxels.
//! * Gradient: `dy[o]` goes to the window's largest voxel, the first of equals in the order of memory, as in PyTorch.
//!   Its place is found again from the input, so no indices are stored.
//! * Work: one comparison for each voxel of each window, forward and backward; bytes `4·(|x| + |y|)` forward,
//!   `4·(2|x| + |y|)` backward.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;
mod windows;

use super::par_loops::volume_axes;
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};
use windows::{PoolAxis, PoolWindows};

struct MaxPool {
    windows: [PoolWindows; 3],
    name: &'static str,
}

/// Maximum over windows of `kernel` voxels, `stride` apart, for each spatial axis.
///
/// # Errors
/// `x` is no volume, a kernel or stride is 0 or a kernel exceeds its axis; or no memory.
pub fn max_pool(tape: &Tape, x: &Var, kernel: [usize; 3], stride: [usize; 3]) -> Result<Var> {
    let windows = [0, 1, 2].map(|axis| PoolWindows::Fixed { kernel: kernel[axis], stride: stride[axis] });
    tape.apply(MaxPool { windows, name: "max_pool" }, &[x])
}

/// Maximum over bins that divide each spatial axis as evenly as possible into `size` parts.
///
/// # Errors
/// `x` is no volume or a length of `size` is 0; or no memory.
pub fn adaptive_max_pool(tape: &Tape, x: &Var, size: [usize; 3]) -> Result<Var> {
    let windows = size.map(|outputs| PoolWindows::Adaptive { outputs });
    tape.apply(MaxPool { windows, name: "adaptive_max_pool" }, &[x])
}

impl MaxPool {
    fn axes(&self, x: &[usize]) -> Result<[PoolAxis; 3]> {
        let shape = volume_axes(self.name, x)?;
        let axes = [0, 1, 2].map(|axis| PoolAxis::new(self.windows[axis], shape[axis + 1]));
        match axes {
            [Some(d), Some(h), Some(w)] => Ok([d, h, w]),
            _ => Err(Error::shape(self.name, format!("{:?} does not fit input {x:?}", self.windows))),
        }
    }

    /// Voxels that all windows of one channel of one item hold together.
    fn visited(&self, x: &[usize]) -> u64 {
        self.axes(x).map_or(0, |axes| axes.iter().map(|axis| axis.visited() as u64).product())
    }
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        self.name
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [d, h, w] = self.axes(inputs[0])?.map(|axis| axis.outputs);
        Ok(vec![inputs[0][0], d, h, w, inputs[0][4]])
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let axes = self.axes(inputs[0].shape())?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                cpu::forward(pool, &axes, inputs[0].channels(), inputs[0].data(), output.data_mut())
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, &axes, inputs[0], output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let axes = self.axes(backward.shape(0))?;
        let (dy, x) = (backward.gradient().clone(), backward.value(0)?);
        backward.write_gradient(0, |device, dx, accumulate| {
            let places = match device.target() {
                Target::Cpu { .. } => 0,
                Target::Cuda(_) => dy.len(),
            };
            let mut places = workspace(device, places)?;
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    cpu::backward(pool, &axes, x.channels(), x.data(), dy.data(), dx.data_mut(), accumulate)
                }
                Backend::Cuda(cuda) => cuda::backward(cuda, &axes, [&x, &dy], dx, accumulate, &mut places)?,
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let x = inputs[0];
        let outputs: usize = self.output_shape(inputs).map_or(0, |shape| shape.iter().product());
        let flops = self.visited(x) * (x[0] * x[4]) as u64;
        Cost { flops, bytes: 4 * (x.iter().product::<usize>() + outputs) as u64 }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: forward.flops, bytes: forward.bytes + 4 * inputs[0].iter().product::<usize>() as u64 }
    }
}
