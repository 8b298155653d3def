//! The inverse question: what is the largest that fits?

use super::adjust::{Adjustable, Quantity};
use super::workload::Workload;
use crate::device::Target;
use crate::error::Result;
use crate::models::Recompute;

/// The largest sides, points and batches that are tried.
fn most(quantity: Quantity) -> usize {
    match quantity {
        Quantity::Side => 1 << 13,
        Quantity::Points => 1 << 26,
        Quantity::Batch => 1 << 14,
    }
}

/// The largest value up to `most` that fits at one level of recomputation; `None` if even the smallest does not.
///
/// Doubles until it fails, then halves the distance: bytes grow with each quantity.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn largest(
    workload: &impl Adjustable,
    target: Target,
    budget: u64,
    quantity: Quantity,
    most: usize,
) -> Result<Option<usize>> {
    let unit = quantity.unit();
    let most = most / unit;
    let fits = |units: usize| -> Result<bool> {
        let workload = workload.with_quantity(quantity, units * unit);
        // Below the network's smallest volume nothing is asked; the search goes on above.
        if quantity == Quantity::Side && !workload.is_admissible() {
            return Ok(true);
        }
        workload.fits(target, budget)
    };
    let (mut below, mut above) = (0, 1);
    while above <= most && fits(above)? {
        (below, above) = (above, above * 2);
    }
    above = above.min(most + 1);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        match fits(middle)? {
            true => below = middle,
            false => above = middle,
        }
    }
    let found = workload.with_quantity(quantity, below * unit);
    Ok((below > 0 && found.is_admissible()).then_some(below * unit))
}

/// The largest value of one quantity at each level of recomputation.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was enlarged.
    pub quantity: Quantity,
    /// By level; `None` where even the smallest value does not fit.
    pub by_level: Vec<(Recompute, Option<usize>)>,
}

impl Answer {
    /// The largest value, and the fastest level that reaches it.
    pub fn best(&self) -> Option<(Recompute, usize)> {
        let values = self.by_level.iter().filter_map(|&(level, value)| Some((level, value?)));
        // The first of equals: levels are listed fastest first.
        values.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

/// The largest volume, points and batch in `budget` bytes, each with everything else as in `workload`.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn answers(workload: &Workload, target: Target, budget: u64) -> Result<Vec<Answer>> {
    let quantities = Quantity::ALL.into_iter().filter(|&quantity| workload.quantity(quantity).is_some());
    let answer = |quantity| {
        let at =
            |level| Ok((level, largest(&workload.with_recompute(level), target, budget, quantity, most(quantity))?));
        Ok(Answer { quantity, by_level: workload.levels().into_iter().map(at).collect::<Result<_>>()? })
    };
    quantities.map(answer).collect()
}
