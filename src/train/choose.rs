//! The cheapest level of recomputation that fits: asked of the planning device, level by level.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Architecture, Recompute};
use crate::train::dry_run::{StepProfile, StepSizes, dry_run};

/// Steps of a plan: after the first, everything that lives across steps exists.
const STEPS: usize = 2;

/// A level and what its plan says.
pub struct Choice {
    /// The level.
    pub recompute: Recompute,
    /// A step's costs.
    pub plan: StepProfile,
}

/// The fastest level at which the step `sizes` of `architecture` fits the budget of `device`, fragmentation included;
/// `sizes.recompute` is ignored. The plan is made for `device`'s kind, threads and instruction set, so the answer is that
/// of a run.
///
/// # Errors
/// [`Error::OutOfMemory`] of the strictest level if none fits, or sizes that the network does not admit.
pub fn cheapest_that_fits(device: &Device, architecture: &dyn Architecture, sizes: StepSizes) -> Result<Choice> {
    let mut refused = None;
    for &recompute in architecture.levels() {
        match dry_run(&device.planned(), architecture, StepSizes { recompute, ..sizes }, STEPS) {
            Ok(plan) => return Ok(Choice { recompute, plan }),
            Err(error @ Error::OutOfMemory(_)) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| Error::Model("there are no recompute levels".into())))
}
