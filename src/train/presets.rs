//! Training settings by purpose.

use crate::data::{Augmentation, SamplingRule};
use crate::models::loss::LossSettings;
use crate::models::{Architecture, Recompute};
use crate::nn::optim::{OptimizerSettings, Schedule, UpdateRule};
use crate::tape::Precision;
use crate::train::settings::{SyncNorm, TrainSettings};

/// Epochs of the comparison on the embedded sample.
pub const SAMPLE_EPOCHS: u64 = 150;

/// Epochs of the official training.
pub const OFFICIAL_EPOCHS: u64 = 50;

/// For a few small volumes, as the embedded sample's: high rates, strong augmentation. Occupancy networks take four cases
/// a step, since their batch norms' running statistics must fit scans of different machines; U-Nets, which normalise each
/// scan by itself, take one, and Adam at the rate that MONAI's users know.
pub fn sample(network: &dyn Architecture, epochs: u64, seed: u64) -> TrainSettings {
    let occupancy = network.supervision().at_points();
    let optimizer = match occupancy {
        true => OptimizerSettings { rate: 3e-3, ..OptimizerSettings::default() },
        false => OptimizerSettings { rule: UpdateRule::adam(), lookahead: None, rate: 1e-3, activation_rate: None },
    };
    TrainSettings {
        epochs,
        batch_size: if occupancy { 4 } else { 1 },
        accumulate: 1,
        points: 1536,
        sampling: SamplingRule::Border,
        border_share: 0.5,
        slices: 16,
        patch: None,
        foreground_share: 0.33,
        optimizer,
        schedule: Schedule::Cosine { warm_up: 0.02, last: 0.01 },
        clip_norm: None,
        average_decay: None,
        loss: LossSettings { dice_factor: if occupancy { 0.0 } else { 1.0 }, ..LossSettings::default() },
        recompute: Recompute::default(),
        precision: Precision::default(),
        augmentation: Augmentation::SAMPLE,
        validate_every: 0,
        seed,
        deterministic_reduce: false,
        sync_norm: SyncNorm::Auto,
        ranks: 1,
    }
}

/// The official training run: Lookahead around RAdam at 3e-4 (Padé coefficients 1e-2), rates ×0.1 at epochs 20 and 30
/// of 50, batches of 8, 2¹⁴ points a volume.
pub fn official(epochs: u64, seed: u64) -> TrainSettings {
    TrainSettings {
        epochs,
        batch_size: 8,
        accumulate: 1,
        points: 1 << 14,
        sampling: SamplingRule::Border,
        border_share: 0.5,
        slices: 16,
        patch: None,
        foreground_share: 0.33,
        optimizer: OptimizerSettings::default(),
        schedule: Schedule::MultiStep { epochs: vec![20, 30], factor: 0.1 },
        clip_norm: None,
        average_decay: None,
        loss: LossSettings::default(),
        recompute: Recompute::default(),
        precision: Precision::default(),
        augmentation: Augmentation::REFERENCE,
        validate_every: 0,
        seed,
        deterministic_reduce: false,
        sync_norm: SyncNorm::Auto,
        ranks: 1,
    }
}
