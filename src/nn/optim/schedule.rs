use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// How the learning rate changes as training goes on.
///
/// Time is counted from 0 in the unit of the caller's choice, epochs or steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Always the same.
    Constant,
    /// Multiplied by `gamma` when each of the milestones is reached, as `torch.optim.lr_scheduler.MultiStepLR`.
    MultiStep {
        /// The times, in any order. One that is listed twice counts twice.
        milestones: Vec<u64>,
        /// The factor.
        gamma: f64,
    },
    /// Half a cosine wave from 1 at time 0 down to `floor` at `length` and ever after.
    Cosine {
        /// Time of the descent.
        length: u64,
        /// The last factor.
        floor: f64,
    },
}

impl Schedule {
    /// The official one: a tenth from epoch 20 on, a hundredth from epoch 30.
    pub fn official() -> Schedule {
        Schedule::MultiStep { milestones: vec![20, 30], gamma: 0.1 }
    }

    /// By what the base learning rate is multiplied at `time`.
    pub fn factor(&self, time: u64) -> f64 {
        match self {
            Schedule::Constant => 1.0,
            Schedule::MultiStep { milestones, gamma } => {
                milestones.iter().filter(|&&milestone| milestone <= time).map(|_| gamma).product()
            }
            Schedule::Cosine { length, floor } if time >= *length => *floor,
            Schedule::Cosine { length, floor } => {
                floor + (1.0 - floor) * 0.5 * (1.0 + (PI * time as f64 / *length as f64).cos())
            }
        }
    }
}
