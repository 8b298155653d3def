//! Logistic function: `y = 1/(1 + e^−x)`, element by element.
//!
//! * Gradient: `dx = dy·y·(1 − y)`, written over `dy`. It reads the output, which is kept: one tensor either way, and the
//!   losses on probabilities read it as well.
//! * Work: 4 FLOPs an element (an exponential counts one) and bytes `8·|y|` forward, 3 FLOPs and `12·|y|` backward.

mod cuda;

use super::par_loops::by_elements;
use crate::device::{Backend, Device};
use crate::error::Result;
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct Sigmoid;

/// `1/(1 + e^−x)`.
///
/// # Errors
/// No memory.
pub fn sigmoid(tape: &Tape, x: &Var) -> Result<Var> {
    tape.apply(Sigmoid, &[x])
}

/// `1/(1 + e^−x)` of one number; exact to rounding also where it is close to 0.
pub(super) fn logistic(x: f32) -> f32 {
    // e^x instead of 1/(1 + e^−x) below zero: no overflow, and small values keep their relative precision.
    let small = (-x.abs()).exp();
    if x < 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) }
}

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => by_elements(pool, output.data_mut(), |first, y| {
                y.iter_mut().zip(&inputs[0].data()[first..]).for_each(|(y, &x)| *y = logistic(x));
            }),
            Backend::Cuda(cuda) => cuda::forward(cuda, inputs[0], output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let y = backward.output()?;
        let mut gradient = backward.take_gradient()?;
        match backward.device().backend() {
            Backend::Cpu { pool, .. } => by_elements(pool, gradient.data_mut(), |first, gradient| {
                gradient.iter_mut().zip(&y.data()[first..]).for_each(|(gradient, y)| *gradient *= y * (1.0 - y));
            }),
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
        Cost { flops: 4 * len, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 3 * len, bytes: 12 * len }
    }
}

#[cfg(test)]
mod tests {
    use super::{logistic, sigmoid};
    use crate::ops::testing::{Array, Tolerance, check_op};

    #[test]
    fn follows_the_definition() {
        let inputs = [Array::random(&[3, 41], 1).map(|x| 12.0 * x)];
        let twin = |a: &[Array]| Array {
            shape: a[0].shape.clone(),
            data: a[0].data.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        };
        // A handful of roundings; 1 − y loses what y = 1 − 6e-6 rounds away, 6e-8 of the largest slope 1/4.
        let tolerance = Tolerance { forward: 3e-7, backward: 1e-6 };
        check_op(&inputs, &[0], tolerance, |tape, v| sigmoid(tape, &v[0]), twin);
    }

    #[test]
    fn ends_are_finite() {
        assert_eq!((logistic(200.0), logistic(-200.0)), (1.0, 0.0));
        assert_eq!((logistic(f32::INFINITY), logistic(f32::NEG_INFINITY)), (1.0, 0.0));
        assert!(logistic(f32::NAN).is_nan());
        // e^-20 = 2.061153618e-9 keeps its digits.
        assert!((f64::from(logistic(-20.0)) / 2.061_153_614e-9 - 1.0).abs() < 1e-6);
    }
}
