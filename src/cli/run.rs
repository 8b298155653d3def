//! What the computing commands share: the device, the data set, the output folder.

use std::path::{Path, PathBuf};

use super::RunArgs;
use super::progress::Verbosity;
use crate::data::{Dataset, Scan, sample};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::default_cpu_budget;
use crate::models::NetworkConfig;
use crate::train::cases::{Case, Task};
use crate::train::state;
use crate::train::trainer::Trainer;

impl RunArgs {
    /// The device to compute on.
    pub fn device(&self) -> Result<Device> {
        let most = std::thread::available_parallelism().map_or(1, usize::from) * 64;
        if self.threads > most {
            return Err(Error::Usage(format!("--threads {} is more than this machine can use ({most})", self.threads)));
        }
        Device::cpu(self.threads, self.memory_budget.unwrap_or_else(default_cpu_budget))
    }

    /// How much is said.
    pub fn verbosity(&self) -> Verbosity {
        Verbosity::detect(self.quiet)
    }
}

/// The data set in `folder`, or the embedded heads.
pub fn open_dataset(folder: Option<&Path>, seed: u64) -> Result<Dataset> {
    match folder {
        Some(folder) => Dataset::open(folder, seed),
        None => sample::open("heads"),
    }
}

/// What cases are padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// Each to its own multiple.
    Own,
    /// All to the largest of them.
    Largest,
    /// All to one shape.
    Given([usize; 3]),
}

impl Grid {
    /// The grid that a network's cases need: latents belong to one shape.
    pub fn of(network: &NetworkConfig) -> Self {
        match network {
            NetworkConfig::OssNet(config) => Grid::Given(config.volume_shape),
            NetworkConfig::UNet(_) => Grid::Own,
        }
    }

    /// The shape, where it does not depend on the case.
    pub fn shape(self) -> Option<[usize; 3]> {
        match self {
            Grid::Given(shape) => Some(shape),
            Grid::Own | Grid::Largest => None,
        }
    }
}

/// All cases of a data set in memory: training, validation.
pub fn load_cases(dataset: &Dataset, task: &Task, grid: Grid, verbosity: Verbosity) -> Result<(Vec<Case>, Vec<Case>)> {
    for warning in &dataset.warnings {
        verbosity.say(format!("warning: {warning}"));
    }
    let read = |cases: &[crate::data::Case]| {
        let scans = cases.iter().map(|case| dataset.read(case, task.preprocessing.axes));
        scans.collect::<Result<Vec<_>>>()
    };
    let (training, validation) = (read(&dataset.training)?, read(&dataset.validation)?);
    for warning in training.iter().chain(&validation).flat_map(|scan| &scan.warnings) {
        verbosity.say(format!("warning: {warning}"));
    }
    let largest = training.iter().chain(&validation).fold([0; 3], |largest: [usize; 3], scan| {
        let multiple = task.preprocessing.multiple;
        [0, 1, 2].map(|k| largest[k].max(scan.image.shape[k].next_multiple_of(multiple[k].max(1))))
    });
    let shape = if grid == Grid::Largest { Some(largest) } else { grid.shape() };
    let prepare =
        |scans: Vec<Scan>| scans.into_iter().map(|scan| task.prepare(scan, shape)).collect::<Result<Vec<_>>>();
    Ok((prepare(training)?, prepare(validation)?))
}

/// The least common multiple, axis by axis, of what several networks need.
pub fn common_multiples(networks: &[NetworkConfig]) -> [usize; 3] {
    networks.iter().fold([1; 3], |common, network| {
        let own = network.multiples();
        [0, 1, 2].map(|axis| lcm(common[axis], own[axis]))
    })
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}

/// `path` relative to nothing: as the user can type it.
pub fn display(path: &Path) -> String {
    path.display().to_string()
}

/// The checkpoint of a model in a run's folder.
pub fn checkpoint_path(folder: &Path, network: &NetworkConfig) -> PathBuf {
    folder.join(format!("{}.safetensors", network.slug()))
}

/// Trains to the end with a progress bar and saves the checkpoint; after an interrupt it is saved as well and the error
/// says that the same command with the flag `again` goes on.
pub fn train_to_end(
    trainer: &mut Trainer,
    training: &[Case],
    task: &Task,
    path: &Path,
    verbosity: Verbosity,
    again: &str,
) -> Result<()> {
    let per_epoch = trainer.steps_per_epoch(training.len());
    let mut bar = verbosity.task(&trainer.network().config().title(), trainer.settings().epochs * per_epoch);
    bar.set_position(trainer.optimizer().steps());
    let trained = trainer.train(training, |trainer| {
        bar.advance(&format!("loss {:.4}", trainer.history().recent_loss(per_epoch as usize)));
    });
    match trained {
        Ok(()) => state::save(trainer, task, path)?,
        Err(Error::Interrupted(progress)) => {
            state::save(trainer, task, path)?;
            return Err(Error::Interrupted(format!(
                "{progress} and saved; run the same command with {again} to go on"
            )));
        }
        Err(error) => return Err(error),
    }
    bar.finish(&format!("loss {:.4}", trainer.history().recent_loss(per_epoch as usize)));
    Ok(())
}
