//! Dense scores of segmentations against labels, over all voxels of each scan's own grid.

pub mod case_score;
pub mod edt;
pub mod metrics;
pub mod sampled;
pub mod scores;
pub mod statistics;
pub mod surface;
mod surfels;
pub mod wilcoxon;

use std::borrow::Cow;

use crate::data::Labels;
use crate::error::{Error, Result};
use crate::task::{PreparedCase, Task};
pub use case_score::{CaseScore, ClassScore};
use metrics::{Confusion, ScoreRule};
use scores::{CaseScores, Measure};

/// Dice and IoU of a prediction, by class if there are several; the case's own are the means over the classes that its
/// labels hold (over all but background if they hold none).
///
/// # Errors
/// A case without labels.
pub fn score(task: &Task, case: &PreparedCase, predicted: &Labels, rule: ScoreRule) -> Result<CaseScore> {
    let (truth, predicted) = known(task, case, predicted)?;
    let values = task.preprocessing.classes.iter().enumerate().skip(1);
    let met = values.map(|(class, &value)| {
        let name = task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
        (name, Confusion::of_class(&predicted, &truth, value))
    });
    Ok(case_score(&case.name, met.collect(), rule))
}

/// The scores of a case from how its classes were met, background left out: its own are the means over the classes that its
/// labels hold (over all if they hold none).
pub fn case_score(case: &str, met: Vec<(String, Confusion)>, rule: ScoreRule) -> CaseScore {
    let held = |met: &Confusion| met.true_positive + met.false_negative > 0;
    let none_held = !met.iter().any(|(_, met)| held(met));
    let counted: Vec<bool> = met.iter().map(|(_, met)| none_held || held(met)).collect();
    let classes: Vec<ClassScore> = met
        .into_iter()
        .map(|(name, met)| ClassScore { name, dice: met.dice(&rule), iou: met.iou(&rule), absent: !held(&met) })
        .collect();
    let mean = |of: fn(&ClassScore) -> f64| {
        let counted = classes.iter().zip(&counted).filter(|(_, counted)| **counted);
        metrics::mean(&counted.map(|(class, _)| of(class)).collect::<Vec<_>>())
    };
    CaseScore {
        name: case.into(),
        dice: mean(|class| class.dice),
        iou: mean(|class| class.iou),
        classes: if classes.len() > 1 { classes } else { Vec::new() },
    }
}

/// Mean Dice and IoU of some cases; NaN without any.
pub fn means(cases: &[CaseScore]) -> (f64, f64) {
    let mean = |of: fn(&CaseScore) -> f64| metrics::mean(&cases.iter().map(of).collect::<Vec<_>>());
    (mean(|case| case.dice), mean(|case| case.iou))
}

/// The labels of a case as read.
///
/// # Errors
/// A case without labels.
pub fn truth_of(case: &PreparedCase) -> Result<&Labels> {
    case.truth.as_ref().ok_or_else(|| Error::Model(format!("case {} has no labels to compare with", case.name)))
}

/// Label values of a case, changed or as read.
type Values<'a> = Cow<'a, [u8]>;

/// The values of labels and prediction that are compared: both are background where nobody has looked.
///
/// # Errors
/// A case without labels.
pub fn known<'a>(task: &Task, case: &'a PreparedCase, predicted: &'a Labels) -> Result<(Values<'a>, Values<'a>)> {
    let truth = truth_of(case)?;
    let Some(ignore) = case.ignore.filter(|ignore| truth.voxels.contains(ignore)) else {
        return Ok((Cow::Borrowed(&truth.voxels), Cow::Borrowed(&predicted.voxels)));
    };
    let background = task.preprocessing.classes.first().copied().unwrap_or(0);
    let masked = |values: &[u8]| {
        let voxels = values.iter().zip(&truth.voxels);
        voxels.map(|(&value, &truth)| if truth == ignore { background } else { value }).collect::<Vec<u8>>()
    };
    Ok((Cow::Owned(masked(&truth.voxels)), Cow::Owned(masked(&predicted.voxels))))
}

/// Every score of a prediction on the scan's own grid, class by class.
///
/// # Errors
/// A case without labels.
pub fn measure(
    task: &Task,
    case: &PreparedCase,
    predicted: &Labels,
    tolerance: f64,
    rule: ScoreRule,
) -> Result<CaseScores> {
    let (voxels, predicted) = known(task, case, predicted)?;
    let truth = truth_of(case)?;
    let measure = Measure { shape: truth.shape, spacing: truth.geometry.spacing(), tolerance, rule };
    let classes = task.preprocessing.classes.iter().enumerate().skip(1).map(|(class, &value)| {
        let name = task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
        measure.class(&name, value, &predicted, &voxels)
    });
    Ok(CaseScores { name: case.name.clone(), classes: classes.collect() })
}
