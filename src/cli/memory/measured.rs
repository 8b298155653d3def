//! Plan and run of one step, side by side.

use serde_json::json;

use super::super::output::print;
use super::super::provenance::print_json;
use super::{MemoryArgs, Where, refuse};
use crate::error::Result;
use crate::memory::{format_bytes, resident_peak};
use crate::planner::{HostOverhead, median};
use crate::report::{TextTable, mib};

/// Plans the step, runs it, and prints both.
pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    let files = args.csv.is_some() || args.trace.is_some() || args.pprof.is_some() || args.snapshot.is_some();
    refuse(files, "--csv, --trace, --pprof and --snapshot", "--compare-to")?;
    #[cfg(feature = "report")]
    refuse(args.page().is_some(), "--html", "--compare-to")?;
    let device = match args.device {
        Where::Plan => args.run.device()?,
        Where::On(place) => args.run.open(place)?,
    };
    let target = device.target();
    // As many steps are planned as are run: what is reserved is the highest of all.
    let steps = args.steps as usize;
    let before = resident_peak();
    let (workload, change, run) = args.taken(&device, steps)?;
    let resident = resident_peak();
    let plan = workload.dry_run(&device.planned(), steps)?;
    let aside = HostOverhead::of(&workload, target)?;
    let differing = (0..plan.events.len().max(run.events.len())).find(|&i| plan.events.get(i) != run.events.get(i));
    let (planned, measured) = (plan.peak.by_role.total(), run.peak.by_role.total());
    let bound = plan.reserved + aside.overhead;
    if args.run.json {
        return print_json(
            json!({
                "model": workload.network.title(),
                "changed_to_fit": change,
                "events": { "planned": plan.events.len(), "measured": run.events.len(), "first_difference": differing },
                "peak_bytes": { "planned": planned, "measured": measured },
                "peak_activation_bytes": { "planned": plan.peak_activations, "measured": run.peak_activations },
                "reserved_bytes": { "planned": plan.reserved, "measured": run.reserved },
                "resident_peak_bytes": { "planned_at_most": bound, "measured": resident, "before_the_run": before },
                "step_seconds": { "planned": median(&plan.seconds), "measured": median(&run.seconds) },
            }),
            "steps",
        );
    }
    let mut text = format!("{}, recompute {}\n\n", workload.network.title(), workload.sizes.recompute);
    let mut grid = TextTable::new(["", "planned", "measured"]);
    grid.push(["allocations and releases".to_string(), plan.events.len().to_string(), run.events.len().to_string()]);
    grid.push(["peak, MiB".to_string(), mib(planned), mib(measured)]);
    grid.push(["activations, MiB".to_string(), mib(plan.peak_activations), mib(run.peak_activations)]);
    for (role, bytes) in plan.peak.by_role.iter().filter(|(_, bytes)| *bytes > 0) {
        let name = format!("  {} at the peak, MiB", crate::report::role_name(role.name()));
        grid.push([name, mib(bytes), mib(run.peak.by_role.get(role))]);
    }
    grid.push(["reserved, MiB".to_string(), mib(plan.reserved), mib(run.reserved)]);
    grid.push(["resident, MiB".to_string(), format!("≤ {}", mib(bound)), mib(resident)]);
    // What planning took is no step's time.
    grid.push(["time per step, seconds".to_string(), "–".into(), format!("{:.4}", median(&run.seconds))]);
    text += &grid.render();
    text += &match differing {
        None => "\nEvery event is as planned: role, op, layer, phase, bytes asked for and given, place, order.\n"
            .to_string(),
        Some(event) => {
            format!("\nThe logs differ, first at event {event}: this is a bug in the plan; please report it.\n")
        }
    };
    text += &format!(
        "Resident is the process's largest set; the plan's bound is what is reserved plus {} of overhead.\n",
        format_bytes(aside.overhead)
    );
    if let Some(change) = change {
        text += &format!("Changed to fit the budget: {change}.\n");
    }
    print(text)
}
