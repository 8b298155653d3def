//! Transposed convolution over three spatial axes, channels last: each input voxel adds its product with the kernel to
//! the output, `y[i·stride + t − padding, co] += Σ_ci x[i, ci]·W[ci, co, t]`, plus `b[co]`.
//!
//! * `x` `[batch, D, H, W, in]`, `W` `[in, out, kd, kh, kw]` as PyTorch stores it, `b` `[out]`, `y`
//!   `[batch, D', H', W', out]` with `D' = (D − 1)·stride − 2·padding + kd + output_padding`.
//!
//! It is the adjoint of the convolution from `y`'s shape to `x`'s with the same weight, and uses its kernels: forward is
//! that convolution's data gradient, `dx` its forward pass, `dW` its weight gradient with the roles of the two swapped.
//! Work: `2·voxels·taps·in·out` FLOPs forward (of the input's voxels), twice that backward; bytes: each tensor once.

#[cfg(test)]
mod tests;

use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::conv3d::{ConvGeometry, Sizes, bias_gradient, cpu, cuda};
use crate::ops::{Cost, Needs, Op, workspace_for};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Name in errors and in the ledger.
const NAME: &str = "conv_transpose3d";

struct ConvTranspose3d {
    geometry: ConvGeometry,
    output_padding: [usize; 3],
    bias: bool,
    precision: Precision,
}

/// Transposed convolution of `x` with `weight`; see the module's page for shapes.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn conv_transpose3d(
    tape: &Tape,
    x: &Var,
    weight: &Var,
    bias: Option<&Var>,
    geometry: ConvGeometry,
    output_padding: [usize; 3],
) -> Result<Var> {
    let op = ConvTranspose3d { geometry, output_padding, bias: bias.is_some(), precision: tape.precision() };
    match bias {
        Some(bias) => tape.apply(op, &[x, weight, bias]),
        None => tape.apply(op, &[x, weight]),
    }
}

impl ConvTranspose3d {
    /// The convolution whose adjoint this is.
    fn sizes(&self, x: &[usize], weight: &[usize]) -> Result<Sizes> {
        let (&[batch, d, h, w, inputs], &[wanted, outputs, kd, kh, kw]) = (x, weight) else {
            let problem =
                format!("input {x:?} and weight {weight:?} are not [batch, D, H, W, in], [in, out, kd, kh, kw]");
            return Err(Error::shape(NAME, problem));
        };
        if inputs != wanted {
            let problem = format!("weight {weight:?} wants {wanted} channels, the input {x:?} has another number");
            return Err(Error::shape(NAME, problem));
        }
        let window = self.geometry.window([kd, kh, kw]);
        let length = |axis: usize, input: usize| {
            let reach = input.checked_sub(1)?.checked_mul(window.stride[axis])?;
            let full = reach.checked_add(window.kernel[axis])?.checked_add(self.output_padding[axis])?;
            full.checked_sub(window.padding[axis].checked_mul(2)?)
        };
        let large = [length(0, d), length(1, h), length(2, w)];
        let [Some(a), Some(b), Some(c)] = large else {
            return Err(Error::shape(NAME, format!("{window:?} leaves nothing of input {x:?}; lower the padding")));
        };
        let sizes = Sizes::new(NAME, &[batch, a, b, c, outputs], inputs, window)?;
        if sizes.output != [d, h, w] {
            let problem = format!("output padding {:?} is not below stride {:?}", self.output_padding, window.stride);
            return Err(Error::shape(NAME, problem));
        }
        Ok(sizes)
    }
}

impl Op for ConvTranspose3d {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let sizes = self.sizes(inputs[0], inputs[1])?;
        if let Some(bias) = inputs.get(2)
            && **bias != [sizes.in_channels]
        {
            return Err(Error::shape(NAME, format!("bias {bias:?} does not fit weight {:?}", inputs[1])));
        }
        let [d, h, w] = sizes.input;
        Ok(vec![sizes.batch, d, h, w, sizes.in_channels])
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let sizes = self.sizes(inputs[0].shape(), inputs[1].shape())?;
        let cpu = cpu::input_gradient_workspace(&sizes, device.simd(), device.threads());
        let mut scratch = workspace_for(device, cpu, cuda::input_gradient_workspace(&sizes))?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, weight, bias) = (inputs[0].data(), inputs[1].data(), inputs.get(2).map(|bias| bias.data()));
                cpu::input_gradient(pool, &sizes, x, weight, bias, output.data_mut(), false, scratch.data_mut());
            }
            Backend::Cuda(cuda) => {
                let (operands, bias) = ([inputs[0], inputs[1]], inputs.get(2).copied());
                cuda::input_gradient(cuda, (&sizes, self.precision), operands, bias, output, false, &mut scratch)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let sizes = self.sizes(backward.shape(0), backward.shape(1))?;
        let dy = backward.gradient().clone();
        if backward.wants(1) {
            let x = backward.value(0)?;
            backward.write_gradient(1, |device, dw, accumulate| {
                let cpu = cpu::weight_gradient_workspace(&sizes, device.simd(), device.threads());
                let mut scratch = workspace_for(device, cpu, cuda::weight_gradient_workspace(&sizes))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let scratch = scratch.data_mut();
                        cpu::weight_gradient(pool, &sizes, dy.data(), x.data(), dw.data_mut(), accumulate, scratch);
                    }
                    Backend::Cuda(cuda) => {
                        cuda::weight_gradient(cuda, (&sizes, self.precision), [&dy, &x], dw, accumulate, &mut scratch)?
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
                let cpu = cpu::forward_workspace(&sizes, device.simd(), device.threads());
                let mut scratch = workspace_for(device, cpu, cuda::forward_workspace(&sizes))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let (dy, weight, dx) = (dy.data(), weight.data(), dx.data_mut());
                        cpu::forward(pool, &sizes, dy, weight, None, dx, accumulate, scratch.data_mut());
                    }
                    Backend::Cuda(cuda) => cuda::forward(
                        cuda,
                        (&sizes, self.precision),
                        [&dy, &weight],
                        None,
                        dx,
                        accumulate,
                        &mut scratch,
                    )?,
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
