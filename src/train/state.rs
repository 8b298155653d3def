//! From a network in training to a checkpoint file and back.
//!
//! A checkpoint holds the weights and running statistics under their official names, the optimiser's state under
//! `optimizer.N`, and as metadata the network's configuration, the task, the settings and the losses. Its bytes depend on
//! seed, data and settings alone; what the run cost in time and memory lies in a file beside it ([`Costs`]).

use std::path::Path;

use crate::checkpoint::model::{entry, fill, named_weights};
use crate::checkpoint::{self, Metadata, View, safetensors};
use crate::error::{Error, Result};
use crate::models::NetworkConfig;
use crate::task::Task;
use crate::train::costs::Costs;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;

/// Version of the metadata's layout.
const FORMAT: &str = "1";

/// Writes the whole state of a run: weights, optimiser, settings, losses, and beside them the costs.
///
/// # Errors
/// A full disk or a folder that refuses; an older checkpoint of that name then survives.
pub fn save(trainer: &Trainer, task: &Task, path: &Path) -> Result<()> {
    let mut metadata = Metadata::new();
    let mut note = |key: &str, value: serde_json::Result<String>| -> Result<()> {
        let value =
            value.map_err(|error| Error::data(path, format!("cannot store its {key} ({error})"), "report this"))?;
        metadata.insert(key.into(), value);
        Ok(())
    };
    note("format", Ok(FORMAT.into()))?;
    note("network", serde_json::to_string(&trainer.network().config()))?;
    note("task", serde_json::to_string(task))?;
    note("settings", serde_json::to_string(trainer.settings()))?;
    note("losses", serde_json::to_string(trainer.losses()))?;
    note("steps", Ok(trainer.optimizer().steps().to_string()))?;
    let weights = named_weights(trainer.parameters())?;
    let optimizer = (0..)
        .zip(trainer.optimizer().state())
        .map(|(i, tensor)| Ok((format!("optimizer.{i}"), tensor.shape().to_vec(), tensor.to_vec()?)))
        .collect::<Result<Vec<_>>>()?;
    let views: Vec<(&str, View<'_>)> = weights
        .iter()
        .chain(&optimizer)
        .filter_map(|(name, shape, values)| Some((name.as_str(), View::f32(shape, values)?)))
        .collect();
    safetensors::write(path, &views, &metadata)?;
    trainer.costs().save(path)
}

/// Goes on with the run in a checkpoint.
///
/// # Errors
/// An unreadable file, or a run of another network, on other data or with other settings.
pub fn resume(trainer: &mut Trainer, task: &Task, path: &Path) -> Result<()> {
    let other_run = |problem: String| {
        Err(Error::data(path, problem, "give the data and flags of the run that it belongs to, or another folder"))
    };
    let checkpoint = checkpoint::load(path)?;
    let config: NetworkConfig = entry(&checkpoint, "network", path)?;
    let wanted = trainer.network().config();
    if config != wanted {
        return other_run(match config.title() == wanted.title() {
            true => format!("holds another size of {}", wanted.title()),
            false => format!("holds {}, not {}", config.title(), wanted.title()),
        });
    }
    let stored: Task = entry(&checkpoint, "task", path)?;
    if stored != *task {
        return other_run(format!("was made on other data ({})", stored.name));
    }
    let stored: TrainSettings = entry(&checkpoint, "settings", path)?;
    // A run may go on at another level of recomputation.
    if (TrainSettings { recompute: trainer.settings().recompute, ..stored }) != *trainer.settings() {
        return other_run("was made with other settings".into());
    }
    fill(trainer.parameters_mut(), &checkpoint.state, path)?;
    let steps: u64 = entry(&checkpoint, "steps", path)?;
    let state: Vec<Vec<f32>> = (0..trainer.optimizer().state().len())
        .map_while(|i| Some(checkpoint.state.get(&format!("optimizer.{i}"))?.to_f32().into_owned()))
        .collect();
    trainer.optimizer_mut().restore(steps, &state)?;
    trainer.set_course(entry(&checkpoint, "losses", path)?, Costs::load(path));
    Ok(())
}
