//! The inverse question: what is the largest that fits?

use std::collections::BTreeMap;

use rayon::prelude::*;

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
/// # Errors
/// Sizes that the network does not admit.
pub fn largest(
    step: &impl Adjustable,
    target: Target,
    budget: u64,
    quantity: Quantity,
    most: usize,
) -> Result<Option<usize>> {
    Growth::new(step.clone(), target, quantity).largest(budget, most)
}

/// A step of which one quantity grows, and what is known of its bytes.
struct Growth<S> {
    step: S,
    target: Target,
    quantity: Quantity,
    /// Values that were planned, in units, and the bytes that they reserve.
    known: BTreeMap<usize, u64>,
}

impl<S: Adjustable> Growth<S> {
    fn new(step: S, target: Target, quantity: Quantity) -> Self {
        Self { step, target, quantity, known: BTreeMap::new() }
    }

    /// The largest value up to `most` that fits in `budget`.
    ///
    /// Bytes grow with the value, and nearly in proportion to points, batch or the cube of a side: a straight line through
    /// what is known guesses the answer. Where a guess does not halve what is left to search, the middle does; what does not
    /// fit is soon told.
    fn largest(&mut self, budget: u64, most: usize) -> Result<Option<usize>> {
        let unit = self.quantity.unit();
        let (mut below, mut above) = (0, most / unit + 1);
        while above - below > 1 {
            let halved = (above - below).div_ceil(2);
            for middle in [false, true] {
                if above - below == 1 || (middle && above - below <= halved) {
                    break;
                }
                let value = if middle { below + (above - below) / 2 } else { self.guess(budget) };
                let value = value.clamp(below + 1, above - 1);
                match self.fits(value, budget)? {
                    true => below = value,
                    false => above = value,
                }
            }
        }
        let found = self.step.with_quantity(self.quantity, below * unit);
        Ok((below > 0 && found.is_admissible()).then_some(below * unit))
    }

    fn fits(&mut self, units: usize, budget: u64) -> Result<bool> {
        let step = self.step.with_quantity(self.quantity, units * self.quantity.unit());
        // Below the network's smallest volume nothing is asked; the search goes on above.
        if self.quantity == Quantity::Side && !step.is_admissible() {
            return Ok(true);
        }
        let reserved = step.reserved_within(self.target, budget)?;
        self.known.extend(reserved.map(|bytes| (units, bytes)));
        Ok(reserved.is_some())
    }

    /// Where the line through the two known values next to the budget meets it; from the origin if there is one.
    fn guess(&self, budget: u64) -> usize {
        let power = if self.quantity == Quantity::Side { 3.0 } else { 1.0 };
        let places = self.known.iter().map(|(&units, &bytes)| ((units as f64).powf(power), bytes as f64));
        let (mut nearest, mut next) = (None, (0.0, 0.0));
        for place in places.filter(|place| place.1 <= budget as f64) {
            next = nearest.replace(place).unwrap_or((0.0, 0.0));
        }
        let Some((size, bytes)) = nearest else { return 1 };
        let slope = (bytes - next.1) / (size - next.0);
        let answer = if slope > 0.0 { size + (budget as f64 - bytes) / slope } else { 2.0 * size };
        answer.max(0.0).powf(1.0 / power) as usize
    }
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

/// The largest volume, points and batch in `budget` bytes, each with everything else as in `workload`, at each of `levels`.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn answers(workload: &Workload, levels: &[Recompute], target: Target, budget: u64) -> Result<Vec<Answer>> {
    let answer = |quantity| {
        let at =
            |&level| Ok((level, largest(&workload.with_recompute(level), target, budget, quantity, most(quantity))?));
        Ok(Answer { quantity, by_level: levels.iter().map(at).collect::<Result<_>>()? })
    };
    quantities(workload).into_iter().map(answer).collect()
}

/// As [`answers`] for each of several budgets: what the leanest of `levels` holds, and the fastest that holds it, too.
///
/// # Errors
/// As there.
pub fn best_answers(
    workload: &Workload,
    levels: &[Recompute],
    target: Target,
    budgets: &[u64],
) -> Result<Vec<Vec<Answer>>> {
    let Some((&leanest, faster)) = levels.split_last() else { return Ok(Vec::new()) };
    let of_quantity = |quantity: Quantity| {
        // What was planned for one budget tells where to look in the next.
        let mut growth = Growth::new(workload.with_recompute(leanest), target, quantity);
        let answer = |&budget: &u64| {
            let value = growth.largest(budget, most(quantity))?;
            let mut level = leanest;
            if let Some(value) = value {
                for &candidate in faster {
                    if workload.with_recompute(candidate).with_quantity(quantity, value).fits(target, budget)? {
                        level = candidate;
                        break;
                    }
                }
            }
            Ok(Answer { quantity, by_level: vec![(level, value)] })
        };
        budgets.iter().map(answer).collect::<Result<Vec<_>>>()
    };
    let found = quantities(workload).into_par_iter().map(of_quantity).collect::<Result<Vec<_>>>()?;
    Ok((0..budgets.len()).map(|n| found.iter().map(|answers| answers[n].clone()).collect()).collect())
}

/// What the step's bytes depend on.
fn quantities(workload: &Workload) -> Vec<Quantity> {
    Quantity::ALL.into_iter().filter(|&quantity| workload.quantity(quantity).is_some()).collect()
}
