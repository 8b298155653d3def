//! What a run's configuration means on a data set, by headers alone: task, grid, network, settings.
//!
//! `train` builds what this says, and plans plan it.

use crate::data::{Axes, Dataset, SamplingRule};
use crate::error::{Error, Result};
use crate::models::{Architecture, Family, NetworkConfig};
use crate::task::{PadTo, Task};
use crate::train::config::RunConfig;
use crate::train::settings::TrainSettings;

/// A run that could begin.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How scans are prepared, and what the classes are.
    pub task: Task,
    /// What training cases are padded to.
    pub grid: PadTo,
    /// Shape of one batch item: the padded volume, or the patch.
    pub shape: [usize; 3],
    /// The network.
    pub network: NetworkConfig,
    /// What the trainer is told; the level of recomputation is the default one.
    pub settings: TrainSettings,
}

impl Setup {
    /// What `config` means on `dataset`. With `reference` the run goes on from weights of the official code, by
    /// its rules, as one does whose configuration says so.
    ///
    /// # Errors
    /// A header that cannot be read, no training case, a network that the data do not admit, a patch that the network cannot take.
    pub fn of(config: &RunConfig, dataset: &Dataset, reference: bool) -> Result<Self> {
        let reference = reference || config.reference;
        let probe = config.network(1, 1, [256; 3])?;
        let mut task = Task::of(dataset, probe.multiples());
        let wanted = &config.preprocessing;
        if wanted.merge_classes {
            task = task.merged();
        }
        task.preprocessing.clip = <[f32; 2]>::try_from(&wanted.clip[..]).ok().or(task.preprocessing.clip);
        task.preprocessing.spacing = <[f64; 3]>::try_from(&wanted.spacing[..]).ok();
        task.preprocessing.resize = <[usize; 3]>::try_from(&wanted.resize[..]).ok();
        let mut grid = if config.patch.is_empty() { PadTo::Largest } else { PadTo::Own };
        if let (Some(family), NetworkConfig::OssNet(probe)) = (config.preset.family(), &probe) {
            task.preprocessing.multiple = [probe.multiple(); 3];
            if reference && family == Family::Brats {
                grid = PadTo::Given(family.volume_shape());
            }
        }
        if reference {
            task.preprocessing.axes = Axes::Stored;
            if config.preset.family() == Some(Family::Lits) {
                (task.preprocessing.clip, task.preprocessing.spacing) = (None, None);
                task.preprocessing.resize = Some(Family::Lits.volume_shape());
            }
        }
        let mut task = task.measured(dataset)?;
        if dataset.training.is_empty() {
            return Err(Error::data(&dataset.path, "has no training case", "give a data set with labelled cases"));
        }
        let mut settings = config.settings();
        if config.reference && settings.sampling != SamplingRule::Class {
            // Its points never lie on the last index, whether some of them are near the border or none is.
            let share = if settings.sampling == SamplingRule::Uniform { 0.0 } else { settings.border_share };
            (settings.sampling, settings.border_share) = (SamplingRule::Reference, share);
        }
        let shape = match settings.patch.or(grid.shape()) {
            Some(shape) => shape,
            None => task.largest(dataset)?,
        };
        let network = config.network(dataset.channels.len(), task.outputs(), shape)?;
        let network = if reference { network.into_reference() } else { network };
        task.preprocessing.trained_shape = Some(shape);
        if reference {
            settings.loss.reference = true;
            settings.optimizer.activation_rate = None;
        }
        check_patch(&settings, &network)?;
        settings.loss.entropy.check(network.classes(), dataset.ignore.is_some())?;
        Ok(Self { task, grid, shape, network, settings })
    }
}

/// Refuses patches that the network cannot take.
fn check_patch(settings: &TrainSettings, network: &NetworkConfig) -> Result<()> {
    let Some(patch) = settings.patch else { return Ok(()) };
    match network {
        NetworkConfig::UNet(config) if config.dimensions == 3 => {
            let multiple = config.multiple();
            match patch.iter().all(|side| side.is_multiple_of(multiple)) {
                true => Ok(()),
                false => Err(Error::Usage(format!(
                    "--patch {patch:?}: sides must be multiples of {multiple}, for example {}",
                    patch[0].next_multiple_of(multiple)
                ))),
            }
        }
        _ => Err(Error::Usage(format!("--patch is for 3D U-Nets; omit it for {}", network.title()))),
    }
}
