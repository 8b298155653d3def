//! What a training run is told.

use serde::{Deserialize, Serialize};

use crate::data::{Augmentation, SamplingRule};
use crate::error::{Error, Result};
use crate::models::Recompute;
use crate::models::loss::LossSettings;
use crate::nn::optim::{OptimizerSettings, Schedule};
use crate::tape::Precision;

/// Everything that, with the data and the network, determines a training run's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training cases.
    pub epochs: u64,
    /// Cases a forward and backward pass.
    pub batch_size: usize,
    /// Passes whose gradients are averaged for one step.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Points a case (occupancy networks).
    pub points: usize,
    /// How points are drawn (occupancy networks).
    pub sampling: SamplingRule,
    /// Share of the points that are not uniform: near a class border, or by class.
    pub border_share: f32,
    /// Slices a pass (2D networks).
    pub slices: usize,
    /// Shape of the patches that 3D U-Nets train on; `None`: whole volumes.
    #[serde(default)]
    pub patch: Option<[usize; 3]>,
    /// Share of the patches that are centred on a foreground voxel.
    #[serde(default)]
    pub foreground_share: f32,
    /// Optimiser and rates.
    pub optimizer: OptimizerSettings,
    /// Course of the rates.
    pub schedule: Schedule,
    /// Longest gradient (Euclidean norm over all parameters); longer ones are shortened to it.
    #[serde(default)]
    pub clip_norm: Option<f32>,
    /// Decay a step of the exponential moving average of the weights that is scored and used for inference.
    #[serde(default)]
    pub average_decay: Option<f32>,
    /// Loss.
    pub loss: LossSettings,
    /// What the backward pass recomputes instead of keeping it. Changes results by rounding only.
    #[serde(default)]
    pub recompute: Recompute,
    /// Number format of the steps.
    #[serde(default)]
    pub precision: Precision,
    /// Random changes to the training cases.
    pub augmentation: Augmentation,
    /// Epochs between two validations (0: none); the weights of the best by IoU are kept.
    #[serde(default)]
    pub validate_every: u64,
    /// Of initial weights, order, points and augmentation.
    pub seed: u64,
    /// Gradients are taken a pass at a time and added in the order of the passes, whoever has made them: the results are then
    /// the same bits for any number of processes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deterministic_reduce: bool,
    /// Whether batch norms take the statistics of all cases of a step.
    #[serde(default, skip_serializing_if = "SyncNorm::is_auto")]
    pub sync_norm: SyncNorm,
    /// Processes that a step's passes are divided among; where they are several, `accumulate` is a multiple of it.
    #[serde(skip, default = "one")]
    pub ranks: usize,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Fewer cases than this give a batch norm poor statistics.
pub const FEW_CASES: usize = 4;

/// Whose statistics batch norms take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncNorm {
    /// Those of a step where several processes make one pass each of fewer than four cases, else those of a pass
    #[default]
    Auto,
    /// Those of all cases of a step, whoever computes them
    On,
    /// Those of a pass
    Off,
}

impl SyncNorm {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl TrainSettings {
    /// Cases that a step over `cases` cases takes.
    pub fn scans_per_step(&self, cases: usize) -> u64 {
        (self.batch_size.clamp(1, cases.max(1)) * self.accumulate.max(1)) as u64
    }

    /// True if batch norms take the statistics of all passes of a step, in settings that were [`TrainSettings::divided`].
    pub fn joins_statistics(&self) -> bool {
        match self.sync_norm {
            SyncNorm::On => self.accumulate > 1,
            SyncNorm::Off => false,
            // What is to be the same bits for any number of processes cannot depend on it.
            SyncNorm::Auto => {
                let one_each = self.ranks > 1 && self.accumulate == self.ranks;
                one_each && self.batch_size < FEW_CASES && !self.deterministic_reduce
            }
        }
    }

    /// What a run was asked that goes by these settings: `asked`, which was `divided`, and what has changed since.
    pub fn undivided(&self, divided: &Self, asked: &Self) -> Self {
        let Self { batch_size, accumulate, .. } = *asked;
        match (self.batch_size, self.accumulate) == (divided.batch_size, divided.accumulate) {
            true => Self { batch_size, accumulate, ranks: 1, ..self.clone() },
            false => Self { ranks: 1, ..self.clone() },
        }
    }

    /// The same, on `cases` cases, for `ranks` processes: as many cases a step, in as few equal passes as divide among them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the cases of a step do not divide among the processes.
    pub fn divided(&self, ranks: usize, cases: usize) -> Result<Self> {
        let (batch, passes) = (self.batch_size.clamp(1, cases.max(1)), self.accumulate.max(1));
        let size = (1..=batch)
            .rev()
            .find(|size| batch.is_multiple_of(*size) && (passes * (batch / size)).is_multiple_of(ranks));
        match size {
            _ if ranks <= 1 => Ok(Self { ranks: 1, ..self.clone() }),
            Some(size) => Ok(Self { batch_size: size, accumulate: passes * (batch / size), ranks, ..self.clone() }),
            None => {
                let all = batch * passes;
                let problem = format!("the {all} cases of a step do not divide among {ranks} processes");
                let fits = (1..ranks).rev().find(|ranks| all.is_multiple_of(*ranks)).unwrap_or(1);
                let more = passes.next_multiple_of(ranks);
                Err(Error::Usage(format!("{problem}; give --accumulate {more}, or start {fits}")))
            }
        }
    }
}

fn one() -> usize {
    1
}

/// Random changes to training cases, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// None.
    None,
    /// The official three: flips, brightness, noise.
    Reference,
    /// For the embedded heads: left-right flips, shifts, brightness, noise.
    Sample,
    /// nnU-Net's, with elastic deformation and bias fields besides.
    Strong,
}

impl Augment {
    /// What it stands for.
    pub fn changes(self) -> Augmentation {
        match self {
            Augment::None => Augmentation::NONE,
            Augment::Reference => Augmentation::REFERENCE,
            Augment::Sample => Augmentation::SAMPLE,
            Augment::Strong => Augmentation::STRONG,
        }
    }
}
