//! `ossnet evaluate`: scores of a checkpoint on labelled cases.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::device_args::{DeviceArgs, PrecisionArgs};
use super::failures::{Failures, is_of_case};
use super::official::{self, OfficialArgs};
use super::output::print;
use super::provenance::{print_json, stamped_with};
use super::training::{load_with, output_folder, scan_folder, score_cases};
use crate::checkpoint::model::Model;
use crate::data::{Dataset, Scanned, Warning};
use crate::error::{Error, Result};
use crate::evaluate::metrics::ScoreRule;
use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES, summarise, to_csv};
use crate::evaluate::{sampled, statistics::Summary};
use crate::files::write_atomic;
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

/// Flags of `ossnet evaluate`.
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// The checkpoint (.safetensors, or an official .pt with --model)
    #[arg(short, long, value_name = "FILE")]
    load_model: PathBuf,
    #[command(flatten)]
    official: OfficialArgs,
    /// A data set's folder of any layout, or sample:TASK [default: the embedded head MRIs]
    #[arg(short, long, visible_alias = "dataset-path", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which cases
    #[arg(long, value_enum, default_value_t = Part::Validation)]
    part: Part,
    /// Seed of the division into training and validation, where the data set states none, and of sampled points
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    seed: u64,
    /// Tolerance of the surface Dice in mm
    #[arg(long, default_value_t = 1.0, value_name = "MM", allow_negative_numbers = true)]
    tolerance: f64,
    /// Score random points as the official code does, not all voxels: Dice and IoU only
    #[arg(long)]
    sampled: bool,
    /// Folder for scores.csv, scores.json and report.html [default: a new folder in runs/]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
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
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let precision = args.precision.on(&device)?;
    let mut dataset = None;
    // Weights that describe themselves are read before the data set: a broken checkpoint is the first thing to say.
    let early = (!args.official.is_given()).then(|| official::load(&device, &args.load_model, &args.official, None));
    let early = early.transpose()?;
    let Scanned { dataset: scanned, problems } = scan_folder(args.data.as_deref(), args.seed)?;
    let found = dataset.insert(scanned);
    let mut model = match early {
        Some(model) => model,
        None => official::load(&device, &args.load_model, &args.official, Some(found))?,
    };
    model.network.set_precision(precision);
    check_classes(&model, found)?;
    let mut failures = Failures::new(0);
    let cases = cases(&args, &model, found, problems, &mut failures)?;
    let rule = if model.network.architecture().is_reference() { ScoreRule::REFERENCE } else { ScoreRule::DEFAULT };
    if args.sampled {
        run_sampled(&args, &model, &cases, rule)?;
        return failures.finish(&found.path, "scored", AGAIN);
    }
    let again = "run the command again";
    let folder = output_folder(args.out.as_deref(), "evaluate", |_| false)?;
    let scored = score_cases(&*model.network, &model.parameters, &model.task, &cases, verbosity, again)?;
    let measured = cases
        .iter()
        .zip(&scored)
        .map(|(case, (_, predicted))| evaluate::measure(&model.task, case, predicted, args.tolerance, rule));
    let measured = measured.collect::<Result<Vec<CaseScores>>>()?;
    let summary = summarise(&measured);
    let scores: Vec<CaseScore> = scored.into_iter().map(|(score, _)| score).collect();
    let (dice, iou) = evaluate::means(&scores);
    let title = model.network.architecture().title();
    let json = serde_json::json!({
        "model": title,
        "dice": dice,
        "iou": iou,
        "cases": scores,
        "tolerance_mm": args.tolerance,
        "scores": measured,
        "summary": summary,
    });
    let data = found.path.clone();
    let made = stamped_with(json, "scores", dataset.as_ref())?;
    let (folder, json) = (folder.path(), format!("{made:#}\n"));
    write_atomic(folder.join("scores.json"), json.as_bytes())?;
    write_atomic(folder.join("scores.csv"), to_csv(&measured).as_bytes())?;
    #[cfg(feature = "report")]
    {
        let page = crate::report::evaluation_page(&title, &dataset_name(&dataset), args.tolerance, &measured, &summary);
        write_atomic(folder.join("report.html"), page.as_bytes())?;
    }
    match args.run.json {
        true => print(json)?,
        false => {
            let means = format!("\nmean Dice {dice:.4}, IoU {iou:.4}\nscores: {}\n", folder.display());
            print(table(&measured, &summary) + &means)?;
        }
    }
    failures.finish(&data, "scored", AGAIN)
}

/// What to do about cases that were passed over.
const AGAIN: &str = "the means are those of the others: mend these files and run the command again";

#[cfg(feature = "report")]
fn dataset_name(dataset: &Option<Dataset>) -> String {
    dataset.as_ref().map_or_else(String::new, |dataset| dataset.name.clone())
}

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

/// The official evaluation, over random points.
fn run_sampled(args: &EvaluateArgs, model: &Model, cases: &[PreparedCase], rule: ScoreRule) -> Result<()> {
    let sampling = sampled::official(args.official.family()?);
    let mut bar = args.run.verbosity().task("evaluating", cases.len() as u64);
    let mut scores = Vec::new();
    for case in cases {
        interrupt::check(|| format!("{} of {} cases are scored; run the command again", scores.len(), cases.len()))?;
        let Model { network, parameters, task } = model;
        scores.push(sampled::score(&**network, parameters, task, case, &sampling, rule, args.seed)?);
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

/// The scores for a terminal: a row a case and class, then means with their 95 % intervals.
fn table(cases: &[CaseScores], summary: &[ClassSummary]) -> String {
    let several = summary.len() > 1;
    let label = |name: &str, class: &str| {
        let label = if several { format!("{name} {class}") } else { name.to_string() };
        visible_line(&label).into_owned()
    };
    let number = |value: f64| if value.is_finite() { format!("{value:.3}") } else { "–".into() };
    let mut rows = Vec::new();
    for case in cases {
        let row = |scores: &crate::evaluate::scores::Scores| {
            (label(&case.name, &scores.class), scores.values.map(number).to_vec())
        };
        rows.extend(case.classes.iter().map(row));
    }
    // A mean that leaves cases out says so: a distance to nothing is none.
    let of = |summary: &Summary| match summary.count < cases.len() {
        true => format!(" ({}/{})", summary.count, cases.len()),
        false => String::new(),
    };
    let interval = |summary: Summary| match (summary.mean, summary.half_width) {
        (Some(mean), Some(half)) => format!("{mean:.3}±{half:.3}{}", of(&summary)),
        (Some(mean), None) => format!("{mean:.3}{}", of(&summary)),
        _ => "–".into(),
    };
    rows.extend(summary.iter().map(|class| (label("mean", &class.class), class.values.map(interval).to_vec())));
    let first = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
    let heads = NAMES.map(|(name, unit)| match (name, unit) {
        ("relative_volume_error", _) => "rel. error".to_string(),
        (name, "") => name.replace('_', " "),
        (name, unit) => format!("{} {unit}", name.replace('_', " ")),
    });
    let widths: Vec<usize> = (0..NAMES.len())
        .map(|k| rows.iter().map(|(_, cells)| cells[k].chars().count()).max().unwrap_or(0).max(heads[k].len()))
        .collect();
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
        format!("{name:<first$}{cells}\n")
    };
    line("case", &heads) + &rows.iter().map(|(name, cells)| line(name, cells)).collect::<String>()
}
