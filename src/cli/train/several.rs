//! What is particular to a run of several processes.

use super::TrainArgs;
use crate::cli::device_args::DeviceChoice;
use crate::cli::output::plural;
use crate::cli::progress::Verbosity;
use crate::cli::provenance::COMMIT;
use crate::data::Dataset;
use crate::device::collective::Launch;
use crate::device::{Target, cuda};
use crate::error::{Error, Result};
use crate::train::settings::FEW_CASES;
use crate::train::trainer::Trainer;

impl TrainArgs {
    /// The devices of `--cuda-devices`; none without it.
    pub(super) fn listed_devices(&self) -> Result<Vec<usize>> {
        let Some(list) = self.cuda_devices.as_deref() else { return Ok(Vec::new()) };
        let numbers: Option<Vec<usize>> = list.split(',').map(|number| number.trim().parse().ok()).collect();
        let numbers = numbers.ok_or_else(|| {
            Error::Usage(format!("--cuda-devices '{list}' is no list of devices' numbers; give some, for example 0,1"))
        })?;
        let twice = numbers.iter().enumerate().find(|(i, number)| numbers[..*i].contains(number));
        match twice {
            Some((_, number)) => {
                Err(Error::Usage(format!("--cuda-devices {list} names device {number} twice; name it once")))
            }
            None => Ok(numbers),
        }
    }

    /// Chooses the device of this process: of the listed ones, or of those that there are, that of its number on its machine.
    pub(super) fn settle_on_device(&mut self, listed: &[usize], launch: Option<&Launch>) -> Result<()> {
        let launch = launch.filter(|launch| launch.size > 1);
        let local = launch.map_or(0, |launch| launch.local.unwrap_or(launch.rank));
        if !listed.is_empty() {
            let Some(&own) = listed.get(local) else {
                let problem = format!("--cuda-devices names {}", plural(listed.len(), "device"));
                let here = format!("this is process {local} of its machine, from 0");
                return Err(Error::Usage(format!("{problem}, and {here}; name one for each process")));
            };
            self.device.device = DeviceChoice::Cuda(own);
        } else if let (DeviceChoice::Cuda(number), Some(_)) = (self.device.device, launch) {
            if number > 0 {
                let problem = format!("--device cuda:{number} is one device, for several processes");
                return Err(Error::Usage(format!("{problem}; write --device cuda: each takes that of its number")));
            }
            // One that Slurm or a container shows a process alone is number 0 to it.
            self.device.device = DeviceChoice::Cuda(local % cuda::count()?);
        }
        Ok(())
    }

    /// Refuses flags of what several processes cannot do.
    pub(super) fn check_several(&self) -> Result<()> {
        match self.graph {
            true => {
                Err(Error::Usage("--graph: several processes launch no graphs; omit it, or start one process".into()))
            }
            false => Ok(()),
        }
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
