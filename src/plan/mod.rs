//! A run's configuration made of the data and a budget of bytes and seconds: fingerprint, rules, sizes, reasons.
//!
//! The order is that of nnU-Net's planning. What differs: sizes are the largest whose *planned* bytes fit, since the planner takes
//! the trainer's own steps, and epochs follow from a few steps that were really made.

pub mod fingerprint;
mod fit;
pub mod forecast;
pub mod phases;
mod rules;
mod toml_file;

pub use fingerprint::Fingerprint;
pub use fit::{Budget, Fitted, duration};
pub use rules::{Draft, Reasons, draft};
use toml::Table;

use crate::data::Dataset;
use crate::device::{Device, Target};
use crate::error::Result;
use crate::files::name::text_of;
use crate::memory::format_bytes;
use crate::models::NetworkConfig;
use crate::report::{count, counted};
use crate::train::config::DataSource;

/// Seconds of training a network if none are asked for: ten minutes on the CPU, an hour on CUDA.
pub fn default_seconds(target: Target) -> f64 {
    match target {
        Target::Cpu { .. } => 600.0,
        Target::Cuda(_) => 3600.0,
    }
}

/// What a plan is asked for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The network's name.
    pub model: &'a str,
    /// Where the data set is, as configurations say it.
    pub data: &'a str,
    /// Seed of the run and of a drawn division.
    pub seed: u64,
    /// What it may take.
    pub budget: Budget,
    /// Keys of the configuration that the caller has set; they stay as they are.
    pub given: Table,
}

/// Plans a run.
///
/// # Errors
/// An unknown network, cases that cannot be read, sizes that do not fit whatever is made smaller.
pub fn plan(fingerprint: &Fingerprint, dataset: &Dataset, device: &Device, request: &Request<'_>) -> Result<Fitted> {
    let Request { model, data, seed, budget, given } = request;
    let mut draft = draft(fingerprint, model, data, *seed)?;
    draft.config = draft.config.overlaid(given.clone())?;
    draft.reasons.retain(|key, _| !is_given(given, key));
    fit::fit(draft, dataset, device, *budget, |key| is_given(given, key))
}

/// True if a table holds a key, which may be a section's.
fn is_given(given: &Table, key: &str) -> bool {
    match key.split_once('.') {
        None => given.contains_key(key),
        Some((section, key)) => given.get(section).and_then(|section| section.get(key)).is_some(),
    }
}

impl Fitted {
    /// The configuration as a file that `train --config` takes, with its reasons as comments.
    ///
    /// # Errors
    /// None that a value of this type could cause.
    pub fn to_toml(&self, fingerprint: &Fingerprint) -> Result<String> {
        let heading = format!(
            "{} on {}, planned from {} training cases.\n{}",
            self.forecast.network,
            fingerprint.name,
            fingerprint.cases.len(),
            self.lines(fingerprint).join("\n")
        );
        toml_file::commented(&self.config, &heading, &self.reasons)
    }

    /// What is said of the run before its first step.
    pub fn lines(&self, fingerprint: &Fingerprint) -> Vec<String> {
        let Self { config, forecast, step_seconds, .. } = self;
        let classes: Vec<&str> = fingerprint.classes.iter().skip(1).map(|class| class.name.as_str()).collect();
        let spacing = match config.preprocessing.spacing[..] {
            [x, y, z] => format!("{x} × {y} × {z} mm, to which scans are resampled"),
            _ => format!("{} mm, as stored", crate::data::inspect::millimetres(fingerprint.spacing.median)),
        };
        let (shape, settings) = (rules::sides(forecast.shape), &forecast.settings);
        let what = if config.patch.is_empty() { "whole volumes" } else { "patches" };
        let points = match config.network(1, 1, forecast.shape) {
            Ok(NetworkConfig::OssNet(_)) => format!(", {} each", counted(settings.points as u64, "point")),
            Ok(NetworkConfig::UNet(unet)) if unet.dimensions == 2 => format!(", {} slices in all", settings.slices),
            _ => String::new(),
        };
        let time = match step_seconds {
            Some(seconds) => format!(", about {}", fit::duration(seconds * forecast.steps() as f64)),
            None => String::new(),
        };
        let validation = match forecast.validation {
            Some(bytes) => format!(", a validation about {}", format_bytes(bytes)),
            None => String::new(),
        };
        let held = if forecast.held { "held" } else { "read as needed" };
        let plural = if settings.batch_size == 1 { "case" } else { "cases" };
        vec![
            format!("network       {}, {} parameters", forecast.network, count(forecast.parameters as u64)),
            format!(
                "data          {}: {} training cases ({held}); {}",
                fingerprint.name,
                fingerprint.cases.len(),
                classes.join(", ")
            ),
            format!("spacing       {spacing}"),
            format!("shape         {shape} voxels, {what}"),
            format!("batch         {} {plural}{points}, recompute {}", settings.batch_size, settings.recompute),
            format!(
                "learning      {:?} at {}, {:?}",
                config.optimizer.name, config.optimizer.rate, config.schedule.name
            ),
            format!(
                "device bytes  {}: a step reserves {} ({} at its peak){validation}",
                format_bytes(forecast.device_bytes()),
                format_bytes(forecast.reserved),
                format_bytes(forecast.costs.peak_bytes)
            ),
            format!(
                "host bytes    {}: cases {}, batches {}",
                format_bytes(forecast.host_bytes()),
                format_bytes(forecast.host.cases),
                format_bytes(forecast.host.staging)
            ),
            {
                let epochs = if settings.epochs == 1 { "epoch" } else { "epochs" };
                format!("steps         {} in {} {epochs}{time}", count(forecast.steps()), count(settings.epochs))
            },
        ]
    }
}

/// Where a data set lies, as a configuration says it from any folder: an absolute path, or `sample:TASK`.
pub fn stored_path(path: &str) -> String {
    match DataSource::of(path) {
        DataSource::Embedded(_) => path.into(),
        DataSource::Folder(folder) => text_of(folder.canonicalize().unwrap_or(folder)),
    }
}
