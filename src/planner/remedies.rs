//! Out of memory is an answer: what would fit instead, and going on with it.

use super::fit::{Quantity, largest};
use super::workload::{UNLIMITED, Workload};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::memory::Remedy;

/// Remedies that an error names.
const NAMED: usize = 3;

/// An out-of-memory error of `workload` with the cheapest remedies, each asked of a plan; any other error as it is.
pub fn explain(error: Error, workload: &Workload, target: Target, budget: u64) -> Error {
    match error {
        Error::OutOfMemory(mut refusal) => {
            let found = remedies(workload, target, budget);
            refusal.remedies = found.unwrap_or_default().into_iter().map(|change| change.remedy).take(NAMED).collect();
            Error::OutOfMemory(refusal)
        }
        other => other,
    }
}

/// A smaller setting that fits.
#[derive(Clone, Debug)]
pub struct Change {
    /// How it is asked for, and what it needs.
    pub remedy: Remedy,
    /// The workload so changed; `None` if it stays and the budget grows.
    pub workload: Option<Workload>,
}

/// What would fit in `budget`, the cheapest first: more recomputation costs time only; a smaller batch or fewer points
/// change what is learned from a step; a larger budget may not exist.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn remedies(workload: &Workload, target: Target, budget: u64) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    let slower: Vec<_> = workload.levels().into_iter().filter(|&level| level > workload.sizes.recompute).collect();
    for &level in &slower {
        let changed = workload.with_recompute(level);
        if changed.fits(target, budget)? {
            found.push(change(vec![format!("--recompute {level}")], changed, target)?);
            break;
        }
    }
    for quantity in [Quantity::Batch, Quantity::Points] {
        if let Some(change) = smaller(workload, target, budget, quantity, &[])? {
            found.push(change);
        }
    }
    // Nothing by itself: the leanest level, and less of something.
    if let (true, Some(&leanest)) = (found.is_empty(), slower.last()) {
        let (lean, flag) = (workload.with_recompute(leanest), format!("--recompute {leanest}"));
        for quantity in [Quantity::Batch, Quantity::Points] {
            if let Some(change) = smaller(&lean, target, budget, quantity, std::slice::from_ref(&flag))? {
                found.push(change);
            }
        }
    }
    if let Some(needs) = needed(workload, target)? {
        let change = format!("--memory-budget {}MiB", needs >> 20);
        found.push(Change { remedy: Remedy { change, needs }, workload: None });
    }
    Ok(found)
}

/// The largest smaller value of a quantity that fits.
fn smaller(
    workload: &Workload,
    target: Target,
    budget: u64,
    quantity: Quantity,
    flags: &[String],
) -> Result<Option<Change>> {
    let own = quantity.of(workload);
    match largest(workload, target, budget, quantity)? {
        Some(value) if value < own => {
            let flags = flags.iter().cloned().chain([format!("--{} {value}", quantity.name())]).collect();
            change(flags, quantity.set(workload, value), target).map(Some)
        }
        _ => Ok(None),
    }
}

fn change(flags: Vec<String>, workload: Workload, target: Target) -> Result<Change> {
    let needs = workload.rehearse(&Device::plan_for(target, UNLIMITED), 2)?.reserved;
    Ok(Change { remedy: Remedy { change: flags.join(" "), needs }, workload: Some(workload) })
}

/// The smallest budget found to hold the workload as it is; `None` if none does.
fn needed(workload: &Workload, target: Target) -> Result<Option<u64>> {
    let Ok(cost) = workload.rehearse(&Device::plan_for(target, UNLIMITED), 2) else { return Ok(None) };
    // Rounded up to what is written; a tight budget may place buffers otherwise than an ample one.
    let mut budget = cost.reserved.next_multiple_of(1 << 20);
    while !workload.fits(target, budget)? {
        budget += budget / 64;
        budget = budget.next_multiple_of(1 << 20);
    }
    Ok(Some(budget))
}

/// The workload as it is if it fits; else the cheapest smaller setting that does, and how it differs.
///
/// # Errors
/// The out-of-memory error of the workload as it is, if nothing fits.
pub fn adapt(workload: &Workload, target: Target, budget: u64) -> Result<(Workload, Option<Remedy>)> {
    let error = match workload.rehearse(&Device::plan_for(target, budget), 2) {
        Ok(_) => return Ok((workload.clone(), None)),
        Err(error @ Error::OutOfMemory(_)) => error,
        Err(other) => return Err(other),
    };
    let found = remedies(workload, target, budget)?;
    match found.into_iter().find_map(|change| Some((change.workload?, change.remedy))) {
        Some((workload, remedy)) => Ok((workload, Some(remedy))),
        None => Err(explain(error, workload, target, budget)),
    }
}
