//! The same numbers in another storage type.
//!
//! * Rounded to nearest, ties to even, where the new type is narrower. The CPU computes in f32: it imitates bf16 by rounding
//!   each op's result, which nothing but tests of the errors of bf16 asks for.
//! * Gradient: `dy` in the input's type.
//! * Work: no FLOPs; both tensors move once. The output is recomputed rather than kept.

#[cfg(test)]
mod tests;

use super::cuda::columns::{self, Columns};
use super::par_loops::{by_elements, put_all};
use crate::device::{Backend, Device};
use crate::error::Result;
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

struct Cast {
    to: DType,
}

/// `x` stored as `to`; `x` itself if it is so already.
///
/// # Errors
/// No memory.
pub fn cast(tape: &Tape, x: &Var, to: DType) -> Result<Var> {
    match x.dtype() == to {
        true => Ok(x.clone()),
        false => tape.apply(Cast { to }, &[x]),
    }
}

/// `to (+)= from`, element by element.
fn convert(device: &Device, from: &Tensor, to: &mut Tensor, accumulate: bool) -> Result<()> {
    let whole = Columns { stride: from.len(), first: 0 };
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            by_elements(pool, to.data_mut(), |first, to| put_all(to, &from.data()[first..][..to.len()], accumulate));
            Ok(())
        }
        Backend::Cuda(cuda) => columns::copy(cuda, (from, whole), (to, whole), [1, from.len()], accumulate),
        Backend::Plan { .. } => Ok(()),
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.to
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        convert(device, inputs[0], output, false)
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dy = backward.gradient().clone();
        backward.write_gradient(0, |device, dx, accumulate| convert(device, &dy, dx, accumulate))
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        Cost { flops: 0, bytes: 6 * inputs[0].iter().product::<usize>() as u64 }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}
