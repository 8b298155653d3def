//! `ossnet train`: one network on one data set, resumable at any moment.

mod data_file;
mod ended;
mod flags;
mod folds;
pub(super) mod overwrite;
#[cfg(feature = "report")]
mod report;
mod several;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use toml::Table;

use super::RunArgs;
use super::cuda_devices;
use super::device_args::DeviceArgs;
use super::fold_files;
use super::oom::OomArgs;
use super::output::{new_files, plural, print};
use super::plan;
use super::profile::ProfileArgs;
use super::training::{
    self, Progress, check_trainable, checkpoint_path, open_dataset, open_divided, open_feeds, output_folder,
    score_cases,
};
use crate::checkpoint::model;
use crate::data::{Dataset, Folds};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::name::{path_of, text_of};
use crate::files::{RunFolder, read_text, remove_if_there, write_atomic};
use crate::interrupt;
use crate::models::{Architecture, NetworkConfig, RecomputeChoice};
use crate::plan::{Budget, Request};
use crate::planner::training::TrainingPlan;
use crate::report::CaseScore;
use crate::task::Task;
use crate::text::for_a_shell;
use crate::train::case_source::CaseSource;
use crate::train::config::{DataSource, Preset, RunConfig};
use crate::train::ranks::Ranks;
use crate::train::run::Run;
use crate::train::run_log::RunLog;
use crate::train::settings::TrainSettings;
use crate::train::setup::Setup;
use crate::train::trainer::{PREFETCH, Trainer};
use crate::train::training_state;
use ended::{Ended, SUMMARY, Trained};
use flags::Flags;
pub(super) use several::check as check_alike;

/// The configuration in a run's folder.
pub(super) const CONFIG: &str = "config.toml";

/// Most bytes of one.
pub(super) const MOST_CONFIG: u64 = 1 << 20;

/// Flags of `ossnet train`.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    flags: Flags,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "out", help_heading = "Run")]
    resume: Option<PathBuf>,
    /// Output folder [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR", help_heading = "Run")]
    out: Option<PathBuf>,
    /// Print the whole configuration as TOML, and do nothing else
    #[arg(long, help_heading = "Run")]
    dump_config: bool,
    /// Compute on the CPU [official option]
    #[arg(long, conflicts_with_all = ["cuda_devices", "device"], help_heading = "Run")]
    cpu: bool,
    /// CUDA devices to compute on, a process on each, for example "0" or "0,1" [official option]
    #[arg(long, value_name = "LIST", conflicts_with = "device", help_heading = "Run")]
    cuda_devices: Option<String>,
    /// Most bytes of batches that are read and drawn ahead on other threads; 0: none are [default: 1GiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, help_heading = "Run")]
    prefetch: Option<u64>,
    /// Training time that the number of epochs is chosen for, with your own data [default: 10m on the CPU, 1h on CUDA]
    #[arg(long, value_name = "TIME", value_parser = plan::parse_time, conflicts_with = "epochs", help_heading = "Training")]
    time_budget: Option<f64>,
    /// Do not score the validation cases at the end; `ossnet evaluate` does so at any time
    #[arg(long, help_heading = "Run")]
    no_scoring: bool,
    /// Launch each forward and backward pass as one CUDA graph; gradients then keep their memory between steps
    #[arg(long, conflicts_with = "profile", help_heading = "Run")]
    graph: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    oom: OomArgs,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Replace the run in --out and the file of --profile
    #[arg(long, help_heading = "Files")]
    overwrite: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// A number of bytes, of which 0 is one.
fn bytes_or_none(text: &str) -> std::result::Result<u64, String> {
    if text == "0" { Ok(0) } else { crate::quantities::parse_bytes(text) }
}

/// What a run is made of.
struct Prepared {
    dataset: Dataset,
    task: Task,
    training: Box<dyn CaseSource>,
    validation: Box<dyn CaseSource>,
    network: NetworkConfig,
    settings: TrainSettings,
    /// The cross-validation that the division is a part of.
    folds: Option<Folds>,
}

/// Trains.
///
/// # Errors
/// Unusable data or flags, an interrupt (progress is saved), a full disk.
pub fn run(mut args: TrainArgs) -> Result<()> {
    interrupt::listen();
    let ranks = cuda_devices::join(args.cuda_devices.as_deref(), &mut args.device, &mut args.run)?;
    let _folders = ranks.all(new_files(&args.profile.profile, args.overwrite))?;
    let config = match ranks.are_several() {
        false => settled(&args)?,
        true => {
            ranks.all(args.check_several())?;
            let text = ranks.from(0, || settled(&args)?.map_or(Ok(String::new()), |config| config.to_toml()))?;
            let file = (Path::new("the first rank's configuration"), &*text);
            (!text.is_empty()).then(|| RunConfig::resolve(Some(file), Table::new(), false)).transpose()?
        }
    };
    let Some(config) = config else { return Ok(()) };
    let device = ranks.all(args.device.open(&args.run))?;
    ranks.join(&device)?;
    ranks.all(config.precision.check(device.target(), "--device cuda"))?;
    // An unknown network is an error before anything is read or written.
    ranks.all(config.network(1, 1, [256; 3]))?;
    let claim = || match &args.resume {
        Some(folder) => RunFolder::claim(folder, |_| true),
        None => output_folder(args.out.as_deref(), "train", |folder| {
            // Folds that were trained one by one, perhaps on several machines, are gathered.
            let folds = config.folds > 0 && config.fold == 0 && fold_files::are_in(folder);
            folds || args.overwrite && folder.join(CONFIG).exists()
        }),
    };
    // Held to the end, by the first rank.
    let mut claimed = None;
    let folder = ranks.from(0, || Ok(text_of(claimed.insert(claim()?).path())))?;
    let folder = path_of(Path::new(""), &folder);
    let flag = if args.no_scoring { " --no-scoring" } else { "" };
    let again = format!("go on with: ossnet train --resume {}{flag}", for_a_shell(&folder));
    if config.folds > 0 && config.fold == 0 {
        return folds::run(&args, &config, &device, &folder, &again, &ranks);
    }
    let finished = || args.resume.as_ref().map_or(Ok(None), |_| folds::finished(&folder, &config));
    let finished = ranks.from(0, || Ok(finished()?.map_or(String::new(), |summary| summary.to_string())))?;
    if let Ok(summary) = serde_json::from_str(&finished) {
        return if ranks.is_first() { tell_finished(&args, &folder, &summary) } else { Ok(()) };
    }
    let resuming = args.resume.is_some();
    let place = Place { folder: &folder, resuming, again: &again, begin: &|| Ok(()), ranks: &ranks };
    let trained = train_in(&args, &config, &device, &place)?;
    if ranks.is_first() { print(if args.run.json { trained.json } else { trained.text }) } else { Ok(()) }
}

/// The whole configuration of the run; nothing if there is no more to do than to print it.
fn settled(args: &TrainArgs) -> Result<Option<RunConfig>> {
    let mut config = configuration(args)?;
    args.check_out(&config)?;
    // A run that was stopped before its configuration was written begins anew.
    let resumed = args.resume.as_ref().is_some_and(|folder| folder.join(CONFIG).exists());
    let of_the_data = config.preset == Preset::Auto && args.flags.config.is_none() && !resumed;
    if args.dump_config && !of_the_data {
        return print(config.to_toml()?).map(|()| None);
    }
    if args.time_budget.is_some() && !of_the_data {
        let problem = "--time-budget chooses the epochs of a run that the data make";
        return Err(Error::Usage(format!("{problem} (--preset auto, no --config); give --epochs instead")));
    }
    if of_the_data {
        // An unknown network is an error before any case is read.
        config.network(1, 1, [256; 3])?;
        config.precision.check(args.device.open(&args.run)?.target(), "--device cuda")?;
        config = match planned_before(args)? {
            Some(config) => config,
            // The rehearsal has a device of its own: the run's arena begins empty, as its plan does.
            None => by_data(args, config, &args.device.open(&args.run)?)?,
        };
        if args.dump_config {
            return print(config.to_toml()?).map(|()| None);
        }
    }
    Ok(Some(config.from_anywhere()))
}

/// Says what a run found that had come to its end before.
fn tell_finished(args: &TrainArgs, folder: &Path, summary: &serde_json::Value) -> Result<()> {
    if args.run.json {
        return print(format!("{summary:#}\n"));
    }
    let (model, count) =
        (summary["model"].as_str().unwrap_or_default(), summary["cases"].as_array().map_or(0, Vec::len));
    let score = summary["dice"]
        .as_f64()
        .map_or(String::new(), |dice| format!(": mean Dice {dice:.4} on {}", plural(count, "validation case")));
    print(format!(
        "{model}: this run was finished before{score}; --epochs with a larger number trains on\nsummary: {}",
        folder.join(SUMMARY).display()
    ))
}

/// Where a run is and what belongs to its start and end.
struct Place<'a> {
    folder: &'a Path,
    /// True if what lies in the folder is gone on with.
    resuming: bool,
    /// How to go on after an interrupt.
    again: &'a str,
    /// Done before the first file is written.
    begin: &'a dyn Fn() -> Result<()>,
    /// The processes that make it.
    ranks: &'a Ranks,
}

/// Trains in one folder to the end.
fn train_in(args: &TrainArgs, config: &RunConfig, device: &Device, place: &Place<'_>) -> Result<Trained> {
    let Place { folder, again, ranks, .. } = *place;
    let verbosity = args.run.verbosity();
    let path = checkpoint_path(folder, &config.network(1, 1, [256; 3])?);
    // A run that was killed before its first checkpoint starts anew.
    let resumed = place.resuming && (path.exists() || !folder.join(CONFIG).exists());
    let Prepared { dataset, task, training, validation, network, settings, folds } =
        ranks.all(prepare(args, config, device, resumed.then_some(path.as_path())))?;
    let facts = ranks.all(data_file::facts(&dataset))?;
    if place.resuming && ranks.is_first() {
        data_file::warn_of_others(folder, &facts, verbosity);
    }
    let divided = ranks.all(settings.divided(ranks.size(), training.len()))?;
    let run = TrainingPlan {
        network: &network,
        settings: divided.clone(),
        cases: &*training,
        flags: true,
        graph: args.graph,
    };
    let run = ranks.all(run.at(config.recompute(), device))?;
    let mut fitting = ranks.all(args.oom.settle(run, device, verbosity))?;
    let trainer = Trainer::new(device, &network, fitting.settings().clone());
    let mut trainer = ranks.all(trainer.map_err(|error| fitting.explain(error)))?;
    trainer.join(ranks, fitting.settings().undivided(&divided, &settings));
    trainer.set_prefetch(args.prefetch.unwrap_or(PREFETCH));
    if args.graph {
        trainer.use_graphs()?;
    }
    ranks.all(begin_from(&mut trainer, config, &task, resumed.then_some(&path)))?;
    several::check(&trainer, &dataset, training.len())?;
    if config.preset == Preset::Sample && matches!(config.data(), DataSource::Folder(_)) && !resumed {
        verbosity.say("defaults are those of the embedded sample; --preset auto makes them of your data");
    }
    verbosity.say(format!("training {} on {}; results go to {}", network.title(), dataset.name, folder.display()));
    if config.recompute() == RecomputeChoice::Auto {
        let budget = crate::memory::format_bytes(device.budget());
        verbosity.say(format!("recompute {}: the fastest whose plan fits {budget}", trainer.settings().recompute));
    }
    several::tell(&trainer, verbosity);
    let begin = |step: u64| {
        (place.begin)()?;
        if args.overwrite && !place.resuming {
            overwrite::remove_run(folder)?;
        }
        if let Some(folds) = &folds {
            fold_files::write(folder, folds, config.fold, &dataset)?;
        }
        // What a shorter run left is no summary of this one.
        remove_if_there(&folder.join(SUMMARY))?;
        write_atomic(folder.join(CONFIG), config.to_toml()?.as_bytes())?;
        data_file::write(folder, &facts)?;
        RunLog::open(folder, step)
    };
    let mut run = Run {
        training: &*training,
        validation: &*validation,
        task: &task,
        checkpoint: &path,
        save_every: Duration::from_secs(config.save_every),
        begin: if ranks.is_first() { Some(Box::new(begin)) } else { None },
        journal: None,
        oom_handler: Box::new(|trainer, error| fitting.relieve(trainer, error)),
    };
    let mut progress = Progress::new(verbosity, &trainer, training.len());
    if config.preset == Preset::Auto {
        progress.estimate_end();
    }
    args.profile.start(device);
    training::interruptible(run.to_end(&mut trainer, &mut progress), again)?;
    progress.finish(&trainer);
    drop(run);
    if !ranks.is_first() {
        return Ok(Trained { json: String::new(), text: String::new() });
    }
    args.profile.finish(device, &args.run)?;
    let started = Instant::now();
    let scored = trainer.with_best_weights(|trainer| {
        if args.no_scoring {
            return Ok(Vec::new());
        }
        score_cases(trainer.network(), trainer.parameters(), &task, &*validation, false, verbosity, again)
    })?;
    let scoring = started.elapsed();
    #[cfg(feature = "report")]
    let pictures = super::pictures::of_scored(&network.title(), &task, &*validation, &scored)?;
    let cases: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let ended = Ended {
        trainer: &trainer,
        dataset: &dataset,
        folder,
        checkpoint: &path,
        cases,
        scoring,
        changes: fitting.changes,
        #[cfg(feature = "report")]
        pictures,
    };
    ended.finish(config, training.len())
}

/// Gives a trainer what it begins from: a checkpoint's whole state, or weights alone.
fn begin_from(trainer: &mut Trainer, config: &RunConfig, task: &Task, resumed: Option<&PathBuf>) -> Result<()> {
    match resumed {
        Some(path) => training_state::resume(trainer, task, path),
        None if config.load_model.is_empty() => Ok(()),
        None => {
            model::load_weights(trainer.parameters_mut(), &path_of(Path::new(""), &config.load_model))?;
            trainer.restart_average()
        }
    }
}

/// The configuration of the run: that in the folder of a resumed one, else a preset's, a file's and the flags'.
fn configuration(args: &TrainArgs) -> Result<RunConfig> {
    let stored = args.resume.as_ref().map(|folder| folder.join(CONFIG)).filter(|path| path.exists());
    let path = stored.or(args.flags.config.clone());
    let text = path.as_ref().map(|path| read_text(path, MOST_CONFIG));
    let text = text.transpose()?;
    let file = path.as_deref().zip(text.as_deref());
    let config = RunConfig::resolve(file, args.flags.table()?, args.flags.are_official())?;
    if let (Some(folder), None) = (&args.resume, file) {
        // Runs of before configurations were written go on with the flags that they began with.
        if !checkpoint_path(folder, &config.network(1, 1, [256; 3])?).exists() {
            let remedy = "name a folder that ossnet train wrote, or begin a run with --out";
            return Err(Error::data(folder, format!("no run to go on with, {CONFIG} is missing"), remedy));
        }
    }
    if let (Some(folder), Some(_)) = (&args.resume, file) {
        let checkpoint =
            |config: &RunConfig| config.network(1, 1, [256; 3]).map(|network| checkpoint_path(folder, &network));
        let before = RunConfig::resolve(file, Table::new(), false)?;
        if checkpoint(&before)? != checkpoint(&config)? {
            let problem =
                format!("--resume {} goes on with {}, not with {}", folder.display(), before.model, config.model);
            return Err(Error::Usage(format!("{problem}; train another network with --out")));
        }
    }
    Ok(config)
}

/// The configuration of the folds in `--out`, which continue as they were planned: a new rehearsal would measure other seconds.
fn planned_before(args: &TrainArgs) -> Result<Option<RunConfig>> {
    let stored = args.out.as_ref().map(|folder| folder.join(CONFIG));
    let Some(path) = stored.filter(|path| path.exists() && !args.overwrite) else { return Ok(None) };
    let config = RunConfig::resolve(Some((&path, &read_text(&path, MOST_CONFIG)?)), Table::new(), false)?;
    let mut flags = args.flags.table()?;
    if let Some(toml::Value::String(path)) = flags.get_mut("dataset_path") {
        *path = crate::plan::stored_path(path);
    }
    Ok(Some(config.overlaid(flags)?))
}

/// The configuration that the data make of `asked`: what `ossnet plan` writes, with the flags over it. It is said in lines.
fn by_data(args: &TrainArgs, asked: RunConfig, device: &Device) -> Result<RunConfig> {
    let verbosity = args.run.verbosity();
    let dataset = open_divided(&asked)?;
    dataset.check_headers()?;
    let fingerprint = plan::fingerprint(&dataset, verbosity)?;
    let mut given = args.flags.table()?;
    let epochs = given.contains_key("epochs").then_some(asked.epochs);
    ["preset", "model", "dataset_path", "seed"].into_iter().for_each(|key| drop(given.remove(key)));
    let seconds = args.time_budget.unwrap_or_else(|| crate::plan::default_seconds(device.target()));
    let request = Request {
        model: &asked.model,
        data: &crate::plan::stored_path(&asked.dataset_path),
        seed: asked.seed,
        budget: Budget { seconds, epochs },
        given,
    };
    let fitted = plan::planned_run(&fingerprint, &dataset, device, &request, verbosity)?;
    fitted.lines(&fingerprint).iter().for_each(|line| verbosity.say(line));
    Ok(fitted.config)
}

/// Cases, network and settings that the configuration describes.
fn prepare(args: &TrainArgs, config: &RunConfig, device: &Device, resumed: Option<&Path>) -> Result<Prepared> {
    let verbosity = args.run.verbosity();
    let mut dataset = open_dataset(&config.data(), config.seed)?;
    let folds = (config.folds > 0).then(|| Folds::of(&dataset, config.folds, config.seed)).transpose()?;
    folds.iter().for_each(|folds| folds.apply(&mut dataset, config.fold));
    dataset.ignore_geometry = config.preprocessing.ignore_geometry;
    check_reference(config)?;
    // Weights of the official code want its preprocessing and rules; a run that started from them goes on with them.
    let loaded = Some(path_of(Path::new(""), &config.load_model)).filter(|path| !path.as_os_str().is_empty());
    let reference = resumed.or(loaded.as_deref()).map_or(Ok(false), model::is_reference)?;
    let Setup { task, grid, network, settings, .. } = Setup::of(config, &dataset, reference)?;
    let (training, validation) = open_feeds(&dataset, &task, grid, device.budget() / 2, verbosity)?;
    check_trainable(&dataset, &task, &*training, verbosity)?;
    Ok(Prepared { dataset, task, training, validation, network, settings, folds })
}

/// Refuses the official rules where the official code has none.
fn check_reference(config: &RunConfig) -> Result<()> {
    let network = config.network(1, 1, [256; 3])?;
    match (config.reference, &network, config.preset.family()) {
        (true, NetworkConfig::UNet(_), _) => {
            let problem = format!("--reference: the official code has no {}", network.title());
            Err(Error::Usage(format!("{problem}; omit it, or name an occupancy network")))
        }
        (true, NetworkConfig::OssNet(_), None) => {
            let problem = "--reference: the official rules are those of a data set";
            Err(Error::Usage(format!("{problem}; add --preset brats or --preset lits")))
        }
        _ => Ok(()),
    }
}
