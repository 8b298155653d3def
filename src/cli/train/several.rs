//! What is particular to a run of several processes.

use super::TrainArgs;
use crate::cli::device_args::DeviceChoice;
use crate::cli::output::plural;
use crate::cli::progress::Verbosity;
use crate::cli::provenance::COMMIT;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::train::trainer::Trainer;

/// A pass of fewer cases gives a batch norm poor statistics.
const FEW_CASES: usize = 4;

impl TrainArgs {
    /// Refuses flags of what several processes cannot do.
    pub(super) fn check_several(&self) -> Result<()> {
        let refused = match () {
            () if self.cuda_devices.is_some() => "--cuda-devices",
            () if self.device.device != DeviceChoice::Cpu => "--device",
            () if self.graph => "--graph",
            () => return Ok(()),
        };
        let problem = format!("{refused}: several processes train on CPUs only so far, as there is no NCCL yet");
        Err(Error::Usage(format!("{problem}; omit it, or start one process")))
    }
}

/// Refuses to begin unless all ranks have the same program, data, settings and weights.
pub(super) fn check(trainer: &Trainer, dataset: &Dataset, cases: usize) -> Result<()> {
    let ranks = trainer.ranks();
    if !ranks.are_several() {
        return Ok(());
    }
    let program = format!("{} {}", crate::cli::VERSION, COMMIT.unwrap_or_default());
    let names: Vec<&str> = dataset.training.iter().map(|case| case.name.as_str()).collect();
    let facts = [
        ("the program", program),
        ("the instruction set", format!("{:?}", trainer.parameters().device().simd()).to_lowercase()),
        ("the data set", format!("{} of {cases} training cases", dataset.name)),
        ("the list of training cases", names.join(", ")),
        ("what is trained", format!("{:?} {:?}", trainer.network().architecture(), trainer.settings())),
        ("the steps done", trainer.optimizer().steps().to_string()),
    ];
    let remedy =
        "start all with the same program on the same files (OSSNET_SIMD and --memory-budget make machines alike)";
    ranks.agree_on(&facts, remedy)?;
    trainer.check_replicas()
}

/// Says how the work is divided.
pub(super) fn tell(trainer: &Trainer, verbosity: Verbosity) {
    let (ranks, settings) = (trainer.ranks(), trainer.settings());
    if !ranks.are_several() {
        return;
    }
    let (size, batch, passes) = (ranks.size(), settings.batch_size, settings.accumulate);
    let threads = trainer.parameters().device().threads();
    verbosity.say(format!(
        "{size} processes of {} divide each step: {passes} passes of batch {batch}",
        plural(threads, "thread")
    ));
    if trainer.parameters().buffers().next().is_some() && batch < FEW_CASES {
        verbosity.say(format!(
            "batch norms take the statistics of each pass alone ({}); statistics over all processes are not supported yet",
            plural(batch, "case")
        ));
    }
}
