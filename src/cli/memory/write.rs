//! Files of `ossnet memory`, and what the operating system says of a run.

use super::MemoryArgs;
use super::single::Said;
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::memory::export;
use crate::planner::StepCost;
use crate::planner::schedules::Curve;

/// Writes the step's log, trace, profile, snapshot and page where they are wanted.
#[cfg_attr(not(feature = "report"), allow(unused_variables, reason = "pages alone show the curve"))]
pub(super) fn step(args: &MemoryArgs, answer: &StepCost, curve: &Curve) -> Result<()> {
    if let Some(path) = &args.csv {
        write_atomic(path, export::csv(&answer.cost.events).as_bytes())?;
    }
    if let Some(path) = &args.trace {
        write_atomic(path, export::chrome_trace(&answer.setting(), &answer.cost.events).as_bytes())?;
    }
    if let Some(path) = &args.pprof {
        let profile = export::pprof(&answer.cost.events, &answer.cost.peak);
        write_atomic(path, &profile.map_err(|error| Error::file(path, error))?)?;
    }
    if let Some(path) = &args.snapshot {
        write_atomic(path, &export::snapshot(&answer.cost.events))?;
    }
    #[cfg(feature = "report")]
    if let Some(path) = args.page() {
        write_atomic(path, page::step(answer, curve).as_bytes())?;
    }
    Ok(())
}

#[cfg(feature = "report")]
mod page {
    use super::{Curve, Said, StepCost};
    use crate::cli::compare_report::timeline;
    use crate::cli::memory::single::{schedule_grid, slope_grid};
    use crate::memory::format_bytes;
    use crate::planner::json::layer_name;
    use crate::planner::schedules::Point;
    use crate::report::{MemoryPage, ScheduleMark, Schedules, memory_page};

    /// The page of one step.
    pub(super) fn step(answer: &StepCost, curve: &Curve) -> String {
        let (cost, target) = (&answer.cost, answer.device.target());
        let name = answer.workload.network.title();
        memory_page(&MemoryPage {
            title: format!("Memory of {name}"),
            conclusion: format!(
                "The peak is {} in {}. {} are reserved, fragmentation included: {} on the device in all, and {} on the host.",
                format_bytes(cost.peak.by_role.total()),
                answer.place(),
                format_bytes(cost.reserved),
                format_bytes(answer.device_bytes()),
                format_bytes(answer.host_bytes())
            ),
            run: format!("{}, ossnet {}", answer.setting(), crate::cli::VERSION),
            timeline: Some(timeline(&name, &cost.events)),
            by_layer: answer.by_layer.iter().map(|(layer, bytes)| (layer_name(layer).into(), *bytes)).collect(),
            device: vec![
                ("reserved by the arena".into(), cost.reserved),
                ("CUDA context (assumed)".into(), answer.aside.on_device(target)),
            ],
            host: vec![
                ("volumes and labels of the cases".into(), answer.aside.cases),
                ("the batch on its way".into(), answer.aside.staging),
                ("probabilities and labels".into(), answer.aside.results),
                ("program, stacks, packed products".into(), answer.aside.machinery(target)),
            ],
            growth: Some(slope_grid(&answer.slopes)),
            resolution: Vec::new(),
            schedules: (!curve.points.is_empty()).then(|| schedules(curve)),
        })
    }

    /// Chart and table of what recomputation buys.
    fn schedules(curve: &Curve) -> Schedules {
        let mark = |point: &Point, best: bool| {
            let [estimated, measured] = curve.ratios(point);
            let (name, bytes) = (point.recompute.to_string(), point.peak);
            ScheduleMark { name, bytes, estimated: estimated.unwrap_or(1.0), measured, best }
        };
        let levels = curve.levels.iter().filter(|level| !curve.points.contains(level));
        let marks = curve.points.iter().map(|point| mark(point, true)).chain(levels.map(|level| mark(level, false)));
        Schedules { table: schedule_grid(curve, true), marks: marks.collect() }
    }
}
