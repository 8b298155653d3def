//! Losses: one number that says how far predictions are from labels.
//!
//! Predictions are `[…, C]`, labels are constants `[…, 1]` stored as f32: 0 or 1 (soft labels in between are allowed) for
//! one channel, class indices for more. All sums are in f64, in pieces of fixed size. Losses keep nothing but their
//! inputs: the backward pass computes each element again.

mod binary;
mod cross_entropy;
mod cuda;
mod dice;
#[cfg(test)]
mod tests;
mod top_k;

pub use binary::{BinaryLoss, binary_loss};
pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use dice::{SoftDice, dice_loss};

use crate::error::{Error, Result};

/// What a loss takes its input for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// Unbounded scores, before sigmoid or softmax: stable for any value.
    Logits,
    /// Probabilities. Logarithms take them clamped to `[1e-6, 1 − 1e-6]`, and have slope 0 outside.
    Probabilities,
}

/// Probabilities inside logarithms stay this far from 0 and 1.
const CLAMP: f32 = 1e-6;

/// Natural logarithm of the clamped probability `p`, and its slope.
fn clamped_ln(p: f32) -> (f32, f32) {
    let clamped = p.clamp(CLAMP, 1.0 - CLAMP);
    (clamped.ln(), if clamped == p { 1.0 / p } else { 0.0 })
}

/// `miss^gamma` and its slope with respect to `miss`, for the focal factor.
///
/// A rounded sum of probabilities can leave `miss` just below 0, which counts as 0. For exponents below 1 the slope is
/// infinite at 0; there it is taken at [`CLAMP`].
fn focal(miss: f32, gamma: f32) -> (f32, f32) {
    let miss = miss.max(0.0);
    match gamma {
        0.0 => (1.0, 0.0),
        gamma => (miss.powf(gamma), gamma * if gamma < 1.0 { miss.max(CLAMP) } else { miss }.powf(gamma - 1.0)),
    }
}

/// Fails unless `label` is `prediction` with one channel.
fn check_labels(op: &'static str, prediction: &[usize], label: &[usize]) -> Result<()> {
    let leading = prediction.split_last().map(|(_, leading)| leading);
    match label.split_last() {
        Some((1, rows)) if Some(rows) == leading && !prediction.contains(&0) => Ok(()),
        _ => Err(Error::shape(op, format!("labels {label:?} do not fit predictions {prediction:?}; expected […, 1]"))),
    }
}

/// Fails unless each label is a whole number below `classes`. (On CUDA such a label makes the loss NaN.)
fn check_classes(op: &'static str, labels: &[f32], classes: usize) -> Result<()> {
    match labels.iter().find(|&&label| !(label >= 0.0 && label < classes as f32 && label.fract() == 0.0)) {
        None => Ok(()),
        Some(label) => {
            Err(Error::shape(op, format!("label {label} with {classes} classes; expected 0 to {}", classes - 1)))
        }
    }
}
