//! What `ossnet train` can be told: every value of a run under one name, in a TOML file or as a flag.
//!
//! A run's configuration is a preset's, overlaid by a file's, overlaid by the command line's. The result has every key, is
//! what `--dump-config` prints and lies in the run's folder. "Off" is 0 or an empty list.

mod file;
mod preset;
mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use file::{check_keys, key_of_flag, one_line, over, overlay, renamed, unexpected};
pub use preset::Preset;
pub use sections::{OptimizerConfig, OptimizerName, PreprocessingConfig, ScheduleConfig, ScheduleName, SizesConfig};

use crate::data::{Augmentation, SamplingRule, folds};
use crate::error::{Error, Result};
use crate::files::name::path_of;
use crate::models::config::LARGEST_SIDE;
use crate::models::loss::{EntropyTerms, LossSettings};
use crate::models::{Architecture, Family, NetworkConfig, OssNetConfig, RecomputeChoice};
use crate::nn::optim::{Lookahead, OptimizerSettings, Schedule, UpdateRule};
use crate::ops::Activation;
use crate::tape::Precision;
use crate::train::settings::{Augment, SyncNorm, TrainSettings};

/// Everything that a training run can be told. Names of the official options are the official ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Where the defaults came from.
    pub preset: Preset,
    /// Name of the network: a configuration of the official code, a published name, one of a small variant, `unet3d` or
    /// `unet2d`.
    pub model: String,
    /// Folder of the data set, or `sample:TASK` for an embedded one.
    pub dataset_path: String,
    /// Checkpoint whose weights the run starts from; empty: fresh weights.
    pub load_model: String,
    /// Seed of initial weights, order, points and augmentation.
    pub seed: u64,
    /// Folds of a cross-validation; 0: the data set's own division into training and validation.
    pub folds: usize,
    /// The fold that validates, from 1; 0: each in turn.
    pub fold: usize,
    /// Passes over the training cases.
    pub epochs: u64,
    /// Cases a forward and backward pass.
    pub batch_size: usize,
    /// Passes whose gradients are averaged for one step.
    pub accumulate: usize,
    /// Points a case (occupancy networks).
    pub training_samples: usize,
    /// All points uniform, none near the border.
    pub uniform_sampling: bool,
    /// How points are drawn unless all are uniform: uniform, border, class or reference.
    pub sampling: SamplingRule,
    /// Share of the points near the border, or drawn by class.
    pub border_share: f32,
    /// Slices a pass (2D networks).
    pub slices: usize,
    /// Axis of the volume that the slices are perpendicular to.
    pub slice_axis: usize,
    /// Shape of the patches that a 3D U-Net trains on; empty: whole volumes.
    pub patch: Vec<usize>,
    /// Share of the patches that are centred on foreground.
    pub foreground_share: f32,
    /// Random changes to the training cases, by name: what the section `augmentation` does not say.
    pub augment: Augment,
    /// Train by the official code's rules, quirks included (occupancy networks).
    pub reference: bool,
    /// Weight of the auxiliary segmentation's loss.
    pub segmentation_loss_factor: f32,
    /// Weight of the soft Dice loss beside the cross entropy.
    pub dice_factor: f32,
    /// Longest gradient; 0: any.
    pub clip_norm: f32,
    /// Decay of the weights' moving average; 0: none.
    pub average_decay: f32,
    /// Epochs between two validations; 0: none but at the end.
    pub validate_every: u64,
    /// Seconds between two checkpoints.
    pub save_every: u64,
    /// Level of recomputation: 0 to 3, or auto.
    pub recompute: String,
    /// Number format of the computation: f32 or bf16.
    pub precision: Precision,
    /// Add the gradients of a step's passes in the passes' order: the same bits from any number of processes.
    pub deterministic_reduce: bool,
    /// Whether batch norms take the statistics of all cases of a step: auto, on or off.
    #[serde(default)]
    pub sync_norm: SyncNorm,
    /// Which cross entropy.
    pub loss: EntropyTerms,
    /// How a step moves the weights.
    pub optimizer: OptimizerConfig,
    /// Course of the rates.
    pub schedule: ScheduleConfig,
    /// What happens to scans before a network sees them.
    pub preprocessing: PreprocessingConfig,
    /// Random changes to the training cases, one by one.
    pub augmentation: Augmentation,
    /// Sizes of the network that differ from the named one's.
    pub network: SizesConfig,
}

impl RunConfig {
    /// The configuration that `file` (the text of a TOML file and its path) and `flags` make of their preset. A key
    /// `dataset` (`BraTS` or `LITS`, the official option) names the preset. Without it and `preset` that is the official default
    /// (BraTS) for a caller who speaks in `official` options; `auto` for a folder of data and no file; else the sample's.
    ///
    /// # Errors
    /// [`Error::Data`] naming the file and the key at fault, [`Error::Usage`] for values of flags that cannot be.
    pub fn resolve(file: Option<(&Path, &str)>, flags: Table, official: bool) -> Result<Self> {
        Self::resolved(file, flags, official).map_err(|error| {
            match (file, Self::resolved(file, Table::new(), official)) {
                // Without the flags it shows whose fault it is.
                (Some((path, _)), Err(Error::Usage(problem))) => {
                    Error::data(path, key_of_flag(&problem), "see `ossnet train --dump-config`")
                }
                _ => error,
            }
        })
    }

    fn resolved(file: Option<(&Path, &str)>, flags: Table, official: bool) -> Result<Self> {
        let mut given = Table::new();
        if let Some((path, text)) = file {
            let bad = |error: toml::de::Error| Error::data(path, one_line(&error), "see `ossnet train --dump-config`");
            given = text.parse().map_err(bad)?;
            renamed(&mut given);
            check_keys(&given, path)?;
        }
        if flags.contains_key("augment") {
            // A name on the command line stands for all that the file says in detail.
            given.remove("augmentation");
        }
        overlay(&mut given, flags);
        let folder = |path: &str| matches!(DataSource::of(path), DataSource::Folder(_));
        let own = file.is_none() && given.get("dataset_path").and_then(Value::as_str).is_some_and(folder);
        let preset = Preset::of(&mut given, official, own)?;
        let name = given.get("model").and_then(Value::as_str).unwrap_or(preset.default_network());
        let defaults = preset.config(name)?;
        let table = over(&defaults, given)?;
        let config: Self = table.try_into().map_err(|error: toml::de::Error| match file {
            Some((path, _)) => Error::data(path, one_line(&error), "see `ossnet train --dump-config`"),
            None => Error::Usage(format!("{}; see `ossnet train --dump-config`", one_line(&error))),
        })?;
        config.check()?;
        Ok(config)
    }

    /// This configuration with what the command line says over it.
    ///
    /// # Errors
    /// [`Error::Usage`] for values that cannot be.
    pub fn overlaid(&self, mut flags: Table) -> Result<Self> {
        flags.remove("preset");
        let config: Self = over(self, flags)?.try_into().map_err(|error: toml::de::Error| {
            Error::Usage(format!("{}; see `ossnet train --dump-config`", one_line(&error)))
        })?;
        config.check()?;
        Ok(config)
    }

    /// The file that makes this configuration again.
    ///
    /// # Errors
    /// None that a value of this type could cause.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(unexpected)
    }

    /// Refuses values that no run can have.
    fn check(&self) -> Result<()> {
        let optimizer = &self.optimizer;
        let positive = |value: f32| value > 0.0 && value.is_finite();
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let three = |length: usize| matches!(length, 0 | 3);
        let sides = |sides: &[usize]| three(sides.len()) && sides.iter().all(|side| (1..=LARGEST_SIDE).contains(side));
        let spacings = |mm: &[f64]| three(mm.len()) && mm.iter().all(|mm| *mm > 0.0 && mm.is_finite());
        let weights = |weights: [f32; 2]| weights.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
        let rules: [(&str, bool, &str); 27] = [
            ("folds", self.folds == 0 || (2..=folds::MOST).contains(&self.folds), "2 to 1000, for example 5"),
            ("fold", self.fold <= self.folds, "one of the folds, for example 2/5"),
            ("epochs", (1..=1_000_000).contains(&self.epochs), "1 to 1000000"),
            ("batch_size", (1..=4096).contains(&self.batch_size), "1 to 4096"),
            ("accumulate", (1..=4096).contains(&self.accumulate), "1 to 4096"),
            ("training_samples", (1..=1 << 24).contains(&self.training_samples), "1 to 16777216"),
            ("border_share", share(self.border_share), "a share of 0 to 1"),
            ("slices", (1..=4096).contains(&self.slices), "1 to 4096"),
            ("slice_axis", self.slice_axis < 3, "0, 1 or 2"),
            ("patch", sides(&self.patch), "three sides of 1 to 65536 voxels, or none"),
            ("resize", sides(&self.preprocessing.resize), "three sides of 1 to 65536 voxels, or none"),
            ("foreground_share", share(self.foreground_share), "a share of 0 to 1"),
            ("segmentation_loss_factor", self.segmentation_loss_factor.is_finite(), "a number"),
            ("dice_factor", self.dice_factor >= 0.0 && self.dice_factor.is_finite(), "0 or more"),
            ("focal", self.loss.focal >= 0.0 && self.loss.focal.is_finite(), "0 or more, for example 2"),
            (
                "label_smoothing",
                (0.0..1.0).contains(&self.loss.label_smoothing),
                "0 or more and below 1, for example 0.1",
            ),
            ("label_weights", weights(self.loss.label_weights), "two numbers of 0 or more, for example 1,2"),
            (
                "hardest",
                self.loss.hardest > 0.0 && self.loss.hardest <= 1.0,
                "a share above 0 and up to 1, for example 0.25",
            ),
            ("clip_norm", self.clip_norm >= 0.0 && self.clip_norm.is_finite(), "0 or more"),
            ("average_decay", (0.0..1.0).contains(&self.average_decay), "0 or more and below 1, for example 0.999"),
            ("rate", positive(optimizer.rate), "a positive number, for example 3e-4"),
            ("activation_rate", optimizer.activation_rate >= 0.0, "0 or more"),
            ("betas", optimizer.betas.iter().all(|beta| (0.0..1.0).contains(beta)), "two numbers of 0 to below 1"),
            ("epsilon", positive(optimizer.epsilon), "a positive number"),
            ("clip", matches!(self.preprocessing.clip[..], [] | [_, _]), "the lowest and the highest value, or none"),
            ("spacing", spacings(&self.preprocessing.spacing), "three spacings in mm above 0, or none"),
            ("dropout", (0.0..1.0).contains(&self.network.dropout), "0 or more and below 1"),
        ];
        if let Some((key, _, rule)) = rules.iter().find(|(_, holds, _)| !holds) {
            return Err(Error::Usage(format!("--{} must be {rule}", key.replace('_', "-"))));
        }
        self.activation()?;
        self.augmentation.check()?;
        self.recompute.parse::<RecomputeChoice>().map_err(|error| Error::Usage(format!("--recompute: {error}")))?;
        Ok(())
    }

    /// The same with absolute paths: it means the same wherever it is read.
    pub fn from_anywhere(mut self) -> Self {
        let absolute = |path: &mut String| {
            if let Some(found) = std::path::absolute(&*path).ok().as_deref().and_then(Path::to_str) {
                *path = found.to_string();
            }
        };
        if matches!(self.data(), DataSource::Folder(_)) {
            absolute(&mut self.dataset_path);
        }
        if !self.load_model.is_empty() {
            absolute(&mut self.load_model);
        }
        self
    }

    /// The activation that takes the place of the network's own, if one is named.
    fn activation(&self) -> Result<Option<Activation>> {
        let name = &self.network.activation;
        if name.is_empty() { Ok(None) } else { name.parse().map(Some) }
    }

    /// The configured level of recomputation.
    pub fn recompute(&self) -> RecomputeChoice {
        self.recompute.parse().unwrap_or_default()
    }

    /// The folder of the data set, or the embedded task.
    pub fn data(&self) -> DataSource<'_> {
        DataSource::of(&self.dataset_path)
    }

    /// The network for images of `channels` channels on a grid of `shape`, with `outputs` outputs.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the known names; [`Error::Model`] if the sizes do not go together.
    pub fn network(&self, channels: usize, outputs: usize, shape: [usize; 3]) -> Result<NetworkConfig> {
        let family = self.preset.family().unwrap_or(Family::Brats);
        let network = NetworkConfig::official(&self.model, family)?.adapted(channels, outputs, shape);
        let (sizes, activation) = (&self.network, self.activation()?);
        let network = match network {
            NetworkConfig::UNet(mut unet) => {
                unet.slice_axis = self.slice_axis;
                unet.activation = activation.unwrap_or(unet.activation);
                if !sizes.channels.is_empty() {
                    unet.strides = vec![2; sizes.channels.len().saturating_sub(1)];
                    unet.channels = sizes.channels.clone();
                }
                NetworkConfig::UNet(unet)
            }
            NetworkConfig::OssNet(oss) => NetworkConfig::OssNet(OssNetConfig {
                width: if sizes.width > 0 { sizes.width } else { oss.width },
                dropout: sizes.dropout,
                activation: activation.unwrap_or(oss.activation),
                encoder_channels: match sizes.encoder_channels.is_empty() {
                    true => oss.encoder_channels,
                    false => {
                        let inputs = [&[channels][..], &sizes.encoder_channels].concat();
                        inputs.windows(2).map(|pair| (pair[0], pair[1])).collect()
                    }
                },
                ..oss
            }),
        };
        network.check()?;
        Ok(network)
    }

    /// What the trainer is told. The level of recomputation is the default one: see [`RunConfig::recompute`].
    pub fn settings(&self) -> TrainSettings {
        let (optimizer, schedule) = (&self.optimizer, &self.schedule);
        let betas = (optimizer.betas[0], optimizer.betas[1]);
        let (epsilon, weight_decay) = (optimizer.epsilon, optimizer.weight_decay);
        TrainSettings {
            epochs: self.epochs,
            batch_size: self.batch_size,
            accumulate: self.accumulate,
            points: self.training_samples,
            sampling: if self.uniform_sampling { SamplingRule::Uniform } else { self.sampling },
            border_share: self.border_share,
            slices: self.slices,
            patch: <[usize; 3]>::try_from(&self.patch[..]).ok(),
            foreground_share: self.foreground_share,
            optimizer: OptimizerSettings {
                rule: match optimizer.name {
                    OptimizerName::Sgd => UpdateRule::Sgd { momentum: optimizer.momentum, weight_decay },
                    OptimizerName::Adam => UpdateRule::Adam { betas, epsilon, weight_decay, decoupled: false },
                    OptimizerName::AdamW => UpdateRule::Adam { betas, epsilon, weight_decay, decoupled: true },
                    OptimizerName::RAdam => UpdateRule::RAdam { betas, epsilon },
                },
                lookahead: (optimizer.lookahead_every > 0)
                    .then_some(Lookahead { every: optimizer.lookahead_every, alpha: optimizer.lookahead_alpha }),
                rate: optimizer.rate,
                activation_rate: (optimizer.activation_rate > 0.0).then_some(optimizer.activation_rate),
            },
            schedule: match schedule.name {
                ScheduleName::Constant => Schedule::Constant,
                ScheduleName::MultiStep => {
                    Schedule::MultiStep { epochs: schedule.milestones.clone(), factor: schedule.factor }
                }
                ScheduleName::Cosine => Schedule::Cosine { warm_up: schedule.warm_up, last: schedule.last },
                ScheduleName::Poly => Schedule::Poly { power: schedule.power },
            },
            clip_norm: (self.clip_norm > 0.0).then_some(self.clip_norm),
            average_decay: (self.average_decay > 0.0).then_some(self.average_decay),
            loss: LossSettings {
                segmentation_factor: self.segmentation_loss_factor,
                dice_factor: self.dice_factor,
                reference: false,
                entropy: self.loss,
            },
            recompute: Default::default(),
            precision: self.precision,
            augmentation: self.augmentation,
            validate_every: self.validate_every,
            seed: self.seed,
            deterministic_reduce: self.deterministic_reduce,
            sync_norm: self.sync_norm,
            ranks: 1,
        }
    }
}

pub use crate::data::embedded::SAMPLE;

/// Where cases come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource<'a> {
    /// A task of the embedded sample.
    Embedded(&'a str),
    /// A folder.
    Folder(PathBuf),
}

impl<'a> DataSource<'a> {
    /// What `path` names: a folder, or an embedded task behind [`SAMPLE`].
    pub fn of(path: &'a str) -> Self {
        match path.strip_prefix(SAMPLE) {
            Some(task) => DataSource::Embedded(task),
            None => DataSource::Folder(path_of(Path::new(""), path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<RunConfig> {
        RunConfig::resolve(Some((Path::new("run.toml"), text)), Table::new(), false)
    }

    fn flags(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn the_official_defaults() {
        let config = RunConfig::resolve(None, flags("model = 'full'"), true).unwrap();
        assert_eq!((config.epochs, config.batch_size, config.training_samples), (50, 8, 1 << 14));
        assert_eq!((config.segmentation_loss_factor, config.uniform_sampling), (0.1, false));
        assert_eq!((config.dataset_path.as_str(), config.load_model.as_str()), ("BraTS2020", ""));
        let settings = config.settings();
        assert_eq!(settings, crate::train::presets::official(50, 0));
    }

    #[test]
    fn the_sample_preset_is_the_comparison_s() {
        for name in ["o-net-small", "unet3d"] {
            let config = RunConfig::resolve(None, flags(&format!("model = '{name}'")), false).unwrap();
            let network = config.network(1, 1, [64, 80, 64]).unwrap();
            assert_eq!(network, NetworkConfig::sample(name, 1, 1, [64, 80, 64]).unwrap());
            assert_eq!(
                config.settings(),
                crate::train::presets::sample(&network, crate::train::presets::SAMPLE_EPOCHS, 0)
            );
        }
    }

    #[test]
    fn own_data_configure_themselves() {
        let preset = |text: &str, official| RunConfig::resolve(None, flags(text), official).unwrap().preset;
        assert_eq!(preset("dataset_path = 'some/folder'", false), Preset::Auto);
        assert_eq!(preset("dataset_path = 'sample:heads'", false), Preset::Sample);
        assert_eq!(preset("", false), Preset::Sample);
        assert_eq!(preset("dataset_path = 'folder'\npreset = 'sample'", false), Preset::Sample);
        assert_eq!(preset("dataset_path = 'folder'\nmodel = 'full'", true), Preset::Brats);
        // A file is a configuration: what it leaves out has the defaults that it always had.
        assert_eq!(file("dataset_path = 'folder'").unwrap().preset, Preset::Sample);
    }

    #[test]
    fn flags_override_the_file_which_overrides_the_preset() {
        let text = "model = 'unet3d'\nepochs = 7\npatch = [32, 32, 32]\n[optimizer]\nname = 'sgd'\nrate = 1\n";
        let config = RunConfig::resolve(
            Some((Path::new("run.toml"), text)),
            flags("epochs = 9\noptimizer = { rate = 0.5 }"),
            false,
        )
        .unwrap();
        assert_eq!((config.epochs, config.optimizer.rate, config.optimizer.name), (9, 0.5, OptimizerName::Sgd));
        assert_eq!(config.settings().patch, Some([32; 3]));
        assert_eq!(config.optimizer.momentum, 0.9, "the preset's");
    }

    #[test]
    fn what_is_dumped_is_read_back_whole() {
        for preset in ["dataset = 'LITS'\nmodel = 'full2'", "preset = 'sample'"] {
            let config = file(preset).unwrap();
            let text = config.to_toml().unwrap();
            assert_eq!(file(&text).unwrap(), config);
        }
    }

    #[test]
    fn files_of_earlier_versions_mean_what_they_meant() {
        let model = |text: &str| file(text).unwrap().model;
        assert_eq!(model("preset = 'sample'\nnetwork_config = 'oss-net-c'"), "oss-net-c-small");
        assert_eq!(model("preset = 'sample'\nnetwork_config = 'unet3d'"), "unet3d");
        assert_eq!(model("dataset = 'BraTS'\nnetwork_config = 'full'"), "full");
        assert_eq!(model("preset = 'sample'\nmodel = 'oss-net-c'"), "oss-net-c");
    }

    #[test]
    fn bad_files_name_the_key() {
        let table = [
            ("epoch = 3", "unknown key epoch"),
            ("[optimizer]\nlr = 1e-3", "unknown key optimizer.lr"),
            ("epochs = 'many'", "epochs"),
            ("epochs = 0", "run.toml: epochs must be 1 to 1000000"),
            ("[optimizer]\nrate = -1.0", "run.toml: rate must be a positive number"),
            ("patch = [1, 2]", "run.toml: patch must be three sides"),
            ("dataset = 'ACDC'", "BraTS or LITS"),
            ("dataset = 'BraTS'\npreset = 'lits'", "dataset"),
            ("epochs = ", "run.toml"),
            ("model = ''", "oss-net-d"),
            ("model = 'unet4d'", "run.toml: unknown model 'unet4d'; did you mean"),
            ("recompute = '9'", "0, 1, 2, 3 or auto"),
        ];
        for (text, part) in table {
            let error = file(text).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
