//! How one step moves one weight.

use serde::{Deserialize, Serialize};

/// A first-order rule. Names and defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase")]
pub enum UpdateRule {
    /// `v ← μ·v + g; w ← w − lr·v`.
    Sgd {
        /// μ.
        momentum: f32,
        /// Added to the gradient as `decay·w`.
        weight_decay: f32,
    },
    /// Kingma & Ba 2015; with `decoupled` decay AdamW (Loshchilov & Hutter 2019).
    Adam {
        /// Decay rates of the two moments.
        betas: (f32, f32),
        /// Added to the denominator.
        epsilon: f32,
        /// Weight decay.
        weight_decay: f32,
        /// Decay the weight itself rather than adding to the gradient.
        decoupled: bool,
    },
    /// Liu et al. 2020, in the official code's form (torch_optimizer): while the variance of the adaptive rate is
    /// intractable (ρ < 5) a plain momentum step; ε outside the root.
    RAdam {
        /// Decay rates of the two moments.
        betas: (f32, f32),
        /// Added to the denominator.
        epsilon: f32,
    },
}

/// What is common to all weights in one step.
pub struct Prepared {
    rate: f32,
    /// Factor of the step, bias correction included.
    pub(super) size: f32,
    /// Divide by the root of the second moment (times this correction).
    pub(super) adaptive: Option<f32>,
}

impl UpdateRule {
    /// Adam with its usual constants.
    pub fn adam() -> Self {
        UpdateRule::Adam { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, decoupled: false }
    }

    /// RAdam with its usual constants.
    pub fn radam() -> Self {
        UpdateRule::RAdam { betas: (0.9, 0.999), epsilon: 1e-8 }
    }

    /// Numbers remembered a weight.
    pub fn slots(&self) -> usize {
        match self {
            UpdateRule::Sgd { .. } => 1,
            UpdateRule::Adam { .. } | UpdateRule::RAdam { .. } => 2,
        }
    }

    /// Step sizes of step `step` (from 1) at learning rate `rate`, computed in f64 as the official code does.
    pub fn prepare(&self, rate: f32, step: u64) -> Prepared {
        let (lr, t) = (f64::from(rate), step as f64);
        match *self {
            UpdateRule::Sgd { .. } => Prepared { rate, size: rate, adaptive: None },
            UpdateRule::Adam { betas, .. } => {
                let (b1, b2) = (f64::from(betas.0), f64::from(betas.1));
                let size = lr / (1.0 - b1.powf(t));
                let correction = 1.0 / (1.0 - b2.powf(t)).sqrt();
                Prepared { rate, size: size as f32, adaptive: Some(correction as f32) }
            }
            UpdateRule::RAdam { betas, .. } => {
                let (b1, b2) = (exact(betas.0), exact(betas.1));
                let b2_t = b2.powf(t);
                let longest = 2.0 / (1.0 - b2) - 1.0;
                let length = longest - 2.0 * t * b2_t / (1.0 - b2_t);
                let momentum = 1.0 / (1.0 - b1.powf(t));
                if length >= 5.0 {
                    let rectified = ((1.0 - b2_t) * (length - 4.0) / (longest - 4.0) * (length - 2.0) / length
                        * longest
                        / (longest - 2.0))
                        .sqrt();
                    Prepared { rate, size: (lr * rectified * momentum) as f32, adaptive: Some(1.0) }
                } else {
                    Prepared { rate, size: (lr * momentum) as f32, adaptive: None }
                }
            }
        }
    }

    /// Moves `weights` against `gradient`; `first` and `second` are the state slots (empty if the rule has fewer).
    pub fn apply(&self, step: &Prepared, weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        match *self {
            UpdateRule::Sgd { momentum, weight_decay } => {
                for ((w, &g), v) in weights.iter_mut().zip(gradient).zip(first) {
                    *v = momentum * *v + g + weight_decay * *w;
                    *w -= step.size * *v;
                }
            }
            UpdateRule::Adam { betas, epsilon, weight_decay, decoupled } => {
                let (shrink, added) =
                    if decoupled { (1.0 - step.rate * weight_decay, 0.0) } else { (1.0, weight_decay) };
                let correction = step.adaptive.unwrap_or(1.0);
                for (((w, &g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                    let g = g + added * *w;
                    *m = betas.0 * *m + (1.0 - betas.0) * g;
                    *v = betas.1 * *v + (1.0 - betas.1) * g * g;
                    *w = *w * shrink - step.size * *m / (v.sqrt() * correction + epsilon);
                }
            }
            UpdateRule::RAdam { betas, epsilon } => {
                let (g1, g2) = shares(betas);
                for (((w, &g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                    *m = betas.0 * *m + g1 * g;
                    *v = betas.1 * *v + g2 * g * g;
                    *w -= match step.adaptive {
                        Some(_) => step.size * *m / (v.sqrt() + epsilon),
                        None => step.size * *m,
                    };
                }
            }
        }
    }
}

/// What a new gradient weighs in RAdam's moments: `1 − β`.
pub(super) fn shares(betas: (f32, f32)) -> (f32, f32) {
    ((1.0 - exact(betas.0)) as f32, (1.0 - exact(betas.1)) as f32)
}

/// The decimal number that `value` was written as: 0.999 rather than 0.99900001287. The official code computes step sizes
/// from the decimals, and `1 − β₂` feels the difference in its fifth digit.
fn exact(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
