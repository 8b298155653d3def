//! Softmax over the last axis: `y_c = e^{x_c − m}/Σ_k e^{x_k − m}`, `m = max x`.
//!
//! * `x` `[rows…, C]` → `y` of the same shape.
//! * Gradient: `dx_c = y_c·(dy_c − Σ_k dy_k·y_k)`, written over `dy`. It reads the output, which is kept.
//! * Work: 5 FLOPs an element (an exponential counts one) and bytes `8·|y|` forward, 4 FLOPs and `12·|y|` backward.

pub(super) mod cuda;

use super::par_loops::by_rows;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op, sigmoid};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct Softmax;

/// The probabilities of logits `[…, outputs]`: sigmoids of one output, the softmax of several.
///
/// # Errors
/// As for [`softmax`].
pub fn probabilities(tape: &Tape, logits: &Var) -> Result<Var> {
    match logits.shape().last() {
        Some(1) => sigmoid(tape, logits),
        _ => softmax(tape, logits),
    }
}

/// Softmax over the last axis.
///
/// # Errors
/// A shape without axes or an empty last axis; or no memory.
pub fn softmax(tape: &Tape, x: &Var) -> Result<Var> {
    tape.apply(Softmax, &[x])
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs[0].last() {
            None | Some(0) => Err(Error::shape("softmax", format!("no classes in the last axis of {:?}", inputs[0]))),
            Some(_) => Ok(inputs[0].to_vec()),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, classes) = (inputs[0].data(), output.channels());
                by_rows(pool, output.data_mut(), classes, |first, piece| {
                    let x = x[first * classes..].chunks_exact(classes);
                    for (y, x) in piece.chunks_exact_mut(classes).zip(x) {
                        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - max).exp());
                        let scale = 1.0 / y.iter().sum::<f32>();
                        y.iter_mut().for_each(|y| *y *= scale);
                    }
                });
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, inputs[0], output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let y = backward.output()?;
        let mut gradient = backward.take_gradient()?;
        match backward.device().backend() {
            Backend::Cpu { pool, .. } => {
                let (y, classes) = (y.data(), gradient.channels());
                by_rows(pool, gradient.data_mut(), classes, |first, piece| {
                    let y = y[first * classes..].chunks_exact(classes);
                    for (gradient, y) in piece.chunks_exact_mut(classes).zip(y) {
                        let mean: f32 = gradient.iter().zip(y).map(|(gradient, y)| gradient * y).sum();
                        gradient.iter_mut().zip(y).for_each(|(gradient, y)| *gradient = y * (*gradient - mean));
                    }
                });
            }
            Backend::Cuda(cuda) => cuda::backward(cuda, &y, &mut gradient)?,
            Backend::Plan { .. } => {}
        }
        backward.accumulate(0, gradient)
    }

    fn needs(&self) -> Needs {
        Needs::output()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 5 * len, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 4 * len, bytes: 12 * len }
    }
}

#[cfg(test)]
mod tests {
    use super::softmax;
    use crate::ops::testing::{Array, Tolerance, check_op, refused};

    #[test]
    fn follows_the_definition() {
        let twin = |a: &[Array]| {
            let rows = a[0].data.chunks(a[0].shape[2]).flat_map(|row| {
                let sum: f64 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
            });
            Array { shape: a[0].shape.clone(), data: rows.collect() }
        };
        // x − max is exact to 2^-21 below 16, which the exponential turns into a relative error of that size; the sum of
        // 40000 products in the twin's difference quotient costs the gradient 1e-12/1e-5.
        let tolerance = Tolerance { forward: 1e-6, backward: 3e-6 };
        // Few classes and many rows; more classes than a warp has lanes; one class.
        for shape in [[2, 4000, 5], [1, 9, 70], [1, 3, 1]] {
            let inputs = [Array::random(&shape, 1).map(|x| 8.0 * x)];
            check_op(&inputs, &[0], tolerance, |tape, v| softmax(tape, &v[0]), twin);
        }
    }

    #[test]
    fn an_empty_last_axis_is_an_error() {
        refused("softmax", &[&[4, 0]], |tape, v| softmax(tape, &v[0]));
        refused("softmax", &[&[]], |tape, v| softmax(tape, &v[0]));
    }
}
