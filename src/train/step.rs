//! One training step's forward pass: from a batch to the loss, for every network.

use crate::error::Result;
use crate::models::Network;
use crate::nn::Parameters;
use crate::ops::patch_conv::PatchSource;
use crate::ops::{self, BinaryLoss, CrossEntropy, Prediction, SoftDice};
use crate::tape::{Tape, Var};
use crate::tensor::Tensor;

/// What a step learns from; tensors of role data.
pub struct Batch {
    /// Normalised volumes at full resolution `[batch, D, H, W, channels]`.
    pub volumes: Tensor,
    /// What the network answers.
    pub targets: Targets,
}

/// Questions and answers.
pub enum Targets {
    /// At points: voxel indices `[batch·points, 3]`, class values `[batch·points, 1]`; and the label volumes
    /// `[batch, D, H, W, 1]` for the auxiliary output, if there is one.
    Points {
        /// Where.
        coordinates: Tensor,
        /// The class there.
        labels: Tensor,
        /// The whole label volumes.
        label_volumes: Option<Tensor>,
    },
    /// At every voxel: class values `[batch, D, H, W, 1]`.
    Dense(Tensor),
}

/// How the loss is made.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossSettings {
    /// Weight of the auxiliary segmentation's loss.
    pub segmentation_factor: f32,
    /// Weight of the soft Dice loss beside the cross entropy (0: none).
    pub dice_factor: f32,
    /// The official loss: cross entropy on clamped probabilities.
    pub reference: bool,
}

impl Default for LossSettings {
    fn default() -> Self {
        Self { segmentation_factor: 0.1, dice_factor: 0.0, reference: false }
    }
}

/// The step's loss, one element.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn loss(
    tape: &Tape,
    parameters: &Parameters,
    network: &Network,
    batch: &Batch,
    settings: LossSettings,
) -> Result<Var> {
    let volumes = tape.constant(batch.volumes.clone());
    match (network, &batch.targets) {
        (Network::OssNet(network), Targets::Points { coordinates, labels, label_volumes }) => {
            let config = network.config();
            // One pass over the volumes away from them: not worth its bytes while the decoder works.
            let half = tape.recomputed(|| ops::avg_pool(tape, &volumes, [2; 3], [2; 3]))?;
            let encoding = network.encode(tape, parameters, &half)?;
            drop(half);
            let auxiliary = match (&encoding.auxiliary, label_volumes) {
                (Some(logits), Some(labels)) if settings.segmentation_factor != 0.0 => {
                    Some(auxiliary_loss(tape, logits, tape.constant(labels.clone()), config.classes, settings)?)
                }
                _ => None,
            };
            let coordinates = tape.constant(coordinates.clone());
            let source = config.patches.then_some(PatchSource::Volume {
                volume: &volumes,
                coordinates: &coordinates,
                options: config.patch_options(true),
            });
            let logits = network.decode(tape, parameters, &encoding, &coordinates, source)?;
            drop(encoding);
            let labels = tape.constant(labels.clone());
            let loss = classification_loss(tape, &logits, &labels, config.classes, settings, SoftDice::default())?;
            match auxiliary {
                Some(auxiliary) => ops::scale_add(tape, &loss, &auxiliary, settings.segmentation_factor),
                None => Ok(loss),
            }
        }
        (Network::UNet(network), Targets::Dense(labels)) => {
            let logits = network.forward(tape, parameters, &volumes)?;
            drop(volumes);
            let labels = tape.constant(labels.clone());
            let config = network.config();
            let dice = SoftDice { background: false, over_batch: config.dimensions == 2 };
            classification_loss(tape, &logits, &labels, config.classes, settings, dice)
        }
        (Network::OssNet(_), Targets::Dense(_)) => {
            Err(crate::Error::Model("an occupancy network learns from points, not from dense labels".into()))
        }
        (Network::UNet(_), Targets::Points { .. }) => {
            Err(crate::Error::Model("a U-Net learns from dense labels, not from points".into()))
        }
    }
}

/// Cross entropy (binary or over classes), plus soft Dice if wished.
fn classification_loss(
    tape: &Tape,
    logits: &Var,
    labels: &Var,
    classes: usize,
    settings: LossSettings,
    dice: SoftDice,
) -> Result<Var> {
    let entropy = match (classes, settings.reference) {
        (1, false) => ops::binary_loss(tape, logits, labels, BinaryLoss::default())?,
        (1, true) => {
            let probabilities = ops::sigmoid(tape, logits)?;
            let options =
                BinaryLoss { prediction: Prediction::Probabilities, reference: true, ..BinaryLoss::default() };
            ops::binary_loss(tape, &probabilities, labels, options)?
        }
        _ => ops::cross_entropy(tape, logits, labels, CrossEntropy::default())?,
    };
    if settings.dice_factor == 0.0 {
        return Ok(entropy);
    }
    let probabilities = if classes == 1 { ops::sigmoid(tape, logits)? } else { ops::softmax(tape, logits)? };
    let dice = ops::dice_loss(tape, &probabilities, labels, dice)?;
    ops::scale_add(tape, &entropy, &dice, settings.dice_factor)
}

/// The low-resolution segmentation against the labels, max-pooled to its grid.
fn auxiliary_loss(tape: &Tape, logits: &Var, labels: Var, classes: usize, settings: LossSettings) -> Result<Var> {
    let grid = [logits.shape()[1], logits.shape()[2], logits.shape()[3]];
    let target = ops::adaptive_max_pool(tape, &labels, grid)?;
    drop(labels);
    let settings = LossSettings { dice_factor: 0.0, ..settings };
    classification_loss(tape, logits, &target, classes, settings, SoftDice::default())
}
