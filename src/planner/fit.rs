//! The inverse question: what is the largest that fits?

use super::workload::Workload;
use crate::device::Target;
use crate::error::Result;
use crate::models::Recompute;
use crate::train::rehearsal::StepKind;

/// What is enlarged while everything else stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The side of a cubic volume.
    Side,
    /// Points a volume.
    Points,
    /// Volumes a step.
    Batch,
}

/// The largest volumes, points and batches that are tried.
const MOST: [usize; 3] = [1 << 13, 1 << 26, 1 << 14];

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 3] = [Quantity::Side, Quantity::Points, Quantity::Batch];

    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Side => "side",
            Quantity::Points => "points",
            Quantity::Batch => "batch",
        }
    }

    /// The workload's own value.
    pub fn of(self, workload: &Workload) -> usize {
        match self {
            Quantity::Side => workload.sizes.volume[0],
            Quantity::Points => workload.sizes.points,
            Quantity::Batch => workload.sizes.batch,
        }
    }

    /// The workload with so much of it.
    pub fn set(self, workload: &Workload, value: usize) -> Workload {
        match self {
            Quantity::Side => workload.with_volume([value; 3]),
            Quantity::Points => workload.with_points(value),
            Quantity::Batch => workload.with_batch(value),
        }
    }

    /// Values are multiples of this.
    fn unit(self) -> usize {
        match self {
            Quantity::Side => 16,
            Quantity::Points => 256,
            Quantity::Batch => 1,
        }
    }

    /// True if the bytes of such a step depend on it.
    fn matters(self, workload: &Workload) -> bool {
        match self {
            Quantity::Side => true,
            Quantity::Points => workload.has_points() && workload.sizes.step == StepKind::Train,
            Quantity::Batch => workload.sizes.step == StepKind::Train,
        }
    }
}

/// The largest value that fits at one level of recomputation; `None` if even the smallest does not.
///
/// Doubles until it fails, then halves the distance: bytes grow with each quantity.
///
/// # Errors
/// Sizes that the network does not admit.
pub fn largest(workload: &Workload, target: Target, budget: u64, quantity: Quantity) -> Result<Option<usize>> {
    let unit = quantity.unit();
    let most = MOST[quantity as usize] / unit;
    let fits = |units: usize| -> Result<bool> {
        let workload = quantity.set(workload, units * unit);
        // Below the network's smallest volume nothing is asked; the search goes on above.
        if quantity == Quantity::Side && workload.check().is_err() {
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
    let found = quantity.set(workload, below * unit);
    Ok((below > 0 && found.check().is_ok()).then_some(below * unit))
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
    let quantities = Quantity::ALL.into_iter().filter(|quantity| quantity.matters(workload));
    let answer = |quantity| {
        let at = |level| Ok((level, largest(&workload.with_recompute(level), target, budget, quantity)?));
        Ok(Answer { quantity, by_level: workload.levels().into_iter().map(at).collect::<Result<_>>()? })
    };
    quantities.map(answer).collect()
}
