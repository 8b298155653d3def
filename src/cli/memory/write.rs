//! Files of `ossnet memory`, and what the operating system says of a run.

use super::MemoryArgs;
use super::single::Single;
use crate::error::{Error, Result};
use crate::files::write_atomic;
use crate::memory::export;

/// Writes the step's log, trace, profile and page where they are wanted.
pub(super) fn step(args: &MemoryArgs, answer: &Single) -> Result<()> {
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
    #[cfg(feature = "report")]
    if let Some(path) = args.page() {
        write_atomic(path, page::step(answer).as_bytes())?;
    }
    Ok(())
}

/// The process's largest resident set so far, in bytes (0 where the system does not tell).
pub(super) fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// The median without the first, which touches every page for the first time.
pub(super) fn median(seconds: &[f64]) -> f64 {
    let mut later = seconds[seconds.len().min(2) - 1..].to_vec();
    later.sort_by(f64::total_cmp);
    later[later.len() / 2]
}

#[cfg(feature = "report")]
mod page {
    use super::Single;
    use crate::cli::compare_report::timeline;
    use crate::cli::memory::single::{layer_name, slope_grid};
    use crate::memory::format_bytes;
    use crate::planner::HostOverhead;
    use crate::report::{MemoryPage, memory_page};

    /// The page of one step.
    pub(super) fn step(answer: &Single) -> String {
        let cost = &answer.cost;
        let name = answer.workload.network.title();
        memory_page(&MemoryPage {
            title: format!("Memory of {name}"),
            conclusion: format!(
                "The peak is {} in {}. {} are reserved, fragmentation included; with host data and overhead {} in all.",
                format_bytes(cost.peak.by_role.total()),
                answer.place(),
                format_bytes(cost.reserved),
                format_bytes(answer.total())
            ),
            run: format!("{}, ossnet {}", answer.setting(), crate::cli::VERSION),
            timeline: Some(timeline(&name, &cost.events)),
            by_layer: answer.by_layer.iter().map(|(layer, bytes)| (layer_name(layer).into(), *bytes)).collect(),
            beside: vec![
                ("reserved by the arena".into(), cost.reserved),
                ("host: volumes and labels of the cases".into(), answer.aside.cases),
                ("host: the batch on its way".into(), answer.aside.staging),
                ("host: probabilities and labels".into(), answer.aside.results),
                (HostOverhead::overhead_name(answer.device.target()).into(), answer.aside.overhead),
            ],
            growth: Some(slope_grid(&answer.slopes)),
            resolution: Vec::new(),
        })
    }
}
