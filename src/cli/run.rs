//! What the computing commands share: the device, the data set, the output folder.

use std::path::{Path, PathBuf};

use super::RunArgs;
use super::progress::Verbosity;
use crate::data::{Dataset, sample};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::default_cpu_budget;
use crate::models::NetworkConfig;
use crate::train::preprocessing::{Prepared, Preprocessing};
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

/// How a data set's scans become a network's input. `multiples` is what the sides are padded to.
pub fn preprocessing_of(dataset: &Dataset, multiples: [usize; 3]) -> Preprocessing {
    Preprocessing {
        channels: dataset.channels.clone(),
        clip: None,
        canonical: true,
        multiples,
        shape: None,
        label_values: dataset.class_values(),
        class_names: dataset.classes.iter().map(|class| class.name.clone()).collect(),
        binary: dataset.classes.len() <= 2,
    }
}

/// All cases of a data set in memory: training, validation.
pub fn load_cases(
    dataset: &Dataset,
    preprocessing: &Preprocessing,
    verbosity: Verbosity,
) -> Result<(Vec<Prepared>, Vec<Prepared>)> {
    for warning in &dataset.warnings {
        verbosity.say(format!("warning: {warning}"));
    }
    let load = |cases: &[crate::data::Case]| {
        cases
            .iter()
            .map(|case| {
                let scan = dataset.read(case, preprocessing.axes())?;
                for warning in &scan.warnings {
                    verbosity.say(format!("warning: {warning}"));
                }
                preprocessing.prepare(scan)
            })
            .collect::<Result<Vec<_>>>()
    };
    Ok((load(&dataset.training)?, load(&dataset.validation)?))
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

/// The largest padded shape of some cases.
pub fn largest_shape(cases: &[Prepared]) -> [usize; 3] {
    cases.iter().fold([0; 3], |largest, case| [0, 1, 2].map(|axis| largest[axis].max(case.volume.shape[axis])))
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
    training: &[Prepared],
    preprocessing: &Preprocessing,
    path: &Path,
    verbosity: Verbosity,
    again: &str,
) -> Result<()> {
    let per_epoch = trainer.steps_per_epoch(training.len());
    let mut task = verbosity.task(&trainer.network().config().title(), trainer.settings().epochs * per_epoch);
    task.set_position(trainer.optimizer().steps());
    let trained = trainer.train(training, |trainer| {
        task.advance(&format!("loss {:.4}", trainer.history().recent_loss(per_epoch as usize)));
    });
    match trained {
        Ok(()) => state::save(trainer, preprocessing, path)?,
        Err(Error::Interrupted(progress)) => {
            state::save(trainer, preprocessing, path)?;
            return Err(Error::Interrupted(format!("{progress} and saved; run the same command with {again} to go on")));
        }
        Err(error) => return Err(error),
    }
    task.finish(&format!("loss {:.4}", trainer.history().recent_loss(per_epoch as usize)));
    Ok(())
}
