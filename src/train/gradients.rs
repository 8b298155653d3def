//! What happens to gradients between the backward pass and the optimiser.

use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops;
use crate::tape::{Mode, Tape};

/// Shortens the gradients of all parameters together to the Euclidean norm `limit`, if they are longer (Pascanu et al. 2013).
/// Returns the norm before that, summed in f64 in the parameters' order.
///
/// # Errors
/// [`Error::NotFinite`] naming the first parameter whose gradient is not finite; no memory for the shorter gradients.
pub fn clip(parameters: &mut Parameters, limit: f32, step: u64) -> Result<f64> {
    let mut squares = 0.0;
    for parameter in parameters.iter() {
        let Some(gradient) = parameter.gradient() else { continue };
        let square: f64 = gradient.to_vec()?.iter().map(|&value| f64::from(value).powi(2)).sum();
        if !square.is_finite() {
            return Err(Error::NotFinite { what: "a gradient".into(), step, op: parameter.name().into() });
        }
        squares += square;
    }
    let norm = squares.sqrt();
    if norm > f64::from(limit) {
        let factor = (f64::from(limit) / norm) as f32;
        let device = parameters.device().clone();
        for parameter in parameters.iter_mut() {
            let Some(gradient) = parameter.take_gradient() else { continue };
            let tape = Tape::new(&device, Mode::Eval);
            let gradient = tape.constant(gradient);
            // g + (factor − 1)·g
            let shorter = ops::scale_add(&tape, &gradient, &gradient, factor - 1.0)?.tensor();
            shorter.retag(Role::Gradient);
            parameter.set_gradient(shorter);
        }
    }
    Ok(norm)
}
