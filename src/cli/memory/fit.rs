//! The inverse question: the largest volume, points and batch that fit.

use serde_json::Value;

use super::super::output::print;
use super::super::provenance::print_json;
use super::{MemoryArgs, Where, refuse};
use crate::error::Result;
use crate::memory::format_bytes;
use crate::models::RecomputeChoice;
use crate::planner::adjust::Quantity;
use crate::planner::fit::{FitResult, answers, best_answers};
use crate::planner::gpus::{GPUS, USABLE};
use crate::planner::json::{self, target_text};
use crate::planner::{HostOverhead, Workload};
use crate::quantities::parse_bytes;
use crate::report::{TextTable, count, counted};

/// What must hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(u64),
    /// Each of the well-known GPUs.
    Gpus,
}

/// Reads `8GiB` or `gpus`.
pub(super) fn parse_room(text: &str) -> Result<MemoryLimit, String> {
    match text.trim() {
        "gpus" => Ok(MemoryLimit::Gpus),
        bytes => parse_bytes(bytes).map(MemoryLimit::Bytes).map_err(|problem| format!("{problem}, or gpus")),
    }
}

/// Prints what fits.
pub(super) fn run(args: &MemoryArgs, room: MemoryLimit) -> Result<()> {
    refuse(args.device != Where::Plan, "--device", "--fit, which plans")?;
    refuse(args.csv.is_some(), "--csv", "--fit; --json has all figures")?;
    #[cfg(feature = "report")]
    refuse(args.page().is_some(), "--html", "--fit; --json has all figures")?;
    let workload = args.workload(&args.model)?;
    let target = args.target();
    let levels = match args.recompute {
        Some(RecomputeChoice::Level(level)) => vec![level],
        Some(RecomputeChoice::Auto) | None => workload.levels(),
    };
    let found: Vec<(String, u64, Vec<FitResult>)> = match room {
        MemoryLimit::Bytes(bytes) => vec![(format_bytes(bytes), bytes, answers(&workload, &levels, target, bytes)?)],
        MemoryLimit::Gpus => {
            let found = best_answers(&workload, &levels, target, &GPUS.map(|gpu| gpu.usable()))?;
            GPUS.iter().zip(found).map(|(gpu, answers)| (gpu.title(), gpu.usable(), answers)).collect()
        }
    };
    if args.run.json {
        let all: Vec<Value> = found.iter().map(|(name, budget, answers)| json::fit(name, *budget, answers)).collect();
        return print_json(serde_json::json!({ "model": workload.network.title(), "fits": all }), "fits");
    }
    let overhead = format_bytes(HostOverhead::of(&workload, target)?.overhead);
    let text = match room {
        MemoryLimit::Bytes(_) => one(&workload, &found[0].0, &found[0].2, &overhead),
        MemoryLimit::Gpus => many(&workload, &found, &target_text(target)),
    };
    print(text)
}

/// The rest of the workload while one quantity grows.
fn others(workload: &Workload, quantity: Quantity) -> String {
    let sizes = workload.sizes;
    let volume = super::shape_text(sizes.volume);
    let points = workload.has_points().then(|| counted(sizes.points as u64, "point"));
    let batch = format!("batch {}", sizes.batch);
    let parts = match quantity {
        Quantity::Side => [None, points, Some(batch)],
        Quantity::Points => [Some(volume), None, Some(batch)],
        Quantity::Batch => [Some(volume), points, None],
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn value_text(quantity: Quantity, value: Option<usize>) -> String {
    match (quantity, value) {
        (_, None) => "nothing fits".into(),
        (Quantity::Side, Some(side)) => format!("{side}³"),
        (_, Some(value)) => count(value as u64),
    }
}

fn label(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Side => "largest volume",
        Quantity::Points => "most points",
        Quantity::Batch => "largest batch",
    }
}

/// Quantities as rows, levels as columns.
fn one(workload: &Workload, room: &str, answers: &[FitResult], overhead: &str) -> String {
    let mut text =
        format!("{} in {room}, planned; host data and overhead ({overhead}) come on top\n\n", workload.network.title());
    let levels = answers.first().map(|answer| answer.by_level.clone()).unwrap_or_default();
    let heads = levels.iter().map(|(level, _)| format!("recompute {level}"));
    let mut grid = TextTable::new(std::iter::once(String::new()).chain(heads).chain([String::from("best at")]));
    for answer in answers {
        let name = format!("{} ({})", label(answer.quantity), others(workload, answer.quantity));
        let values = answer.by_level.iter().map(|(_, value)| value_text(answer.quantity, *value));
        let best = answer.best().map_or("–".into(), |(level, _)| format!("level {level}"));
        grid.push(std::iter::once(name).chain(values).chain([best]));
    }
    text += &grid.render();
    text
}

/// GPUs as rows, quantities as columns, each with the fastest level that reaches it.
fn many(workload: &Workload, found: &[(String, u64, Vec<FitResult>)], target: &str) -> String {
    let mut text = format!(
        "{}: the largest of each while the rest stays ({}), at the recompute level in brackets;\nplanned for {target} with \
         {:.0} % of each GPU's memory\n\n",
        workload.network.title(),
        super::shape_text(workload.sizes.volume) + ", " + &others(workload, Quantity::Side),
        100.0 * USABLE
    );
    let heads = found.first().map(|(_, _, answers)| answers.as_slice()).unwrap_or_default();
    let heads = heads.iter().map(|answer| label(answer.quantity).to_string());
    let mut grid = TextTable::new(std::iter::once("GPU".to_string()).chain(heads));
    for (name, _, answers) in found {
        let cell = |answer: &FitResult| match answer.best() {
            None => "–".into(),
            Some((level, value)) => format!("{} ({level})", value_text(answer.quantity, Some(value))),
        };
        grid.push(std::iter::once(name.clone()).chain(answers.iter().map(cell)));
    }
    text += &grid.render();
    text
}
