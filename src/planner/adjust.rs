//! What a budget can be met with: steps that can be made smaller, and plans of them.

use super::workload::Workload;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::models::Recompute;
use crate::train::dry_run::StepKind;

/// What is enlarged or made smaller while everything else stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The side of a cubic volume.
    Side,
    /// Points a volume.
    Points,
    /// Volumes a step.
    Batch,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 3] = [Quantity::Side, Quantity::Points, Quantity::Batch];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Side => "side",
            Quantity::Points => "points",
            Quantity::Batch => "batch",
        }
    }

    /// Values that are tried are multiples of this.
    pub(super) fn unit(self) -> usize {
        match self {
            Quantity::Side => 16,
            Quantity::Points => 256,
            Quantity::Batch => 1,
        }
    }
}

/// A step whose memory can be planned and adjusted.
pub trait Adjustable: Clone {
    /// Plans the step; the bytes that it reserves.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the plan's budget does not suffice, or sizes that the network does not admit.
    fn plan(&self, device: &Device) -> Result<u64>;

    /// Levels of recomputation that differ for the step, the fastest first.
    fn levels(&self) -> Vec<Recompute>;

    /// Its level.
    fn level(&self) -> Recompute;

    /// The step at another level.
    fn with_recompute(&self, level: Recompute) -> Self;

    /// How much it has of a quantity; `None` where the step's bytes do not depend on it.
    fn quantity(&self, quantity: Quantity) -> Option<usize>;

    /// The step with so much of it.
    fn with_quantity(&self, quantity: Quantity, value: usize) -> Self;

    /// The largest value up to `value` that the step may have; 0 for none.
    fn admitted(&self, _: Quantity, value: usize) -> usize {
        value
    }

    /// The command's flag for it.
    fn flag(&self, quantity: Quantity, value: usize) -> String;

    /// True if the network admits the step at all.
    fn is_admissible(&self) -> bool;

    /// True if the step fits in `budget` bytes on `target`, fragmentation included.
    ///
    /// # Errors
    /// Sizes that the network does not admit, whatever the budget.
    fn fits(&self, target: Target, budget: u64) -> Result<bool> {
        self.reserved_within(target, budget).map(|reserved| reserved.is_some())
    }

    /// What the step reserves on `target`, if that is no more than `budget`.
    ///
    /// # Errors
    /// As [`Adjustable::fits`].
    fn reserved_within(&self, target: Target, budget: u64) -> Result<Option<u64>> {
        match self.plan(&Device::plan_for(target, budget)) {
            Ok(reserved) => Ok(Some(reserved)),
            // A shape whose bytes do not fit 64 bits fits nowhere.
            Err(Error::OutOfMemory(_) | Error::Shape { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Adjustable for Workload {
    fn plan(&self, device: &Device) -> Result<u64> {
        self.reserve(device)
    }

    fn levels(&self) -> Vec<Recompute> {
        Workload::levels(self)
    }

    fn level(&self) -> Recompute {
        self.sizes.recompute
    }

    fn with_recompute(&self, level: Recompute) -> Self {
        Workload::with_recompute(self, level)
    }

    fn quantity(&self, quantity: Quantity) -> Option<usize> {
        let training = self.sizes.step == StepKind::Train;
        match quantity {
            Quantity::Side => Some(self.sizes.volume[0]),
            // In inference as many points are decoded at once as the network's own chunk has.
            Quantity::Points => (training && self.has_points()).then_some(self.sizes.points),
            Quantity::Batch => training.then_some(self.sizes.batch),
        }
    }

    fn with_quantity(&self, quantity: Quantity, value: usize) -> Self {
        match quantity {
            Quantity::Side => self.with_volume([value; 3]),
            Quantity::Points => self.with_points(value),
            Quantity::Batch => self.with_batch(value),
        }
    }

    fn flag(&self, quantity: Quantity, value: usize) -> String {
        match quantity {
            Quantity::Side => format!("--volume {value}x{value}x{value}"),
            Quantity::Points => format!("--points {value}"),
            Quantity::Batch => format!("--batch {value}"),
        }
    }

    fn is_admissible(&self) -> bool {
        self.check().is_ok()
    }
}
