//! Scores in the course of a run.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::evaluate::metrics::ScoreRule;
use crate::infer::SegmenterOptions;
use crate::report::CaseScore;
use crate::task::{PreparedCase, Task};
use crate::train::case_source::CaseSource;
use crate::train::trainer::Trainer;
use crate::{evaluate, infer, interrupt};

/// What one validation found: means over the validation cases, all voxels of each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Epochs done.
    pub epoch: u64,
    /// Steps done.
    pub step: u64,
    /// Mean Dice.
    pub dice: f64,
    /// Mean intersection over union.
    pub iou: f64,
}

/// The best by IoU so far; the first of equals.
pub fn best(validations: &[Validation]) -> Option<&Validation> {
    validations.iter().reduce(|best, next| if next.iou > best.iou { next } else { best })
}

/// Segments and scores `cases` with the weights that count (see [`Trainer::with_best_weights`]).
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted), a case that does not fit, or no memory.
pub fn validate(trainer: &mut Trainer, task: &Task, cases: &dyn CaseSource, epoch: u64) -> Result<Validation> {
    let step = trainer.optimizer().steps();
    let scores: Vec<CaseScore> = trainer.with_best_weights(|trainer| {
        let (network, parameters) = (trainer.network(), trainer.parameters());
        let rule = if network.architecture().is_reference() { ScoreRule::REFERENCE } else { ScoreRule::DEFAULT };
        let score = |case: &PreparedCase| {
            let mut tick = || interrupt::check(|| format!("{step} steps are done"));
            tick()?;
            let options = SegmenterOptions::of(network.architecture());
            let predicted = infer::segment(network, parameters, task, case, options, &mut tick)?;
            evaluate::score(task, case, &predicted, rule)
        };
        (0..cases.len()).map(|index| score(&*cases.case(index)?)).collect::<Result<_>>()
    })?;
    // The peaks that a run reports are those of training.
    trainer.parameters().device().ledger(|ledger| ledger.reset_peak());
    let (dice, iou) = evaluate::means(&scores);
    Ok(Validation { epoch, step, dice, iou })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_is_kept() {
        let validation = |epoch, iou| Validation { epoch, step: epoch, dice: 0.0, iou };
        let history = [validation(1, 0.5), validation(2, 0.7), validation(3, 0.7), validation(4, f64::NAN)];
        assert_eq!(best(&history).unwrap().epoch, 2);
        assert!(best(&[]).is_none());
    }
}
