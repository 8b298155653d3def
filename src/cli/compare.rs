//! `ossnet compare`: networks side by side on one data set, in bytes, time and accuracy.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::compare_baselines::baselines;
use super::compare_command;
use super::compare_plan::{self, Plans};
use super::cuda_devices;
use super::device_args::{DeviceArgs, PrecisionArgs};
use super::fold_files;
use super::oom::{Fitting, OomArgs};
use super::output::{plural, print};
use super::progress::Verbosity;
use super::provenance::stamped_with;
use super::train::{check_alike, overwrite};
use super::training::{
    Progress, check_trainable, checkpoint_path, common_multiples, load_cases, open_feeds, open_folder, output_folder,
    score_cases, train_to_end,
};
use crate::data::{Dataset, Fold, Folds, Labels, folds};
use crate::device::{Device, UNLIMITED};
use crate::error::{Error, Result};
use crate::files::name::{path_of, text_of};
use crate::files::{RunFolder, read_text, remove_if_there, write_atomic};
use crate::memory::Event;
use crate::models::{Architecture, Family, NetworkConfig, RecomputeChoice};
use crate::planner::training::TrainingPlan;
use crate::report::{self, CaseScore, ModelResult, Results};
use crate::task::{PadTo, PreparedCase, Task};
use crate::train::case_source::CaseSource;
use crate::train::config::Preset;
use crate::train::presets;
use crate::train::ranks::Ranks;
use crate::train::settings::TrainSettings;
use crate::train::setup::Setup;
use crate::train::trainer::{PREFETCH, Trainer};
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
    /// Settings of the networks: auto (chosen by the data) or sample (those of the embedded heads) [default: auto for your own data]
    #[arg(long, value_enum)]
    pub(super) preset: Option<Preset>,
    /// Passes over the training cases [default: 150; for your own data as many as --time-budget allows]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) epochs: Option<u64>,
    /// Time of training for each network, with --preset auto [default: 10m on the CPU, 1h on CUDA]
    #[arg(long, value_name = "TIME", value_parser = super::plan::parse_time, conflicts_with = "epochs")]
    pub(super) time_budget: Option<f64>,
    /// Seed of initial weights, order, points and augmentation
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    pub(super) seed: u64,
    /// Cross-validate: divide all labelled cases by name and seed into N folds, each of which validates once
    #[arg(long, value_name = "N", conflicts_with = "fold", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u64).range(2..=folds::MOST as u64))]
    pub(super) folds: Option<u64>,
    /// Validate on this fold alone and train on the others, for example 2/5 for the second of five
    #[arg(long, value_name = "K/N")]
    pub(super) fold: Option<Fold>,
    /// Output folder; an interrupted comparison there is resumed [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the comparison that --out holds
    #[arg(long, conflicts_with = "folds")]
    overwrite: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    #[command(flatten)]
    pub(super) precision: PrecisionArgs,
    /// Recompute level of every network: 0 (fastest) to 3 (leanest), or auto: the fastest that fits the memory budget
    /// [default: 0; auto for your own data]
    #[arg(long, value_name = "LEVEL")]
    pub(super) recompute: Option<RecomputeChoice>,
    /// CUDA devices to train each network on, a process on each, for example "0,1"
    #[arg(long, value_name = "LIST", conflicts_with = "device")]
    pub(super) cuda_devices: Option<String>,
    #[command(flatten)]
    oom: OomArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl CompareArgs {
    /// Passes over the training cases, where the data do not make the settings.
    pub(super) fn sample_epochs(&self) -> u64 {
        self.epochs.unwrap_or(presets::SAMPLE_EPOCHS)
    }
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
pub fn run(mut args: CompareArgs) -> Result<()> {
    interrupt::listen();
    let ranks = cuda_devices::join(args.cuda_devices.as_deref(), &mut args.device, &mut args.run)?;
    let device = ranks.all(args.device.open(&args.run))?;
    ranks.join(&device)?;
    ranks.all(args.precision.on(&device))?;
    let planned = ranks.all(compare_plan::is_wanted(&args))?;
    let mut dataset = ranks.all(open_folder(args.data.as_deref(), args.seed))?;
    // Unknown names are an error before anything is read or written.
    let probe = ranks.all(networks(&args.models, dataset.channels.len(), dataset.classes.len(), [64; 3]))?;
    let count = args.fold.map(|fold| fold.count).or(args.folds.map(|count| count as usize));
    let folds = ranks.all(count.map(|count| Folds::of(&dataset, count, args.seed)).transpose())?;
    let claim = || {
        let finished = args.out.as_ref().filter(|folder| folder.join(LAST).exists());
        if let Some(folder) = finished.filter(|_| !args.overwrite) {
            drop(RunFolder::claim(folder, |_| true)?);
            let remedy = "replace it with --overwrite, or name another --out";
            return Err(Error::data(folder, "holds a finished comparison", remedy));
        }
        output_folder(args.out.as_deref(), "compare", |folder| {
            let replaced = args.overwrite && folder.join(RESULTS).exists() && !fold_files::are_in(folder);
            replaced || is_unfinished(folder, &probe)
        })
    };
    // Held to the end, by the first rank.
    let mut claimed = None;
    let folder = ranks.from(0, || Ok(text_of(claimed.insert(claim()?).path())))?;
    let folder = &*path_of(Path::new(""), &folder);
    if args.overwrite {
        ranks.first(|| replace(folder, &probe))?;
    }
    let again = compare_command::again(&args, folder);
    let whole = dataset.clone();
    if let Some(folds) = &folds {
        // Where every fold validates in turn, the first one's training cases make the settings of all.
        folds.apply(&mut dataset, args.fold.map_or(1, |fold| fold.number));
    }
    let plan = || compare_plan::of(&args, &probe, &dataset, &device, folder);
    let plans = planned.then(|| compare_plan::shared(&ranks, &probe, folder, plan)).transpose()?;
    let plans = plans.as_ref();
    let begin = || plans.map_or(Ok(()), Plans::write);
    let results = match (&folds, args.fold) {
        (Some(folds), None) => super::compare_folds::run(
            &args,
            (&device, plans),
            &whole,
            folds,
            &Place { folder, again: &again, begin: &begin, ranks: &ranks },
        )?,
        (Some(folds), Some(fold)) => {
            let begin = || begin().and_then(|()| fold_files::write(folder, folds, fold.number, &dataset));
            let place = Place { folder, again: &again, begin: &begin, ranks: &ranks };
            compare_in(&args, (&device, plans), &dataset, &place)?
        }
        (None, _) => {
            let place = Place { folder, again: &again, begin: &begin, ranks: &ranks };
            compare_in(&args, (&device, plans), &dataset, &place)?
        }
    };
    if !ranks.is_first() {
        return Ok(());
    }
    match args.run.json {
        true => print(read_text(folder.join(RESULTS), MOST_RESULTS)?),
        false => {
            let (name, file) = if cfg!(feature = "report") { ("report", "report.html") } else { ("results", RESULTS) };
            print(format!("{}\n{name}: {}", report::table(&results), folder.join(file).display()))
        }
    }
}

/// Where a comparison is and what belongs to its start and end.
pub(super) struct Place<'a> {
    pub folder: &'a Path,
    /// How to go on after an interrupt.
    pub again: &'a str,
    /// Done before the first file is written.
    pub begin: &'a dyn Fn() -> Result<()>,
    /// The processes that train each network together; the first of them does all else.
    pub ranks: &'a Ranks,
}

impl Place<'_> {
    /// What comes before the first network, of which the others hear if it fails.
    fn begin(&self) -> Result<()> {
        self.ranks.first(self.begin).map(drop)
    }
}

/// The results as they are written and printed.
pub(super) fn stamped_results(results: &Results, dataset: &Dataset) -> Result<String> {
    let statistics = serde_json::to_value(report::Statistics::of(results))
        .map_err(|error| Error::Model(format!("the statistics are no JSON ({error}); report this")))?;
    let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&results.to_json()?)
        .map_err(|error| Error::Model(format!("the results are no JSON ({error}); report this")))?;
    all.insert("statistics".into(), statistics);
    Ok(format!("{:#}\n", stamped_with(serde_json::Value::Object(all), "models", Some(dataset))?))
}

/// What a comparison on one division of a data set begins with.
struct Prepared {
    /// Of each network, where the data make the settings.
    planned: Option<Vec<Setup>>,
    task: Task,
    training: Vec<PreparedCase>,
    validation: Vec<PreparedCase>,
    networks: Vec<NetworkConfig>,
}

fn prepare(args: &CompareArgs, plans: Option<&Plans>, dataset: &Dataset, verbosity: Verbosity) -> Result<Prepared> {
    let probe = networks(&args.models, dataset.channels.len(), dataset.classes.len(), [64; 3])?;
    let of_plan = |config| Setup::of(config, dataset, false);
    let planned = plans.map(|plans| plans.configs.iter().map(of_plan).collect::<Result<Vec<_>>>()).transpose()?;
    let mut task = match planned.iter().flatten().next() {
        // Spacing and clip, which the data say alike for all networks.
        Some(setup) => setup.task.clone(),
        None => Task::of(dataset, [1; 3]).measured(dataset)?,
    };
    task.preprocessing.multiple = common_multiples(&probe);
    let (training, validation) = load_cases(dataset, &task, PadTo::Largest, verbosity)?;
    check_trainable(dataset, &task, &training, verbosity)?;
    if validation.is_empty() {
        return Err(Error::data(&dataset.path, "has no validation case", "give two labelled cases or more"));
    }
    let shape = training[0].volume.shape;
    task.preprocessing.trained_shape = Some(shape);
    let networks = match &planned {
        Some(setups) => setups.iter().map(|setup| setup.network.clone()).collect(),
        None => networks(&args.models, dataset.channels.len(), task.outputs(), shape)?,
    };
    networks.iter().try_for_each(NetworkConfig::check)?;
    Ok(Prepared { planned, task, training, validation, networks })
}

/// Compares on one division of a data set, in one folder. Only the first rank has scores.
pub(super) fn compare_in(
    args: &CompareArgs,
    (device, plans): (&Device, Option<&Plans>),
    dataset: &Dataset,
    place: &Place<'_>,
) -> Result<Results> {
    let Place { folder, ranks, .. } = *place;
    let (verbosity, precision) = (args.run.verbosity(), args.precision.on(device)?);
    let Prepared { planned, task, mut training, validation, networks } =
        ranks.all(prepare(args, plans, dataset, verbosity))?;
    let said = format!(
        "comparing {} on {} ({} training, {}) with {}; results go to {}",
        networks.iter().map(NetworkConfig::title).collect::<Vec<_>>().join(", "),
        dataset.name,
        training.len(),
        plural(validation.len(), "validation case"),
        plural(device.threads(), "thread"),
        folder.display()
    );
    let baselines = ranks.first(|| baselines(&task, &training, &validation))?.unwrap_or_default();
    let mut compared = Vec::new();
    match &planned {
        None => {
            // What does not fit is an error before the first network is trained.
            let settled = networks.iter().map(|network| {
                let settings = TrainSettings { precision, ..presets::sample(network, args.sample_epochs(), args.seed) };
                let divided = shared_out(&settings, ranks, training.len());
                let run =
                    TrainingPlan { network, settings: divided.clone(), cases: &training, flags: false, graph: false };
                let run = run.at(args.recompute.unwrap_or_default(), device)?;
                Ok((args.oom.settle(run, device, verbosity)?, [settings, divided]))
            });
            let fittings = ranks.all(settled.collect::<Result<Vec<_>>>())?;
            verbosity.say(said);
            place.begin()?;
            for (network, (fitting, settings)) in networks.iter().zip(fittings) {
                compared.extend(compare_one(
                    args,
                    device,
                    (network, fitting, settings, false),
                    (dataset, &task),
                    [&training, &validation],
                    place,
                )?);
            }
        }
        Some(setups) => {
            verbosity.say(said);
            verbosity.say(format!("equal budgets: {}", compare_plan::budget(args, device, true)));
            // Each network has its own grid; of these cases only the baselines needed voxels.
            training.iter_mut().for_each(forget_voxels);
            place.begin()?;
            for (setup, config) in setups.iter().zip(plans.iter().flat_map(|plans| &plans.configs)) {
                let Setup { network, settings, task, grid, .. } = setup;
                let feeds = open_feeds(dataset, task, *grid, device.budget() / 2, Verbosity::Quiet);
                let (training, validation) = ranks.all(feeds)?;
                let divided = shared_out(settings, ranks, training.len());
                let run =
                    TrainingPlan { network, settings: divided.clone(), cases: &*training, flags: false, graph: false };
                let run = ranks.all(run.at(config.recompute(), device))?;
                let fitting = ranks.all(args.oom.settle(run, device, verbosity))?;
                let settings = [settings.clone(), divided];
                compared.extend(compare_one(
                    args,
                    device,
                    (network, fitting, settings, true),
                    (dataset, task),
                    [&*training, &*validation],
                    place,
                )?);
            }
        }
    }
    if !ranks.is_first() {
        return Ok(Results::default());
    }
    let processes = if ranks.are_several() { format!("{} processes, each on ", ranks.size()) } else { String::new() };
    let results = Results {
        models: compared.iter().map(|model| model.result.clone()).collect(),
        baselines,
        device: format!("{processes}{} ({:?})", device.name(), device.simd()).to_lowercase(),
        threads: device.threads(),
        seed: args.seed,
        budget: compare_plan::budget(args, device, planned.is_some()),
        version: format!("{} ({})", super::VERSION, super::features()),
    };
    write_atomic(folder.join(RESULTS), stamped_results(&results, dataset)?.as_bytes())?;
    #[cfg(feature = "report")]
    super::compare_report::write(folder, args, dataset, (&task, [&training, &validation]), &results, &compared)?;
    Ok(results)
}

/// The settings of each of `ranks` that train a network together; those of one process, where its steps do not divide among them.
fn shared_out(settings: &TrainSettings, ranks: &Ranks, cases: usize) -> TrainSettings {
    settings.divided(ranks.size(), cases).unwrap_or_else(|_| settings.clone())
}

/// Drops what takes memory; name, shape and spacing stay.
fn forget_voxels(case: &mut PreparedCase) {
    (case.volume.voxels, case.image) = (Vec::new(), Vec::new());
    (case.labels, case.truth, case.border) = (None, None, None);
}

/// The configurations named by `--models`.
pub(super) fn networks(
    names: &[String],
    channels: usize,
    classes: usize,
    shape: [usize; 3],
) -> Result<Vec<NetworkConfig>> {
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

/// The figures of a comparison in its folder.
pub(super) const RESULTS: &str = "results.json";

/// Most bytes of them.
pub(super) const MOST_RESULTS: u64 = 1 << 28;

/// What a comparison writes last.
pub(super) const LAST: &str = if cfg!(feature = "report") { "report.html" } else { RESULTS };

/// Removes what an earlier comparison left in `folder`, of which this one would take up a part; files of others stay.
fn replace(folder: &Path, networks: &[NetworkConfig]) -> Result<()> {
    overwrite::remove_run(folder)?;
    remove_if_there(&folder.join(RESULTS))?;
    networks.iter().try_for_each(|network| remove_if_there(&compare_plan::file_of(folder, network)))
}

/// Whether a folder holds what a comparison of these networks leaves that was stopped at any moment: checkpoints and costs
/// of some of them and of no others (or a cross-validation's folds), results perhaps, and not yet what comes last.
pub(super) fn is_unfinished(folder: &Path, networks: &[NetworkConfig]) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let checkpoints: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    let known: Vec<PathBuf> = networks.iter().map(|network| checkpoint_path(folder, network)).collect();
    let planned = || networks.iter().any(|network| compare_plan::file_of(folder, network).exists());
    (!checkpoints.is_empty() || fold_files::are_in(folder) || planned())
        && checkpoints.iter().all(|checkpoint| known.contains(checkpoint))
        && !folder.join(LAST).exists()
}

/// Trains (or resumes) one model, and scores it on the first rank.
fn compare_one(
    args: &CompareArgs,
    device: &Device,
    (network, mut fitting, [asked, divided], planned): (&NetworkConfig, Fitting<'_>, [TrainSettings; 2], bool),
    (dataset, task): (&Dataset, &Task),
    [training, validation]: [&dyn CaseSource; 2],
    place: &Place<'_>,
) -> Result<Option<Compared>> {
    let (verbosity, Place { folder, again, ranks, .. }) = (args.run.verbosity(), place);
    let ranks = if divided.ranks == ranks.size() { (*ranks).clone() } else { Ranks::alone() };
    if place.ranks.are_several() && !ranks.are_several() {
        let (title, cases) = (network.title(), plural(asked.scans_per_step(training.len()) as usize, "case"));
        let size = place.ranks.size();
        verbosity
            .say(format!("{title}: its steps of {cases} do not divide among {size} processes; one trains it alone"));
        if !place.ranks.is_first() {
            return Ok(None);
        }
    }
    let trainer = Trainer::new(device, network, fitting.settings().clone());
    let mut trainer = ranks.all(trainer.map_err(|error| fitting.explain(error)))?;
    trainer.join(&ranks, fitting.settings().undivided(&divided, &asked));
    trainer.set_prefetch(PREFETCH);
    let path = checkpoint_path(folder, network);
    if ranks.first_finds(|| Ok(path.exists()))? {
        ranks.all(training_state::resume(&mut trainer, task, &path))?;
    }
    check_alike(&trainer, dataset, training.len())?;
    let oom_handler = Box::new(|trainer: &Trainer, error| fitting.relieve(trainer, error));
    let mut progress = Progress::new(verbosity, &trainer, training.len());
    if planned {
        progress.estimate_end();
    }
    train_to_end(&mut trainer, training, task, &path, oom_handler, progress, again)?;
    if !ranks.is_first() {
        return Ok(None);
    }
    let started = Instant::now();
    let scored = score_cases(trainer.network(), trainer.parameters(), task, validation, false, verbosity, again)?;
    let (cases, predictions): (Vec<CaseScore>, Vec<Labels>) = scored.into_iter().unzip();
    let (dice, iou) = evaluate::means(&cases);
    let costs = trainer.costs();
    let scans_per_step = trainer.settings().scans_per_step(training.len());
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
        scans_per_step,
        scan_peak_bytes: match scans_per_step {
            1 => costs.peak_bytes,
            _ => peak_of_scan(device, network, trainer.settings(), training)?,
        },
        epochs: trainer.settings().epochs,
        steps: trainer.optimizer().steps(),
        final_loss: trainer.recent_loss(trainer.steps_per_epoch(training.len())),
    };
    Ok(Some(Compared {
        changes: fitting.changes,
        losses: trainer.losses().to_vec(),
        events: trainer.events().to_vec(),
        result,
        predictions,
    }))
}

/// The peak of a training step of one scan, planned as the run was.
fn peak_of_scan(
    device: &Device,
    network: &NetworkConfig,
    settings: &TrainSettings,
    training: &dyn CaseSource,
) -> Result<u64> {
    let settings = TrainSettings { batch_size: 1, accumulate: 1, ranks: 1, ..settings.clone() };
    let mut plan = Trainer::new(&Device::plan_for(device.target(), UNLIMITED), network, settings)?;
    plan.dry_run(training, 2)?;
    Ok(plan.costs().peak_bytes)
}
