//! What is particular to a run of several processes.

use super::TrainArgs;
use crate::cli::output::plural;
use crate::cli::progress::Verbosity;
use crate::cli::provenance::COMMIT;
use crate::data::Dataset;
use crate::device::Target;
use crate::error::{Error, Result};
use crate::train::settings::FEW_CASES;
use crate::train::trainer::Trainer;

impl TrainArgs {
    /// Refuses flags of what several processes cannot do.
    pub(super) fn check_several(&self) -> Result<()> {
        match self.graph {
            true => {
                let why =
                    "a graph moves the running statistics by those of its own pass, and they must follow all passes";
                Err(Error::Usage(format!("--graph: {why} of several processes; omit it, or start one process")))
            }
            false => Ok(()),
        }
    }
}

/// Refuses to begin unless all ranks have the same program, data, settings and weights.
pub(in crate::cli) fn check(trainer: &Trainer, dataset: &Dataset, cases: usize) -> Result<()> {
    let ranks = trainer.ranks();
    if !ranks.are_several() {
        return Ok(());
    }
    let program = format!("{} {}", crate::cli::VERSION, COMMIT.unwrap_or_default());
    let names: Vec<&str> = dataset.training.iter().map(|case| case.name.as_str()).collect();
    let facts = [
        ("the program", program),
        ("what it computes on", kind(trainer)),
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

/// The instruction set of a CPU, the compute capability of a GPU.
fn kind(trainer: &Trainer) -> String {
    let device = trainer.parameters().device();
    match device.target() {
        Target::Cpu { simd, .. } => format!("{simd:?}").to_lowercase(),
        Target::Cuda(target) => {
            let (major, minor) = target.capability;
            format!("a GPU of compute capability {major}.{minor}")
        }
    }
}

/// Says how the work is divided.
pub(super) fn tell(trainer: &Trainer, verbosity: Verbosity) {
    let (ranks, settings) = (trainer.ranks(), trainer.settings());
    if !ranks.are_several() {
        return;
    }
    let (size, batch, passes) = (ranks.size(), settings.batch_size, settings.accumulate);
    let device = trainer.parameters().device();
    let of = match device.target() {
        Target::Cpu { threads, .. } => plural(threads, "thread"),
        Target::Cuda(_) => "a CUDA device each".into(),
    };
    verbosity.say(format!("{size} processes of {of} divide each step: {passes} passes of batch {batch}"));
    if trainer.parameters().buffers().next().is_none() {
        return;
    }
    match settings.joins_statistics() {
        true => verbosity.say(format!("batch norms take the statistics of all {}", plural(batch * passes, "case"))),
        false if batch < FEW_CASES => verbosity.say(format!(
            "batch norms take the statistics of each pass alone ({}); --sync-norm takes those of all",
            plural(batch, "case")
        )),
        false => {}
    }
}
