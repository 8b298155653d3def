//! The flags of `ossnet train`: the official options under their names, ours beside them, as a table over a file's.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use toml::{Table, Value};

use crate::cli::path_text;
use crate::data::ct_window::CtWindow;
use crate::data::{Fold, SamplingRule};
use crate::error::{Error, Result};
use crate::quantities::Three;
use crate::tape::Precision;
use crate::train::config::{OptimizerName, Preset, ScheduleName};
use crate::train::settings::{Augment, SyncNorm};

/// Values of a run's configuration. Everything else of it can be said in a file.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Flags {
    /// Network: o-net, oss-net-a to -d (published sizes), the same with -small, unet3d, unet2d, or a name of the official code
    /// (full, A, B, C1 … vanilla_o_net_wide) [default: oss-net-c, on embedded data oss-net-c-small]
    #[arg(short, long, alias = "network-config", value_name = "NAME")]
    #[arg(help_heading = "Network")]
    model: Option<String>,
    /// BraTS or LITS: the official defaults for that data set [official option]
    #[arg(long, value_name = "NAME", conflicts_with = "preset")]
    #[arg(help_heading = "Data")]
    dataset: Option<String>,
    /// Folder of the data set [official option; default: BraTS2020 or LITS]
    #[arg(long, value_name = "DIR", conflicts_with = "data", value_parser = path_text())]
    #[arg(help_heading = "Data")]
    dataset_path: Option<String>,
    /// Folder of a data set of any layout, or sample:TASK for an embedded one [default: sample:heads]
    #[arg(short, long, value_name = "DIR", value_parser = path_text())]
    #[serde(skip)]
    #[arg(help_heading = "Data")]
    data: Option<String>,
    /// Cross-validate: divide all labelled cases by name and seed into N folds, each of which validates once
    #[arg(long, value_name = "N", conflicts_with_all = ["resume", "fold"])]
    #[arg(help_heading = "Data")]
    folds: Option<u32>,
    /// Train on all folds but this one, for example 2/5 for the second of five
    #[arg(long, value_name = "K/N", conflicts_with = "resume")]
    #[serde(skip)]
    #[arg(help_heading = "Data")]
    fold: Option<Fold>,
    /// Set of defaults [default: brats where an official option names the data, auto for your own data without
    /// --config, else sample]
    #[arg(long, value_enum)]
    #[arg(help_heading = "Data")]
    preset: Option<Preset>,
    /// Start from the weights of this checkpoint (.safetensors or official .pt) [official option]
    #[arg(long, value_name = "FILE", conflicts_with = "resume", value_parser = path_text())]
    #[arg(help_heading = "Network")]
    load_model: Option<String>,
    /// Passes over the training cases [official option; default: 50, sample: 150]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    #[arg(help_heading = "Training")]
    epochs: Option<i64>,
    /// Cases per forward and backward pass [official option; default: 8, sample: 4 or 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=4096))]
    #[arg(help_heading = "Sampling")]
    batch_size: Option<i64>,
    /// Points per case and pass [official option; default: 16384, sample: 1536]
    #[arg(long, visible_alias = "points", value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=1 << 24))]
    #[arg(help_heading = "Sampling")]
    training_samples: Option<i64>,
    /// Draw all points uniformly instead of half of them near the border [official option]
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    #[arg(help_heading = "Sampling")]
    uniform_sampling: bool,
    /// How points are drawn: uniform, border (half near it), class (half by class) or reference [default: border]
    #[arg(long, value_name = "RULE", conflicts_with = "uniform_sampling")]
    #[arg(help_heading = "Sampling")]
    sampling: Option<SamplingRule>,
    /// Train an occupancy network by the official code's rules, quirks included: raw indices, probabilities clamped, one rate
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    #[arg(help_heading = "Training")]
    reference: bool,
    /// Weight of the auxiliary segmentation's loss [official option; default: 0.1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    #[arg(help_heading = "Training")]
    segmentation_loss_factor: Option<f64>,
    /// Exponent of the focal loss; 0: cross entropy [default: 0]
    #[arg(long, value_name = "GAMMA", allow_negative_numbers = true)]
    #[arg(help_heading = "Training")]
    focal: Option<f64>,
    /// One output: how far labels move from 0 and 1 [default: 0]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[arg(help_heading = "Training")]
    label_smoothing: Option<f64>,
    /// One output: weights of the outside and of the inside in the loss, for example 1,2 [default: 1,1]
    #[arg(long, value_name = "OUTSIDE,INSIDE", value_parser = pair, allow_hyphen_values = true)]
    #[arg(help_heading = "Training")]
    label_weights: Option<[f64; 2]>,
    /// One output: share of the points or voxels that counts, those with the largest loss [default: 1]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    #[arg(help_heading = "Training")]
    hardest: Option<f64>,
    /// Train: accepted because the official code asks for it; this command always does [official option]
    #[arg(long)]
    #[serde(skip)]
    #[arg(help_heading = "Training")]
    train: bool,
    /// Validate every five epochs and keep the best weights by IoU [official option]
    #[arg(long)]
    #[serde(skip)]
    #[arg(help_heading = "Training")]
    test: bool,
    /// Seed of initial weights, order, points and augmentation [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    #[arg(help_heading = "Training")]
    seed: Option<i64>,
    /// Passes whose gradients are averaged for one step [default: 1]
    #[arg(long, value_name = "N")]
    #[arg(help_heading = "Sampling")]
    accumulate: Option<u32>,
    /// Add gradients in the order of a step's passes: the same bits from any number of processes
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    #[arg(help_heading = "Training")]
    deterministic_reduce: bool,
    /// Batch norms take the statistics of all cases of a step, exact over all processes and passes [default: auto]
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, default_missing_value = "on", require_equals = true)]
    #[arg(help_heading = "Training")]
    sync_norm: Option<SyncNorm>,
    /// Longest gradient; longer ones are shortened to it (0: off) [default: 0]
    #[arg(long, value_name = "NORM")]
    #[arg(help_heading = "Training")]
    clip_norm: Option<f64>,
    /// Decay of a moving average of the weights, which is then scored and used for inference (0: off) [default: 0]
    #[arg(long, value_name = "DECAY")]
    #[arg(help_heading = "Training")]
    average_decay: Option<f64>,
    /// Epochs between two validations (0: none) [default: 0]
    #[arg(long, value_name = "N")]
    #[arg(help_heading = "Training")]
    validate_every: Option<u32>,
    /// Seconds between two checkpoints [default: 60]
    #[arg(long, value_name = "SECONDS")]
    #[arg(help_heading = "Training")]
    save_every: Option<u32>,
    /// Train a 3D U-Net on patches of this shape, for example 64x64x64
    #[arg(long, value_name = "XxYxZ")]
    #[arg(help_heading = "Data")]
    patch: Option<Three<usize>>,
    /// Slices per pass (2D U-Net) [default: 16]
    #[arg(long, value_name = "N")]
    #[arg(help_heading = "Data")]
    slices: Option<u32>,
    /// Axis that the slices of a 2D U-Net are perpendicular to: 0, 1 or 2 [default: 2]
    #[arg(long, value_name = "AXIS")]
    #[arg(help_heading = "Data")]
    slice_axis: Option<u8>,
    /// Random changes to the training cases
    #[arg(long, value_enum)]
    #[arg(help_heading = "Data")]
    augment: Option<Augment>,
    /// What the backward pass recomputes to save memory: 0 to 3, a schedule, or auto: the fastest that fits [default: 0]
    #[arg(long, value_name = "LEVEL")]
    #[arg(help_heading = "Training")]
    recompute: Option<String>,
    /// Activation of the network: pade-5/4, relu, leaky-relu, prelu, … [default: the network's own]
    #[arg(long, value_name = "NAME")]
    #[arg(help_heading = "Training")]
    activation: Option<String>,
    /// Number format of the computation [default: f32]
    #[arg(long, value_enum)]
    #[arg(help_heading = "Training")]
    precision: Option<Precision>,
    /// How a step moves the weights [default: radam, inside Lookahead]
    #[arg(long, value_enum)]
    #[arg(help_heading = "Training")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 3e-4, sample: 3e-3]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    #[arg(help_heading = "Training")]
    rate: Option<f64>,
    /// Weight decay [default: 0]
    #[arg(long, value_name = "DECAY")]
    #[arg(help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Course of the rates [default: multi-step, sample: cosine]
    #[arg(long, value_enum)]
    #[arg(help_heading = "Training")]
    schedule: Option<ScheduleName>,
    /// Lowest and highest value of the scans that is kept, for example -200,250; or abdomen, liver, lung, bone, brain, wide,
    /// none [default: as the data set's layout and channels suggest]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true)]
    #[arg(help_heading = "Data")]
    clip: Option<CtWindow>,
    /// Spacing in mm that scans are resampled to, one number or three, for example 1x1x3
    #[arg(long, value_name = "MM[xMMxMM]", allow_hyphen_values = true)]
    #[arg(help_heading = "Data")]
    spacing: Option<Three<f64>>,
    /// Make every class but background one
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    #[arg(help_heading = "Data")]
    merge_classes: bool,
    /// Take the files of a case to lie on one grid, whatever their headers say
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    #[arg(help_heading = "Data")]
    ignore_geometry: bool,
    /// A run's configuration in TOML; flags override it (see --dump-config)
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    #[serde(skip)]
    #[arg(help_heading = "Run")]
    pub config: Option<PathBuf>,
}

/// Flags whose key lies in a section of the file: flag, section, key.
const SECTIONS: [(&str, &str, &str); 13] = [
    ("focal", "loss", "focal"),
    ("label_smoothing", "loss", "label_smoothing"),
    ("label_weights", "loss", "label_weights"),
    ("hardest", "loss", "hardest"),
    ("activation", "network", "activation"),
    ("optimizer", "optimizer", "name"),
    ("rate", "optimizer", "rate"),
    ("weight_decay", "optimizer", "weight_decay"),
    ("schedule", "schedule", "name"),
    ("clip", "preprocessing", "clip"),
    ("spacing", "preprocessing", "spacing"),
    ("merge_classes", "preprocessing", "merge_classes"),
    ("ignore_geometry", "preprocessing", "ignore_geometry"),
];

/// Two numbers.
fn pair(text: &str) -> Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| "give two numbers, for example 1,2".into())
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Flags {
    /// True if the caller speaks in the official options.
    pub fn are_official(&self) -> bool {
        self.dataset.is_some() || self.dataset_path.is_some()
    }

    /// What was said, under the keys of a configuration file.
    ///
    /// # Errors
    /// None that a value of this type could cause.
    pub fn table(&self) -> Result<Table> {
        let mut said = Table::try_from(self)
            .map_err(|error| Error::Usage(format!("the flags cannot be put together ({error}); report this")))?;
        if let Some(data) = &self.data {
            said.insert("dataset_path".into(), Value::String(data.clone()));
        }
        let folds = self.fold.map(|fold| (fold.number, fold.count));
        if let Some((number, count)) = folds.or(self.folds.map(|count| (0, count as usize))) {
            said.insert("fold".into(), Value::Integer(number as i64));
            said.insert("folds".into(), Value::Integer(count as i64));
        }
        if self.test && !said.contains_key("validate_every") {
            said.insert("validate_every".into(), Value::Integer(OFFICIAL_VALIDATION));
        }
        let mut table = Table::new();
        for (flag, section, key) in SECTIONS {
            if let Some(value) = said.remove(flag) {
                let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(entry) = entry {
                    entry.insert(key.into(), value);
                }
            }
        }
        table.extend(said);
        Ok(table)
    }
}

/// Epochs between two validations of the official code.
const OFFICIAL_VALIDATION: i64 = 5;
