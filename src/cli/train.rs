//! `ossnet train`: one network on one data set, resumable at any moment.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::course::{
    check_trainable, checkpoint_path, load_cases, open_dataset, output_folder, score_cases, train_to_end,
};
use super::output::print;
use crate::checkpoint::model;
use crate::data::Axes;
use crate::error::{Error, Result};
use crate::files::{RunFolder, write_atomic};
use crate::models::{Family, NetworkConfig};
use crate::report::CaseScore;
use crate::task::{Grid, Task};
use crate::train::{presets, state, trainer::Trainer};
use crate::{evaluate, interrupt};

/// How large the network is and how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// Small network, high rates: for volumes of some hundred thousand voxels
    Sample,
    /// The published BraTS configuration (four encoder blocks)
    Brats,
    /// The published LiTS configuration (five encoder blocks)
    Lits,
}

/// Flags of `ossnet train`.
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Model, for example oss-net-c, o-net, unet3d
    #[arg(long, default_value = "oss-net-c", value_name = "NAME")]
    model: String,
    /// Size of the network and training settings
    #[arg(long, value_enum, default_value_t = Preset::Sample)]
    preset: Preset,
    /// A data set's folder (Decathlon, BraTS or LiTS layout) [default: the embedded head MRIs]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passes over the training cases [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: Option<u64>,
    /// Cases a step [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch_size: Option<u64>,
    /// Points a case and step [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    points: Option<u64>,
    /// Learning rate [default: the preset's]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    rate: Option<f32>,
    /// Seed of initial weights, order, points and augmentation
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    seed: u64,
    /// Start from the weights of this checkpoint (.safetensors or official .pt)
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    load_model: Option<PathBuf>,
    /// Go on with the run in this folder, with the same flags
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Output folder [default: a new folder in runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
}

/// Trains.
///
/// # Errors
/// Unusable data or flags, an interrupt (progress is saved), a full disk.
pub fn run(args: TrainArgs) -> Result<()> {
    interrupt::listen();
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(Error::Usage("--rate must be a positive number, for example 3e-4".into()));
    }
    let verbosity = args.run.verbosity();
    let device = args.run.device()?;
    let dataset = open_dataset(args.data.as_deref(), args.seed)?;
    let channels = dataset.channels.len();
    let probe = configuration(&args, channels, 1, [64; 3])?;
    let mut task = Task::of(&dataset, probe.multiples());
    let folder = match &args.resume {
        Some(folder) => RunFolder::claim(folder, |_| true)?,
        None => output_folder(args.out.as_deref(), "train", |_| false)?,
    };
    let folder = folder.path();
    // Weights of the official code want its preprocessing and rules; a run that started from them goes on with them.
    let origin = args.load_model.clone().or(args.resume.is_some().then(|| checkpoint_path(folder, &probe)));
    let reference = origin.map_or(Ok(false), |origin| model::is_reference(&origin))?;
    if reference {
        (task.preprocessing.axes, task.preprocessing.clip) = (Axes::Stored, None);
    }
    let (training, validation) = load_cases(&dataset, &task, Grid::Largest, verbosity)?;
    check_trainable(&dataset, &training)?;
    let shape = training[0].volume.shape;
    let network = configuration(&args, channels, task.outputs(), shape)?;
    let network = if reference { network.into_reference() } else { network };
    let mut settings = match args.preset {
        Preset::Sample => presets::sample(&network, args.epochs.unwrap_or(presets::SAMPLE_EPOCHS), args.seed),
        Preset::Brats | Preset::Lits => presets::official(args.epochs.unwrap_or(presets::OFFICIAL_EPOCHS), args.seed),
    };
    settings.batch_size = args.batch_size.map_or(settings.batch_size, |size| size as usize);
    settings.points = args.points.map_or(settings.points, |points| points as usize);
    settings.optimizer.rate = args.rate.unwrap_or(settings.optimizer.rate);
    if reference {
        settings.loss.reference = true;
        settings.optimizer.activation_rate = None;
    }
    network.check()?;
    let mut trainer = Trainer::new(&device, &network, settings)?;
    let path = checkpoint_path(folder, &network);
    if args.resume.is_some() {
        state::resume(&mut trainer, &task, &path)?;
    }
    if let Some(weights) = &args.load_model {
        model::load_weights(trainer.parameters_mut(), weights)?;
    }
    verbosity.say(format!("training {} on {}; results go to {}", network.title(), dataset.name, folder.display()));
    let again = format!("run the same command with --resume {} to go on", folder.display());
    train_to_end(&mut trainer, &training, &task, &path, verbosity, &again)?;
    let scored = score_cases(trainer.network(), trainer.parameters(), &task, &validation, verbosity, &again)?;
    let cases: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let (dice, iou) = evaluate::means(&cases);
    let costs = trainer.costs();
    let summary = serde_json::json!({
        "model": network.title(),
        "checkpoint": path.display().to_string(),
        "parameters": trainer.parameters().count(),
        "steps": trainer.optimizer().steps(),
        "final_loss": trainer.recent_loss(trainer.steps_per_epoch(training.len())),
        "step_seconds": costs.median_step_seconds(),
        "peak_bytes": costs.peak_bytes,
        "dice": dice,
        "iou": iou,
        "cases": cases,
    });
    let text = format!("{summary:#}\n");
    write_atomic(folder.join("summary.json"), text.as_bytes())?;
    if args.run.json {
        return print(text);
    }
    let scores = match cases.len() {
        0 => "no validation cases".into(),
        count => format!("mean Dice {dice:.4} on {count} validation cases"),
    };
    print(format!(
        "{}: {scores}, peak {}, {:.3} s a step\ncheckpoint: {}",
        network.title(),
        crate::memory::format_bytes(costs.peak_bytes),
        costs.median_step_seconds(),
        path.display()
    ))
}

/// The network that the flags name.
fn configuration(args: &TrainArgs, channels: usize, classes: usize, shape: [usize; 3]) -> Result<NetworkConfig> {
    let family = match args.preset {
        Preset::Sample => return NetworkConfig::sample(&args.model, channels, classes, shape),
        Preset::Brats => Family::Brats,
        Preset::Lits => Family::Lits,
    };
    NetworkConfig::official(&args.model, family).map(|network| network.adapted(channels, classes, shape))
}
