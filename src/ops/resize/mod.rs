//! Trilinear resizing of volumes (bilinear of images: an axis of length 1 stays as it is).
//!
//! * `x` `[batch, D, H, W, C]` → `y` `[batch, D', H', W', C]`: on each axis output `o` lies at `s` between two inputs,
//!   `y = (1 − λ)·x[⌊s⌋] + λ·x[⌊s⌋ + 1]` with `λ = s − ⌊s⌋`, clamped at the ends.
//! * [`AlignCorners::Free`] (PyTorch's `align_corners=False`): voxels are cells, `s = max((o + ½)·n/n' − ½, 0)`.
//! * [`AlignCorners::Aligned`] (`align_corners=True`): the first and last voxels coincide, `s = o·(n − 1)/(n' − 1)`.
//! * Positions and weights are computed in f64 and rounded once; there is no smoothing when shrinking.
//! * Gradient: the transposed weights, gathered by each input row.
//! * Work: at most `16·|y|` FLOPs; bytes `4·(|x| + |y|)` either way.

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
use crate::tensor::{Shape, Tensor};

/// Where the first and last voxels of an axis go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlignCorners {
    /// Voxels are cells whose outer faces coincide: `align_corners=False`.
    Free,
    /// Voxels are points and the outermost coincide: `align_corners=True`.
    Aligned,
}

struct Resize {
    size: [usize; 3],
    corners: AlignCorners,
}

/// Resizes the three spatial axes of `x` to `size`.
///
/// # Errors
/// `x` is no volume or a new length is 0; or no memory.
pub fn resize(tape: &Tape, x: &Var, size: [usize; 3], corners: AlignCorners) -> Result<Var> {
    tape.apply(Resize { size, corners }, &[x])
}

/// The two inputs that output `o` lies between, with their weights.
fn neighbours(o: usize, inputs: usize, outputs: usize, corners: AlignCorners) -> [(usize, f64); 2] {
    let position = match corners {
        AlignCorners::Free => ((o as f64 + 0.5) * inputs as f64 / outputs as f64 - 0.5).max(0.0),
        AlignCorners::Aligned if outputs == 1 => 0.0,
        AlignCorners::Aligned => (o * (inputs - 1)) as f64 / (outputs - 1) as f64,
    };
    let low = (position as usize).min(inputs - 1);
    // Beyond the last input there is only the last input.
    let fraction = if low + 1 < inputs { position - low as f64 } else { 0.0 };
    [(low, 1.0 - fraction), ((low + 1).min(inputs - 1), fraction)]
}

impl Resize {
    /// The three axes as the kernels see them.
    fn axes(&self, x: &[usize]) -> VolumeWindows {
        [0, 1, 2].map(|axis| AxisWindows::new(x[axis + 1], self.size[axis], 0, 0))
    }

    fn taps(&self, x: &[usize]) -> [Taps; 3] {
        [0, 1, 2].map(|axis| {
            let (inputs, outputs) = (x[axis + 1], self.size[axis]);
            Taps::new(inputs, (0..outputs).map(|o| neighbours(o, inputs, outputs, self.corners)))
        })
    }
}

impl Op for Resize {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let [batch, .., channels] = volume_axes("resize", inputs[0])?;
        if self.size.contains(&0) {
            return Err(Error::shape("resize", format!("{:?} cannot become {:?}", inputs[0], self.size)));
        }
        let [d, h, w] = self.size;
        Ok(vec![batch, d, h, w, channels])
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, taps) = (inputs[0], self.taps(inputs[0].shape()));
                separable::apply(pool, &taps, x.channels(), x.data(), output.data_mut(), false);
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, &self.axes(inputs[0].shape()), self.corners, inputs[0], output)?,
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
                Backend::Cuda(cuda) => cuda::backward(cuda, &self.axes(&shape), self.corners, &dy, dx, accumulate)?,
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
        let outputs = x[0] * self.size.iter().product::<usize>() * x[4];
        let flops = separable::flops(&self.taps(x), x[0], x[4]);
        Cost { flops, bytes: 4 * (x.iter().product::<usize>() + outputs) as u64 }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}
