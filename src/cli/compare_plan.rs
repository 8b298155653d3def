//! The runs of a comparison on your own data: each network's configuration is chosen by the data, under one budget for all.

use std::path::{Path, PathBuf};

use super::compare::CompareArgs;
use super::plan;
use super::train::MOST_CONFIG;
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::name::text_of;
use crate::files::{read_text, write_atomic};
use crate::models::{Architecture, NetworkConfig};
use crate::plan::{Budget, Request, duration};
use crate::train::config::{DataSource, Preset, RunConfig, SAMPLE};
use crate::train::ranks::{Ranks, SEPARATOR};
use toml::{Table, Value};

/// The runs, in the order of `--models`.
pub(super) struct Plans {
    pub configs: Vec<RunConfig>,
    /// Where each lies in the comparison's folder.
    files: Vec<PathBuf>,
}

/// True if the settings are chosen by the data: by your own, unless the sample's settings are asked for.
///
/// # Errors
/// [`Error::Usage`] for presets that are no comparison's, and for a time that nothing is chosen for.
pub(super) fn is_wanted(args: &CompareArgs) -> Result<bool> {
    let path = args.data.as_deref().map(text_of);
    let own = path.is_some_and(|path| matches!(DataSource::of(&path), DataSource::Folder(_)));
    let wanted = match args.preset {
        None => own,
        Some(Preset::Auto) => true,
        Some(Preset::Sample) => false,
        Some(Preset::Brats | Preset::Lits) => {
            let problem = "--preset: a comparison has no official rules";
            return Err(Error::Usage(format!("{problem}; use auto or sample, or train each network")));
        }
    };
    match args.time_budget {
        Some(_) if !wanted => Err(Error::Usage("--time-budget is for --preset auto; give --epochs instead".into())),
        _ => Ok(wanted),
    }
}

/// The file of a network's run in a comparison's folder.
pub(super) fn file_of(folder: &Path, network: &NetworkConfig) -> PathBuf {
    folder.join(format!("{}.toml", network.slug()))
}

/// The runs of these networks as the first rank makes them, on every rank.
///
/// # Errors
/// Those of `make`.
pub(super) fn shared(
    ranks: &Ranks,
    networks: &[NetworkConfig],
    folder: &Path,
    make: impl FnOnce() -> Result<Plans>,
) -> Result<Plans> {
    let mut own = None;
    let told = ranks.from(0, || {
        let texts = own.insert(make()?).configs.iter().map(RunConfig::to_toml).collect::<Result<Vec<_>>>()?;
        Ok(texts.join(SEPARATOR))
    })?;
    if let Some(plans) = own {
        return Ok(plans);
    }
    let file = Path::new("the first rank's plan");
    let configs = told.split(SEPARATOR).map(|text| RunConfig::resolve(Some((file, text)), Table::new(), false));
    let files = networks.iter().map(|network| file_of(folder, network)).collect();
    Ok(Plans { configs: configs.collect::<Result<_>>()?, files })
}

/// The runs of these networks on `dataset`: those stored in `folder`, or new ones, which are printed.
///
/// # Errors
/// Runs in the folder that were made with other flags; what planning reports.
pub(super) fn of(
    args: &CompareArgs,
    networks: &[NetworkConfig],
    dataset: &Dataset,
    device: &Device,
    folder: &Path,
) -> Result<Plans> {
    let verbosity = args.run.verbosity();
    let files: Vec<PathBuf> = networks.iter().map(|network| file_of(folder, network)).collect();
    if files.iter().all(|file| file.exists()) {
        let configs = files.iter().map(|file| stored(args, file)).collect::<Result<_>>()?;
        verbosity.say(format!("the networks' runs are those that were planned before, in {}", folder.display()));
        return Ok(Plans { configs, files });
    }
    dataset.check_headers()?;
    let fingerprint = plan::fingerprint(dataset, verbosity)?;
    let seconds = args.time_budget.unwrap_or_else(|| crate::plan::default_seconds(device.target()));
    let path = args.data.as_deref().map_or(format!("{SAMPLE}heads"), text_of);
    let mut configs = Vec::new();
    for name in args.models.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        // Each rehearsal has a device of its own: the runs' arena begins empty.
        let device = args.device.open(&args.run)?;
        let request = Request {
            model: name,
            data: &crate::plan::stored_path(&path),
            seed: args.seed,
            budget: Budget { seconds, epochs: args.epochs },
            given: given(args),
        };
        let fitted = plan::planned_run(&fingerprint, dataset, &device, &request, verbosity)?;
        fitted.lines(&fingerprint).iter().for_each(|line| verbosity.say(line));
        configs.push(fitted.config);
    }
    Ok(Plans { configs, files })
}

/// Settings that flags give, which take precedence over those chosen by the data.
fn given(args: &CompareArgs) -> Table {
    let mut given = Table::new();
    if let Some(recompute) = args.recompute {
        given.insert("recompute".into(), Value::String(recompute.to_string()));
    }
    given.insert("precision".into(), Value::String(args.precision.precision.to_string()));
    given
}

/// A run that was planned before.
fn stored(args: &CompareArgs, file: &Path) -> Result<RunConfig> {
    let config = RunConfig::resolve(Some((file, &read_text(file, MOST_CONFIG)?)), Table::new(), false)?;
    let problem = match args.epochs {
        _ if config.seed != args.seed => format!("was planned with seed {}, not {}", config.seed, args.seed),
        Some(epochs) if config.epochs != epochs => format!("was planned for {} epochs, not {epochs}", config.epochs),
        _ => return Ok(config),
    };
    Err(Error::data(file, problem, "give the flags of the comparison that it belongs to, or another folder"))
}

impl Plans {
    /// Writes the runs into the comparison's folder, where a resumed one finds them.
    ///
    /// # Errors
    /// A full disk.
    pub(super) fn write(&self) -> Result<()> {
        let mut pairs = self.configs.iter().zip(&self.files).filter(|(_, file)| !file.exists());
        pairs.try_for_each(|(config, file)| write_atomic(file, config.to_toml()?.as_bytes()))
    }
}

/// The budget that all networks had, in words; empty where the settings are the sample's.
pub(super) fn budget(args: &CompareArgs, device: &Device, planned: bool) -> String {
    match (planned, args.epochs) {
        (false, _) => String::new(),
        (true, Some(1)) => "each scan seen once by every network".into(),
        (true, Some(epochs)) => format!("each scan seen {epochs} times by every network"),
        (true, None) => {
            let seconds = args.time_budget.unwrap_or_else(|| crate::plan::default_seconds(device.target()));
            format!("{} of training for every network, whose epochs follow from measured steps", duration(seconds))
        }
    }
}
