//! Dense scores of a network on labelled cases, over all voxels of each scan's own grid.

use crate::data::Labels;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::dense;
use crate::models::Network;
use crate::nn::Parameters;
use crate::report::{CaseScore, ClassScore};
use crate::train::batch;
use crate::train::cases::{Case, Task};
use crate::train::metrics::{self, Confusion, Rule};

/// The labels that a network gives to a case, on the scan's own grid with the stored label values.
///
/// # Errors
/// No memory, or a case that does not fit the network.
pub fn predict(
    device: &Device,
    network: &Network,
    parameters: &Parameters,
    task: &Task,
    case: &Case,
) -> Result<Labels> {
    let volume = device.in_op("batch", || batch::volume_tensor(device, &[&case.volume]))?;
    let probabilities = dense::predict(network, parameters, &volume, 0)?;
    drop(volume);
    let classes = task.classify(&probabilities);
    let predicted = Labels { shape: case.volume.shape, voxels: classes, geometry: case.volume.geometry };
    task.preprocessing.restore_labels(&predicted, &case.way)
}

/// Dice and IoU of a prediction, by class if there are several; the case's own are the means over the classes that its
/// labels hold (over all but background if they hold none).
///
/// # Errors
/// A case without labels.
pub fn score(task: &Task, case: &Case, predicted: &Labels, rule: Rule) -> Result<CaseScore> {
    let truth = truth_of(case)?;
    let values = task.preprocessing.classes.iter().enumerate().skip(1);
    let held = |value: u8| truth.voxels.contains(&value);
    let none_held = !values.clone().any(|(_, &value)| held(value));
    let counted: Vec<bool> = values.clone().map(|(_, &value)| none_held || held(value)).collect();
    let classes: Vec<ClassScore> = values
        .map(|(class, &value)| {
            let confusion = Confusion::of_class(&predicted.voxels, &truth.voxels, value);
            ClassScore {
                name: task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}")),
                dice: confusion.dice(&rule),
                iou: confusion.iou(&rule),
            }
        })
        .collect();
    let mean = |of: fn(&ClassScore) -> f64| {
        let counted = classes.iter().zip(&counted).filter(|(_, counted)| **counted);
        metrics::mean(&counted.map(|(class, _)| of(class)).collect::<Vec<_>>())
    };
    Ok(CaseScore {
        name: case.name.clone(),
        dice: mean(|class| class.dice),
        iou: mean(|class| class.iou),
        classes: if classes.len() > 1 { classes } else { Vec::new() },
    })
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
pub fn truth_of(case: &Case) -> Result<&Labels> {
    case.truth.as_ref().ok_or_else(|| Error::Model(format!("case {} has no labels to compare with", case.name)))
}
