//! The flags of `ossnet train`: the official options under their names, ours beside them, as a table over a file's.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use toml::{Table, Value};

use crate::data::SamplingRule;
use crate::data::ct_window::CtWindow;
use crate::error::{Error, Result};
use crate::tape::Precision;
use crate::train::config::{OptimizerName, Preset, ScheduleName};
use crate::train::settings::Augment;

/// Values of a run's configuration. Everything else of it can be said in a file.
#[derive(Args, Clone, Debug, Serialize)]
pub struct Flags {
    /// Network: full, A, B, C1 … vanilla_o_net_wide, oss-net-a to -d, o-net, unet3d, unet2d [official option]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    network_config: Option<String>,
    /// The same under a shorter name [default: oss-net-c]
    #[arg(long, value_name = "NAME")]
    #[serde(skip)]
    model: Option<String>,
    /// BraTS or LITS: the official defaults for that data set [official option]
    #[arg(long, value_name = "NAME", conflicts_with = "preset")]
    dataset: Option<String>,
    /// Folder of the data set [official option; default: BraTS2020 or LITS]
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    dataset_path: Option<String>,
    /// Folder of a data set of any layout, or sample:TASK for an embedded one [default: sample:heads]
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    data: Option<String>,
    /// Whose defaults [default: brats as soon as an official option names network or data, else sample]
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Start from the weights of this checkpoint (.safetensors or official .pt) [official option]
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    load_model: Option<String>,
    /// Passes over the training cases [official option; default: 50, sample: 150]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    epochs: Option<i64>,
    /// Cases a forward and backward pass [official option; default: 8, sample: 4 or 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=4096))]
    batch_size: Option<i64>,
    /// Points a case and pass [official option; default: 16384, sample: 1536]
    #[arg(long, visible_alias = "points", value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(1..=1 << 24))]
    training_samples: Option<i64>,
    /// Draw all points uniformly instead of half of them near the border [official option]
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    uniform_sampling: bool,
    /// How points are drawn: uniform, border (half near it), class (half by class) or reference [default: border]
    #[arg(long, value_name = "RULE", conflicts_with = "uniform_sampling")]
    sampling: Option<SamplingRule>,
    /// Weight of the auxiliary segmentation's loss [official option; default: 0.1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    segmentation_loss_factor: Option<f64>,
    /// Train: accepted because the official code asks for it; this command always does [official option]
    #[arg(long)]
    #[serde(skip)]
    train: bool,
    /// Validate every five epochs and keep the best weights by IoU [official option]
    #[arg(long)]
    #[serde(skip)]
    test: bool,
    /// Seed of initial weights, order, points and augmentation [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Passes whose gradients are averaged for one step [default: 1]
    #[arg(long, value_name = "N")]
    accumulate: Option<u32>,
    /// Longest gradient; longer ones are shortened to it (0: off) [default: 0]
    #[arg(long, value_name = "NORM")]
    clip_norm: Option<f64>,
    /// Decay of a moving average of the weights, which is then scored and used for inference (0: off) [default: 0]
    #[arg(long, value_name = "DECAY")]
    average_decay: Option<f64>,
    /// Epochs between two validations (0: none) [default: 0]
    #[arg(long, value_name = "N")]
    validate_every: Option<u32>,
    /// Seconds between two checkpoints [default: 60]
    #[arg(long, value_name = "SECONDS")]
    save_every: Option<u32>,
    /// Train a 3D U-Net on patches of this shape, for example 64,64,64
    #[arg(long, value_name = "X,Y,Z", value_delimiter = ',')]
    patch: Option<Vec<u32>>,
    /// Slices a pass (2D U-Net) [default: 16]
    #[arg(long, value_name = "N")]
    slices: Option<u32>,
    /// Axis that the slices of a 2D U-Net are perpendicular to: 0, 1 or 2 [default: 2]
    #[arg(long, value_name = "AXIS")]
    slice_axis: Option<u8>,
    /// Random changes to the training cases
    #[arg(long, value_enum)]
    augment: Option<Augment>,
    /// What the backward pass makes anew to save memory: 0 to 3, or auto [default: 0]
    #[arg(long, value_name = "LEVEL")]
    recompute: Option<String>,
    /// Number format of the computation [default: f32]
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// How a step moves the weights [default: radam, inside Lookahead]
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 3e-4, sample: 3e-3]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Weight decay [default: 0]
    #[arg(long, value_name = "DECAY")]
    weight_decay: Option<f64>,
    /// Course of the rates [default: multi-step, sample: cosine]
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// Lowest and highest value of the scans that is kept, for example -200,250; or abdomen, liver, lung, bone, brain, wide,
    /// none [default: as the data set's layout and channels suggest]
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true)]
    clip: Option<CtWindow>,
    /// Spacing in mm that scans are resampled to, for example 1,1,1
    #[arg(long, value_name = "X,Y,Z", value_delimiter = ',')]
    spacing: Option<Vec<f64>>,
    /// Make every class but background one
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    merge_classes: bool,
    /// Take the files of a case to lie on one grid, whatever their headers say
    #[arg(long)]
    #[serde(skip_serializing_if = "is_false")]
    ignore_geometry: bool,
    /// A run's configuration in TOML; flags override it (see --dump-config)
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Flags whose key lies in a section of the file: flag, section, key.
const SECTIONS: [(&str, &str, &str); 8] = [
    ("optimizer", "optimizer", "name"),
    ("rate", "optimizer", "rate"),
    ("weight_decay", "optimizer", "weight_decay"),
    ("schedule", "schedule", "name"),
    ("clip", "preprocessing", "clip"),
    ("spacing", "preprocessing", "spacing"),
    ("merge_classes", "preprocessing", "merge_classes"),
    ("ignore_geometry", "preprocessing", "ignore_geometry"),
];

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Flags {
    /// True if the caller speaks in the official options.
    pub fn are_official(&self) -> bool {
        self.network_config.is_some() || self.dataset.is_some() || self.dataset_path.is_some()
    }

    /// What was said, under the keys of a configuration file.
    ///
    /// # Errors
    /// None that a value of this type could cause.
    pub fn table(&self) -> Result<Table> {
        let mut said = Table::try_from(self)
            .map_err(|error| Error::Usage(format!("the flags cannot be put together ({error}); report this")))?;
        for (short, key) in [(&self.model, "network_config"), (&self.data, "dataset_path")] {
            if let Some(value) = short {
                said.insert(key.into(), Value::String(value.clone()));
            }
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
