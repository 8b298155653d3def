//! The course of the learning rate over a run.

use serde::{Deserialize, Serialize};

/// Factor of the learning rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// Multiplied by `factor` at each of `epochs` (the official run: ×0.1 at 20 and 30 of 50).
    MultiStep {
        /// Epochs (from 0) at whose start the factor applies.
        epochs: Vec<u64>,
        /// Factor at each.
        factor: f32,
    },
    /// `(1 − progress)^power`: nnU-Net's, with power 0.9.
    Poly {
        /// See there.
        power: f32,
    },
    /// From 1 along half a cosine to `last`, after a linear rise over the first `warm_up` share of the run.
    Cosine {
        /// Share of the run over which the factor rises from 0.
        warm_up: f32,
        /// Factor at the end.
        last: f32,
    },
}

impl Schedule {
    /// The factor in `epoch` (from 0), `progress` being the share of the whole run that is done (0 to 1).
    pub fn factor(&self, epoch: u64, progress: f32) -> f32 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::MultiStep { epochs, factor } => {
                factor.powi(epochs.iter().filter(|&&at| epoch >= at).count() as i32)
            }
            Schedule::Poly { power } => (1.0 - progress).clamp(0.0, 1.0).powf(*power),
            Schedule::Cosine { warm_up, last } => {
                if progress < *warm_up {
                    return progress / warm_up;
                }
                let rest = (progress - warm_up) / (1.0 - warm_up).max(f32::EPSILON);
                last + (1.0 - last) * 0.5 * (1.0 + (std::f32::consts::PI * rest.clamp(0.0, 1.0)).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn steps_and_cosines() {
        let official = Schedule::MultiStep { epochs: vec![20, 30], factor: 0.1 };
        assert_eq!([0, 19, 20, 29].map(|epoch| official.factor(epoch, 0.0)), [1.0, 1.0, 0.1, 0.1]);
        assert!((official.factor(30, 0.0) - 0.01).abs() < 1e-8);
        let poly = Schedule::Poly { power: 0.9 };
        assert_eq!([0.0, 1.0].map(|progress| poly.factor(0, progress)), [1.0, 0.0]);
        let cosine = Schedule::Cosine { warm_up: 0.1, last: 0.01 };
        assert_eq!(cosine.factor(0, 0.05), 0.5);
        assert_eq!(cosine.factor(0, 0.1), 1.0);
        assert!((cosine.factor(9, 1.0) - 0.01).abs() < 1e-6);
    }
}
