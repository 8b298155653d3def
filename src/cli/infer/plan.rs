//! `ossnet infer --plan`: what each scan will take, by its header.

use serde_json::json;

use super::{InferArgs, Networks};
use crate::cli::failures::Failures;
use crate::cli::output::print;
use crate::cli::provenance::print_json;
use crate::data::Case;
use crate::error::{Error, Result};
use crate::infer::InferencePlan;
use crate::memory::format_bytes;
use crate::memory::size::host_budget;
use crate::text::{plural, visible_line};

/// Prints a line for each case.
///
/// # Errors
/// [`Error::Data`] if a case cannot be used or does not fit the memory budget.
pub(super) fn run(args: &InferArgs, networks: &Networks, cases: &[Case], problems: Vec<Error>) -> Result<()> {
    let mut failures = Failures::of_part(cases.len() + problems.len());
    problems.into_iter().try_for_each(|problem| failures.pass_over_file(problem))?;
    let mut entries = Vec::new();
    for case in cases {
        let planned = case
            .check_headers(false)
            .and_then(|channels| networks.task().check_channels(&case.name, channels))
            .and_then(|()| of_case(args, networks, case));
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                failures.pass_over(&case.name, error, true)?;
                continue;
            }
        };
        if !args.run.json {
            print(line(&case.name, &plan))?;
        }
        let mut entry = json!({ "case": case.name, "peak_bytes": plan.peak_bytes() });
        if let (Some(entry), Ok(serde_json::Value::Object(more))) = (entry.as_object_mut(), serde_json::to_value(&plan))
        {
            entry.extend(more);
        }
        entries.push(entry);
        if plan.peak_bytes() > host_budget() {
            let (needs, budget) = (format_bytes(plan.peak_bytes()), format_bytes(host_budget()));
            let problem = format!("case {} takes {needs}, and the memory budget is {budget}", case.name);
            let error = Error::Model(format!("{problem}; raise --memory-budget, or choose a smaller --window"));
            failures.pass_over(&case.name, error, true)?;
        }
    }
    if args.run.json {
        print_json(entries.into(), "cases")?;
    }
    failures.finish(args.weights(), "planned", "see the warnings")
}

/// The plan of a case on disk.
///
/// # Errors
/// A header that cannot be read, a scan that does not fit the network.
pub(super) fn of_case(args: &InferArgs, networks: &Networks, case: &Case) -> Result<InferencePlan> {
    let (shape, geometry) = case.grid(networks.task().preprocessing.axes)?;
    networks.ensemble(args.shape(&geometry)?)?.plan(shape, geometry)
}

fn line(name: &str, plan: &InferencePlan) -> String {
    let sides = |[x, y, z]: [usize; 3]| format!("{x}×{y}×{z}");
    let mut line = format!("{name}: {} voxels, {} for the network", sides(plan.shape), sides(plan.network_shape));
    if plan.passes > 0 {
        line += &format!(", {}", plural(plan.passes as usize, "pass"));
    }
    if plan.strips > 1 {
        line += &format!(" in {} strips", plan.strips);
    }
    let [engine, host, peak] = [plan.engine_bytes, plan.host_bytes, plan.peak_bytes()].map(format_bytes);
    line += &format!("; engine {engine}, beside it {host}, at most {peak}");
    visible_line(&line).into_owned()
}
