//! One index of axis 1: `y[b, …] = x[b, index, …]`.
//!
//! * `x` `[batch, L, F…]` → `y` `[batch, F…]`: a latent's channel for one decoder block.
//! * Gradient: `dy` at `index`, zero elsewhere.
//! * Work: no FLOPs; bytes `8·|y|` forward, `4·(|x| + |y|)` backward.

use super::cuda::columns::{self, Columns};
use super::par_loops::put_all;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct Select {
    index: usize,
}

/// `x[:, index]`.
///
/// # Errors
/// Fewer than two axes or an index outside the second; or no memory.
pub fn select(tape: &Tape, x: &Var, index: usize) -> Result<Var> {
    tape.apply(Select { index }, &[x])
}

impl Select {
    /// Batch, length of axis 1, elements behind it, of `x`, which has passed the shape rule.
    fn sizes(&self, x: &[usize]) -> (usize, usize, usize) {
        (x[0], x[1], x[2..].iter().product())
    }
}

impl Op for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs[0] {
            [batch, length, rest @ ..] if self.index < *length => Ok([&[*batch], rest].concat()),
            shape => Err(Error::shape("select", format!("no index {} on axis 1 of {shape:?}", self.index))),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { .. } => {
                let length = inputs[0].shape()[1];
                let size = inputs[0].len() / inputs[0].shape()[..2].iter().product::<usize>().max(1);
                for (batch, y) in output.data_mut().chunks_exact_mut(size.max(1)).enumerate() {
                    y.copy_from_slice(&inputs[0].data()[(batch * length + self.index) * size..][..size]);
                }
            }
            Backend::Cuda(cuda) => {
                let (batch, length, size) = self.sizes(inputs[0].shape());
                let from = Columns { stride: length * size, first: self.index * size };
                let to = Columns { stride: size, first: 0 };
                columns::copy(cuda, (inputs[0], from), (output, to), [batch, size], false)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dy = backward.gradient().clone();
        let index = self.index;
        backward.write_gradient(0, |device, dx, accumulate| {
            match device.backend() {
                Backend::Cpu { .. } => {
                    let (length, size) = (dx.shape()[1], dx.len() / dx.shape()[..2].iter().product::<usize>().max(1));
                    for (row, dx) in dx.data_mut().chunks_exact_mut(size.max(1)).enumerate() {
                        match row % length == index {
                            true => put_all(dx, &dy.data()[row / length * size..][..size], accumulate),
                            false if accumulate => {}
                            false => dx.fill(0.0),
                        }
                    }
                }
                Backend::Cuda(cuda) => {
                    let (batch, length, size) = self.sizes(dx.shape());
                    if !accumulate {
                        dx.zero()?;
                    }
                    let from = Columns { stride: size, first: 0 };
                    let to = Columns { stride: length * size, first: index * size };
                    columns::copy(cuda, (&dy, from), (dx, to), [batch, size], accumulate)?;
                }
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = self.output_shape(inputs).map_or(0, |shape| shape.iter().product::<usize>() as u64);
        Cost { flops: 0, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len: usize = inputs[0].iter().product();
        Cost { flops: 0, bytes: self.forward_cost(inputs).bytes / 2 + 4 * len as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::select;
    use crate::ops::testing::{Array, Tolerance, check_op, refused};
    use crate::ops::{add, concat};
    use crate::tape::{Tape, Var};

    /// Copies only; the twin's gradient is a finite difference.
    const TOLERANCE: Tolerance = Tolerance { forward: 0.0, backward: 1e-6 };

    fn twin(x: &Array, index: usize) -> Vec<f64> {
        let (length, size) = (x.shape[1], x.shape[2]);
        (0..x.shape[0]).flat_map(|b| x.data[(b * length + index) * size..][..size].to_vec()).collect()
    }

    #[test]
    fn one_of_many() {
        let x = [Array::random(&[3, 6, 11], 1)];
        let expect = |a: &[Array]| Array { shape: vec![3, 11], data: twin(&a[0], 4) };
        check_op(&x, &[0], TOLERANCE, |tape, v| select(tape, &v[0], 4), expect);
    }

    #[test]
    fn gradients_of_several_indices_meet() {
        let x = [Array::random(&[1, 3, 5], 1)];
        let op = |tape: &Tape, v: &[Var]| {
            let [a, b, again] = [0, 2, 0].map(|index| select(tape, &v[0], index));
            let (a, b) = (a?, b?);
            concat(tape, &[&add(tape, &a, &b)?, &again?])
        };
        let expect = |a: &[Array]| {
            let (first, last) = (twin(&a[0], 0), twin(&a[0], 2));
            let sum = first.iter().zip(&last).map(|(a, b)| a + b);
            Array { shape: vec![1, 10], data: sum.chain(first.clone()).collect() }
        };
        // One rounded sum.
        check_op(&x, &[0], Tolerance { forward: 1e-7, ..TOLERANCE }, op, expect);
    }

    #[test]
    fn an_index_outside_is_an_error() {
        refused("select", &[&[2, 3, 4]], |tape, v| select(tape, &v[0], 3));
        refused("select", &[&[2]], |tape, v| select(tape, &v[0], 0));
    }
}
