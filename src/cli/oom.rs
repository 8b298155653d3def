//! What the training commands do where the memory budget does not suffice.

use clap::{Args, ValueEnum};

use super::progress::Verbosity;
use crate::device::Device;
use crate::error::Result;
use crate::memory::format_bytes;
use crate::planner::adjust::Adjustable;
use crate::planner::remedies;
use crate::planner::training::Training;
use crate::train::settings::TrainSettings;

/// What happens where the budget does not suffice.
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
    /// Where the memory budget does not suffice
    #[arg(long, value_enum, default_value_t = OnOom::Fail)]
    on_oom: OnOom,
}

impl OomArgs {
    /// The settings to train with. The first steps are planned before anything is computed: they fit, or this is an error
    /// with remedies, or (`--on-oom adapt`) the settings become the cheapest that fit, which is said and returned.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), or cases that cannot be trained on.
    pub fn settle(
        self,
        training: Training<'_>,
        device: &Device,
        verbosity: Verbosity,
    ) -> Result<(TrainSettings, Option<String>)> {
        let (target, budget) = (device.target(), device.budget());
        if self.on_oom == OnOom::Fail {
            return match training.plan(&Device::plan_for(target, budget)) {
                Ok(_) => Ok((training.settings, None)),
                Err(error) => Err(remedies::explain(error, &training, target, budget)),
            };
        }
        let (adapted, change) = remedies::adapt(&training, target, budget)?;
        let change = change.map(|change| {
            format!(
                "{} as asked needs more than {}: trained with {} instead, which needs {}",
                training.network.title(),
                format_bytes(budget),
                change.change,
                format_bytes(change.needs)
            )
        });
        change.iter().for_each(|change| verbosity.say(format!("warning: {change}")));
        Ok((adapted.settings, change))
    }
}
