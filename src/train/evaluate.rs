//! Dense scores of a network on labelled cases.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::dense;
use crate::models::Network;
use crate::nn::Parameters;
use crate::report::{CaseScore, ClassScore};
use crate::train::batch;
use crate::train::metrics::{self, Confusion, Rule};
use crate::train::preprocessing::{Prepared, Preprocessing};

/// A case's prediction and its scores.
pub struct Evaluated {
    /// Scores over all voxels of the scan (padding cropped away).
    pub score: CaseScore,
    /// Predicted class of each voxel of the scan.
    pub predicted: Vec<u8>,
}

/// The predicted class of each voxel of a case, padding cropped away.
///
/// # Errors
/// No memory, or a case that does not fit the network.
pub fn predict(
    device: &Device,
    network: &Network,
    parameters: &Parameters,
    preprocessing: &Preprocessing,
    case: &Prepared,
) -> Result<Vec<u8>> {
    let volume = batch::volume_tensor(device, &[&case.volume])?;
    let probabilities = dense::predict(network, parameters, &volume, 0)?;
    drop(volume);
    let classes = preprocessing.classify(&probabilities);
    Ok(case.padding.crop(&classes, case.shape, 1))
}

/// Predicts a labelled case and scores it.
///
/// # Errors
/// As [`predict`], or a case without labels.
pub fn evaluate(
    device: &Device,
    network: &Network,
    parameters: &Parameters,
    preprocessing: &Preprocessing,
    case: &Prepared,
) -> Result<Evaluated> {
    let predicted = predict(device, network, parameters, preprocessing, case)?;
    let truth = labels_of(case)?;
    Ok(Evaluated { score: score(&case.name, &predicted, &truth, preprocessing), predicted })
}

/// The labels of a case without its padding.
///
/// # Errors
/// A case without labels.
pub fn labels_of(case: &Prepared) -> Result<Vec<u8>> {
    let labels = case.labels.as_ref();
    let labels = labels.ok_or_else(|| Error::Model(format!("case {} has no labels to compare with", case.name)))?;
    Ok(case.padding.crop(&labels.voxels, case.shape, 1))
}

/// Dice and IoU, by class if there are several; the case's own are the means over the classes but background.
pub fn score(name: &str, predicted: &[u8], truth: &[u8], preprocessing: &Preprocessing) -> CaseScore {
    let rule = Rule::DEFAULT;
    let last = if preprocessing.binary { 1 } else { preprocessing.label_values.len().saturating_sub(1) };
    let classes: Vec<ClassScore> = (1..=last)
        .map(|class| {
            let confusion = Confusion::of_class(predicted, truth, class as u8);
            ClassScore {
                name: preprocessing.class_names.get(class).cloned().unwrap_or_else(|| format!("class {class}")),
                dice: confusion.dice(&rule),
                iou: confusion.iou(&rule),
            }
        })
        .collect();
    let mean = |of: fn(&ClassScore) -> f64| metrics::mean(&classes.iter().map(of).collect::<Vec<_>>());
    CaseScore {
        name: name.into(),
        dice: mean(|class| class.dice),
        iou: mean(|class| class.iou),
        classes: if classes.len() > 1 { classes } else { Vec::new() },
    }
}
