//! What a trainer can tell of its run.

use std::time::Duration;

use super::Trainer;
use crate::train::costs::Costs;
use crate::train::validation::Validation;

/// How a run went so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Loss of each step.
    pub losses: Vec<f32>,
    /// What the validations found.
    pub validations: Vec<Validation>,
}

impl Trainer {
    /// Loss of each step so far.
    pub fn losses(&self) -> &[f32] {
        &self.history.losses
    }

    /// How the run went so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes note of a validation and of the time that it took.
    pub fn note_validation(&mut self, validation: Validation, spent: Duration) {
        self.history.validations.push(validation);
        self.validating += spent;
    }

    /// Time that this process spent on validations.
    pub fn validating(&self) -> Duration {
        self.validating
    }

    /// Mean loss of the last `steps` steps; NaN before the first.
    pub fn recent_loss(&self, steps: u64) -> f64 {
        let losses = self.losses();
        let recent = &losses[losses.len().saturating_sub(steps.max(1) as usize)..];
        match recent.is_empty() {
            true => f64::NAN,
            false => recent.iter().map(|&loss| f64::from(loss)).sum::<f64>() / recent.len() as f64,
        }
    }

    /// What it cost so far.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Goes on from a stored course.
    pub fn set_history(&mut self, history: History, costs: Costs) {
        (self.history, self.costs) = (history, costs);
    }

    /// How long this process's steps waited for their batches: the device, where it has its own clock, else the host.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// The share of the time of this process's steps that was such waiting; 0 before the first.
    pub fn waiting_share(&self) -> f64 {
        share(self.waited, self.spent)
    }

    /// The share of this process's run (steps, validations and `scoring` after them) in which it scored cases.
    pub fn validating_share(&self, scoring: Duration) -> f64 {
        let validating = self.validating + scoring;
        share(validating, self.spent + validating)
    }
}

/// What share of `whole` is `part`; 0 of nothing.
fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.div_duration_f64(whole).min(1.0) }
}
