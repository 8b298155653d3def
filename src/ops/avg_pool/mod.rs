//! Average pooling of volumes: `y[b, o, c] = mean over the window of x[b, o·stride + k, c]`, `0 ≤ k < kernel`.
//!
//! * `x` `[batch, D, H, W, C]` → `y` `[batch, D', H', W', C]` with `D' = ⌊(D − kernel)/stride⌋ + 1`; no padding. An axis
//!   of length 1 (an image's depth) takes kernel and stride 1.
//! * Gradient: `dx[i] = Σ dy[o]/|window|` over the windows that hold `i`, gathered by each input row.
//! * Work: 2 FLOPs an element of each window; bytes `4·(|x| + |y|)` either way.
//!
//! The output is kept rather than recomputed if a later op needs it: it is an eighth of the input for 2×2×2, and making it
//! again would bring back the whole input.

mod cuda;
#[cfg(test)]
mod tests;

use super::cuda::axes::{AxisWindows, VolumeWindows};
use super::par_loops::volume_axes;
use super::separable::{self, Taps};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor, elements};

struct AvgPool {
    kernel: [usize; 3],
    stride: [usize; 3],
}

/// Mean over windows of `kernel` voxels, `stride` apart, for each spatial axis.
///
/// # Errors
/// `x` is no volume, a kernel or stride is 0 or a kernel exceeds its axis; or no memory.
pub fn avg_pool(tape: &Tape, x: &Var, kernel: [usize; 3], stride: [usize; 3]) -> Result<Var> {
    tape.apply(AvgPool { kernel, stride }, &[x])
}

impl AvgPool {
    /// The three axes as the kernels see them.
    fn axes(&self, x: &[usize]) -> VolumeWindows {
        [0, 1, 2].map(|axis| {
            let (input, kernel, stride) = (x[axis + 1], self.kernel[axis], self.stride[axis]);
            AxisWindows::new(input, (input - kernel) / stride + 1, kernel, stride)
        })
    }

    /// The three axes' means; `x` has passed the shape rule.
    fn taps(&self, x: &[usize]) -> [Taps; 3] {
        [0, 1, 2].map(|axis| {
            let (input, kernel, stride) = (x[axis + 1], self.kernel[axis], self.stride[axis]);
            Taps::means(input, (input - kernel) / stride + 1, |o| o * stride..o * stride + kernel)
        })
    }
}

impl Op for AvgPool {
    fn name(&self) -> &'static str {
        "avg_pool"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let mut shape = volume_axes("avg_pool", inputs[0])?;
        for axis in 0..3 {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            if kernel == 0 || stride == 0 || kernel > shape[axis + 1] {
                let (kernel, stride) = (self.kernel, self.stride);
                let problem = format!("kernel {kernel:?} with stride {stride:?} does not fit input {:?}", inputs[0]);
                return Err(Error::shape("avg_pool", problem));
            }
            shape[axis + 1] = (shape[axis + 1] - kernel) / stride + 1;
        }
        Ok(shape.to_vec())
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, taps) = (inputs[0], self.taps(inputs[0].shape()));
                separable::apply(pool, &taps, x.channels(), x.data(), output.data_mut(), false);
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, &self.axes(inputs[0].shape()), inputs[0], output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (shape, dy) = (backward.shape(0).to_vec(), backward.gradient().clone());
        backward.write_gradient(0, |device, dx, accumulate| {
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let taps = self.taps(&shape).map(|taps| taps.transposed());
                    separable::apply(pool, &taps, dy.channels(), dy.data(), dx.data_mut(), accumulate)
                }
                Backend::Cuda(cuda) => cuda::backward(cuda, &self.axes(&shape), &dy, dx, accumulate)?,
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let x = inputs[0];
        let outputs = self.output_shape(inputs).ok().and_then(|shape| elements(&shape)).unwrap_or(0);
        let window: usize = self.kernel.iter().product();
        let inputs: usize = x.iter().product();
        Cost { flops: 2 * (outputs * window) as u64, bytes: 4 * (inputs + outputs) as u64 }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}
