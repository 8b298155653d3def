//! A loss for tests that depends on no kernel.
//!
//! The library's own tests compile this file as well.

use ossnet::Result;
use ossnet::device::Device;
use ossnet::ops::{Cost, Needs, Op};
use ossnet::tape::{Backward, Tape, Var};
use ossnet::tensor::Tensor;

/// Scalar `Σ x·w` with fixed weights, to turn any output into a loss.
pub fn dot(tape: &Tape, x: &Var, weights: Tensor) -> Result<Var> {
    tape.apply(Dot { weights }, &[x])
}

struct Dot {
    weights: Tensor,
}

impl Op for Dot {
    fn name(&self) -> &'static str {
        "dot"
    }

    fn output_shape(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(vec![1])
    }

    fn forward(&self, _: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let (x, weights) = (inputs[0].to_vec()?, self.weights.to_vec()?);
        let sum: f64 = x.iter().zip(&weights).map(|(a, b)| f64::from(a * b)).sum();
        output.write(&[sum as f32])
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let scale = backward.gradient().to_vec()?[0];
        let weights = self.weights.to_vec()?;
        backward.write_gradient(0, |_, dx, accumulate| {
            let former = if accumulate { dx.to_vec()? } else { vec![0.0; weights.len()] };
            dx.write(&former.iter().zip(&weights).map(|(dx, w)| dx + scale * w).collect::<Vec<f32>>())
        })
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn backward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
}
