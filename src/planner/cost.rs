//! A step's costs and all that follows from them.

use std::sync::Arc;

use super::slopes::{Slope, slopes};
use super::timeline::{Segment, rolled_up, segments};
use super::{HostOverhead, Workload};
use crate::device::Device;
use crate::error::Result;
use crate::train::dry_run::StepProfile;

/// What a step costs on a device, which may be a plan.
pub struct StepCost {
    /// The step.
    pub workload: Workload,
    /// Where it was taken.
    pub device: Device,
    /// In the ledger.
    pub cost: StepProfile,
    /// Beside it.
    pub aside: HostOverhead,
    /// The step from start to end.
    pub stretches: Vec<Segment>,
    /// Bytes at the peak by layer, most first.
    pub by_layer: Vec<(Arc<str>, u64)>,
    /// How the peak grows.
    pub slopes: Vec<Slope>,
    /// What was changed to fit the budget.
    pub change: Option<String>,
}

impl StepCost {
    /// What follows from a step that was taken.
    ///
    /// # Errors
    /// Sizes that the network does not admit.
    pub fn of(workload: Workload, device: Device, cost: StepProfile, change: Option<String>) -> Result<Self> {
        let target = device.target();
        Ok(Self {
            slopes: slopes(&workload, target)?,
            aside: HostOverhead::of(&workload, target)?,
            stretches: segments(&cost.events),
            by_layer: rolled_up(&cost.peak.by_layer, &cost.events),
            workload,
            device,
            cost,
            change,
        })
    }

    /// Bytes on the device: the ledger's reservation, and on CUDA the context.
    pub fn device_bytes(&self) -> u64 {
        self.cost.reserved.saturating_add(self.aside.on_device(self.device.target()))
    }

    /// Bytes of the host beside the device's. On the CPU both lie in the same memory.
    pub fn host_bytes(&self) -> u64 {
        self.aside.all_host(self.device.target())
    }

    /// Seconds of a step, the median.
    pub fn seconds(&self) -> f64 {
        median(&self.cost.seconds)
    }
}

/// The median without the first, which touches every page for the first time.
pub fn median(seconds: &[f64]) -> f64 {
    let mut later = seconds[seconds.len().min(2) - 1..].to_vec();
    later.sort_unstable_by(f64::total_cmp);
    later[later.len() / 2]
}
