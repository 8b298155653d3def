//! What the training commands do where the memory does not suffice: before the first step, or in the middle of the run.

use clap::{Args, ValueEnum};

use super::progress::Verbosity;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::{Remedy, format_bytes};
use crate::planner::adjust::Adjustable;
use crate::planner::remedies;
use crate::planner::training::TrainingPlan;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;

/// What happens where the memory does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOom {
    /// An error that names what would fit
    Fail,
    /// Go on with the cheapest setting that fits, and say so
    Adapt,
}

/// The flag.
#[derive(Args, Clone, Copy, Debug)]
pub struct OomArgs {
    /// Where the memory budget does not suffice, or the device refuses
    #[arg(long, value_enum, default_value_t = OnOom::Fail, help_heading = "Run")]
    on_oom: OnOom,
}

/// A training run and what it does where the memory does not suffice.
pub struct Fitting<'a> {
    on_oom: OnOom,
    /// As it is to go on.
    training: TrainingPlan<'a>,
    device: &'a Device,
    verbosity: Verbosity,
    /// What was changed so far, each in a sentence.
    pub changes: Vec<String>,
}

impl OomArgs {
    /// Plans the first steps before anything is computed: they fit, or this is an error with remedies, or (`--on-oom adapt`)
    /// the settings become the cheapest that fit, which is said.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or cases that cannot be trained on.
    pub fn settle<'a>(
        self,
        training: TrainingPlan<'a>,
        device: &'a Device,
        verbosity: Verbosity,
    ) -> Result<Fitting<'a>> {
        let mut fitting = Fitting { on_oom: self.on_oom, training, device, verbosity, changes: Vec::new() };
        match self.on_oom {
            OnOom::Fail => fitting.plan()?,
            OnOom::Adapt => drop(fitting.adapt("trained")?),
        }
        Ok(fitting)
    }
}

impl Fitting<'_> {
    /// The settings to begin with.
    pub fn settings(&self) -> &TrainSettings {
        &self.training.settings
    }

    /// An out-of-memory error with what would fit.
    pub fn explain(&self, error: Error) -> Error {
        remedies::explain(error, &self.training, self.device.target(), self.device.budget())
    }

    /// The settings to go on with, where a step of `trainer` did not fit although its plan did: the device has refused memory
    /// that the budget would have allowed, and has the smaller budget of what it gave.
    ///
    /// # Errors
    /// `error` with what would fit, unless the run is to adapt and can.
    pub fn relieve(&mut self, trainer: &Trainer, error: Error) -> Result<TrainSettings> {
        self.training.settings = trainer.settings().clone();
        if self.on_oom == OnOom::Fail || !trainer.can_go_on() {
            return Err(self.explain(error));
        }
        let after = format!("from step {} on trained", trainer.optimizer().steps() + 1);
        match self.adapt(&after)? {
            Some(_) => Ok(self.training.settings.clone()),
            // The plan fits and the step did not: nothing smaller is known to.
            None => Err(self.explain(error)),
        }
    }

    fn plan(&self) -> Result<()> {
        match self.training.plan(&self.device.planned()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Makes the settings fit and says what it changed.
    fn adapt(&mut self, trained: &str) -> Result<Option<Remedy>> {
        let budget = self.device.budget();
        let (adapted, change) = remedies::adapt(&self.training, self.device.target(), budget)?;
        if let Some(change) = &change {
            let said = format!(
                "{} as asked needs more than {}: {trained} with {} instead, which needs {}",
                self.training.network.title(),
                format_bytes(budget),
                change.change,
                format_bytes(change.needs)
            );
            self.verbosity.say(format!("warning: {said}"));
            self.changes.push(said);
        }
        self.training = adapted;
        Ok(change)
    }
}
