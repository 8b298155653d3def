//! Memory against resolution: curves, crossings, slopes.

use std::fmt::Write;
use std::str::FromStr;

use super::super::output::print;
use super::super::provenance::print_json;
use super::{MemoryArgs, Where, refuse};
use crate::device::Target;
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::models::{Recompute, RecomputeChoice};
use crate::planner::Workload;
use crate::planner::curves::parse_sides;
use crate::planner::json;
use crate::planner::pytorch_baseline;
use crate::planner::slopes::slopes;
use crate::planner::sweep::{self, Sweep, sweep};
use crate::report::{TextTable, count, mib};

/// The sides of a sweep, rising.
#[derive(Clone, Debug)]
pub(super) struct Sides(Vec<usize>);

impl FromStr for Sides {
    type Err = String;

    /// Reads `32..1024`, or sides: `64,96,224`.
    fn from_str(text: &str) -> Result<Self, String> {
        parse_sides(text).map(Self)
    }
}

/// Prints the curves of `--models`.
pub(super) fn run(args: &MemoryArgs, Sides(sides): &Sides) -> Result<()> {
    refuse(args.device != Where::Plan, "--device", "--sweep, which plans")?;
    let target = args.target();
    let workloads = workloads(&args.models, |name| args.workload(name))?;
    let sweeps = levels(args, &workloads)?
        .into_iter()
        .map(|level| sweep(&workloads, level, target, sides))
        .collect::<Result<Vec<_>>>()?;
    if let Some(empty) = sweeps[0].curves.iter().find(|curve| curve.points.is_empty()) {
        return Err(Error::Usage(format!(
            "--sweep has no side that {} admits; take larger ones, multiples of 16 (or 32)",
            empty.name
        )));
    }
    if let Some(path) = &args.csv {
        write_atomic(path, csv(&sweeps).as_bytes())?;
    }
    #[cfg(feature = "report")]
    if let Some(path) = args.page() {
        let growth = slopes_grid(&workloads, &sweeps, target)?;
        write_atomic(path, page::page(&json::setting(&workloads), &sweeps, growth).as_bytes())?;
    }
    match args.run.json {
        true => print_json(json::sweep(&workloads, &sweeps, target)?, "sweeps"),
        false => print(text(&workloads, &sweeps, target)? + &left_out(&sweeps[0], sides)),
    }
}

/// The workloads of some models, each named once.
fn workloads(names: &[String], workload: impl Fn(&str) -> Result<Workload>) -> Result<Vec<Workload>> {
    let mut workloads: Vec<Workload> = Vec::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        let next = workload(name)?;
        if workloads.iter().any(|known| known.network.slug() == next.network.slug()) {
            return Err(Error::Usage(format!("--models names {name} twice; name each model once")));
        }
        workloads.push(next);
    }
    match workloads.is_empty() {
        true => Err(Error::Usage("--models names no model; write for example oss-net-c,unet3d".into())),
        false => Ok(workloads),
    }
}

/// The level of `--recompute`; all that some model has if it is not given.
fn levels(args: &MemoryArgs, workloads: &[Workload]) -> Result<Vec<Recompute>> {
    match args.recompute {
        Some(RecomputeChoice::Level(level)) => Ok(vec![level]),
        Some(RecomputeChoice::Auto) => Err(Error::Usage(
            "--recompute auto needs a budget, which --sweep has not; name a level, or none for all".into(),
        )),
        None => {
            let most = workloads.iter().map(Workload::levels).max_by_key(Vec::len);
            Ok(most.unwrap_or_default())
        }
    }
}

fn text(workloads: &[Workload], sweeps: &[Sweep], target: Target) -> Result<String> {
    let (first, rest) = (&sweeps[0], if sweeps.len() > 1 { "; --json, --csv and --html have all levels" } else { "" });
    let mut text = format!(
        "{}, planned for {}.\n\nReserved in MiB (parameters, optimiser state and holes included) at recompute level {}{rest}\n",
        json::setting(workloads),
        json::target_text(target),
        first.recompute
    );
    text += &reserved_grid(first).render();
    text += "\nOf it the highest sum of saved and transient activations and workspace\n";
    text += &curves_grid(first).render();
    let crossings = crossings_grid(sweeps);
    if let Some(crossings) = crossings {
        text += "\nWhere the first of two needs less than the second: from this side on\n";
        text += &crossings.render();
    }
    text += "\nHow the peaks grow (fitted)\n";
    text += &slopes_grid(workloads, sweeps, target)?.render();
    if !first.recorded.is_empty() {
        let _ = write!(text, "\n{}; see docs/memory.md.\n", recorded_text());
    }
    Ok(text)
}

/// Says which sides were asked for and are not planned, because a network does not admit them.
fn left_out(sweep: &Sweep, sides: &[usize]) -> String {
    let lines = sweep.curves.iter().filter_map(|curve| {
        let left_out = |side: &&usize| !curve.points.iter().any(|point| point.side == **side);
        let missing: Vec<String> = sides.iter().filter(left_out).map(|side| format!("{side}³")).collect();
        (!missing.is_empty()).then(|| format!("\n{} does not admit {}.\n", curve.name, missing.join(", ")))
    });
    lines.collect()
}

/// The sides that some curve has.
fn all_sides(sweep: &Sweep) -> Vec<usize> {
    let mut sides: Vec<usize> =
        sweep.curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.side)).collect();
    sides.sort_unstable();
    sides.dedup();
    sides
}

/// Sides as rows; of each model what is reserved and its parameters.
fn reserved_grid(sweep: &Sweep) -> TextTable {
    let heads = sweep.curves.iter().flat_map(|curve| [curve.name.clone(), "parameters".into()]);
    let mut grid = TextTable::new(std::iter::once("side".to_string()).chain(heads));
    for side in all_sides(sweep) {
        let cells = sweep.curves.iter().flat_map(|curve| {
            let point = curve.points.iter().find(|point| point.side == side);
            point.map_or([const { String::new() }; 2], |point| [mib(point.reserved), count(point.parameters)])
        });
        grid.push(std::iter::once(format!("{side}³")).chain(cells));
    }
    grid
}

/// Sides as rows, models and what was recorded of their peers as columns.
fn curves_grid(sweep: &Sweep) -> TextTable {
    let names = sweep.curves.iter().map(|curve| curve.name.clone());
    let recorded = sweep.recorded.iter().map(|(_, curve)| curve.name.to_string());
    let mut grid = TextTable::new(std::iter::once("side".to_string()).chain(names).chain(recorded));
    for side in all_sides(sweep) {
        let planned = sweep.curves.iter().map(|curve| {
            let point = curve.points.iter().find(|point| point.side == side);
            point.map_or(String::new(), |point| mib(point.peak_activations))
        });
        let recorded = sweep.recorded.iter().map(|(_, curve)| {
            let point = curve.points().into_iter().find(|point| point.0 == side as f64);
            point.map_or(String::new(), |point| mib(point.1 as u64))
        });
        grid.push(std::iter::once(format!("{side}³")).chain(planned).chain(recorded));
    }
    grid
}

/// Pairs of curves as rows, levels as columns; `None` if nothing crosses.
fn crossings_grid(sweeps: &[Sweep]) -> Option<TextTable> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for meeting in sweeps.iter().flat_map(|sweep| &sweep.meetings) {
        let pair = (meeting.leaner_above.as_str(), meeting.other.as_str());
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    let levels = sweeps.iter().map(|sweep| format!("recompute {}", sweep.recompute));
    let mut grid = TextTable::new(["".to_string(), "than".into()].into_iter().chain(levels));
    for &(leaner, other) in &pairs {
        let at = |sweep: &Sweep| {
            let found =
                sweep.meetings.iter().filter(|meeting| meeting.leaner_above == leaner && meeting.other == other);
            found.map(|meeting| format!("{:.0}³", meeting.crossing.side)).collect::<Vec<_>>().join(", ")
        };
        grid.push([leaner.to_string(), other.into()].into_iter().chain(sweeps.iter().map(at)));
    }
    (!pairs.is_empty()).then_some(grid)
}

/// Models and their parts as rows, levels as columns.
fn slopes_grid(workloads: &[Workload], sweeps: &[Sweep], target: Target) -> Result<TextTable> {
    let levels = sweeps.iter().map(|sweep| format!("recompute {}", sweep.recompute));
    let mut grid = TextTable::new(std::iter::once(String::new()).chain(levels));
    for workload in workloads {
        let at = |sweep: &Sweep| slopes(&workload.with_recompute(sweep.recompute), target);
        let by_level = sweeps.iter().map(at).collect::<Result<Vec<_>>>()?;
        for (number, slope) in by_level[0].iter().enumerate() {
            let name = format!("{}, {}, a {}", workload.network.title(), slope.part, slope.unit);
            grid.push(std::iter::once(name).chain(by_level.iter().map(|slopes| slopes[number].rise())));
        }
    }
    Ok(grid)
}

/// `The PyTorch curves were recorded: …`.
fn recorded_text() -> String {
    format!("The PyTorch figures were not made by this program: {}", pytorch_baseline::SOURCE)
}

/// A line a point.
fn csv(sweeps: &[Sweep]) -> String {
    let mut text =
        String::from("model,recorded,recompute,side,peak_activation_bytes,peak_bytes,reserved_bytes,parameters\n");
    for sweep in sweeps {
        let level = sweep.recompute;
        for curve in &sweep.curves {
            for point in &curve.points {
                let (side, activations, peak) = (point.side, point.peak_activations, point.peak_bytes);
                let rest = format!("{},{}", point.reserved, point.parameters);
                let _ = writeln!(text, "\"{}\",no,{level},{side},{activations},{peak},{rest}", curve.name);
            }
        }
    }
    // The peers recompute nothing: once is enough.
    for (_, curve) in sweeps.first().iter().flat_map(|sweep| &sweep.recorded) {
        for (side, bytes) in curve.points() {
            let _ = writeln!(text, "\"{}\",yes,,{side},{bytes},,,", curve.name);
        }
    }
    text
}

/// The curves of the comparison's models at their published sizes, for its page.
#[cfg(feature = "report")]
pub(in crate::cli) fn resolution_of(names: &[String], threads: usize) -> Result<Vec<crate::report::Resolution>> {
    use crate::train::dry_run::StepSizes;
    let (target, sides) = (crate::planner::this_cpu(threads), crate::planner::curves::sides(32, 512));
    let workloads = workloads(names, |name| Workload::official(name, StepSizes::new([256; 3], 1, 16384)))?;
    let levels = workloads.iter().map(Workload::levels).max_by_key(Vec::len).unwrap_or_default();
    let ends = [levels.first(), levels.last()].into_iter().flatten();
    let what = "One training step of the networks at their published sizes (four channels, batch 1, 16,384 points a volume, \
                f32), planned";
    let sweeps = ends.map(|&level| sweep(&workloads, level, target, &sides)).collect::<Result<Vec<_>>>()?;
    Ok(sweeps.iter().flat_map(|sweep| page::resolutions(sweep, what)).collect())
}

#[cfg(feature = "report")]
mod page {
    use super::{Sweep, TextTable, recorded_text};
    use crate::planner::curves::{Intersection, MemoryCurve, crossings};
    use crate::report::{Crossover, Growth, MemoryPage, Resolution, memory_page};

    /// The charts of one level: what must fit, and the activations in it.
    pub(super) fn resolutions(sweep: &Sweep, what: &str) -> [Resolution; 2] {
        let heading = format!("Recompute level {}", sweep.recompute);
        let own = |points: fn(&MemoryCurve) -> Vec<(f64, f64)>| {
            let curve = move |curve: &MemoryCurve| Growth {
                name: curve.name.clone(),
                points: points(curve),
                recorded_beside: None,
            };
            sweep.curves.iter().map(curve).collect::<Vec<_>>()
        };
        let reserved = Resolution {
            heading: heading.clone(),
            quantity: "reserved".into(),
            caption: format!("{what}. What must fit: parameters, optimiser state, activations and holes between them."),
            meetings: reserved_meetings(sweep),
            curves: own(MemoryCurve::reserved),
        };
        let peers = sweep.recorded.iter().map(|(beside, curve)| Growth {
            name: format!("{} (recorded)", curve.name),
            points: curve.points(),
            recorded_beside: Some(*beside),
        });
        let note = match sweep.recorded.is_empty() {
            true => String::new(),
            false => format!(" {}.", recorded_text()),
        };
        let activations = Resolution {
            heading,
            quantity: "activations".into(),
            caption: format!("{what}. Peak of saved and transient activations and workspace.{note}"),
            curves: own(MemoryCurve::activations).into_iter().chain(peers).collect(),
            meetings: sweep
                .meetings
                .iter()
                .map(|found| meeting(&found.leaner_above, &found.other, found.crossing))
                .collect(),
        };
        [reserved, activations]
    }

    fn meeting(leaner_above: &str, other: &str, at: Intersection) -> Crossover {
        Crossover { leaner_above: leaner_above.into(), other: other.into(), side: at.side, bytes: at.bytes }
    }

    /// Where the reserved bytes of two planned curves are the same.
    fn reserved_meetings(sweep: &Sweep) -> Vec<Crossover> {
        let pairs = sweep
            .curves
            .iter()
            .enumerate()
            .flat_map(|(i, first)| sweep.curves[i + 1..].iter().map(move |second| (first, second)));
        let of_pair = |(first, second): (&MemoryCurve, &MemoryCurve)| {
            let named = |at: Intersection| match at.first_wins_above {
                true => meeting(&first.name, &second.name, at),
                false => meeting(&second.name, &first.name, at),
            };
            crossings(&first.reserved(), &second.reserved()).into_iter().map(named).collect::<Vec<_>>()
        };
        pairs.flat_map(of_pair).collect()
    }

    /// Where the planned curves cross, at the fastest level and at the leanest.
    fn conclusion(sweeps: &[Sweep]) -> String {
        let planned = |name: &str| sweeps.iter().any(|sweep| sweep.curves.iter().any(|curve| curve.name == name));
        let mut sentences = Vec::new();
        for meeting in &sweeps[0].meetings {
            if !planned(&meeting.leaner_above) || !planned(&meeting.other) {
                continue;
            }
            let same = |other: &&super::sweep::Crossover| {
                other.leaner_above == meeting.leaner_above && other.other == meeting.other
            };
            let last = sweeps.last().filter(|_| sweeps.len() > 1);
            let leanest =
                last.and_then(|sweep| Some((sweep.recompute, sweep.meetings.iter().find(same)?.crossing.side)));
            let leanest = leanest.map_or(String::new(), |(level, side)| format!(", at level {level} above {side:.0}³"));
            let (name, other, side) = (&meeting.leaner_above, &meeting.other, meeting.crossing.side);
            let level = sweeps[0].recompute;
            sentences.push(format!(
                "{name}’s activations take less than {other}’s above {side:.0}³ voxels at recompute level {level}{leanest}."
            ));
        }
        let reserved = reserved_meetings(&sweeps[0]);
        sentences.extend(reserved.iter().map(|Crossover { leaner_above, other, side, .. }| {
            format!(
                "In all, parameters included, {leaner_above} needs less than {other} above {side:.0}³ at level {}.",
                sweeps[0].recompute
            )
        }));
        match sentences.is_empty() {
            true => "No two planned curves cross in this range.".into(),
            false => sentences.join(" "),
        }
    }

    /// The page of a sweep.
    pub(super) fn page(setting: &str, sweeps: &[Sweep], growth: TextTable) -> String {
        memory_page(&MemoryPage {
            title: "Memory against resolution".into(),
            conclusion: conclusion(sweeps),
            run: format!("{}, planned for the CPU, ossnet {}", setting, crate::cli::VERSION),
            resolution: sweeps.iter().flat_map(|sweep| resolutions(sweep, setting)).collect(),
            growth: Some(growth),
            ..MemoryPage::default()
        })
    }
}
