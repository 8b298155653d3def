//! `ossnet compare`: networks side by side on one data set, in bytes, time and accuracy.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::device_args::{DeviceArgs, PrecisionArgs};
use super::oom::{Fitting, OomArgs};
use super::output::{plural, print};
use super::provenance::stamped_text;
use super::training::{
    check_trainable, checkpoint_path, common_multiples, load_cases, open_folder, output_folder, score_cases,
    train_to_end,
};
use crate::data::{Labels, Volume};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate::metrics::{Confusion, ScoreRule};
use crate::files::write_atomic;
use crate::memory::Event;
use crate::models::{Architecture, Family, NetworkConfig, RecomputeChoice};
use crate::planner::training::TrainingPlan;
use crate::report::{self, BaselineResult, CaseScore, ModelResult, Results};
use crate::task::{PadTo, PreparedCase, Task};
use crate::train::baseline::{MeanMask, Threshold};
use crate::train::case_source::CaseSource;
use crate::train::presets;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;
use crate::train::training_state;
use crate::{evaluate, interrupt};

/// Models of the comparison if `--models` is not given.
const MODELS: &str = "o-net-small,oss-net-c-small,unet3d";

/// Flags of `ossnet compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Models, separated by commas
    #[arg(short, long, default_value = MODELS, value_delimiter = ',', value_name = "NAMES")]
    pub(super) models: Vec<String>,
    /// A data set's folder (Decathlon, BraTS or LiTS layout) [default: the embedded head MRIs]
    #[arg(short, long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Passes over the training cases
    #[arg(short, long, default_value_t = presets::SAMPLE_EPOCHS, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) epochs: u64,
    /// Seed of initial weights, order, points and augmentation
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    pub(super) seed: u64,
    /// Output folder; an interrupted comparison there is resumed [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pub(super) precision: PrecisionArgs,
    /// Recompute level of every network: 0 (fastest) to 3 (leanest), or auto: the fastest that fits the memory budget
    #[arg(long, default_value = "0", value_name = "LEVEL")]
    pub(super) recompute: RecomputeChoice,
    #[command(flatten)]
    oom: OomArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// A trained and scored model. All but the result is for the page.
#[cfg_attr(not(feature = "report"), allow(dead_code))]
pub(super) struct Compared {
    /// Its row of the table.
    pub result: ModelResult,
    /// Its labels for each validation case.
    pub predictions: Vec<Labels>,
    /// Loss of each training step.
    pub losses: Vec<f32>,
    /// Memory over one training step.
    pub events: Vec<Event>,
    /// What was changed to fit the memory.
    pub changes: Vec<String>,
}

/// Runs the comparison.
///
/// # Errors
/// Unusable data or flags, an interrupt (progress is saved), a full disk.
pub fn run(args: CompareArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let precision = args.precision.on(&device)?;
    let dataset = open_folder(args.data.as_deref(), args.seed)?;
    // Unknown names are an error before anything is read or written.
    let probe = networks(&args.models, dataset.channels.len(), dataset.classes.len(), [64; 3])?;
    let mut task = Task::of(&dataset, common_multiples(&probe)).measured(&dataset)?;
    let folder = output_folder(args.out.as_deref(), "compare", |folder| is_unfinished(folder, &probe))?;
    let folder = folder.path();
    let (training, validation) = load_cases(&dataset, &task, PadTo::Largest, verbosity)?;
    check_trainable(&dataset, &task, &training, verbosity)?;
    if validation.is_empty() {
        return Err(Error::data(&dataset.path, "has no validation case", "give two labelled cases or more"));
    }
    let shape = training[0].volume.shape;
    task.preprocessing.trained_shape = Some(shape);
    let networks = networks(&args.models, dataset.channels.len(), task.outputs(), shape)?;
    networks.iter().try_for_each(NetworkConfig::check)?;
    // What does not fit is an error before the first network is trained.
    let settled = networks.iter().map(|network| {
        let settings = TrainSettings { precision, ..presets::sample(network, args.epochs, args.seed) };
        let run = TrainingPlan { network, settings, cases: &training, flags: false, graph: false };
        args.oom.settle(run.at(args.recompute, &device)?, &device, verbosity)
    });
    let fittings = settled.collect::<Result<Vec<_>>>()?;
    verbosity.say(format!(
        "comparing {} on {} ({} training, {}) with {}; results go to {}",
        networks.iter().map(NetworkConfig::title).collect::<Vec<_>>().join(", "),
        dataset.name,
        training.len(),
        plural(validation.len(), "validation case"),
        plural(device.threads(), "thread"),
        folder.display()
    ));
    let mut compared = Vec::new();
    for (network, fitting) in networks.iter().zip(fittings) {
        compared.push(compare_one(&args, &device, (network, fitting), &task, &training, &validation, folder)?);
    }
    let results = Results {
        models: compared.iter().map(|model| model.result.clone()).collect(),
        baselines: if task.outputs() == 1 { baselines(&training, &validation)? } else { Vec::new() },
        device: format!("{} ({:?})", device.name(), device.simd()).to_lowercase(),
        threads: device.threads(),
        seed: args.seed,
        version: format!("{} ({})", super::VERSION, super::features()),
    };
    let json = stamped_text(&results.to_json()?, "models", Some(&dataset))?;
    write_atomic(folder.join("results.json"), json.as_bytes())?;
    #[cfg(feature = "report")]
    super::compare_report::write(folder, &args, &dataset, [&training, &validation], &results, &compared)?;
    match args.run.json {
        true => print(json),
        false => {
            let (name, file) =
                if cfg!(feature = "report") { ("report", "report.html") } else { ("results", "results.json") };
            print(format!("{}\n{name}: {}", report::table(&results), folder.join(file).display()))
        }
    }
}

/// The configurations named by `--models`.
fn networks(names: &[String], channels: usize, classes: usize, shape: [usize; 3]) -> Result<Vec<NetworkConfig>> {
    let names: Vec<&str> = names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(Error::Usage(format!(
            "--models names no model; use some of {}",
            crate::models::network::names().join(", ")
        )));
    }
    let mut networks: Vec<NetworkConfig> = Vec::new();
    for name in names {
        let network = NetworkConfig::official(name, Family::Brats)?.adapted(channels, classes, shape);
        if networks.iter().any(|known| known.slug() == network.slug()) {
            return Err(Error::Usage(format!("--models names {name} twice; name each model once")));
        }
        networks.push(network);
    }
    Ok(networks)
}

/// What a comparison writes last.
const LAST: &str = if cfg!(feature = "report") { "report.html" } else { "results.json" };

/// Whether a folder holds what a comparison of these networks leaves that was stopped at any moment: checkpoints and costs
/// of some of them and of no others, results perhaps, and not yet what comes last.
fn is_unfinished(folder: &Path, networks: &[NetworkConfig]) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let checkpoints: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    let known: Vec<PathBuf> = networks.iter().map(|network| checkpoint_path(folder, network)).collect();
    !checkpoints.is_empty()
        && checkpoints.iter().all(|checkpoint| known.contains(checkpoint))
        && !folder.join(LAST).exists()
}

/// Trains (or resumes) and scores one model.
fn compare_one(
    args: &CompareArgs,
    device: &Device,
    (network, mut fitting): (&NetworkConfig, Fitting<'_>),
    task: &Task,
    training: &dyn CaseSource,
    validation: &dyn CaseSource,
    folder: &Path,
) -> Result<Compared> {
    let (verbosity, again) =
        (args.run.verbosity(), format!("run the same command with --out {} to go on", folder.display()));
    let trainer = Trainer::new(device, network, fitting.settings().clone());
    let mut trainer = trainer.map_err(|error| fitting.explain(error))?;
    let path = checkpoint_path(folder, network);
    if path.exists() {
        training_state::resume(&mut trainer, task, &path)?;
    }
    let oom_handler = Box::new(|trainer: &Trainer, error| fitting.relieve(trainer, error));
    train_to_end(&mut trainer, training, task, &path, oom_handler, verbosity, &again)?;
    let started = Instant::now();
    let scored = score_cases(trainer.network(), trainer.parameters(), task, validation, verbosity, &again)?;
    let (cases, predictions): (Vec<CaseScore>, Vec<Labels>) = scored.into_iter().unzip();
    let (dice, iou) = evaluate::means(&cases);
    let costs = trainer.costs();
    let result = ModelResult {
        name: network.title(),
        parameters: trainer.parameters().count() as u64,
        dice,
        iou,
        cases,
        peak_bytes: costs.peak_bytes,
        peak_by_role: costs.peak_by_role.iter().cloned().collect(),
        step_seconds: costs.median_step_seconds(),
        total_seconds: costs.training_seconds() + started.elapsed().as_secs_f64(),
        epochs: args.epochs,
        steps: trainer.optimizer().steps(),
        final_loss: trainer.recent_loss(trainer.steps_per_epoch(training.len())),
    };
    Ok(Compared {
        changes: fitting.changes,
        losses: trainer.losses().to_vec(),
        events: trainer.events().to_vec(),
        result,
        predictions,
    })
}

/// Trivial methods for one class, fitted on the training cases and scored as the models are.
fn baselines(training: &[PreparedCase], validation: &[PreparedCase]) -> Result<Vec<BaselineResult>> {
    let mean = MeanMask::fit(training.iter().filter_map(|case| case.labels.as_ref()))?;
    let fit = training.iter().map(unpadded).collect::<Result<Vec<_>>>()?;
    let threshold = Threshold::fit(fit.iter().map(|(volume, labels)| (volume, labels)))?;
    drop(fit);
    Ok(vec![
        baseline("mean of the training masks", validation, |_, labels| Ok(mean.score(labels)))?,
        baseline("best single threshold", validation, |volume, labels| threshold.score(volume, labels))?,
    ])
}

/// Image and labels of a case without what was added around them.
fn unpadded(case: &PreparedCase) -> Result<(Volume, Labels)> {
    let labels = case.labels.as_ref();
    let labels = labels.ok_or_else(|| Error::Model(format!("case {} has no labels to compare with", case.name)))?;
    Ok((case.volume.crop(&case.way.padding)?, labels.crop(&case.way.padding)?))
}

/// The scores of one trivial method.
fn baseline(
    name: &str,
    validation: &[PreparedCase],
    meet: impl Fn(&Volume, &Labels) -> Result<Confusion>,
) -> Result<BaselineResult> {
    let rule = ScoreRule::DEFAULT;
    let mut cases = Vec::new();
    for case in validation {
        let (volume, labels) = unpadded(case)?;
        let confusion = meet(&volume, &labels)?;
        let (dice, iou) = (confusion.dice(&rule), confusion.iou(&rule));
        cases.push(CaseScore { name: case.name.clone(), dice, iou, classes: Vec::new() });
    }
    let (dice, iou) = evaluate::means(&cases);
    Ok(BaselineResult { name: name.into(), dice, iou, cases })
}
