//! Out of memory is an answer: what would fit instead, and going on with it.

use super::adjust::{Adjustable, Quantity};
use super::fit::largest;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::memory::Remedy;
use crate::models::Recompute;

/// Remedies that an error names.
const NAMED: usize = 3;

/// An out-of-memory error of `step` with the cheapest remedies, each asked of a plan; any other error as it is.
pub fn explain(error: Error, step: &impl Adjustable, target: Target, budget: u64) -> Error {
    match error {
        Error::OutOfMemory(mut refusal) => {
            let found = remedies(step, target, budget).unwrap_or_default();
            refusal.remedies = found.into_iter().map(|change| change.remedy).take(NAMED).collect();
            refusal.needs = step.plan(&Device::plan_for(target, UNLIMITED)).ok();
            Error::OutOfMemory(refusal)
        }
        other => other,
    }
}

/// A smaller setting that fits.
#[derive(Clone, Debug)]
pub struct Change<S> {
    /// How it is asked for, and what it needs.
    pub remedy: Remedy,
    /// The step so changed.
    pub step: S,
}

/// What would fit in `budget`, the cheapest first: more recomputation costs time only; a smaller batch or fewer points
/// change what is learned from a step.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn remedies<S: Adjustable>(step: &S, target: Target, budget: u64) -> Result<Vec<Change<S>>> {
    let mut found = Vec::new();
    // Of a schedule every level may be leaner.
    let leaner = |level: &Recompute| step.level().level().is_none_or(|own| level.level() > Some(own));
    let slower: Vec<_> = step.levels().into_iter().filter(leaner).collect();
    for &level in &slower {
        let changed = step.with_recompute(level);
        if changed.fits(target, budget)? {
            found.push(change(vec![format!("--recompute {level}")], changed, target, budget)?);
            break;
        }
    }
    for quantity in [Quantity::Batch, Quantity::Points] {
        found.extend(smaller(step, target, budget, quantity, &[])?);
    }
    if !found.is_empty() {
        return Ok(found);
    }
    // Nothing by itself: the leanest level, and less of something.
    let (mut lean, mut flags) = (step.clone(), Vec::new());
    if let Some(&leanest) = slower.last() {
        (lean, flags) = (lean.with_recompute(leanest), vec![format!("--recompute {leanest}")]);
        for quantity in [Quantity::Batch, Quantity::Points] {
            found.extend(smaller(&lean, target, budget, quantity, &flags)?);
        }
    }
    // Nor that: the smallest batch as well, and fewer points.
    if found.is_empty() && lean.quantity(Quantity::Batch).is_some_and(|own| own > 1) {
        flags.push(lean.flag(Quantity::Batch, 1));
        lean = lean.with_quantity(Quantity::Batch, 1);
        found.extend(smaller(&lean, target, budget, Quantity::Points, &flags)?);
    }
    Ok(found)
}

/// The largest smaller value of a quantity that fits.
fn smaller<S: Adjustable>(
    step: &S,
    target: Target,
    budget: u64,
    quantity: Quantity,
    flags: &[String],
) -> Result<Option<Change<S>>> {
    let Some(own) = step.quantity(quantity) else { return Ok(None) };
    let most = largest(step, target, budget, quantity, own.saturating_sub(1))?;
    let mut value = step.admitted(quantity, most.unwrap_or(0));
    // Holes in the arena may make a smaller step need a little more.
    while value > 0 {
        let changed = step.with_quantity(quantity, value);
        if changed.fits(target, budget)? {
            let flags = flags.iter().cloned().chain([step.flag(quantity, value)]).collect();
            return change(flags, changed, target, budget).map(Some);
        }
        value = step.admitted(quantity, value - 1);
    }
    Ok(None)
}

/// A step that fits, and what it reserves.
fn change<S: Adjustable>(flags: Vec<String>, step: S, target: Target, budget: u64) -> Result<Change<S>> {
    let needs = step.plan(&Device::plan_for(target, budget))?;
    Ok(Change { remedy: Remedy { change: flags.join(" "), needs }, step })
}

/// The step as it is if it fits; else the cheapest smaller setting that does, and how it differs.
///
/// # Errors
/// The out-of-memory error of the step as it is, if nothing fits.
pub fn adapt<S: Adjustable>(step: &S, target: Target, budget: u64) -> Result<(S, Option<Remedy>)> {
    let error = match step.plan(&Device::plan_for(target, budget)) {
        Ok(_) => return Ok((step.clone(), None)),
        Err(error @ Error::OutOfMemory(_)) => error,
        Err(other) => return Err(other),
    };
    let found = remedies(step, target, budget)?;
    match found.into_iter().next() {
        Some(change) => Ok((change.step, Some(change.remedy))),
        None => Err(explain(error, step, target, budget)),
    }
}
