//! Cross entropy and focal loss of several classes: `mean over rows of (1 − p_y)^γ·(−ln p_y)`, `y` the row's label.
//!
//! * Predictions `[rows…, C]`, labels `[rows…, 1]` (class indices) → `[1]`; `γ = 0` leaves cross entropy.
//! * From logits `p = softmax(x)` is never stored: `ln p_y = x_y − m − ln Σ e^{x_c − m}`, and
//!   `dx_c = s·(δ_cy − p_c)` with `s = −(1 − p_y)^γ + γ·(1 − p_y)^{γ−1}·p_y·ln p_y`.
//! * The `reference` rule, for probabilities `[batch, …, C]`: with `S[n, c] = Σ_b −y[b, n, c]·ln p[b, n, c]` over the
//!   *batch*, the loss is `mean over b, n, c of (1 − t[b, n, c])^γ·S[n, c]` where `t` is `p` for the labelled class and
//!   `1 − p` for the others. It scales with the batch, and items share each other's factors.
//! * Work: 5 FLOPs an element (exponential and logarithm count one) forward, 8 backward; bytes `4·(|x| + |y|)` and
//!   `4·(2|x| + |y|)`. The reference rule does it `batch` times.

use super::{Prediction, check_classes, check_labels, clamped_ln, cuda, focal};
use crate::device::cpu::Pool;
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::par_loops::{by_rows, put, sum_rows};
use crate::ops::{Cost, Needs, Op, softmax};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// Which loss of several classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossEntropy {
    /// What the predictions are.
    pub prediction: Prediction,
    /// Exponent of the focal factor; 0: cross entropy.
    pub gamma: f32,
    /// Sum over the batch as the official code does; probabilities only.
    pub reference: bool,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { prediction: Prediction::Logits, gamma: 0.0, reference: false }
    }
}

/// Mean loss of `prediction` `[rows…, C]` against the constant class indices `label` `[rows…, 1]`.
///
/// # Errors
/// Shapes that do not fit, labels that are no classes, a negative gamma, or logits for the reference rule; or no memory.
pub fn cross_entropy(tape: &Tape, prediction: &Var, label: &Var, options: CrossEntropy) -> Result<Var> {
    if options.reference && options.prediction == Prediction::Logits {
        return Err(Error::Usage("cross_entropy: the reference rule takes probabilities, not logits".into()));
    }
    if options.gamma.is_nan() || options.gamma < 0.0 {
        return Err(Error::Usage(format!("cross_entropy: gamma is {}; choose 0 or more", options.gamma)));
    }
    tape.apply(options, &[prediction, label])
}

/// Softmax of one row of logits, seen from its label.
struct Row {
    max: f32,
    /// `Σ e^{x − max}`.
    sum: f32,
    ln_p: f32,
    p: f32,
    /// `1 − p`, without cancellation.
    miss: f32,
}

impl Row {
    fn of(x: &[f32], label: usize) -> Self {
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp = (x[label] - max).exp();
        let others: f32 = x.iter().enumerate().filter(|&(c, _)| c != label).map(|(_, x)| (x - max).exp()).sum();
        let sum = exp + others;
        Self { max, sum, ln_p: x[label] - max - sum.ln(), p: exp / sum, miss: others / sum }
    }
}

/// The loss of one row.
fn row_loss(options: CrossEntropy, x: &[f32], label: usize) -> f32 {
    let (ln_p, miss) = match options.prediction {
        Prediction::Logits => {
            let row = Row::of(x, label);
            (row.ln_p, row.miss)
        }
        Prediction::Probabilities => (clamped_ln(x[label]).0, 1.0 - x[label]),
    };
    -focal(miss, options.gamma).0 * ln_p
}

/// `dx (+)= scale·d(row loss)/dx`.
fn row_gradient(options: CrossEntropy, x: &[f32], label: usize, scale: f32, dx: &mut [f32], accumulate: bool) {
    match options.prediction {
        Prediction::Logits => {
            let row = Row::of(x, label);
            let (factor, slope) = focal(row.miss, options.gamma);
            let scale = scale * (slope * row.p * row.ln_p - factor);
            for (c, (dx, x)) in dx.iter_mut().zip(x).enumerate() {
                let value = if c == label { row.miss } else { -(x - row.max).exp() / row.sum };
                put(dx, scale * value, accumulate);
            }
        }
        Prediction::Probabilities => {
            let (ln_p, ln_slope) = clamped_ln(x[label]);
            let (factor, slope) = focal(1.0 - x[label], options.gamma);
            for (c, dx) in dx.iter_mut().enumerate() {
                put(dx, if c == label { scale * (slope * ln_p - factor * ln_slope) } else { 0.0 }, accumulate);
            }
        }
    }
}

/// The reference rule: predictions `[batch, rows, classes]`.
struct Reference<'a> {
    batch: usize,
    rows: usize,
    classes: usize,
    gamma: f32,
    p: &'a [f32],
    labels: &'a [f32],
}

impl Reference<'_> {
    fn at(&self, b: usize, n: usize, c: usize) -> (f32, bool) {
        let row = b * self.rows + n;
        (self.p[row * self.classes + c], self.labels[row] == c as f32)
    }

    /// The focal factor at `[b, n, c]` and its slope with respect to the probability.
    fn factor(&self, b: usize, n: usize, c: usize) -> (f32, f32) {
        let (p, labelled) = self.at(b, n, c);
        let (factor, slope) = focal(if labelled { 1.0 - p } else { p }, self.gamma);
        (factor, if labelled { -slope } else { slope })
    }

    /// `Σ_b factor` and `S[n, c]`.
    fn sums(&self, n: usize, c: usize) -> [f32; 2] {
        (0..self.batch).fold([0.0; 2], |[factors, entropy], b| {
            let (p, labelled) = self.at(b, n, c);
            [factors + self.factor(b, n, c).0, entropy - if labelled { clamped_ln(p).0 } else { 0.0 }]
        })
    }

    fn total(&self, pool: &Pool) -> f64 {
        let row = |n: usize| -> f64 {
            let terms = (0..self.classes).map(|c| self.sums(n, c));
            terms.map(|[factors, entropy]| f64::from(factors) * f64::from(entropy)).sum()
        };
        sum_rows(pool, self.rows, self.batch * self.classes, |range| range.map(row).sum())
    }

    fn gradient(&self, row: usize, c: usize) -> f32 {
        let (b, n) = (row / self.rows, row % self.rows);
        let [factors, entropy] = self.sums(n, c);
        let (p, labelled) = self.at(b, n, c);
        self.factor(b, n, c).1 * entropy - if labelled { factors * clamped_ln(p).1 } else { 0.0 }
    }
}

impl CrossEntropy {
    /// The options of the kernels, for predictions of this shape.
    fn classes(&self, shape: &[usize]) -> cuda::Classes {
        let classes = shape[shape.len() - 1];
        cuda::Classes {
            rows: (shape.iter().product::<usize>() / classes) as u64,
            classes: classes as u32,
            span: softmax::cuda::span(classes) as u32,
            gamma: self.gamma,
            probabilities: u32::from(self.prediction == Prediction::Probabilities),
        }
    }

    /// The same for the reference rule.
    fn batch_rule(&self, shape: &[usize]) -> cuda::Reference {
        let (batch, classes) = (shape[0], shape[shape.len() - 1]);
        let rows = shape[1..shape.len() - 1].iter().product::<usize>() as u64;
        cuda::Reference { batch: batch as u64, rows, classes: classes as u32, gamma: self.gamma }
    }

    fn reference<'a>(&self, shape: &[usize], p: &'a [f32], labels: &'a [f32]) -> Reference<'a> {
        let (batch, classes) = (shape[0], shape[shape.len() - 1]);
        Reference { batch, rows: labels.len() / batch, classes, gamma: self.gamma, p, labels }
    }
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        check_labels("cross_entropy", inputs[0], inputs[1])?;
        if self.reference && inputs[0].len() < 2 {
            return Err(Error::shape("cross_entropy", format!("expected [batch, …, classes], got {:?}", inputs[0])));
        }
        Ok(vec![1])
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        if let Target::Cuda(_) = device.target() {
            let (both, shape) = ([inputs[0], inputs[1]], inputs[0].shape());
            return match self.reference {
                true => cuda::reference(device, self.batch_rule(shape), both, output),
                false => cuda::classes(device, self.classes(shape), both, output),
            };
        }
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let (x, labels, classes) = (inputs[0].data(), inputs[1].data(), inputs[0].channels());
                check_classes("cross_entropy", labels, classes)?;
                output.data_mut()[0] = if self.reference {
                    (self.reference(inputs[0].shape(), x, labels).total(pool) / x.len() as f64) as f32
                } else {
                    let loss = |row: usize| row_loss(*self, &x[row * classes..][..classes], labels[row] as usize);
                    let part = |range: std::ops::Range<usize>| range.map(|row| f64::from(loss(row))).sum();
                    (sum_rows(pool, labels.len(), classes, part) / labels.len() as f64) as f32
                };
            }
            Backend::Cuda(_) | Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (x, labels, dy) = (backward.value(0)?, backward.value(1)?, backward.gradient().clone());
        backward.write_gradient(0, |device, dx, accumulate| {
            if let Target::Cuda(_) = device.target() {
                let all = [&x, &labels, &dy];
                return match self.reference {
                    true => cuda::reference_backward(device, self.batch_rule(x.shape()), all, dx, accumulate),
                    false => cuda::classes_backward(device, self.classes(x.shape()), all, dx, accumulate),
                };
            }
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (shape, classes, x, labels) = (x.shape(), x.channels(), x.data(), labels.data());
                    let count = if self.reference { x.len() } else { labels.len() };
                    let scale = dy.data()[0] / count as f32;
                    let reference = self.reference.then(|| self.reference(shape, x, labels));
                    by_rows(pool, dx.data_mut(), classes, |first, piece| {
                        for (i, dx) in piece.chunks_exact_mut(classes).enumerate() {
                            let row = first + i;
                            match &reference {
                                Some(rule) => (0..classes)
                                    .for_each(|c| put(&mut dx[c], scale * rule.gradient(row, c), accumulate)),
                                None => {
                                    let x = &x[row * classes..][..classes];
                                    row_gradient(*self, x, labels[row] as usize, scale, dx, accumulate);
                                }
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
        let [x, y] = [inputs[0], inputs[1]].map(|shape| shape.iter().product::<usize>() as u64);
        let times = if self.reference { inputs[0][0] as u64 } else { 1 };
        Cost { flops: 5 * x * times, bytes: 4 * (x + y) }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [x, y] = [inputs[0], inputs[1]].map(|shape| shape.iter().product::<usize>() as u64);
        let times = if self.reference { inputs[0][0] as u64 } else { 1 };
        Cost { flops: 8 * x * times, bytes: 4 * (2 * x + y) }
    }
}
