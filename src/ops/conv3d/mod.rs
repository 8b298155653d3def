//! Convolution over three spatial axes, channels last: `y[o, co] = b[co] + Σ_t Σ_ci x[o·stride + t − padding, ci]·W[co, ci, t]`.
//!
//! * `x` `[batch, D, H, W, in]`, `W` `[out, in, kd, kh, kw]` as PyTorch stores it, `b` `[out]`,
//!   `y` `[batch, D', H', W', out]` with `D' = ⌊(D + 2·padding − kd) / stride⌋ + 1`.
//! * Voxels outside the input count as zero. Two-dimensional nets use depth 1 and kernels of depth 1.
//!
//! Gradients: `dx[i] = Σ_t dy[(i + padding − t) / stride]·W[t]` over the taps that divide, `dW[t] = Σ_o x[o·stride + t −
//! padding]·dy[o]`, `db = Σ_o dy[o]`.
//! On CUDA a kernel of one voxel without stride and padding is a linear layer over voxels, and runs as one.
//! Work: `2·voxels'·taps·in·out` FLOPs forward (padding counted), twice that backward. Compulsory bytes: each tensor once.

mod channel_stats;
mod conv_norm_act_pool;
mod correlation;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod direct;
mod microkernel;
mod padded_tile;
mod pointwise;
mod sizes;
#[cfg(test)]
mod tests;
mod weight_gradient;
mod winograd;
mod with_stats;

pub(crate) use conv_norm_act_pool::ConvNormActPool;
pub use sizes::ConvGeometry;
pub(crate) use sizes::Sizes;
pub use with_stats::conv3d_with_stats;

use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::linear::WithStats;
use crate::ops::{Cost, Grouping, Needs, Op, OutputSpec, workspace_for};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};
use cuda::Measurement;

const NAME: &str = "conv3d";

struct Conv3d {
    geometry: ConvGeometry,
    bias: bool,
    precision: Precision,
    /// The second output: mean and variance of each group of channels, and how the product's kernel takes them (CUDA).
    statistics: Option<(Grouping, Measurement)>,
}

/// Convolution of `x` with `weight`; see the module's page for shapes.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn conv3d(tape: &Tape, x: &Var, weight: &Var, bias: Option<&Var>, geometry: ConvGeometry) -> Result<Var> {
    Ok(Conv3d::new(tape, geometry, bias).apply(tape, x, weight, bias)?.value)
}

impl Conv3d {
    fn new(tape: &Tape, geometry: ConvGeometry, bias: Option<&Var>) -> Self {
        Self { geometry, bias: bias.is_some(), precision: tape.precision(), statistics: None }
    }

    /// The result, and its statistics if the op has them.
    fn apply(self, tape: &Tape, x: &Var, weight: &Var, bias: Option<&Var>) -> Result<WithStats> {
        let inputs: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
        let mut outputs = tape.apply_several(self, &inputs)?.into_iter();
        Ok(WithStats { value: outputs.next().expect("an op has an output"), statistics: outputs.next() })
    }

    fn sizes(&self, x: &[usize], weight: &[usize]) -> Result<Sizes> {
        Sizes::of(NAME, x, weight, self.geometry)
    }
}

impl Op for Conv3d {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let sizes = self.sizes(inputs[0], inputs[1])?;
        if let Some(bias) = inputs.get(2)
            && **bias != [sizes.out_channels]
        {
            return Err(Error::shape(NAME, format!("bias {bias:?} does not fit weight {:?}", inputs[1])));
        }
        let [d, h, w] = sizes.output;
        Ok(vec![sizes.batch, d, h, w, sizes.out_channels])
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let sizes = self.sizes(inputs[0].shape(), inputs[1].shape())?;
        let cpu = cpu::forward_workspace(&sizes, device.simd(), device.threads());
        let mut scratch = workspace_for(device, cpu, pointwise::forward_workspace(&sizes))?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, weight, bias) = (inputs[0].data(), inputs[1].data(), inputs.get(2).map(|bias| bias.data()));
                cpu::forward(pool, &sizes, x, weight, bias, output.data_mut(), false, scratch.data_mut());
            }
            Backend::Cuda(cuda) => {
                let (operands, bias) = ([inputs[0], inputs[1]], inputs.get(2).copied());
                pointwise::forward(cuda, (&sizes, self.precision), operands, bias, output, &mut scratch)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn further_outputs(&self, inputs: &[&[usize]]) -> Vec<OutputSpec> {
        let statistics = self.statistics.map(|(grouping, _)| with_stats::spec(grouping, inputs[1][0]));
        statistics.into_iter().collect()
    }

    fn forward_several(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        match (outputs, self.statistics) {
            ([Some(y), Some(statistics)], Some((_, measurement))) => {
                self.forward_measured(device, inputs, y, (measurement, statistics))
            }
            ([Some(y), ..], _) => self.forward(device, inputs, y),
            _ => Ok(()),
        }
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let sizes = self.sizes(backward.shape(0), backward.shape(1))?;
        let dy = backward.gradient().clone();
        if backward.wants(1) {
            let x = backward.value(0)?;
            backward.write_gradient(1, |device, dw, accumulate| {
                let cpu = cpu::weight_gradient_workspace(&sizes, device.simd(), device.threads());
                let mut scratch = workspace_for(device, cpu, pointwise::weight_gradient_workspace(&sizes))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let scratch = scratch.data_mut();
                        cpu::weight_gradient(pool, &sizes, x.data(), dy.data(), dw.data_mut(), accumulate, scratch);
                    }
                    Backend::Cuda(cuda) => {
                        let operands = [&x, &dy];
                        pointwise::weight_gradient(
                            cuda,
                            (&sizes, self.precision),
                            operands,
                            dw,
                            accumulate,
                            &mut scratch,
                        )?
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        if self.bias {
            backward.write_gradient(2, |device, db, accumulate| bias_gradient(device, &dy, db, accumulate))?;
        }
        if backward.wants(0) {
            let weight = backward.value(1)?;
            backward.write_gradient(0, |device, dx, accumulate| {
                let cpu = cpu::input_gradient_workspace(&sizes, device.simd(), device.threads());
                let mut scratch = workspace_for(device, cpu, pointwise::input_gradient_workspace(&sizes))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let (dy, weight, dx) = (dy.data(), weight.data(), dx.data_mut());
                        cpu::input_gradient(pool, &sizes, dy, weight, None, dx, accumulate, scratch.data_mut());
                    }
                    Backend::Cuda(cuda) => {
                        let operands = [&dy, &weight];
                        pointwise::input_gradient(
                            cuda,
                            (&sizes, self.precision),
                            operands,
                            dx,
                            accumulate,
                            &mut scratch,
                        )?
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.sizes(inputs[0], inputs[1]).map(|sizes| sizes.cost()).unwrap_or_default()
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 2 * forward.flops, bytes: 2 * forward.bytes }
    }
}

/// `db (+)= Σ_voxel dy`.
pub(super) fn bias_gradient(device: &Device, dy: &Tensor, db: &mut Tensor, accumulate: bool) -> Result<()> {
    let channels = dy.channels();
    let cpu = cpu::bias_gradient_workspace(dy.rows(), channels);
    let mut scratch = workspace_for(device, cpu, cuda::bias_gradient_workspace(dy.rows(), channels))?;
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            cpu::bias_gradient(pool, channels, dy.data(), db.data_mut(), accumulate, scratch.data_mut());
        }
        Backend::Cuda(cuda) => cuda::bias_gradient(cuda, dy, db, accumulate, &mut scratch)?,
        Backend::Plan { .. } => {}
    }
    Ok(())
}
