//! The inverse question: what is the largest that fits?

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::adjust::{Adjustable, Quantity};
use super::workload::Workload;
use crate::device::{Target, UNLIMITED};
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

/// Bytes of what nothing holds.
const TOO_MANY: u64 = u64::MAX;

/// In a search four of five values are guessed or next to a guess; the fifth halves what is left, whatever the bytes do.
const ROUND: usize = 5;

impl<S: Adjustable> Growth<S> {
    fn new(step: S, target: Target, quantity: Quantity) -> Self {
        Self { step, target, quantity, known: BTreeMap::new() }
    }

    /// The largest value up to `most` that fits in `budget`: one that fits and whose next does not.
    ///
    /// Bytes grow with the value, and nearly in proportion to points, batch or the cube of a side: a straight line through
    /// what is known guesses the answer.
    fn largest(&mut self, budget: u64, most: usize) -> Result<Option<usize>> {
        let unit = self.quantity.unit();
        let end = most / unit + 1;
        let fitting = self.known.range(..end).rfind(|(_, bytes)| **bytes <= budget);
        let mut below = fitting.map_or(0, |(&units, _)| units);
        let mut above = self.known.range(below + 1..end.max(below + 1)).next().map_or(end, |(&units, _)| units);
        let mut fitted = true;
        for turn in (0..ROUND).cycle() {
            if above - below <= 1 {
                break;
            }
            let value = match turn {
                0 | 2 => self.guess(budget, below, above),
                1 | 3 if fitted => below + 1,
                1 | 3 => above - 1,
                _ => below + (above - below) / 2,
            };
            let value = value.clamp(below + 1, above - 1);
            fitted = self.reserved(value)? <= budget;
            *if fitted { &mut below } else { &mut above } = value;
        }
        let found = self.step.with_quantity(self.quantity, below * unit);
        Ok((below > 0 && found.is_admissible()).then_some(below * unit))
    }

    fn reserved(&mut self, units: usize) -> Result<u64> {
        if let Some(&bytes) = self.known.get(&units) {
            return Ok(bytes);
        }
        let step = self.step.with_quantity(self.quantity, units * self.quantity.unit());
        // Below the network's smallest volume nothing is asked; the search goes on above.
        let bytes = match self.quantity == Quantity::Side && !step.is_admissible() {
            true => 0,
            false => step.reserved_within(self.target, UNLIMITED)?.unwrap_or(TOO_MANY),
        };
        self.known.insert(units, bytes);
        Ok(bytes)
    }

    /// Where the line through what is known at `below` and `above` meets the budget; if nothing is known above, the line
    /// through the largest two.
    fn guess(&self, budget: u64, below: usize, above: usize) -> usize {
        let power = if self.quantity == Quantity::Side { 3.0 } else { 1.0 };
        let place = |(&units, &bytes): (&usize, &u64)| ((units as f64).powf(power), bytes as f64);
        let mut lower = self.known.range(..=below).rev().map(place);
        let Some(start) = lower.next() else { return 1 };
        let beyond = self.known.get_key_value(&above).filter(|(_, bytes)| **bytes < TOO_MANY).map(place);
        let end = beyond.or(lower.next()).unwrap_or((0.0, 0.0));
        let slope = (end.1 - start.1) / (end.0 - start.0);
        let answer = if slope > 0.0 { start.0 + (budget as f64 - start.1) / slope } else { 2.0 * start.0 };
        answer.max(0.0).powf(1.0 / power) as usize
    }
}

/// The largest value of one quantity at each level of recomputation.
#[derive(Clone, Debug)]
pub struct FitResult {
    /// What was enlarged.
    pub quantity: Quantity,
    /// By level; `None` where even the smallest value does not fit.
    pub by_level: Vec<(Recompute, Option<usize>)>,
}

impl FitResult {
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
pub fn answers(workload: &Workload, levels: &[Recompute], target: Target, budget: u64) -> Result<Vec<FitResult>> {
    let answer = |quantity| {
        let at =
            |&level| Ok((level, largest(&workload.with_recompute(level), target, budget, quantity, most(quantity))?));
        Ok(FitResult { quantity, by_level: levels.iter().map(at).collect::<Result<_>>()? })
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
) -> Result<Vec<Vec<FitResult>>> {
    let Some((&leanest, faster)) = levels.split_last() else { return Ok(Vec::new()) };
    let of_quantity = |quantity: Quantity| {
        // What was planned for one budget tells where to look in the next.
        let growth = |&level: &Recompute| Growth::new(workload.with_recompute(level), target, quantity);
        let (mut lean, mut faster): (_, Vec<_>) = (growth(&leanest), faster.iter().map(|l| (*l, growth(l))).collect());
        let mut answer = |&budget: &u64| {
            let value = lean.largest(budget, most(quantity))?;
            let mut level = leanest;
            if let Some(value) = value {
                for (candidate, growth) in &mut faster {
                    if growth.reserved(value / quantity.unit())? <= budget {
                        level = *candidate;
                        break;
                    }
                }
            }
            Ok(FitResult { quantity, by_level: vec![(level, value)] })
        };
        budgets.iter().map(&mut answer).collect::<Result<Vec<_>>>()
    };
    let found = quantities(workload).into_par_iter().map(of_quantity).collect::<Result<Vec<_>>>()?;
    Ok((0..budgets.len()).map(|n| found.iter().map(|answers| answers[n].clone()).collect()).collect())
}

/// What the step's bytes depend on.
fn quantities(workload: &Workload) -> Vec<Quantity> {
    Quantity::ALL.into_iter().filter(|&quantity| workload.quantity(quantity).is_some()).collect()
}
