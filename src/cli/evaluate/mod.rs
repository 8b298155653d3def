//! `ossnet evaluate`: scores of a checkpoint on labelled cases, or of files that any program has written.

mod own_data;
mod predictions;
mod table;
mod together;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::checkpoint::model::Model;
use crate::cli::RunArgs;
use crate::cli::checkpoints;
use crate::cli::device_args::{DeviceArgs, PrecisionArgs};
use crate::cli::failures::{Failures, is_of_case};
use crate::cli::official::{self, OfficialArgs};
use crate::cli::output::{plural, print, result_folder};
use crate::cli::provenance::{print_json, stamped_with};
use crate::cli::training::{load_with, scan_folder, score_cases};
use crate::data::{Dataset, Layout, Sampling, Scanned, Warning};
use crate::error::{Error, Result};
use crate::evaluate::metrics::ScoreRule;
use crate::evaluate::sampled;
use crate::evaluate::scores::{CaseScores, left_out, summarise, to_csv};
use crate::files::{RunFolder, write_atomic};
use crate::models::Family;
use crate::report::CaseScore;
use crate::task::{PadTo, PreparedCase};
use crate::text::visible_line;
use crate::{evaluate, interrupt};

/// Which cases are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Those kept from training
    Validation,
    /// Those trained on
    Training,
    /// All
    All,
}

impl Part {
    /// What its cases are called.
    fn of_cases(self) -> &'static str {
        match self {
            Part::Validation => "validation case",
            Part::Training => "training case",
            Part::All => "case",
        }
    }
}

/// Flags of `ossnet evaluate`.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The checkpoint (.safetensors, or an official .pt with --model), or the folder of its run. Of several, or of a folder with
    /// folds, probabilities are averaged
    #[arg(value_name = "CHECKPOINT", conflicts_with = "load_model")]
    #[arg(required_unless_present_any = ["load_model", "predictions"])]
    checkpoint: Vec<PathBuf>,
    /// The checkpoint, as a flag
    #[arg(short, long, visible_alias = "checkpoint", value_name = "FILE", num_args = 1..)]
    load_model: Vec<PathBuf>,
    /// Score the label files of this folder, whatever made them, in the place of a checkpoint: CASE.nii.gz for each case
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "load_model", "model", "sampled"])]
    predictions: Option<PathBuf>,
    /// Folder of the true label files for --predictions, under the same names, where there is no data set
    #[arg(long, value_name = "DIR", requires = "predictions", conflicts_with = "data")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    official: OfficialArgs,
    /// A data set's folder of any layout, or sample:TASK [default: what the checkpoint was trained on]
    #[arg(short, long, visible_alias = "dataset-path", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which cases
    #[arg(long, value_enum, default_value_t = Part::Validation)]
    part: Part,
    /// Seed of the division into training and validation, where the data set states none, and of sampled points
    /// [default: the training run's, else 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Tolerance of the surface Dice in mm
    #[arg(long, default_value_t = 1.0, value_name = "MM", allow_negative_numbers = true)]
    tolerance: f64,
    /// Ask occupancy networks about every voxel, instead of those that a search finds worth it
    #[arg(long, conflicts_with_all = ["predictions", "sampled"])]
    dense: bool,
    /// Score random points as the official code does, not all voxels: Dice and IoU only
    #[arg(long)]
    sampled: bool,
    /// Folder for scores.csv, scores.json and report.html [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the scores that --out holds
    #[arg(long, requires = "out")]
    overwrite: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// What an evaluation leaves in its folder.
const SCORES: &str = "scores.json";

impl EvaluateArgs {
    /// The folder for the scores: a new or empty one, or with --overwrite that of an earlier evaluation.
    fn folder(&self) -> Result<RunFolder> {
        result_folder(self.out.as_deref(), "evaluate", SCORES, self.overwrite)
    }
}

/// Scores.
///
/// # Errors
/// An unusable checkpoint or data set, an interrupt, no memory, a full disk.
pub fn run(args: EvaluateArgs) -> Result<()> {
    interrupt::listen();
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        return Err(Error::Usage("--tolerance must be 0 mm or more, for example 1".into()));
    }
    if let Some(folder) = &args.predictions {
        return predictions::run(&args, folder);
    }
    let files = checkpoints::files(&[&args.load_model[..], &args.checkpoint].concat())?;
    run_checkpoints(&args, &files)
}

/// Segments and scores with a checkpoint, or with several together.
fn run_checkpoints(args: &EvaluateArgs, files: &[PathBuf]) -> Result<()> {
    let Some((checkpoint, others)) = files.split_first() else {
        return Err(Error::Usage("nothing to score is named; give a checkpoint, or --predictions".into()));
    };
    if args.sampled && !others.is_empty() {
        return Err(Error::Usage("--sampled scores one checkpoint; name one, or omit it".into()));
    }
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let precision = args.precision.on(&device)?;
    // Weights that describe themselves are read before the data set: a broken checkpoint is the first thing to say.
    let early = (!args.official.is_given()).then(|| official::load(&device, checkpoint, &args.official, None));
    let early = early.transpose()?;
    if args.data.is_none() {
        together::check_data(files)?;
    }
    let own = own_data::of(checkpoint)?;
    let seed = args.seed.or(own.as_ref().map(|own| own.seed)).unwrap_or(0);
    let data = match (&args.data, &own) {
        (Some(data), _) => data.clone(),
        (None, Some(own)) => PathBuf::from(&own.data),
        (None, None) => {
            let problem = "lies in no run's folder that says what it was trained on";
            return Err(Error::data(checkpoint, problem, "name the data with --data"));
        }
    };
    let Scanned { dataset: mut found, problems } = scan_folder(Some(&data), seed)?;
    found.ignore_geometry = own.as_ref().is_some_and(|own| own.ignore_geometry);
    let fold = own_data::divide(checkpoint, &mut found, verbosity)?;
    let mut model = match early {
        Some(model) => model,
        None => official::load(&device, checkpoint, &args.official, Some(&found))?,
    };
    model.network.set_precision(precision);
    check_classes(&model, &found)?;
    let mut models = vec![model];
    for path in others {
        let mut other = official::load(&device, path, &args.official, Some(&found))?;
        other.network.set_precision(precision);
        models.push(other);
    }
    checkpoints::check(&models, files)?;
    let model = &models[0];
    if args.dense && models.iter().all(|model| model.network.occupancy().is_none()) {
        let problem = format!("--dense: {} answers for every voxel anyway", model.network.architecture().title());
        return Err(Error::Usage(format!("{problem}; omit it")));
    }
    let mut failures = Failures::new(0);
    let cases = cases(args, model, &mut found, problems, &mut failures)?;
    let title = checkpoints::title(model, files.len());
    let source = files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    if !others.is_empty() {
        together::warn_of_training(files, &cases, &found, verbosity)?;
    }
    verbosity.say(format!(
        "scoring {title} ({source}) on {} of {}{fold} ({})",
        plural(cases.len(), args.part.of_cases()),
        found.name,
        found.path.display()
    ));
    let rule = if model.network.architecture().is_reference() { ScoreRule::REFERENCE } else { ScoreRule::DEFAULT };
    if args.sampled {
        let sampling = sampled::official(sampled_family(args, &found)?);
        run_sampled(args, model, &cases, rule, (&sampling, seed))?;
        return failures.finish(&found.path, "scored", AGAIN);
    }
    let folder = args.folder()?;
    let again = "run the command again";
    let scored = match others {
        [] => score_cases(&*model.network, &model.parameters, &model.task, &cases, args.dense, verbosity, again)?,
        _ => together::score((model, &models[1..]), &found, &cases, (rule, args.dense), verbosity)?,
    };
    let measured = cases
        .iter()
        .zip(&scored)
        .map(|(case, (_, predicted))| evaluate::measure(&model.task, case, predicted, args.tolerance, rule));
    let measured = measured.collect::<Result<Vec<CaseScores>>>()?;
    #[cfg(feature = "report")]
    let pictures = crate::cli::pictures::of_scored(&title, &model.task, &cases, &scored)?;
    let scores: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let scored = Scored {
        title,
        dataset: &found,
        scores,
        measured,
        #[cfg(feature = "report")]
        pictures,
    };
    write(args, folder.path(), &scored)?;
    failures.finish(&found.path, "scored", AGAIN)
}

/// What was scored.
struct Scored<'a> {
    /// The network, or the folder of the predictions.
    title: String,
    dataset: &'a Dataset,
    /// Dice and IoU by case.
    scores: Vec<CaseScore>,
    /// Every score by case.
    measured: Vec<CaseScores>,
    /// Cases to look at.
    #[cfg(feature = "report")]
    pictures: Vec<crate::report::PicturedCase>,
}

/// Writes the files of an evaluation and prints what they say.
fn write(args: &EvaluateArgs, folder: &Path, scored: &Scored<'_>) -> Result<()> {
    let Scored { title, dataset, scores, measured, .. } = scored;
    let (summary, (dice, iou)) = (summarise(measured), evaluate::means(scores));
    let json = serde_json::json!({
        "model": title,
        "dice": dice,
        "iou": iou,
        "cases": scores,
        "tolerance_mm": args.tolerance,
        "scores": measured,
        "summary": summary,
    });
    let json = format!("{:#}\n", stamped_with(json, "scores", Some(dataset))?);
    write_atomic(folder.join(SCORES), json.as_bytes())?;
    write_atomic(folder.join("scores.csv"), to_csv(measured).as_bytes())?;
    #[cfg(feature = "report")]
    {
        let page = crate::report::evaluation_page(
            title,
            &dataset.name,
            args.tolerance,
            (measured, &summary),
            &scored.pictures,
        )?;
        write_atomic(folder.join("report.html"), page.as_bytes())?;
    }
    if args.run.json {
        return print(json);
    }
    let notes: String = left_out(&summary).iter().map(|note| format!("{}\n", visible_line(note))).collect();
    // By the rule of the scores: 1 if nothing is found in them, else 0.
    let empty = measured.iter().filter(|case| case.classes.iter().all(|class| class.true_ml == 0.0)).count();
    let empty = match empty {
        0 => String::new(),
        1 => ", 1 without foreground among them".into(),
        count => format!(", {count} without foreground among them"),
    };
    let cases = plural(measured.len(), "case");
    let means = format!("\nmean Dice {dice:.4}, IoU {iou:.4} over {cases}{empty}\nscores: {}\n", folder.display());
    print(table::table(measured, &summary) + &notes + &means)
}

/// What to do about cases that were passed over.
const AGAIN: &str = "the means are those of the others: mend these files and run the command again";

/// Refuses a data set whose labels are not the model's.
fn check_classes(model: &Model, dataset: &Dataset) -> Result<()> {
    let known = &model.task.preprocessing.classes;
    if model.task.preprocessing.merge || dataset.class_values() == *known {
        return Ok(());
    }
    Err(Error::data(
        &dataset.path,
        format!("declares the labels {:?}, but the checkpoint was trained on {known:?}", dataset.class_values()),
        "give the --data that it was trained on, or one with the same labels",
    ))
}

/// The cases that the flags choose, as the model takes them.
fn cases(
    args: &EvaluateArgs,
    model: &Model,
    dataset: &mut Dataset,
    problems: Vec<Error>,
    failures: &mut Failures,
) -> Result<Vec<PreparedCase>> {
    match args.part {
        Part::Validation => dataset.training.clear(),
        Part::Training => dataset.validation.clear(),
        Part::All => {}
    }
    let grid = if args.sampled { PadTo::of(model.network.architecture()) } else { PadTo::Own };
    // All headers before the first voxel.
    *failures = Failures::new(dataset.training.len() + dataset.validation.len() + problems.len());
    problems.into_iter().try_for_each(|problem| failures.pass_over_file(problem))?;
    let (mut sound, nowhere) = ([Vec::new(), Vec::new()], Path::new(""));
    for (part, cases) in [&dataset.training, &dataset.validation].into_iter().enumerate() {
        for case in cases {
            match dataset.check_headers_of(case) {
                Ok(()) => sound[part].push(case.clone()),
                Err(error) => failures.pass_over(&case.name, error, true)?,
            }
        }
    }
    [dataset.training, dataset.validation] = sound;
    let (training, validation) = load_with(dataset, &model.task, grid, args.run.verbosity(), |case, error| {
        let passed = is_of_case(&error, case, nowhere);
        failures.pass_over(&case.name, error, passed)
    })?;
    let cases = [training, validation].concat();
    for case in &cases {
        let problem = model.task.preprocessing.unusual_spacing(case.way.shape, &case.way.geometry)?;
        problem.iter().for_each(|problem| args.run.verbosity().warn(&Warning::new(&case.name, problem)));
    }
    match cases.is_empty() {
        true => Err(Error::data(&dataset.path, "has no such case", "choose another --part")),
        false => Ok(cases),
    }
}

/// Whose official evaluation it is: that of the data set which an official `.pt` belongs to, else LiTS's in its layouts and
/// BraTS's in all others.
fn sampled_family(args: &EvaluateArgs, dataset: &Dataset) -> Result<Family> {
    match dataset.layout {
        _ if args.official.is_given() => args.official.family(),
        Layout::LitsFolders | Layout::LitsFlat => Ok(Family::Lits),
        Layout::Brats | Layout::Decathlon | Layout::NnUNet => Ok(Family::Brats),
    }
}

/// The official evaluation, over random points.
fn run_sampled(
    args: &EvaluateArgs,
    model: &Model,
    cases: &[PreparedCase],
    rule: ScoreRule,
    (sampling, seed): (&Sampling, u64),
) -> Result<()> {
    let mut bar = args.run.verbosity().task("evaluating", cases.len() as u64);
    let mut scores = Vec::new();
    for case in cases {
        interrupt::check(|| format!("{} of {} cases are scored; run the command again", scores.len(), cases.len()))?;
        let Model { network, parameters, task } = model;
        scores.push(sampled::score(&**network, parameters, task, case, sampling, rule, seed)?);
        bar.advance(&case.name);
    }
    bar.finish("done");
    let (dice, iou) = evaluate::means(&scores);
    if args.run.json {
        let title = model.network.architecture().title();
        let points = sampling.points;
        let json = serde_json::json!({ "model": title, "points": points, "dice": dice, "iou": iou, "cases": scores });
        return print_json(json, "cases");
    }
    let row = |name: &str, dice: f64, iou: f64| format!("{:<24} {dice:>8.4} {iou:>8.4}\n", visible_line(name));
    let rows: String = scores.iter().map(|score| row(&score.name, score.dice, score.iou)).collect();
    print(format!("{:<24} {:>8} {:>8}\n{rows}{}", "case", "Dice", "IoU", row("mean", dice, iou)))
}
