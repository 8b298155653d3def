//! What a training run is told.

use serde::{Deserialize, Serialize};

use crate::models::Recompute;
use crate::nn::optim::{OptimizerSettings, Schedule};
use crate::train::step::LossSettings;

/// Everything that, with the data and the network, determines a training run's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training cases.
    pub epochs: u64,
    /// Cases a step.
    pub batch_size: usize,
    /// Points a case (occupancy networks).
    pub points: usize,
    /// Share of the points near a class border.
    pub border_share: f32,
    /// Axial slices a step (2D networks).
    pub slices: usize,
    /// Optimiser and rates.
    pub optimizer: OptimizerSettings,
    /// Course of the rates.
    pub schedule: Schedule,
    /// Loss.
    pub loss: LossSettings,
    /// What the backward pass makes anew instead of keeping it. Changes results by rounding only.
    #[serde(default)]
    pub recompute: Recompute,
    /// Random changes to the training cases.
    pub augment: Augment,
    /// Of initial weights, order, points and augmentation.
    pub seed: u64,
}

/// Random changes to training cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// None.
    None,
    /// The official three: flips, brightness, noise.
    Reference,
    /// For the embedded heads: left-right flips, shifts, brightness, noise.
    Sample,
}
