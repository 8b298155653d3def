//! Convolution of 7³ patches with a 7³ kernel, by ten-point Fourier transforms.
//!
//! `y[p, o, n] = b[o] + Σ_c Σ_m W[o, c, m]·x[p, c, n + m − 3]` over the 7³ elements `m` of the kernel, zero outside the
//! patch.
//!
//! * patches `[points, Ci, 343]` (or cut from a volume on the way: [`PatchSource`]), `W` `[Co, Ci, 7, 7, 7]` as PyTorch
//!   stores it, `b` `[Co]`, result `[points, Co, 343]`.
//! * Gradients: `dx[p, c, n] = Σ_o Σ_m W[o, c, m]·dy[p, o, n − m + 3]`, `dW[o, c, m] = Σ_p Σ_n dy[p, o, n]·x[p, c, n + m − 3]`,
//!   `db[o] = Σ_p Σ_n dy[p, o, n]`.
//!
//! # Why transforms of length ten
//!
//! Along one axis the sum above is a linear convolution `L = reversed(W) * x` of seven by seven, of length 13, of which
//! only the middle seven elements 3 … 9 are outputs. A circular convolution of length ten folds elements 10, 11, 12 onto
//! 0, 1, 2 and nothing onto 3 … 9: it is *exact* where it matters. The weight gradient is the correlation at lags −3 … 3;
//! all lags are within ±6, and modulo ten ±4, ±5, ±6 miss −3 … 3. The input gradient is the convolution with the kernel
//! not reversed. So each pass is: transform the patches along the three axes, multiply bin by bin over channels, transform
//! back. The patches are real, so only six of the last axis's ten bins are needed: 600 complex bins a channel.
//!
//! Counting fused operations a patch for 8 → 4 channels: dense 3.8 M, without the padding 1.6 M, here 77 k for the products
//! and some 10 k a channel for the transforms, 0.2 M together; and the error is about that of one FFT, 10⁻⁷ of the maximum,
//! less than that of direct sums of 343 terms a channel. Vectors hold as many patches as there are lanes, side by side.
//!
//! # How the work is cut
//!
//! A *group* is as many patches as a vector has lanes. For each group the inputs are transformed along the last two axes
//! and kept (53 KiB a channel for 16 lanes: they stay in the second-level cache); then for each of the 60 bins of those
//! axes, the line along the first axis is transformed, multiplied and transformed back in registers and first-level cache.
//! Pieces hold a fixed number of groups. The lanes depend on the machine; the threads change nothing.

mod cpu;
mod cuda;
mod dft;
mod lane_transpose;
mod source;
mod spectra;
#[cfg(test)]
mod tests;
mod weight_gradient;

use source::Source;
use spectra::Direction;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::patch_sample::{PATCH, PatchOptions, SIDE, Samples, check_shapes};
use crate::ops::{Cost, Needs, Op, workspace, workspace_for};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Dims {
    points: usize,
    inputs: usize,
    outputs: usize,
}

impl Dims {
    /// Inputs and outputs exchanged.
    fn adjoint(self) -> Self {
        Self { points: self.points, inputs: self.outputs, outputs: self.inputs }
    }
}

/// Where patches come from.
#[derive(Clone, Copy)]
pub enum PatchSource<'a> {
    /// They are given, `[points, Ci, 343]`; gradients flow to them.
    Patches(&'a Var),
    /// They are cut from `volume` `[batch, D, H, W, C]` at `coordinates` `[points, 3]` group by group, in the forward and
    /// again in the backward pass, and never exist all at once. No gradient flows to volume or coordinates.
    Volume {
        /// The volumes.
        volume: &'a Var,
        /// Voxel coordinates, the points of each volume together.
        coordinates: &'a Var,
        /// What a patch consists of.
        options: PatchOptions,
    },
}

/// The convolution of `source` with `weight` `[Co, Ci, 7, 7, 7]`, plus `bias` `[Co]`: `[points, Co, 343]`.
///
/// # Errors
/// Shapes that do not fit, a volume or coordinates that a gradient is to flow to, or no memory.
pub fn patch_conv(tape: &Tape, source: PatchSource<'_>, weight: &Var, bias: Option<&Var>) -> Result<Var> {
    let (mut inputs, options) = match source {
        PatchSource::Patches(patches) => (vec![patches], None),
        PatchSource::Volume { volume, coordinates, options } => {
            if volume.needs_gradient() || coordinates.needs_gradient() {
                let remedy = "sample the patches with patch_sample and convolve those";
                return Err(Error::shape(NAME, format!("no gradient flows to a volume or its coordinates; {remedy}")));
            }
            (vec![volume, coordinates], Some(options))
        }
    };
    inputs.push(weight);
    inputs.extend(bias);
    tape.apply(PatchConv { options, bias: bias.is_some(), precision: tape.precision() }, &inputs)
}

struct PatchConv {
    /// How patches are cut from a volume; `None` if they are given.
    options: Option<PatchOptions>,
    bias: bool,
    precision: Precision,
}

const NAME: &str = "patch_conv";

impl PatchConv {
    /// Place of the weight among the inputs.
    fn weight(&self) -> usize {
        if self.options.is_some() { 2 } else { 1 }
    }

    /// Checks the inputs' shapes.
    fn dims(&self, inputs: &[&[usize]]) -> Result<Dims> {
        let weight = inputs[self.weight()];
        let (points, channels) = match self.options {
            Some(options) => {
                let (grid, _) = check_shapes(NAME, inputs[0], inputs[1])?;
                (inputs[1][0], options.channels(grid.channels))
            }
            None => match *inputs[0] {
                [points, channels, PATCH] => (points, channels),
                _ => {
                    let problem = format!("patches {:?} are not [points, channels, {PATCH}]", inputs[0]);
                    return Err(Error::shape(NAME, problem));
                }
            },
        };
        let outputs = match *weight {
            [outputs, inputs, SIDE, SIDE, SIDE] if inputs == channels && inputs > 0 && outputs > 0 => outputs,
            _ => {
                let problem = format!("weight {weight:?} is not [outputs, {channels}, {SIDE}, {SIDE}, {SIDE}]");
                return Err(Error::shape(NAME, problem));
            }
        };
        if let Some(&bias) = inputs.get(self.weight() + 1).filter(|bias| **bias != [outputs]) {
            return Err(Error::shape(NAME, format!("bias {bias:?} is not [{outputs}]")));
        }
        Ok(Dims { points, inputs: channels, outputs })
    }

    /// The CPU kernels' view of the source's tensors.
    fn source<'a>(&self, inputs: &[&'a Tensor]) -> Result<Source<'a>> {
        Ok(match self.options {
            None => Source::Patches(inputs[0].data()),
            Some(options) => {
                let (grid, points_per_volume) = check_shapes(NAME, inputs[0].shape(), inputs[1].shape())?;
                let (voxels, coordinates) = (inputs[0].data(), inputs[1].data());
                Source::Volume(Samples { voxels, grid, coordinates, points_per_volume, options })
            }
        })
    }
}

/// Operations of a patch's transform, a fused multiply-add being two: 49 real lines of seven (44 each: `dft.rs`), then 42 and 60
/// complex ones (104 each).
const TRANSFORM: u64 = 49 * 44 + (42 + 60) * 104;

/// Of a transform back, of which seven elements of ten are made: 60 and 42 complex lines (108 each), 49 real ones (54 each).
const INVERSE: u64 = (60 + 42) * 108 + 49 * 54;

/// Of a pair of channels: a complex product added at each of 10·10·6 bins.
const PRODUCTS: u64 = 8 * 600;

impl Op for PatchConv {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let dims = self.dims(inputs)?;
        Ok(vec![dims.points, dims.outputs, PATCH])
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let dims = self.dims(&inputs.iter().map(|input| input.shape()).collect::<Vec<_>>())?;
        let (weight, bias) = (inputs[self.weight()], inputs.get(self.weight() + 1).copied());
        let how = (dims, Direction::Forward);
        let len = match device.target() {
            Target::Cpu { threads, simd } => cpu::workspace(threads, simd.lanes(), &self.source(inputs)?, dims),
            Target::Cuda(_) => cuda::workspace(dims),
        };
        let mut scratch = workspace(device, len)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (source, bias) = (self.source(inputs)?, bias.map(|bias| bias.data()));
                let (output, scratch) = (output.data_mut(), scratch.data_mut());
                cpu::convolve(pool, &source, weight.data(), bias, how, output, false, scratch);
            }
            Backend::Cuda(cuda) => {
                let source = cuda::Source::new(self.options, inputs)?;
                cuda::convolve(cuda, source, weight, bias, how, output, false, &mut scratch)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let at = self.weight();
        let dims = self.dims(&(0..=at).map(|i| backward.shape(i)).collect::<Vec<_>>())?;
        let dy = backward.gradient().clone();
        if backward.wants(at) {
            let values = (0..at).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
            let values: Vec<&Tensor> = values.iter().collect();
            backward.write_gradient(at, |device, dw, accumulate| {
                let len = match device.target() {
                    Target::Cpu { threads, simd } => {
                        weight_gradient::workspace(threads, simd.lanes(), &self.source(&values)?, dims)
                    }
                    Target::Cuda(_) => cuda::weight_gradient_workspace(dims),
                };
                let mut scratch = workspace(device, len)?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let source = self.source(&values)?;
                        let (dy, dw, scratch) = (dy.data(), dw.data_mut(), scratch.data_mut());
                        weight_gradient::weight_gradient(pool, &source, dy, dims, dw, accumulate, scratch);
                    }
                    Backend::Cuda(cuda) => {
                        let source = cuda::Source::new(self.options, &values)?;
                        cuda::weight_gradient(cuda, source, &dy, dims, dw, accumulate, &mut scratch)?;
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        if self.bias {
            backward.write_gradient(at + 1, |device, db, accumulate| {
                let mut scratch = workspace_for(device, 0, cuda::bias_gradient_workspace(dims))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        weight_gradient::bias_gradient(pool, dy.data(), dims, db.data_mut(), accumulate)
                    }
                    Backend::Cuda(cuda) => cuda::bias_gradient(cuda, &dy, dims, db, accumulate, &mut scratch)?,
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        if self.options.is_none() && backward.wants(0) {
            let weight = backward.value(at)?;
            let dims = dims.adjoint();
            let how = (dims, Direction::Adjoint);
            backward.write_gradient(0, |device, dx, accumulate| {
                let len = match device.target() {
                    Target::Cpu { threads, simd } => {
                        cpu::workspace(threads, simd.lanes(), &Source::<[f32]>::Patches(dy.data()), dims)
                    }
                    Target::Cuda(_) => cuda::workspace(dims),
                };
                let mut scratch = workspace(device, len)?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let source: Source<'_> = Source::Patches(dy.data());
                        let (dx, scratch) = (dx.data_mut(), scratch.data_mut());
                        cpu::convolve(pool, &source, weight.data(), None, how, dx, accumulate, scratch);
                    }
                    Backend::Cuda(cuda) => {
                        let source = cuda::Source::patches(&dy);
                        cuda::convolve(cuda, source, &weight, None, how, dx, accumulate, &mut scratch)?;
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::inputs(if self.options.is_some() { &[0, 1, 2] } else { &[0, 1] })
    }

    /// The operations of the transforms, of which there are eight to thirteen times fewer than in the definition (37³ products
    /// a pair of channels and point); those of the weights' spectra, once a pass, are left out.
    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Ok(Dims { points, inputs, outputs }) = self.dims(inputs) else { return Cost::default() };
        let (points, inputs, outputs) = (points as u64, inputs as u64, outputs as u64);
        let patch = 4 * PATCH as u64;
        Cost {
            flops: points * (inputs * TRANSFORM + outputs * INVERSE + inputs * outputs * PRODUCTS),
            bytes: patch * (points * (inputs + outputs) + inputs * outputs) + 4 * outputs,
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Ok(Dims { points, inputs: from, outputs }) = self.dims(inputs) else { return Cost::default() };
        let (points, from, outputs) = (points as u64, from as u64, outputs as u64);
        let weights = points * ((from + outputs) * TRANSFORM + from * outputs * PRODUCTS);
        // Patches from a volume have no gradient of their own.
        let (data, passes) = match self.options.is_some() {
            true => (0, 1),
            false => (points * (outputs * TRANSFORM + from * INVERSE + from * outputs * PRODUCTS), 2),
        };
        Cost { flops: weights + data, bytes: passes * self.forward_cost(inputs).bytes }
    }
}
