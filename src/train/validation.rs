//! Scores in the course of a run.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::evaluate::case_score::finite_or_null;
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
    /// Mean Dice of each class over the cases whose labels hold it; empty where there is one beside the background.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassDice>,
}

/// What a validation found of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassDice {
    /// The class.
    pub name: String,
    /// Mean Dice; not finite (`null` in JSON) if no case holds it.
    #[serde(with = "finite_or_null")]
    pub dice: f64,
}

/// Class by class.
fn by_class(scores: &[CaseScore]) -> Vec<ClassDice> {
    let names = scores.first().map_or(&[][..], |score| &score.classes).iter().map(|class| &class.name);
    let dice = |name: &String| {
        let of_class = scores.iter().flat_map(|score| &score.classes).filter(|class| class.name == *name);
        let held: Vec<f64> = of_class.filter(|class| !class.absent).map(|class| class.dice).collect();
        ClassDice { name: name.clone(), dice: held.iter().sum::<f64>() / held.len() as f64 }
    };
    names.map(dice).collect()
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
    Ok(Validation { epoch, step, dice, iou, classes: by_class(&scores) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ClassScore;

    #[test]
    fn the_first_of_the_best_is_kept() {
        let validation = |epoch, iou| Validation { epoch, step: epoch, dice: 0.0, iou, classes: Vec::new() };
        let history = [validation(1, 0.5), validation(2, 0.7), validation(3, 0.7), validation(4, f64::NAN)];
        assert_eq!(best(&history).unwrap().epoch, 2);
        assert!(best(&[]).is_none());
    }

    #[test]
    fn a_class_counts_where_it_is() {
        let class = |name: &str, dice, absent| ClassScore { name: name.into(), dice, iou: 0.0, absent };
        let case = |heart, aorta: (f64, bool)| CaseScore {
            classes: vec![class("heart", heart, false), class("aorta", aorta.0, aorta.1)],
            ..CaseScore::default()
        };
        let found = by_class(&[case(0.5, (0.25, false)), case(0.7, (1.0, true))]);
        assert_eq!(found[1], ClassDice { name: "aorta".into(), dice: 0.25 });
        assert!((found[0].dice - 0.6).abs() < 1e-12);
        // What no case holds has no Dice, and comes back from a checkpoint as that.
        let json = serde_json::to_string(&by_class(&[case(0.5, (1.0, true))])).unwrap();
        let back: Vec<ClassDice> = serde_json::from_str(&json).unwrap();
        assert!(json.contains("null") && back[1].dice.is_nan(), "{json}");
        assert!(by_class(&[CaseScore::default()]).is_empty());
    }
}
