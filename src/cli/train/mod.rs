//! `ossnet train`: one network on one data set, resumable at any moment.

mod flags;
#[cfg(feature = "report")]
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::RunArgs;
use super::device_args::{DeviceArgs, DeviceChoice};
use super::oom::OomArgs;
use super::output::{plural, print};
use super::provenance::stamped;
use super::training::{
    self, Progress, check_trainable, checkpoint_path, open_dataset, open_feeds, output_folder, score_cases,
};
use crate::checkpoint::model;
use crate::data::{Axes, Dataset};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::{RunFolder, read_text, write_atomic};
use crate::interrupt;
use crate::models::{Architecture, Family, NetworkConfig};
use crate::planner::training::TrainingPlan;
use crate::report::CaseScore;
use crate::task::{PadTo, Task};
use crate::train::case_source::CaseSource;
use crate::train::config::RunConfig;
use crate::train::run::{Run, best_path};
use crate::train::run_log::RunLog;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;
use crate::train::{training_state, validation};
use flags::Flags;

/// The configuration in a run's folder.
const CONFIG: &str = "config.toml";

/// Most bytes of one.
const MOST_CONFIG: u64 = 1 << 20;

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
    /// CUDA device to compute on, for example "0" [official option]
    #[arg(long, value_name = "LIST", conflicts_with = "device", help_heading = "Run")]
    cuda_devices: Option<String>,
    /// Most bytes of batches that are read and drawn ahead on other threads; 0: none are
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, default_value = "1GiB", help_heading = "Run")]
    prefetch: u64,
    /// Launch each forward and backward pass as one CUDA graph; gradients then keep their memory between steps
    #[arg(long, help_heading = "Run")]
    graph: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    oom: OomArgs,
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
}

/// Trains.
///
/// # Errors
/// Unusable data or flags, an interrupt (progress is saved), a full disk.
pub fn run(args: TrainArgs) -> Result<()> {
    interrupt::listen();
    let config = configuration(&args)?;
    if args.dump_config {
        return print(config.to_toml()?);
    }
    let verbosity = args.run.verbosity();
    let device = device(&args)?;
    config.precision.check(device.target(), "--device cuda")?;
    // An unknown network is an error before anything is read or written.
    let probe = config.network(1, 1, [256; 3])?;
    let folder = match &args.resume {
        Some(folder) => RunFolder::claim(folder, |_| true)?,
        None => output_folder(args.out.as_deref(), "train", |_| false)?,
    };
    let folder = folder.path();
    let path = checkpoint_path(folder, &probe);
    // A run that was killed before its first checkpoint starts anew.
    let resumed = args.resume.is_some() && (path.exists() || !folder.join(CONFIG).exists());
    let Prepared { dataset, task, training, validation, network, settings } =
        prepare(&args, &config, &device, resumed.then_some(path.as_path()))?;
    let run = TrainingPlan { network: &network, settings, cases: &*training, flags: true, graph: args.graph };
    let run = run.at(config.recompute(), &device)?;
    let mut fitting = args.oom.settle(run, &device, verbosity)?;
    let trainer = Trainer::new(&device, &network, fitting.settings().clone());
    let mut trainer = trainer.map_err(|error| fitting.explain(error))?;
    trainer.set_prefetch(args.prefetch);
    if args.graph {
        trainer.use_graphs()?;
    }
    if resumed {
        training_state::resume(&mut trainer, &task, &path)?;
    } else if !config.load_model.is_empty() {
        model::load_weights(trainer.parameters_mut(), Path::new(&config.load_model))?;
        trainer.restart_average()?;
    }
    verbosity.say(format!("training {} on {}; results go to {}", network.title(), dataset.name, folder.display()));
    let again = format!("go on with: ossnet train --resume {}", folder.display());
    let begin = |step: u64| {
        write_atomic(folder.join(CONFIG), config.to_toml()?.as_bytes())?;
        RunLog::open(folder, step)
    };
    let mut run = Run {
        training: &*training,
        validation: &*validation,
        task: &task,
        checkpoint: &path,
        save_every: Duration::from_secs(config.save_every),
        begin: Some(Box::new(begin)),
        journal: None,
        oom_handler: Box::new(|trainer, error| fitting.relieve(trainer, error)),
    };
    let mut progress = Progress::new(verbosity, &trainer, training.len());
    training::interruptible(run.to_end(&mut trainer, &mut progress), &again)?;
    progress.finish(&trainer);
    drop(run);
    let scored = trainer.with_best_weights(|trainer| {
        score_cases(trainer.network(), trainer.parameters(), &task, &*validation, verbosity, &again)
    })?;
    let cases: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let ended = Ended { trainer: &trainer, folder, checkpoint: &path, cases, changes: fitting.changes };
    finish(&args, &config, ended, training.len())
}

/// The configuration of the run: that in the folder of a resumed one, else a preset's, a file's and the flags'.
fn configuration(args: &TrainArgs) -> Result<RunConfig> {
    let stored = args.resume.as_ref().map(|folder| folder.join(CONFIG)).filter(|path| path.exists());
    let path = stored.or(args.flags.config.clone());
    let text = path.as_ref().map(|path| read_text(path, MOST_CONFIG));
    let text = text.transpose()?;
    let file = path.as_deref().zip(text.as_deref());
    RunConfig::resolve(file, args.flags.table()?, args.flags.are_official())
}

/// The device that the flags name.
fn device(args: &TrainArgs) -> Result<Device> {
    let Some(list) = args.cuda_devices.as_deref() else { return args.device.open(&args.run) };
    let indices: Option<Vec<usize>> = list.split(',').map(|index| index.trim().parse().ok()).collect();
    match indices.as_deref() {
        Some(&[index]) => args.run.open(DeviceChoice::Cuda(index)),
        Some([_, ..]) => {
            Err(Error::Usage(format!("--cuda-devices {list}: training runs on one device; name one, for example 0")))
        }
        _ => Err(Error::Usage(format!("--cuda-devices '{list}' is no device's number; give one, for example 0"))),
    }
}

/// Cases, network and settings that the configuration describes.
fn prepare(args: &TrainArgs, config: &RunConfig, device: &Device, resumed: Option<&Path>) -> Result<Prepared> {
    let verbosity = args.run.verbosity();
    let mut dataset = open_dataset(&config.data(), config.seed)?;
    dataset.ignore_geometry = config.preprocessing.ignore_geometry;
    let (channels, probe) = (dataset.channels.len(), config.network(1, 1, [256; 3])?);
    // Weights of the official code want its preprocessing and rules; a run that started from them goes on with them.
    let loaded = Some(config.load_model.as_str()).filter(|path| !path.is_empty()).map(Path::new);
    let reference = resumed.or(loaded).map_or(Ok(false), model::is_reference)?;
    let mut task = Task::of(&dataset, probe.multiples());
    let wanted = &config.preprocessing;
    if wanted.merge_classes {
        task = task.merged();
    }
    task.preprocessing.clip = <[f32; 2]>::try_from(&wanted.clip[..]).ok().or(task.preprocessing.clip);
    task.preprocessing.spacing = <[f64; 3]>::try_from(&wanted.spacing[..]).ok();
    task.preprocessing.resize = <[usize; 3]>::try_from(&wanted.resize[..]).ok();
    let mut grid = if config.patch.is_empty() { PadTo::Largest } else { PadTo::Own };
    if let (Some(family), NetworkConfig::OssNet(probe)) = (config.preset.family(), &probe) {
        task.preprocessing.multiple = [probe.multiple(); 3];
        if reference && family == Family::Brats {
            grid = PadTo::Given(family.volume_shape());
        }
    }
    if reference {
        task.preprocessing.axes = Axes::Stored;
        if config.preset.family() == Some(Family::Lits) {
            (task.preprocessing.clip, task.preprocessing.spacing) = (None, None);
            task.preprocessing.resize = Some(Family::Lits.volume_shape());
        }
    }
    let mut task = task.measured(&dataset)?;
    let (training, validation) = open_feeds(&dataset, &task, grid, device.budget() / 2, verbosity)?;
    check_trainable(&dataset, &task, &*training, verbosity)?;
    let shape = training.case(0)?.volume.shape;
    let network = config.network(channels, task.outputs(), shape)?;
    let network = if reference { network.into_reference() } else { network };
    let mut settings = config.settings();
    task.preprocessing.trained_shape = Some(settings.patch.unwrap_or(shape));
    if reference {
        settings.loss.reference = true;
        settings.optimizer.activation_rate = None;
    }
    check_patch(&settings, &network)?;
    Ok(Prepared { dataset, task, training, validation, network, settings })
}

/// Refuses patches that the network cannot take.
fn check_patch(settings: &TrainSettings, network: &NetworkConfig) -> Result<()> {
    let Some(patch) = settings.patch else { return Ok(()) };
    match network {
        NetworkConfig::UNet(config) if config.dimensions == 3 => {
            let multiple = config.multiple();
            match patch.iter().all(|side| side.is_multiple_of(multiple)) {
                true => Ok(()),
                false => Err(Error::Usage(format!(
                    "--patch {patch:?}: sides must be multiples of {multiple}, for example {}",
                    patch[0].next_multiple_of(multiple)
                ))),
            }
        }
        _ => Err(Error::Usage(format!("--patch is for 3D U-Nets; omit it for {}", network.title()))),
    }
}

/// A run that came to its end.
struct Ended<'a> {
    trainer: &'a Trainer,
    folder: &'a Path,
    checkpoint: &'a Path,
    /// Scores of the validation cases.
    cases: Vec<CaseScore>,
    /// What was changed to fit the memory.
    changes: Vec<String>,
}

/// Writes the summary and the page, and says where the results are.
fn finish(args: &TrainArgs, config: &RunConfig, ended: Ended<'_>, training: usize) -> Result<()> {
    let Ended { trainer, folder, checkpoint, cases, changes } = ended;
    let (dice, iou) = crate::evaluate::means(&cases);
    let (costs, network) = (trainer.costs(), trainer.network().architecture());
    let best = validation::best(&trainer.history().validations);
    let summary = serde_json::json!({
        "model": network.title(),
        "checkpoint": checkpoint.display().to_string(),
        "parameters": trainer.parameters().count(),
        "steps": trainer.optimizer().steps(),
        "final_loss": trainer.recent_loss(trainer.steps_per_epoch(training)),
        "step_seconds": costs.median_step_seconds(),
        "ahead_bytes": costs.ahead_bytes,
        "data_wait_seconds": trainer.waited().as_secs_f64(),
        "peak_bytes": costs.peak_bytes,
        "changed_to_fit": changes,
        "dice": dice,
        "iou": iou,
        "cases": cases,
        "best": best,
        "validations": trainer.history().validations,
    });
    let text = format!("{:#}\n", stamped(summary, "runs"));
    write_atomic(folder.join("summary.json"), text.as_bytes())?;
    #[cfg(feature = "report")]
    report::write(folder, config, trainer, &cases)?;
    if args.run.json {
        return print(text);
    }
    let scores = match cases.len() {
        0 => "no validation cases".into(),
        count => format!("mean Dice {dice:.4} on {}", plural(count, "validation case")),
    };
    let best = best.map_or(String::new(), |best| {
        let path = best_path(checkpoint);
        format!("\nbest: {} (epoch {}, Dice {:.4}, IoU {:.4})", path.display(), best.epoch, best.dice, best.iou)
    });
    let page = if cfg!(feature = "report") { "report.html" } else { "summary.json" };
    print(format!(
        "{}: {scores}, peak {}, {:.3} s a step ({:.1} s in all waiting for data)\ncheckpoint: {}{best}\nreport: {}",
        network.title(),
        crate::memory::format_bytes(costs.peak_bytes),
        costs.median_step_seconds(),
        trainer.waited().as_secs_f64(),
        checkpoint.display(),
        folder.join(page).display()
    ))
}
