//! The official evaluation: scores over random points of the network's grid instead of all voxels.
//!
//! BraTS: 2¹⁷ uniform points a case that never reach the last index of an axis; LiTS: 2¹⁴, 40 % of them near the border.
//! Published figures are of this kind. The official points are unseeded; ours follow from seed and case.

use super::metrics::{Confusion, ScoreRule};
use super::{CaseScore, ClassScore};
use crate::data::Sampling;
use crate::data::point_sampling::{Reach, ravel};
use crate::error::{Error, Result};
use crate::infer::{Occupancy, segment_resampled};
use crate::memory::Role;
use crate::models::{Family, Network};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::task::{PreparedCase, Task};
use crate::tensor::Tensor;

/// The points of the official evaluation for a data set.
pub fn official(family: Family) -> Sampling {
    match family {
        Family::Brats => {
            Sampling { points: 1 << 17, border_share: 0.0, reach: Reach::Reference, ..Sampling::default() }
        }
        Family::Lits => Sampling { points: 1 << 14, border_share: 0.4, reach: Reach::Reference, ..Sampling::default() },
    }
}

/// Dice and IoU of a network over points of one case: the class by the usual rule (above one half, or most probable).
///
/// # Errors
/// A case without labels or one that does not fit the network; answers that are not finite; no memory.
pub fn score(
    network: &dyn Network,
    parameters: &Parameters,
    task: &Task,
    case: &PreparedCase,
    sampling: &Sampling,
    rule: ScoreRule,
    seed: u64,
) -> Result<CaseScore> {
    let (Some(labels), Some(border)) = (&case.labels, &case.border) else {
        return Err(Error::Model(format!("case {} has no labels to compare with", case.name)));
    };
    let shape = case.volume.shape;
    let points = sampling.draw(shape, Some(border), Some(labels), &mut Rng::named(seed, &case.name));
    let truth = labels.at(&points);
    let predicted = match network.occupancy() {
        Some(network) => {
            let device = parameters.device();
            let full = [1, shape[0], shape[1], shape[2], case.volume.channels];
            let volume = Tensor::from_slice(device, &full, Role::Data, &case.volume.voxels)?;
            let occupancy = Occupancy::new(network, parameters, volume, 0)?;
            let mut predicted = Vec::with_capacity(points.len());
            for chunk in points.chunks(occupancy.most_points().max(1)) {
                let indices: Vec<f32> = chunk.iter().flatten().map(|&index| index as f32).collect();
                let indices = Tensor::from_slice(device, &[chunk.len(), 3], Role::Data, &indices)?;
                let logits = occupancy.logits(&crate::infer::QueryGrid::voxels(shape), indices)?;
                let found = occupancy.probabilities(&logits).map_err(|error| error.of_case(&case.name))?;
                predicted.extend(task.classify(&found));
            }
            predicted
        }
        // In the windows that `infer` goes through it in: instance norms answer otherwise for a whole volume.
        None => {
            let found = segment_resampled(network, parameters, task, case, &mut || Ok(()))?.pad(&case.way.padding);
            let values = &task.preprocessing.classes;
            let class = |value: u8| values.iter().position(|&known| known == value).unwrap_or(0) as u8;
            points.iter().map(|&point| class(found.voxels[ravel(point, shape)])).collect()
        }
    };
    let classes: Vec<ClassScore> = (1..task.class_names.len())
        .map(|class| {
            let confusion = Confusion::of_class(&predicted, &truth, class as u8);
            let name = task.class_names[class].clone();
            ClassScore { name, dice: confusion.dice(&rule), iou: confusion.iou(&rule), absent: false }
        })
        .collect();
    let mean = |of: fn(&ClassScore) -> f64| classes.iter().map(of).sum::<f64>() / classes.len() as f64;
    let (dice, iou) = (mean(|class| class.dice), mean(|class| class.iou));
    Ok(CaseScore { name: case.name.clone(), dice, iou, classes: if classes.len() > 1 { classes } else { Vec::new() } })
}
