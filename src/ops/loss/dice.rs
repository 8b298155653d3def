//! Soft Dice loss: `1 − mean over items and channels of (2·Σ p·y + s)/(Σ p + Σ y + s)`.
//!
//! An item is a batch item, or the whole batch; channels are all classes, or all but background ([`SoftDice`]).
//!
//! * Probabilities `[batch, …, C]`, labels `[batch, …, 1]` → `[1]`. With one channel `y` is the label, with more it is 1
//!   where the label is the channel's index. `s = 1e-5` makes an absent and unpredicted class perfect.
//! * Gradient: `dp = −(2·y·(Σp + Σy + s) − (2·Σpy + s))/(Σp + Σy + s)²/(items·channels)`; 0 in background that does not count.
//! * Work: 3 FLOPs an element forward, 6 backward; bytes `4·(|p| + |y|)` and `4·(3|p| + 2|y|)`.

use super::{check_classes, check_labels, cuda};
use crate::device::cpu::Pool;
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::par_loops::{by_rows, put};
use crate::ops::{Cost, Needs, Op, PIECE};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// What the mean of a soft Dice loss is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftDice {
    /// Class 0 counts as the others do; of one channel it is no class.
    pub background: bool,
    /// Sums run over the whole batch. Slices of a volume are mostly empty one by one: what counts is the volume.
    pub over_batch: bool,
}

impl Default for SoftDice {
    /// Every class, item by item.
    fn default() -> Self {
        Self { background: true, over_batch: false }
    }
}

impl SoftDice {
    /// Items of probabilities of shape `[batch, …, C]`.
    pub(super) fn items(self, shape: &[usize]) -> usize {
        if self.over_batch { 1 } else { shape[0] }
    }

    /// The first channel that counts.
    pub(super) fn first(self, classes: usize) -> usize {
        usize::from(!self.background && classes > 1)
    }
}

/// Added to numerator and denominator.
const SMOOTH: f64 = 1e-5;

/// Soft Dice loss of `probability` `[batch, …, C]` against the constant `label` `[batch, …, 1]`.
///
/// # Errors
/// Shapes that do not fit, or labels that are no classes; or no memory.
pub fn dice_loss(tape: &Tape, probability: &Var, label: &Var, options: SoftDice) -> Result<Var> {
    tape.apply(options, &[probability, label])
}

/// The target of channel `c` where the label is `label`.
fn target(label: f32, c: usize, classes: usize) -> f32 {
    match classes {
        1 => label,
        _ => f32::from(u8::from(label == c as f32)),
    }
}

/// `Σ p·y` and `Σ p + Σ y` for each item and channel.
fn overlaps(pool: &Pool, batch: usize, classes: usize, p: &[f32], label: &[f32]) -> Vec<[f64; 2]> {
    let rows = label.len() / batch;
    let step = (PIECE / classes).max(1);
    let pieces = rows.div_ceil(step);
    let partial = pool.map(batch * pieces, |piece| {
        let first = piece / pieces * rows + piece % pieces * step;
        let end = (first + step).min((piece / pieces + 1) * rows);
        let mut sums = vec![[0.0; 2]; classes];
        for row in first..end {
            for (c, (sum, &p)) in sums.iter_mut().zip(&p[row * classes..]).enumerate() {
                let y = target(label[row], c, classes);
                sum[0] += f64::from(p * y);
                sum[1] += f64::from(p) + f64::from(y);
            }
        }
        sums
    });
    let mut sums = vec![[0.0; 2]; batch * classes];
    for (piece, partial) in partial.iter().enumerate() {
        for (sum, part) in sums[piece / pieces * classes..].iter_mut().zip(partial) {
            (sum[0], sum[1]) = (sum[0] + part[0], sum[1] + part[1]);
        }
    }
    sums
}

impl Op for SoftDice {
    fn name(&self) -> &'static str {
        "dice_loss"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        check_labels("dice_loss", inputs[0], inputs[1])?;
        match inputs[0].len() {
            0..3 => Err(Error::shape("dice_loss", format!("expected [batch, …, classes], got {:?}", inputs[0]))),
            _ => Ok(vec![1]),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        if let Target::Cuda(_) = device.target() {
            return cuda::dice(device, *self, [inputs[0], inputs[1]], output);
        }
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (items, classes) = (self.items(inputs[0].shape()), inputs[0].channels());
                let (first, label) = (self.first(classes), inputs[1].data());
                if classes > 1 {
                    check_classes("dice_loss", label, classes)?;
                }
                let sums = overlaps(pool, items, classes, inputs[0].data(), label);
                let counted = sums.chunks_exact(classes).flat_map(|item| &item[first..]);
                let dice: f64 = counted.map(|[both, either]| (2.0 * both + SMOOTH) / (either + SMOOTH)).sum();
                output.data_mut()[0] = (1.0 - dice / (items * (classes - first)) as f64) as f32;
            }
            Backend::Cuda(_) | Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (p, label, dy) = (backward.value(0)?, backward.value(1)?, backward.gradient().clone());
        let options = *self;
        backward.write_gradient(0, |device, dp, accumulate| {
            if let Target::Cuda(_) = device.target() {
                return cuda::dice_backward(device, options, [&p, &label, &dy], dp, accumulate);
            }
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (items, classes, label) = (options.items(p.shape()), p.channels(), label.data());
                    let (rows, first) = (label.len() / items, options.first(classes));
                    let scale = -f64::from(dy.data()[0]) / (items * (classes - first)) as f64;
                    // Slopes for target 1 and what label 0 shares with it: dp = slope₁·y + slope₀.
                    let sums = overlaps(pool, items, classes, p.data(), label);
                    let slopes = sums.iter().enumerate().map(|(group, [both, either])| {
                        if group % classes < first {
                            return [0.0; 2];
                        }
                        let below = either + SMOOTH;
                        [scale * 2.0 / below, -scale * (2.0 * both + SMOOTH) / (below * below)]
                            .map(|slope| slope as f32)
                    });
                    let slopes: Vec<[f32; 2]> = slopes.collect();
                    by_rows(pool, dp.data_mut(), classes, |first, piece| {
                        for (i, dp) in piece.chunks_exact_mut(classes).enumerate() {
                            let row = first + i;
                            let slopes = &slopes[row / rows * classes..][..classes];
                            for (c, (dp, slope)) in dp.iter_mut().zip(slopes).enumerate() {
                                put(dp, slope[0] * target(label[row], c, classes) + slope[1], accumulate);
                            }
                        }
                    });
                }
                Backend::Cuda(_) | Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [p, y] = [inputs[0], inputs[1]].map(|shape| shape.iter().product::<usize>() as u64);
        Cost { flops: 3 * p, bytes: 4 * (p + y) }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [p, y] = [inputs[0], inputs[1]].map(|shape| shape.iter().product::<usize>() as u64);
        Cost { flops: 6 * p, bytes: 4 * (3 * p + 2 * y) }
    }
}
