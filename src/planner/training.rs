//! The steps of a training run, planned by the trainer itself.

use super::adjust::{Adjustable, Quantity};
use super::schedules::{Curve, Question, fastest};
use crate::device::{Device, Target, UNLIMITED};
use crate::error::Result;
use crate::models::{Architecture, Recompute, RecomputeChoice};
use crate::train::case_source::CaseSource;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;

/// A training run that is about to begin.
#[derive(Clone)]
pub struct TrainingPlan<'a> {
    /// The network.
    pub network: &'a dyn Architecture,
    /// How it is trained.
    pub settings: TrainSettings,
    /// The training cases.
    pub cases: &'a dyn CaseSource,
    /// Flags that set points and batch; a command without them changes both by itself only.
    pub flags: bool,
    /// Passes are launched as CUDA graphs.
    pub graph: bool,
}

impl TrainingPlan<'_> {
    /// The run at the level that `choice` names: with the fastest schedule that fits the budget of `device`, or the leanest if
    /// none does.
    ///
    /// # Errors
    /// Cases that cannot be trained on.
    pub fn at(&self, choice: RecomputeChoice, device: &Device) -> Result<Self> {
        if let RecomputeChoice::Level(level) = choice {
            return Ok(self.with_recompute(level));
        }
        fastest(self, device.target(), device.budget(), || self.schedules(device.target()))
    }

    /// The curve of the run's steps on `target`. All schedules are planned with the same batches, which are drawn once.
    ///
    /// # Errors
    /// Cases that cannot be trained on.
    pub fn schedules(&self, target: Target) -> Result<Curve> {
        let batches = self.trainer(&Device::plan_for(target, UNLIMITED))?.batches(self.cases, STEPS)?;
        let plan =
            |recompute, device: &Device| self.with_recompute(recompute).trainer(device)?.rehearse(&batches, STEPS);
        Question { architecture: self.network, target, precision: self.settings.precision, plan: &plan }.curve()
    }

    /// A trainer on a plan.
    fn trainer(&self, device: &Device) -> Result<Trainer> {
        // Passes of a process after the second are like it.
        let passes = self.settings.accumulate.min(2 * self.settings.ranks.max(1));
        let settings = TrainSettings { accumulate: passes, ..self.settings.clone() };
        let mut trainer = Trainer::new(device, self.network, settings)?;
        if self.graph {
            trainer.use_graphs()?;
        }
        Ok(trainer)
    }
}

/// Steps of a plan: the second is like all that follow.
const STEPS: u64 = 2;

impl Adjustable for TrainingPlan<'_> {
    /// Two steps of a trainer on the plan: the very code of the run, on its own batches.
    fn plan(&self, device: &Device) -> Result<u64> {
        self.trainer(device)?.dry_run(self.cases, STEPS)?;
        Ok(device.reserved())
    }

    fn levels(&self) -> Vec<Recompute> {
        self.network.levels().to_vec()
    }

    fn level(&self) -> Recompute {
        self.settings.recompute
    }

    fn with_recompute(&self, recompute: Recompute) -> Self {
        Self { settings: TrainSettings { recompute, ..self.settings.clone() }, ..self.clone() }
    }

    fn quantity(&self, quantity: Quantity) -> Option<usize> {
        let points = self.network.supervision().at_points();
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
            // As many cases a step, in more passes: the mean gradient stays what it is, and the steps as many.
            Quantity::Batch => {
                let passes = self.quantity(quantity).unwrap_or(value).div_ceil(value.max(1));
                changed.settings.accumulate = passes * self.settings.accumulate.max(1);
                changed.settings.batch_size = value;
            }
        }
        changed
    }

    fn admitted(&self, quantity: Quantity, value: usize) -> usize {
        match (quantity, self.quantity(quantity)) {
            (Quantity::Batch, Some(own)) => (1..=value).rev().find(|&part| own.is_multiple_of(part)).unwrap_or(0),
            _ => value,
        }
    }

    fn flag(&self, quantity: Quantity, value: usize) -> String {
        match (quantity, self.flags) {
            (Quantity::Points, true) => format!("--points {value}"),
            (Quantity::Points, false) => format!("{value} points by --on-oom adapt"),
            (_, flags) => {
                let passes = self.with_quantity(quantity, value).settings.accumulate;
                match flags {
                    true => format!("--batch-size {value} --accumulate {passes}"),
                    false => format!("{passes} passes of batch {value} a step by --on-oom adapt"),
                }
            }
        }
    }

    fn is_admissible(&self) -> bool {
        self.network.check().is_ok()
    }
}
