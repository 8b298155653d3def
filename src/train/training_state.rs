//! From a network in training to a checkpoint file and back.
//!
//! A checkpoint holds the weights and running statistics under their official names, the optimiser's state under
//! `optimizer.N`, their moving averages under `average.NAME` if the run keeps them, and as metadata the network's configuration, the task, the settings, the losses and
//! the validations. Its bytes depend on
//! seed, data and settings alone; what the run cost in time and memory lies in a file beside it ([`Costs`]).

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::model::{AVERAGE, config_of, entry, fill, network_json, to_json, weights};
use crate::checkpoint::safetensors::{self, Entry};
use crate::checkpoint::{self, Metadata};
use crate::error::{Error, Result};
use crate::models::Architecture;
use crate::task::Task;
use crate::tensor::Tensor;
use crate::train::costs::Costs;
use crate::train::settings::TrainSettings;
use crate::train::trainer::{History, Trainer};

/// Writes the whole state of a run: weights, optimiser, settings, losses, and beside them the costs.
///
/// # Errors
/// A full disk or a folder that refuses; an older checkpoint of that name then survives.
pub fn save(trainer: &Trainer, task: &Task, path: &Path) -> Result<()> {
    if !trainer.is_caught_up() {
        let why = "the loss of the last step was not read, and a checkpoint of it is not to be kept";
        return Err(Error::Model(format!("{why}; call Trainer::catch_up first")));
    }
    let mut metadata = Metadata::new();
    metadata.insert("network".into(), network_json(trainer.network(), path)?);
    metadata.insert("task".into(), to_json("task", task, path)?);
    metadata.insert("settings".into(), to_json("settings", trainer.asked(), path)?);
    metadata.insert("losses".into(), to_json("losses", &trainer.losses(), path)?);
    metadata.insert("validations".into(), to_json("validations", &trainer.history().validations, path)?);
    metadata.insert("steps".into(), trainer.optimizer().steps().to_string());
    let mut entries = weights(trainer.parameters());
    let optimizer = trainer.optimizer().state().iter().enumerate();
    entries.extend(optimizer.map(|(i, tensor)| whole(format!("optimizer.{i}"), tensor)));
    let averages = trainer.average().map_or(&[][..], |average| average.weights()).iter();
    let averages = averages.zip(trainer.parameters().iter());
    entries.extend(averages.map(|(average, parameter)| whole(format!("{AVERAGE}{}", parameter.name()), average)));
    safetensors::write_entries(path, &entries, &metadata)?;
    trainer.costs().save(path)
}

/// A tensor of f32 under a name.
fn whole(name: String, tensor: &Tensor) -> Entry<'_> {
    Entry::f32(name, tensor.shape().to_vec(), || tensor.on_host())
}

/// The first entry in which two objects differ: `optimizer.rate 0.003, not 0.001`.
fn difference(path: &str, known: &Value, told: &Value) -> Option<String> {
    match (known, told) {
        (Value::Object(known), Value::Object(wanted)) => known.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            difference(&path, value, wanted.get(key).unwrap_or(&Value::Null))
        }),
        _ => (known != told).then(|| format!("{path} {known}, not {told}")),
    }
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
    let (wanted, own) = (trainer.network().architecture(), network_json(trainer.network(), path)?);
    if checkpoint.metadata.get("network") != Some(&own) {
        // Written differently by an earlier version, or another network.
        let config = config_of(&checkpoint, path)?;
        if to_json("network", &config, path)? != own {
            return other_run(match config.title() == wanted.title() {
                true => format!("holds another size of {}", wanted.title()),
                false => format!("holds {}, not {}", config.title(), wanted.title()),
            });
        }
    }
    let mut stored: Task = entry(&checkpoint, "task", path)?;
    // Earlier versions did not note these.
    let (known, told) = (&mut stored.preprocessing, &task.preprocessing);
    known.trained_spacing = known.trained_spacing.or(told.trained_spacing);
    known.trained_shape = known.trained_shape.or(told.trained_shape);
    if stored != *task {
        return other_run(format!("was made on other data ({})", stored.name));
    }
    let stored: TrainSettings = entry(&checkpoint, "settings", path)?;
    // A run may go on at another level of recomputation, and for more epochs than it was begun for.
    let asked = trainer.asked();
    let epochs = stored.epochs.max(asked.epochs);
    let stored = TrainSettings { recompute: asked.recompute, epochs, ..stored };
    if stored != *asked {
        let [known, told] = [&stored, asked].map(|settings| serde_json::to_value(settings).unwrap_or_default());
        let difference = difference("", &known, &told).unwrap_or_else(|| "other settings".into());
        return other_run(format!("was made with {difference}"));
    }
    fill(trainer.parameters_mut(), &checkpoint.state, path)?;
    let steps: u64 = entry(&checkpoint, "steps", path)?;
    let state: Vec<Vec<f32>> = (0..trainer.optimizer().state().len())
        .map_while(|i| Some(checkpoint.state.get(&format!("optimizer.{i}"))?.to_f32().into_owned()))
        .collect();
    trainer.optimizer_mut().restore(steps, &state)?;
    let history =
        History { losses: entry(&checkpoint, "losses", path)?, validations: entry(&checkpoint, "validations", path)? };
    let names: Vec<String> = trainer.parameters().iter().map(|parameter| parameter.name().into()).collect();
    if let Some(average) = trainer.average_mut() {
        let stored: Vec<Vec<f32>> = names
            .iter()
            .map_while(|name| Some(checkpoint.state.get(&format!("{AVERAGE}{name}"))?.to_f32().into_owned()))
            .collect();
        average.restore(&stored)?;
    }
    trainer.set_history(history, Costs::load(path));
    Ok(())
}
