//! Defaults of a run by purpose.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    OptimizerConfig, OptimizerName, PreprocessingConfig, RunConfig, SAMPLE, ScheduleConfig, ScheduleName, SizesConfig,
};
use crate::data::Augmentation;
use crate::error::{Error, Result};
use crate::models::{Family, NetworkConfig};
use crate::nn::optim::{OptimizerSettings, Schedule, UpdateRule};
use crate::tape::Precision;
use crate::train::presets;
use crate::train::run::SAVE_EVERY;
use crate::train::settings::{Augment, SyncNorm, TrainSettings};

/// Where defaults come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// For your own data: the whole configuration is chosen as `ossnet plan` chooses it.
    Auto,
    /// High rates, few points: for volumes of some hundred thousand voxels.
    Sample,
    /// The official defaults for BraTS (four encoder blocks).
    Brats,
    /// The official defaults for LiTS (five encoder blocks).
    Lits,
}

impl Preset {
    /// The data set whose official rules the preset has.
    pub fn family(self) -> Option<Family> {
        match self {
            Preset::Auto | Preset::Sample => None,
            Preset::Brats => Some(Family::Brats),
            Preset::Lits => Some(Family::Lits),
        }
    }

    /// The preset that a configuration names, by `preset` or by the official `dataset` (which is taken out). If it names
    /// none: the official default, BraTS, if the caller speaks in `official` options; what the data make of it for data of one's
    /// `own`; else the sample's.
    pub(super) fn of(given: &mut Table, official: bool, own: bool) -> Result<Self> {
        let named = given.get("preset").and_then(Value::as_str).map(str::to_owned);
        let dataset = given.remove("dataset").map(|value| value.as_str().unwrap_or_default().to_lowercase());
        let preset = match (named.as_deref(), dataset.as_deref()) {
            (None, None) if official => Self::Brats,
            (None, None) if own => Self::Auto,
            (None, None) => Self::Sample,
            (Some("sample"), None) => Self::Sample,
            (Some("auto"), None) => Self::Auto,
            (Some("brats") | None, Some("brats")) | (Some("brats"), None) => Self::Brats,
            (Some("lits") | None, Some("lits")) | (Some("lits"), None) => Self::Lits,
            (Some(name), None) => {
                return Err(Error::Usage(format!("unknown preset '{name}'; use auto, sample, brats or lits")));
            }
            (None, Some(name)) => {
                return Err(Error::Usage(format!("unknown --dataset '{name}'; use BraTS or LITS")));
            }
            (Some(preset), Some(name)) => {
                let problem = format!("--preset {preset} and --dataset {name} contradict each other");
                return Err(Error::Usage(format!("{problem}; give one of the two")));
            }
        };
        given.insert("preset".into(), Value::try_from(preset).map_err(super::unexpected)?);
        Ok(preset)
    }

    /// The network if none is named. The official default is none, which is an error there that lists the names.
    pub(super) fn default_network(self) -> &'static str {
        match self {
            Preset::Auto => "oss-net-c",
            Preset::Sample => "oss-net-c-small",
            Preset::Brats | Preset::Lits => "",
        }
    }

    /// The whole configuration for the network called `name`.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the networks.
    pub fn config(self, name: &str) -> Result<RunConfig> {
        let family = self.family().unwrap_or(Family::Brats);
        let network = NetworkConfig::official(name, family)?;
        let settings = match self {
            Preset::Auto => TrainSettings {
                augmentation: Augmentation::NONE,
                ..presets::sample(&network, presets::SAMPLE_EPOCHS, 0)
            },
            Preset::Sample => presets::sample(&network, presets::SAMPLE_EPOCHS, 0),
            Preset::Brats | Preset::Lits => presets::official(presets::OFFICIAL_EPOCHS, 0),
        };
        Ok(RunConfig {
            preset: self,
            model: name.into(),
            dataset_path: match self {
                Preset::Auto | Preset::Sample => format!("{SAMPLE}heads"),
                Preset::Brats => "BraTS2020".into(),
                Preset::Lits => "LITS".into(),
            },
            load_model: String::new(),
            seed: settings.seed,
            folds: 0,
            fold: 0,
            epochs: settings.epochs,
            batch_size: settings.batch_size,
            accumulate: settings.accumulate,
            training_samples: settings.points,
            uniform_sampling: false,
            sampling: settings.sampling,
            border_share: settings.border_share,
            slices: settings.slices,
            slice_axis: 2,
            patch: Vec::new(),
            foreground_share: settings.foreground_share,
            augment: match self {
                Preset::Auto => Augment::None,
                Preset::Sample => Augment::Sample,
                Preset::Brats | Preset::Lits => Augment::Reference,
            },
            reference: false,
            segmentation_loss_factor: settings.loss.segmentation_factor,
            dice_factor: settings.loss.dice_factor,
            clip_norm: settings.clip_norm.unwrap_or(0.0),
            average_decay: settings.average_decay.unwrap_or(0.0),
            validate_every: settings.validate_every,
            save_every: SAVE_EVERY.as_secs(),
            recompute: settings.recompute.to_string(),
            precision: Precision::F32,
            deterministic_reduce: false,
            sync_norm: SyncNorm::Auto,
            loss: settings.loss.entropy,
            optimizer: OptimizerConfig::of(&settings.optimizer),
            schedule: ScheduleConfig::of(&settings.schedule),
            preprocessing: match self {
                // Voxels of one size let patches mean the same everywhere.
                Preset::Lits => {
                    PreprocessingConfig { spacing: vec![1.0; 3], merge_classes: true, ..Default::default() }
                }
                Preset::Brats => PreprocessingConfig { merge_classes: true, ..Default::default() },
                Preset::Auto | Preset::Sample => PreprocessingConfig::default(),
            },
            augmentation: settings.augmentation,
            network: SizesConfig::default(),
        })
    }
}

impl OptimizerConfig {
    fn of(settings: &OptimizerSettings) -> Self {
        let usual = Self {
            name: OptimizerName::RAdam,
            rate: settings.rate,
            activation_rate: settings.activation_rate.unwrap_or(0.0),
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            momentum: 0.9,
            weight_decay: 0.0,
            lookahead_every: settings.lookahead.map_or(0, |lookahead| lookahead.every),
            lookahead_alpha: settings.lookahead.unwrap_or_default().alpha,
        };
        match settings.rule {
            UpdateRule::Sgd { momentum, weight_decay } => {
                Self { name: OptimizerName::Sgd, momentum, weight_decay, ..usual }
            }
            UpdateRule::Adam { betas, epsilon, weight_decay, decoupled } => {
                let name = if decoupled { OptimizerName::AdamW } else { OptimizerName::Adam };
                Self { name, betas: [betas.0, betas.1], epsilon, weight_decay, ..usual }
            }
            UpdateRule::RAdam { betas, epsilon } => Self { betas: [betas.0, betas.1], epsilon, ..usual },
        }
    }
}

impl ScheduleConfig {
    fn of(schedule: &Schedule) -> Self {
        let usual = Self {
            name: ScheduleName::Constant,
            milestones: vec![20, 30],
            factor: 0.1,
            warm_up: 0.02,
            last: 0.01,
            power: 0.9,
        };
        match schedule {
            Schedule::Constant => usual,
            Schedule::MultiStep { epochs, factor } => {
                Self { name: ScheduleName::MultiStep, milestones: epochs.clone(), factor: *factor, ..usual }
            }
            Schedule::Poly { power } => Self { name: ScheduleName::Poly, power: *power, ..usual },
            Schedule::Cosine { warm_up, last } => {
                Self { name: ScheduleName::Cosine, warm_up: *warm_up, last: *last, ..usual }
            }
        }
    }
}
