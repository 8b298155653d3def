//! The steps of a training run, planned by the trainer itself.

use super::adjust::{Adjustable, Quantity};
use crate::device::Device;
use crate::error::Result;
use crate::models::{NetworkConfig, Recompute, RecomputeChoice};
use crate::task::Case;
use crate::train::rehearsal::StepKind;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;

/// A training run that is about to begin.
#[derive(Clone)]
pub struct Training<'a> {
    /// The network.
    pub network: &'a NetworkConfig,
    /// How it is trained.
    pub settings: TrainSettings,
    /// The training cases.
    pub cases: &'a [Case],
    /// Flags that set points and batch; a command without them changes both by itself only.
    pub flags: bool,
}

impl Training<'_> {
    /// The run at the level that `choice` names: the fastest that fits the budget of `device`, or the leanest if none does.
    ///
    /// # Errors
    /// Cases that cannot be trained on.
    pub fn at(&self, choice: RecomputeChoice, device: &Device) -> Result<Self> {
        if let RecomputeChoice::Level(level) = choice {
            return Ok(self.with_recompute(level));
        }
        let levels = self.levels();
        for &level in &levels {
            let run = self.with_recompute(level);
            if run.fits(device.target(), device.budget())? {
                return Ok(run);
            }
        }
        Ok(self.with_recompute(levels.last().copied().unwrap_or_default()))
    }
}

/// Steps of a plan: the second is like all that follow.
const STEPS: u64 = 2;

impl Adjustable for Training<'_> {
    /// Two steps of a trainer on the plan: the very code of the run, on its own batches.
    fn plan(&self, device: &Device) -> Result<u64> {
        let mut trainer = Trainer::new(device, self.network, self.settings.clone())?;
        trainer.rehearse(self.cases, STEPS)?;
        Ok(device.reserved())
    }

    fn levels(&self) -> Vec<Recompute> {
        super::workload::levels(StepKind::Train, self.network)
    }

    fn level(&self) -> Recompute {
        self.settings.recompute
    }

    fn with_recompute(&self, recompute: Recompute) -> Self {
        Self { settings: TrainSettings { recompute, ..self.settings.clone() }, ..self.clone() }
    }

    fn quantity(&self, quantity: Quantity) -> Option<usize> {
        let points = matches!(self.network, NetworkConfig::OssNet(_));
        match quantity {
            Quantity::Side => None,
            Quantity::Points => points.then_some(self.settings.points),
            Quantity::Batch => Some(self.settings.batch_size.min(self.cases.len())),
        }
    }

    fn with_quantity(&self, quantity: Quantity, value: usize) -> Self {
        let mut changed = self.clone();
        match quantity {
            // Cases have the size they have.
            Quantity::Side => {}
            Quantity::Points => changed.settings.points = value,
            Quantity::Batch => changed.settings.batch_size = value,
        }
        changed
    }

    fn flag(&self, quantity: Quantity, value: usize) -> String {
        match (quantity, self.flags) {
            (Quantity::Points, true) => format!("--points {value}"),
            (_, true) => format!("--batch-size {value}"),
            (_, false) => format!("{} {value} by --on-oom adapt", quantity.name()),
        }
    }

    fn is_admissible(&self) -> bool {
        self.network.check().is_ok()
    }
}
