//! Sums: `y = a + factor·b` of equal shapes, element by element; `factor` 1 joins residual branches, and a number of its
//! own weighs the terms of a loss.
//!
//! * Gradients: `da = dy`, `db = factor·dy`; a factor of 1 hands the same buffer to both.
//! * Work: 1 FLOP an element (2 with a factor), bytes `12·|y|` forward; backward nothing, or one product of `|y|`.
//!
//! The output is kept if a later op needs it: recomputing it would keep two inputs instead of one output.

mod cuda;
#[cfg(test)]
mod tests;

use super::par_loops::{by_elements, put};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct Add {
    factor: f32,
}

/// `a + b`.
///
/// # Errors
/// Shapes that differ, or no memory.
pub fn add(tape: &Tape, a: &Var, b: &Var) -> Result<Var> {
    tape.apply(Add { factor: 1.0 }, &[a, b])
}

/// `a + factor·b`.
///
/// # Errors
/// Shapes that differ, or no memory.
pub fn scale_add(tape: &Tape, a: &Var, b: &Var, factor: f32) -> Result<Var> {
    tape.apply(Add { factor }, &[a, b])
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs[0] == inputs[1] {
            true => Ok(inputs[0].to_vec()),
            false => Err(Error::shape("add", format!("the shapes {:?} and {:?} differ", inputs[0], inputs[1]))),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (a, b, factor) = (inputs[0].data(), inputs[1].data(), self.factor);
                by_elements(pool, output.data_mut(), |first, y| {
                    let terms = a[first..].iter().zip(&b[first..]);
                    y.iter_mut().zip(terms).for_each(|(y, (a, b))| *y = a + factor * b);
                });
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, inputs[0], inputs[1], self.factor, output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dy = backward.gradient().clone();
        backward.accumulate(0, dy.clone())?;
        if self.factor == 1.0 {
            return backward.accumulate(1, dy);
        }
        let factor = self.factor;
        backward.write_gradient(1, |device, db, accumulate| {
            match device.backend() {
                Backend::Cpu { pool, .. } => by_elements(pool, db.data_mut(), |first, db| {
                    db.iter_mut().zip(&dy.data()[first..]).for_each(|(db, dy)| put(db, factor * dy, accumulate));
                }),
                Backend::Cuda(cuda) => cuda::scale(cuda, &dy, factor, db, accumulate)?,
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: if self.factor == 1.0 { len } else { 2 * len }, bytes: 12 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = if self.factor == 1.0 { 0 } else { inputs[0].iter().product::<usize>() as u64 };
        Cost { flops: len, bytes: 8 * len }
    }
}
