//! Binary cross entropy and focal loss: `mean over elements of m^γ·ℓ`.
//!
//! * `ℓ = −(w₁·y·ln p + w₀·(1 − y)·ln(1 − p))` with a weight for each label,
//! * `m = y·(1 − p) + (1 − y)·p` is the probability that was missed; `γ = 0` leaves cross entropy.
//! * Label smoothing `ε`: `y ← (1 − ε)·y + ε/2`.
//! * Bootstrapping: the mean runs over the worst `⌊keep·len⌋` elements of the whole batch only; of equal losses the first
//!   are taken. The others get no gradient.
//! * The `reference` rules: `w₀` and `w₁` trade places, and `y ← (1 − ε)·y + ε` smooths label 0 only.
//!   In focal loss the logarithm takes the clamped and `m` the plain probability, in both.
//! * Predictions `[…]` and labels of the same shape → `[1]`. Work: about 12 FLOPs an element (exponential and logarithm
//!   count one each) and bytes `8·len` forward, `12·len` backward; bootstrapping adds a workspace of `4·len` bytes.

use super::top_k::{TopK, kept};
use super::{CLAMP, Prediction, clamped_ln, cuda, focal};
use crate::device::cpu::Pool;
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::par_loops::{by_elements, put, sum_rows};
use crate::ops::sigmoid::logistic;
use crate::ops::{Cost, Needs, Op, PIECE, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// Which loss of two classes. The default is plain cross entropy of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinaryLoss {
    /// What the predictions are.
    pub prediction: Prediction,
    /// Exponent of the focal factor; 0: cross entropy.
    pub gamma: f32,
    /// Weights of the elements with label 0 and 1 (in the `reference`, 1 and 0).
    pub label_weights: [f32; 2],
    /// How far labels move from 0 and 1, in `[0, 1)`.
    pub label_smoothing: f32,
    /// Share of the elements that counts, in `(0, 1]`: those with the largest loss.
    pub keep: f64,
    /// Weights and smoothing as in the official code.
    pub reference: bool,
}

impl Default for BinaryLoss {
    fn default() -> Self {
        Self {
            prediction: Prediction::Logits,
            gamma: 0.0,
            label_weights: [1.0; 2],
            label_smoothing: 0.0,
            keep: 1.0,
            reference: false,
        }
    }
}

/// Mean loss of `prediction` against the constant `label` of the same shape; see the module's page.
///
/// # Errors
/// Shapes that differ, no elements, or options outside their ranges; or no memory.
pub fn binary_loss(tape: &Tape, prediction: &Var, label: &Var, options: BinaryLoss) -> Result<Var> {
    let BinaryLoss { gamma, label_weights, label_smoothing, keep, .. } = options;
    let in_range = gamma >= 0.0
        && label_weights.iter().all(|&weight| weight >= 0.0)
        && (0.0..1.0).contains(&label_smoothing)
        && keep > 0.0
        && keep <= 1.0;
    if !in_range {
        return Err(Error::Usage(format!(
            "binary_loss: gamma {gamma}, label weights {label_weights:?}, label smoothing {label_smoothing}, share {keep}; \
             choose gamma and weights from 0, smoothing in [0, 1), share in (0, 1]"
        )));
    }
    tape.apply(options, &[prediction, label])
}

impl BinaryLoss {
    /// Weights of the labels 0 and 1, and what smoothing adds to a label, rules resolved.
    fn resolved(&self) -> ([f32; 2], f32) {
        let [w0, w1] = self.label_weights;
        match self.reference {
            true => ([w1, w0], self.label_smoothing),
            false => ([w0, w1], 0.5 * self.label_smoothing),
        }
    }

    /// Loss and slope of one element.
    fn element(&self) -> impl Fn(f32, f32) -> (f32, f32) + Sync + Send + Copy + 'static {
        let Self { prediction, gamma, label_smoothing, .. } = *self;
        let ([w0, w1], lift) = self.resolved();
        move |x, y| {
            let y = (1.0 - label_smoothing) * y + lift;
            match prediction {
                Prediction::Probabilities => probability_loss(x, y, [w0, w1], gamma),
                Prediction::Logits => logit_loss(x, y, [w0, w1], gamma),
            }
        }
    }

    /// The same for the kernels.
    fn options(&self) -> cuda::Binary {
        let ([w0, w1], lift) = self.resolved();
        let probabilities = u32::from(self.prediction == Prediction::Probabilities);
        cuda::Binary { w0, w1, gamma: self.gamma, smoothing: self.label_smoothing, lift, probabilities }
    }

    /// How many elements count, if not all.
    fn chosen(&self, len: usize) -> Option<usize> {
        (self.keep < 1.0).then(|| kept(self.keep, len))
    }

    fn kept(&self, len: usize) -> usize {
        self.chosen(len).unwrap_or(len)
    }

    /// Scratch for the losses that bootstrapping sorts.
    fn scratch(&self, device: &Device, len: usize) -> Result<Option<Tensor>> {
        (self.keep < 1.0).then(|| workspace(device, len)).transpose()
    }
}

/// Loss of the probability `p` and its slope.
fn probability_loss(p: f32, y: f32, [w0, w1]: [f32; 2], gamma: f32) -> (f32, f32) {
    let (ln_p, slope_p) = clamped_ln(p);
    // 1 − clamp(p) by its own logarithm: exact where p is small.
    let clamped = p.clamp(CLAMP, 1.0 - CLAMP);
    let (ln_q, slope_q) = ((-clamped).ln_1p(), if clamped == p { -1.0 / (1.0 - p) } else { 0.0 });
    let loss = -(w1 * y * ln_p + w0 * (1.0 - y) * ln_q);
    let slope = -(w1 * y * slope_p + w0 * (1.0 - y) * slope_q);
    let (factor, factor_slope) = focal(y * (1.0 - p) + (1.0 - y) * p, gamma);
    (factor * loss, factor * slope + factor_slope * (1.0 - 2.0 * y) * loss)
}

/// Loss of the logit `x` and its slope.
fn logit_loss(x: f32, y: f32, [w0, w1]: [f32; 2], gamma: f32) -> (f32, f32) {
    let (p, q) = (logistic(x), logistic(-x));
    // −ln q = max(x, 0) + ln(1 + e^−|x|), and −ln p = −ln q − x.
    let shared = (-x.abs()).exp().ln_1p();
    let loss = w1 * y * ((-x).max(0.0) + shared) + w0 * (1.0 - y) * (x.max(0.0) + shared);
    let slope = w0 * (1.0 - y) * p - w1 * y * q;
    let (factor, factor_slope) = focal(y * q + (1.0 - y) * p, gamma);
    (factor * loss, factor * slope + factor_slope * (1.0 - 2.0 * y) * p * q * loss)
}

/// Sum of the losses that count. `scratch` is there if not all do.
fn total(
    pool: &Pool,
    element: impl Fn(usize) -> f32 + Sync + Send,
    len: usize,
    kept: usize,
    scratch: Option<&mut [f32]>,
) -> f64 {
    match scratch {
        None => sum_rows(pool, len, 1, |range| range.map(|i| f64::from(element(i))).sum()),
        Some(losses) => worst(pool, element, losses, kept).sum,
    }
}

/// Fills `losses` and finds the worst.
fn worst(pool: &Pool, element: impl Fn(usize) -> f32 + Sync + Send, losses: &mut [f32], kept: usize) -> TopK {
    by_elements(pool, losses, |first, piece| {
        piece.iter_mut().enumerate().for_each(|(i, loss)| *loss = element(first + i));
    });
    TopK::of(losses, kept)
}

impl Op for BinaryLoss {
    fn name(&self) -> &'static str {
        "binary_loss"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs[0] == inputs[1] && !inputs[0].contains(&0) {
            true => Ok(vec![1]),
            false => {
                let problem = format!("labels {:?} do not fit predictions {:?}", inputs[1], inputs[0]);
                Err(Error::shape("binary_loss", problem))
            }
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let (len, element) = (inputs[0].len(), self.element());
        if let Target::Cuda(_) = device.target() {
            return cuda::binary(device, self.options(), self.chosen(len), [inputs[0], inputs[1]], output);
        }
        let mut scratch = self.scratch(device, len)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, y, kept) = (inputs[0].data(), inputs[1].data(), self.kept(len));
                let sum = total(pool, |i| element(x[i], y[i]).0, len, kept, scratch.as_mut().map(Tensor::data_mut));
                output.data_mut()[0] = (sum / kept as f64) as f32;
            }
            Backend::Cuda(_) | Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (x, y, dy) = (backward.value(0)?, backward.value(1)?, backward.gradient().clone());
        let (len, element) = (x.len(), self.element());
        backward.write_gradient(0, |device, dx, accumulate| {
            if let Target::Cuda(_) = device.target() {
                let (options, chosen) = (self.options(), self.chosen(len));
                return cuda::binary_backward(device, options, chosen, [&x, &y, &dy], dx, accumulate);
            }
            let mut scratch = self.scratch(device, len)?;
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (x, y, kept) = (x.data(), y.data(), self.kept(len));
                    let scale = dy.data()[0] / kept as f32;
                    let loss = |i: usize| element(x[i], y[i]).0;
                    let worst = scratch.as_mut().map(|scratch| worst(pool, loss, scratch.data_mut(), kept));
                    let chooser = worst.as_ref().map(|worst| worst.choose(pool, len, loss));
                    by_elements(pool, dx.data_mut(), |first, dx| {
                        let mut chooser = chooser.as_ref().map(|chooser| chooser(first / PIECE));
                        for (i, dx) in dx.iter_mut().enumerate() {
                            let (loss, slope) = element(x[first + i], y[first + i]);
                            let counts = chooser.as_mut().is_none_or(|chooser| chooser.takes(loss));
                            put(dx, if counts { scale * slope } else { 0.0 }, accumulate);
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
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 12 * len, bytes: 8 * len }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let len = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 12 * len, bytes: 12 * len }
    }
}
