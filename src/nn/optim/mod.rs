//! Optimisers: rules that turn a gradient into a change of the weights.
//!
//! A rule owns no memory. What it remembers of a tensor lies in a slice that the caller provides, zeroed before the
//! first step, so that the ledger sees it and a checkpoint holds it. Everything is elementwise: the same bits however
//! tensors are spread over threads. Coefficients that depend on the step only are computed in f64 and rounded once, as
//! PyTorch does.

mod adam;
mod lookahead;
mod radam;
mod schedule;
mod sgd;

pub use adam::Adam;
pub use lookahead::Lookahead;
pub use radam::RAdam;
pub use schedule::Schedule;
pub use sgd::Sgd;

/// A rule for changing weights.
pub trait Optimizer: Send + Sync {
    /// Length of the state of a tensor of `len` elements, in f32.
    fn state_len(&self, len: usize) -> usize;

    /// Changes `weight` (any length) by one step along its gradient `grad` (the same length).
    ///
    /// * `state`: [`state_len`](Self::state_len) of the weight's length; zeros before the first step, and what the last
    ///   step left there since.
    /// * `lr`: learning rate.
    /// * `step`: how many steps, this one included, the tensor has been through: from 1.
    ///
    /// # Panics
    /// If the lengths do not fit or `step` is 0.
    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64);
}

impl<O: Optimizer + ?Sized> Optimizer for Box<O> {
    fn state_len(&self, len: usize) -> usize {
        (**self).state_len(len)
    }

    fn step(&self, state: &mut [f32], weight: &mut [f32], grad: &[f32], lr: f64, step: u64) {
        (**self).step(state, weight, grad, lr, step);
    }
}

/// Panics unless the arguments of [`Optimizer::step`] fit together: a mistake of the engine, not of its user.
fn check(rule: &impl Optimizer, state: &[f32], weight: &[f32], grad: &[f32], step: u64) {
    assert_eq!(weight.len(), grad.len(), "weight and gradient");
    assert_eq!(state.len(), rule.state_len(weight.len()), "optimiser state");
    assert!(step > 0, "steps count from 1");
}

/// Coefficients of an exponential moving average, `average ← keep · average + take · value`.
#[derive(Clone, Copy)]
struct Average {
    keep: f32,
    take: f32,
}

impl Average {
    fn new(beta: f64) -> Average {
        Average { keep: beta as f32, take: (1.0 - beta) as f32 }
    }

    fn update(self, average: &mut f32, value: f32) -> f32 {
        *average = self.keep * *average + self.take * value;
        *average
    }
}
