//! Batches, and the losses that networks make of their logits.

use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::{self, BinaryLoss, CrossEntropy, Prediction, SoftDice};
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Tensor};

/// What a step learns from; tensors of role data.
pub struct Batch {
    /// Normalised volumes at full resolution `[batch, D, H, W, channels]`.
    pub volumes: Tensor,
    /// What the network answers.
    pub targets: Targets,
    /// If labels may be [`IGNORED`]: the share of those at every voxel that are not.
    pub known: Option<f32>,
}

/// The label of a voxel that nobody has looked at. It adds nothing to losses and their gradients.
pub const IGNORED: f32 = -1.0;

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
    /// Which cross entropy.
    #[serde(default, skip_serializing_if = "EntropyTerms::is_plain")]
    pub entropy: EntropyTerms,
}

/// Variants of the cross entropy, section `[loss]` of configuration files; the default is the plain one.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntropyTerms {
    /// Exponent of the focal factor `(1 − p)^γ`; 0: none.
    pub focal: f32,
    /// One output: how far labels move from 0 and 1.
    pub label_smoothing: f32,
    /// One output: weights of what is outside and of what is inside.
    pub label_weights: [f32; 2],
    /// One output: the share of the points or voxels that counts, those with the largest loss.
    pub hardest: f64,
}

impl Default for EntropyTerms {
    fn default() -> Self {
        Self { focal: 0.0, label_smoothing: 0.0, label_weights: [1.0; 2], hardest: 1.0 }
    }
}

impl EntropyTerms {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what the loss of a network of `outputs` outputs cannot be; `ignored` if labels may be [`IGNORED`].
    ///
    /// # Errors
    /// [`Error::Usage`] that names the flags.
    pub fn check(&self, outputs: usize, ignored: bool) -> Result<()> {
        let focal_alone = *self == Self { focal: self.focal, ..Self::default() };
        if outputs > 1 && !focal_alone {
            let problem = "--label-smoothing, --label-weights and --hardest are for one output";
            return Err(Error::Usage(format!(
                "{problem}, and this network has {outputs}; omit them, or add --merge-classes"
            )));
        }
        if ignored && !self.is_plain() {
            let problem =
                "the data mark voxels that nobody has looked at, which only the plain cross entropy leaves out";
            return Err(Error::Usage(format!(
                "{problem}; omit --focal, --label-smoothing, --label-weights and --hardest"
            )));
        }
        Ok(())
    }
}

impl Default for LossSettings {
    fn default() -> Self {
        Self { segmentation_factor: 0.1, dice_factor: 0.0, reference: false, entropy: EntropyTerms::default() }
    }
}

/// Cross entropy (binary or over classes), plus soft Dice if wished. With `known`, labels may be [`IGNORED`], and the cross
/// entropy is the mean over that share of them which is not.
pub(super) fn classification(
    tape: &Tape,
    logits: &Var,
    labels: &Var,
    classes: usize,
    settings: LossSettings,
    dice: SoftDice,
    known: Option<f32>,
) -> Result<Var> {
    settings.entropy.check(classes, known.is_some())?;
    let Some(known) = known else { return plain_loss(tape, logits, labels, classes, settings, (dice, [1.0; 2])) };
    let (logits, labels) = without_ignored(tape, logits, labels, classes)?;
    // The class of what is ignored is always met.
    let counted = if dice.background { classes } else { classes.saturating_sub(1) }.max(1) as f32;
    let share = if classes == 1 { 1.0 } else { (counted + 1.0) / counted };
    let entropy = if known > 0.0 { 1.0 / known } else { 0.0 };
    plain_loss(tape, &logits, &labels, classes, settings, (dice, [entropy, share]))
}

/// Logits and labels of which the ignored ones have neither loss nor gradient, whatever the network says there: with one
/// channel it says "outside" and is right; with more there is another one, which says "ignored" and is right.
fn without_ignored(tape: &Tape, logits: &Var, labels: &Var, classes: usize) -> Result<(Var, Var)> {
    /// Beyond it sigmoid and softmax are exactly 0 and 1.
    const SURE: f32 = 1e30;
    let device = tape.device();
    let all = |value: f32| -> Result<Var> {
        let shape = labels.shape().to_vec();
        let values = vec![value; if device.is_plan() { 0 } else { shape.iter().product() }];
        let mut tensor = Tensor::empty(device, &shape, DType::F32, Role::Transient)?;
        if !device.is_plan() {
            tensor.write(&values)?;
        }
        Ok(tape.constant(tensor))
    };
    let positive = |labels: &Var| ops::activation(tape, labels, ops::Activation::Relu, &[]);
    let ignored = positive(&ops::scale_add(tape, &all(0.0)?, labels, -1.0)?)?;
    let known = positive(labels)?;
    if classes == 1 {
        return Ok((ops::scale_add(tape, logits, &ignored, -SURE)?, known));
    }
    let another = ops::scale_add(tape, &all(-SURE)?, &ignored, 2.0 * SURE)?;
    Ok((ops::concat(tape, &[logits, &another])?, ops::scale_add(tape, &known, &ignored, classes as f32)?))
}

/// The loss where each label counts; `factors` are those of cross entropy and Dice.
fn plain_loss(
    tape: &Tape,
    logits: &Var,
    labels: &Var,
    classes: usize,
    settings: LossSettings,
    (dice, factors): (SoftDice, [f32; 2]),
) -> Result<Var> {
    let LossSettings { reference, entropy, .. } = settings;
    let EntropyTerms { focal: gamma, label_smoothing, label_weights, hardest: keep } = entropy;
    let binary = BinaryLoss { gamma, label_weights, label_smoothing, keep, reference, ..BinaryLoss::default() };
    let entropy = match (classes, reference) {
        (1, false) => ops::binary_loss(tape, logits, labels, binary)?,
        (1, true) => {
            let probabilities = ops::sigmoid(tape, logits)?;
            let options = BinaryLoss { prediction: Prediction::Probabilities, ..binary };
            ops::binary_loss(tape, &probabilities, labels, options)?
        }
        _ => ops::cross_entropy(tape, logits, labels, CrossEntropy { gamma, ..CrossEntropy::default() })?,
    };
    let entropy = match factors[0] {
        1.0 => entropy,
        factor => {
            let nothing = tape.constant(Tensor::zeros(tape.device(), &[1], Role::Transient)?);
            ops::scale_add(tape, &nothing, &entropy, factor)?
        }
    };
    if settings.dice_factor == 0.0 {
        return Ok(entropy);
    }
    let probabilities = ops::probabilities(tape, logits)?;
    let dice = ops::dice_loss(tape, &probabilities, labels, dice)?;
    ops::scale_add(tape, &entropy, &dice, settings.dice_factor * factors[1])
}

/// The low-resolution segmentation against the labels, max-pooled to its grid, by the plain cross entropy: of a cell with a
/// known voxel the known ones count. With `known`, cells without one add nothing to the mean over all cells.
pub(super) fn auxiliary(
    tape: &Tape,
    logits: &Var,
    labels: Var,
    classes: usize,
    settings: LossSettings,
    known: Option<f32>,
) -> Result<Var> {
    let grid = [logits.shape()[1], logits.shape()[2], logits.shape()[3]];
    let target = ops::adaptive_max_pool(tape, &labels, grid)?;
    drop(labels);
    let plain = LossSettings { dice_factor: 0.0, entropy: EntropyTerms::default(), ..settings };
    classification(tape, logits, &target, classes, plain, SoftDice::default(), known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::nn::Parameters;
    use crate::ops::testing::{Array, assert_clean, every_device};
    use crate::tape::Mode;

    /// Loss of logits `[1, rows, classes]` and its gradient.
    fn run(
        device: &Device,
        logits: &[f32],
        labels: &[f32],
        (classes, dice): (usize, SoftDice),
        known: Option<f32>,
    ) -> (f32, Vec<f32>) {
        let rows = labels.len();
        let tensor =
            |last: usize, values: &[f32]| Tensor::from_slice(device, &[1, rows, last], Role::Data, values).unwrap();
        let tape = Tape::new(device, Mode::Train);
        let (x, y) = (tape.input(tensor(classes, logits)), tape.constant(tensor(1, labels)));
        let settings = LossSettings { dice_factor: 0.7, ..LossSettings::default() };
        let loss = classification(&tape, &x, &y, classes, settings, dice, known).unwrap();
        let value = loss.tensor().to_vec().unwrap()[0];
        tape.backward(loss, &mut Parameters::new(device)).unwrap();
        (value, tape.gradient(&x).unwrap().to_vec().unwrap())
    }

    /// Loss of each variant by its formula in f64, on every device.
    #[test]
    fn each_variant_of_cross_entropy_is_its_formula() {
        let logits: Vec<f32> = Array::random(&[300], 7).data.iter().map(|&x| (3.0 * x) as f32).collect();
        let labels: Vec<f32> = (0..300).map(|i| (i % 3 == 0) as u8 as f32).collect();
        let plain = EntropyTerms::default();
        let variants = [
            plain,
            EntropyTerms { focal: 2.0, ..plain },
            EntropyTerms { label_smoothing: 0.2, ..plain },
            EntropyTerms { label_weights: [0.5, 3.0], ..plain },
            EntropyTerms { hardest: 0.25, ..plain },
            EntropyTerms { focal: 1.5, label_smoothing: 0.1, label_weights: [2.0, 1.0], hardest: 0.5 },
        ];
        for terms in variants {
            let EntropyTerms { focal, label_smoothing, label_weights: [outside, inside], hardest } = terms;
            let mut losses: Vec<f64> = logits
                .iter()
                .zip(&labels)
                .map(|(&x, &y)| {
                    let (p, smoothing) = (1.0 / (1.0 + (-f64::from(x)).exp()), f64::from(label_smoothing));
                    let y = (1.0 - smoothing) * f64::from(y) + smoothing / 2.0;
                    let missed = y * (1.0 - p) + (1.0 - y) * p;
                    let entropy = f64::from(inside) * y * p.ln() + f64::from(outside) * (1.0 - y) * (1.0 - p).ln();
                    -missed.powf(focal.into()) * entropy
                })
                .collect();
            losses.sort_by(|a, b| b.total_cmp(a));
            losses.truncate((hardest * 300.0) as usize);
            let expected = losses.iter().sum::<f64>() / losses.len() as f64;
            for device in every_device() {
                let tensor = |values: &[f32]| Tensor::from_slice(&device, &[300, 1], Role::Data, values).unwrap();
                let tape = Tape::new(&device, Mode::Train);
                let (x, y) = (tape.input(tensor(&logits)), tape.constant(tensor(&labels)));
                let settings = LossSettings { entropy: terms, ..LossSettings::default() };
                let loss = classification(&tape, &x, &y, 1, settings, SoftDice::default(), None).unwrap();
                let value = f64::from(loss.tensor().to_vec().unwrap()[0]);
                assert_clean();
                // A few f32 roundings an element and of their mean.
                assert!((value / expected - 1.0).abs() < 1e-5, "{terms:?}: {value}, expected {expected}");
            }
        }
    }

    #[test]
    fn variants_that_the_loss_cannot_have_are_refused() {
        let smoothed = EntropyTerms { label_smoothing: 0.1, ..EntropyTerms::default() };
        let focal = EntropyTerms { focal: 2.0, ..EntropyTerms::default() };
        assert!(smoothed.check(3, false).unwrap_err().to_string().contains("--merge-classes"));
        assert!(focal.check(1, true).unwrap_err().to_string().contains("nobody has looked at"));
        for (terms, outputs, ignored) in [(smoothed, 1, false), (focal, 3, false), (EntropyTerms::default(), 3, true)] {
            terms.check(outputs, ignored).unwrap();
        }
    }

    /// Loss and gradient are those of the known rows alone, and no ignored row has a gradient, whatever the network says there.
    #[test]
    fn ignored_labels_have_neither_loss_nor_gradient() {
        const ROWS: usize = 1000;
        for (classes, background) in [(1, true), (3, true), (3, false), (2, false)] {
            let what = (classes, SoftDice { background, over_batch: false });
            let logits: Vec<f32> =
                Array::random(&[ROWS * classes], 5).data.iter().map(|&x| (40.0 * x * x * x) as f32).collect();
            let labels: Vec<f32> = (0..ROWS)
                .map(|row| if row % 3 == 1 || row > 700 { IGNORED } else { (row % classes.max(2)) as f32 })
                .collect();
            let known: Vec<usize> = (0..ROWS).filter(|&row| labels[row] != IGNORED).collect();
            let part = |values: &[f32], width: usize| -> Vec<f32> {
                known.iter().flat_map(|row| values[row * width..][..width].to_vec()).collect()
            };
            let share = known.len() as f32 / ROWS as f32;
            for device in every_device() {
                let (loss, gradient) = run(&device, &logits, &labels, what, Some(share));
                let (expected, slopes) = run(&device, &part(&logits, classes), &part(&labels, 1), what, None);
                assert_clean();
                // A mean over all rows times their number over that of the known: a few roundings.
                assert!((loss / expected - 1.0).abs() < 1e-5, "{classes}: {loss}, expected {expected}");
                let largest = slopes.iter().fold(0.0f32, |most, slope| most.max(slope.abs()));
                for (ours, theirs) in part(&gradient, classes).iter().zip(&slopes) {
                    assert!((ours - theirs).abs() <= 1e-5 * largest, "{classes}: {ours}, expected {theirs}");
                }
                let ignored = (0..ROWS).filter(|&row| labels[row] == IGNORED);
                assert!(ignored.flat_map(|row| &gradient[row * classes..][..classes]).all(|&slope| slope == 0.0));
                // Nothing known: nothing to learn.
                let (loss, gradient) = run(&device, &logits, &[IGNORED; ROWS], what, Some(0.0));
                assert_clean();
                // Dice of nothing against nothing is met.
                assert!(loss.abs() < 1e-6 && gradient.iter().all(|&slope| slope == 0.0), "{classes}: {loss}");
            }
        }
    }
}
