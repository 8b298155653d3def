//! The page of a comparison: what its run leaves, as the report wants it.

use std::path::Path;

use super::compare::{CompareArgs, Compared};
use super::pictures;
use crate::data::Dataset;
use crate::error::Result;
use crate::files::write_atomic;
use crate::memory::{Event, Role};
use crate::report::{
    self, CaseFacts, CaseSlices, LossCurve, MemoryEvent, ModelResult, ReportData, Results, RunFacts, Timeline,
};
use crate::task::{PreparedCase, Task};

/// Writes `report.html` into `folder`; `cases` are those for training and for validation.
///
/// # Errors
/// A full disk.
pub(super) fn write(
    folder: &Path,
    args: &CompareArgs,
    dataset: &Dataset,
    (task, cases): (&Task, [&[PreparedCase]; 2]),
    results: &Results,
    compared: &[Compared],
) -> Result<()> {
    let name = |model: &Compared| model.result.name.clone();
    let evidence = ReportData {
        facts: facts(args, dataset, cases, compared),
        losses: compared.iter().map(|model| loss_curve(&model.result, &model.losses)).collect(),
        timelines: compared.iter().map(|model| timeline(&name(model), &model.events)).collect(),
        resolution: super::memory::resolution_of(&args.models, args.run.threads)?,
        slices: slices(task, cases[1], compared)?,
    };
    write_atomic(folder.join("report.html"), report::page(results, &evidence)?.as_bytes())
}

/// Writes the `report.html` of a cross-validation into `folder`; curves and slices are in those of the folds.
///
/// # Errors
/// A full disk.
pub(super) fn write_folds(folder: &Path, args: &CompareArgs, dataset: &Dataset, results: &Results) -> Result<()> {
    let evidence = ReportData {
        facts: facts(args, dataset, [&[], &[]], &[]),
        resolution: super::memory::resolution_of(&args.models, args.run.threads)?,
        ..ReportData::default()
    };
    write_atomic(folder.join("report.html"), report::page(results, &evidence)?.as_bytes())
}

/// The embedded sample, and what a step is on it.
const HEADS: &str = "T1-weighted head MRIs of six subjects, resampled to 2.75 mm; the label is the brain. Occupancy networks \
    train on four scans per step with 1,536 points each (half of them near the border), U-Nets on one whole scan per step; costs are \
    given for one scan.";

/// What was run, and how to repeat it.
fn facts(
    args: &CompareArgs,
    dataset: &Dataset,
    [training, validation]: [&[PreparedCase]; 2],
    compared: &[Compared],
) -> RunFacts {
    let case = |validation: bool| {
        move |case: &PreparedCase| CaseFacts {
            name: case.name.clone(),
            validation,
            shape: case.way.shape,
            spacing: case.way.geometry.spacing(),
        }
    };
    let command = super::compare_command::of(args);
    let embedded = args.data.is_none();
    RunFacts {
        data_set: if embedded { "heads (embedded sample)".into() } else { dataset.name.clone() },
        description: match embedded {
            true => HEADS.into(),
            false => format!("{} with classes {}.", dataset.path.display(), class_names(dataset)),
        },
        cases: training.iter().map(case(false)).chain(validation.iter().map(case(true))).collect(),
        epochs: args.sample_epochs(),
        command,
        caveats: if embedded { report::HEADS_CAVEATS.map(String::from).to_vec() } else { Vec::new() },
        warnings: dataset
            .warnings
            .iter()
            .map(ToString::to_string)
            .chain(compared.iter().flat_map(|model| model.changes.clone()))
            .collect(),
    }
}

fn class_names(dataset: &Dataset) -> String {
    dataset.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Cases whose slices the page has room for, at most.
const MOST_SLICES: usize = 12;

/// Three orthogonal slices of the first validation cases with every model's prediction.
fn slices(task: &Task, validation: &[PreparedCase], compared: &[Compared]) -> Result<Vec<CaseSlices>> {
    let of_case = |(i, case): (usize, &PreparedCase)| {
        let names = compared.iter().map(|model| (model.result.name.as_str(), &model.predictions[i]));
        pictures::slices(task, case, &names.collect::<Vec<_>>())
    };
    validation.iter().take(MOST_SLICES).enumerate().map(of_case).collect()
}

/// Points of a loss curve: enough for a picture.
const CURVE_POINTS: usize = 400;

/// Losses by scans seen, averaged over equal stretches.
fn loss_curve(result: &ModelResult, losses: &[f32]) -> LossCurve {
    let scans = result.scans_per_step.max(1);
    let stretch = losses.len().div_ceil(CURVE_POINTS).max(1);
    let points = losses
        .chunks(stretch)
        .enumerate()
        .map(|(i, losses)| {
            let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
            ((i * stretch + losses.len()) as u64 * scans, mean)
        })
        .collect();
    LossCurve { model: result.name.clone(), points }
}

/// Live bytes after each allocation and release of one step.
pub(super) fn timeline(model: &str, events: &[Event]) -> Timeline {
    let roles: Vec<Role> =
        Role::ALL.into_iter().filter(|&role| events.iter().any(|event| event.live.get(role) > 0)).collect();
    let events = events
        .iter()
        .enumerate()
        .map(|(index, event)| MemoryEvent {
            index: index as u64,
            op: event.op.to_string(),
            layer: event.layer.to_string(),
            phase: event.phase.name().to_string(),
            bytes: roles.iter().map(|&role| event.live.get(role)).collect(),
        })
        .collect();
    Timeline { model: model.into(), roles: roles.iter().map(|role| role.name().to_string()).collect(), events }
}
