//! The same elements under another shape of equal length.
//!
//! * The forward pass copies, for each var of the tape owns its buffer; the gradient is handed on without a copy. Meant for
//!   small tensors (latents, outputs of one channel).
//! * Work: no FLOPs, bytes `8·|x|` forward, none backward.

use super::par_loops::by_elements;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor, elements};

struct Reshape {
    shape: Shape,
}

/// `x` with the lengths `shape`.
///
/// # Errors
/// Another number of elements, or no memory.
pub fn reshape(tape: &Tape, x: &Var, shape: &[usize]) -> Result<Var> {
    tape.apply(Reshape { shape: shape.to_vec() }, &[x])
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match elements(inputs[0]) == elements(&self.shape) {
            true => Ok(self.shape.clone()),
            false => Err(Error::shape("reshape", format!("{:?} cannot become {:?}", inputs[0], self.shape))),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => by_elements(pool, output.data_mut(), |first, y| {
                y.copy_from_slice(&inputs[0].data()[first..][..y.len()]);
            }),
            Backend::Cuda(_) => output.copy_from(inputs[0])?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let gradient = backward.gradient().clone().reshaped(backward.shape(0))?;
        backward.accumulate(0, gradient)
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        Cost { flops: 0, bytes: 8 * inputs[0].iter().product::<usize>() as u64 }
    }

    fn backward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::reshape;
    use crate::ops::testing::{Array, Tolerance, check_op, refused};

    #[test]
    fn elements_stay_in_order() {
        // Copies only; the twin's gradient is a finite difference.
        let tolerance = Tolerance { forward: 0.0, backward: 1e-6 };
        let twin = |a: &[Array]| Array { shape: vec![6, 4, 1], data: a[0].data.clone() };
        check_op(&[Array::random(&[2, 12], 1)], &[0], tolerance, |tape, v| reshape(tape, &v[0], &[6, 4, 1]), twin);
    }

    #[test]
    fn another_length_is_an_error() {
        refused("reshape", &[&[2, 12]], |tape, v| reshape(tape, &v[0], &[5, 5]));
        refused("reshape", &[&[2, 12]], |tape, v| reshape(tape, &v[0], &[usize::MAX, 2]));
    }
}
