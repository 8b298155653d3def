//! What a comparison holds its networks against: methods that know nothing but the training masks or one threshold.

use crate::data::{Labels, Volume};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::evaluate::metrics::{Confusion, ScoreRule};
use crate::report::BaselineResult;
use crate::task::{PreparedCase, Task};
use crate::train::baseline::{MeanMask, Threshold};

/// Trivial methods, fitted on the training cases and scored as the models are: the mean mask of each class, and the best
/// single threshold where there is one class.
pub(super) fn baselines(
    task: &Task,
    training: &[PreparedCase],
    validation: &[PreparedCase],
) -> Result<Vec<BaselineResult>> {
    let mut rows = vec![mean_masks(task, training, validation)?];
    if task.outputs() == 1 {
        let fit = training.iter().map(unpadded).collect::<Result<Vec<_>>>()?;
        let threshold = Threshold::fit(fit.iter().map(|(volume, labels)| (volume, labels)))?;
        rows.push(baseline("best single threshold", validation, |volume, labels| {
            Ok(vec![("".into(), threshold.score(volume, labels)?)])
        })?);
    }
    Ok(rows)
}

/// The mean masks of the classes, each for itself.
fn mean_masks(task: &Task, training: &[PreparedCase], validation: &[PreparedCase]) -> Result<BaselineResult> {
    let classes: Vec<(u8, &String)> = (0u8..).zip(&task.class_names).skip(1).collect();
    let alone = |labels: &Labels, class: u8| {
        labels.mapped(&std::array::from_fn(|value| match value as u8 {
            Labels::IGNORED => Labels::IGNORED,
            value => u8::from(if classes.len() == 1 { value > 0 } else { value == class }),
        }))
    };
    let mut masks = Vec::new();
    for (class, _) in &classes {
        let of_class: Vec<Labels> =
            training.iter().filter_map(|case| Some(alone(case.labels.as_ref()?, *class))).collect();
        masks.push(MeanMask::fit(&of_class)?);
    }
    baseline("mean of the training masks", validation, |_, labels| {
        let met = masks.iter().zip(&classes);
        Ok(met.map(|(mask, (class, name))| (name.to_string(), mask.score(&alone(labels, *class)))).collect())
    })
}

/// Image and labels of a case without what was added around them.
fn unpadded(case: &PreparedCase) -> Result<(Volume, Labels)> {
    let labels = case.labels.as_ref();
    let labels = labels.ok_or_else(|| Error::Model(format!("case {} has no labels to compare with", case.name)))?;
    Ok((case.volume.crop(&case.way.padding)?, labels.crop(&case.way.padding)?))
}

/// The scores of one trivial method.
fn baseline(
    name: &str,
    validation: &[PreparedCase],
    meet: impl Fn(&Volume, &Labels) -> Result<Vec<(String, Confusion)>>,
) -> Result<BaselineResult> {
    let mut cases = Vec::new();
    for case in validation {
        let (volume, labels) = unpadded(case)?;
        cases.push(evaluate::case_score(&case.name, meet(&volume, &labels)?, ScoreRule::DEFAULT));
    }
    let (dice, iou) = evaluate::means(&cases);
    Ok(BaselineResult { name: name.into(), dice, iou, cases })
}
