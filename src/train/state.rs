//! From a network in training to a checkpoint file and back.
//!
//! A checkpoint holds the weights and running statistics under their official names, the optimiser's state under
//! `optimizer.N`, and as metadata the network's configuration, the task, the settings and the losses. Its bytes depend on
//! seed, data and settings alone; what the run cost in time and memory lies in a file beside it ([`Costs`]).

use std::collections::HashSet;
use std::path::Path;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Network, NetworkConfig};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::train::cases::Task;
use crate::train::checkpoint::{self, Checkpoint, Metadata, StateDict, View, safetensors};
use crate::train::costs::Costs;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;

/// Version of the metadata's layout.
const FORMAT: &str = "1";

/// A network as inference needs it.
pub struct Model {
    /// The network.
    pub network: Network,
    /// Its weights.
    pub parameters: Parameters,
    /// What it was trained for.
    pub task: Task,
}

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
    let weights = named_weights(trainer.parameters());
    let optimizer: Vec<(String, Vec<usize>, Vec<f32>)> = (0..)
        .zip(trainer.optimizer().state())
        .map(|(i, tensor)| (format!("optimizer.{i}"), tensor.shape().to_vec(), tensor.to_vec()))
        .collect();
    let views: Vec<(&str, View<'_>)> = weights
        .iter()
        .chain(&optimizer)
        .filter_map(|(name, shape, values)| Some((name.as_str(), View::f32(shape, values)?)))
        .collect();
    safetensors::write(path, &views, &metadata)?;
    trainer.costs().save(path)
}

/// Weights and running statistics under their official names.
pub fn named_weights(parameters: &Parameters) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let mut named: Vec<(String, Vec<usize>, Vec<f32>)> = parameters
        .iter()
        .map(|parameter| (parameter.name().into(), parameter.value().shape().to_vec(), parameter.value().to_vec()))
        .collect();
    for (name, value, updates) in parameters.buffers() {
        let values = value.to_vec();
        match name.strip_suffix("running") {
            Some(layer) => {
                let groups = values.len() / 2;
                named.push((format!("{layer}running_mean"), vec![groups], values[..groups].to_vec()));
                named.push((format!("{layer}running_var"), vec![groups], values[groups..].to_vec()));
                named.push((format!("{layer}num_batches_tracked"), Vec::new(), vec![updates as f32]));
            }
            None => named.push((name.into(), value.shape().to_vec(), values)),
        }
    }
    named
}

/// Fills weights and running statistics from a state dictionary of official names.
///
/// # Errors
/// [`Error::Data`] naming `path` if one is missing, of another shape, or unknown.
pub fn fill(parameters: &mut Parameters, state: &StateDict, path: &Path) -> Result<()> {
    const REMEDY: &str = "it is a checkpoint of another model: name that model, or another checkpoint";
    let array = |name: &str, shape: &[usize]| {
        let array = state.get(name).ok_or_else(|| Error::data(path, format!("lacks {name}"), REMEDY))?;
        if array.shape() != shape && array.shape() != planar(shape) {
            let problem = format!("has {name} of shape {:?}, the model {shape:?}", array.shape());
            return Err(Error::data(path, problem, REMEDY));
        }
        Ok(array.to_f32().into_owned())
    };
    let mut known = 0;
    for parameter in parameters.iter_mut() {
        let values = array(parameter.name(), parameter.value().shape())?;
        known += 1;
        parameter.value_and_gradient().0.data_mut().copy_from_slice(&values);
    }
    for (name, value, updates) in parameters.buffers_mut() {
        match name.strip_suffix("running") {
            Some(layer) => {
                let groups = value.channels();
                let mean = array(&format!("{layer}running_mean"), &[groups])?;
                let variance = array(&format!("{layer}running_var"), &[groups])?;
                value.data_mut()[..groups].copy_from_slice(&mean);
                value.data_mut()[groups..].copy_from_slice(&variance);
                *updates = array(&format!("{layer}num_batches_tracked"), &[])?.first().map_or(0, |&count| count as u64);
                known += 3;
            }
            None => {
                let values = array(name, value.shape())?;
                value.data_mut().copy_from_slice(&values);
                known += 1;
            }
        }
    }
    let weights: Vec<&str> =
        state.iter().map(|(name, _)| name).filter(|name| !name.starts_with("optimizer.")).collect();
    if weights.len() != known {
        let own: HashSet<String> = named_weights(parameters).into_iter().map(|(name, _, _)| name).collect();
        let odd = weights.into_iter().find(|name| !own.contains(*name)).unwrap_or("a weight twice");
        return Err(Error::data(path, format!("has {odd}, which the model lacks"), REMEDY));
    }
    Ok(())
}

/// The shape of a kernel of depth 1 in a 2D framework; any other shape as it is.
fn planar(shape: &[usize]) -> Vec<usize> {
    match shape {
        [outputs, inputs, 1, height, width] => vec![*outputs, *inputs, *height, *width],
        _ => shape.to_vec(),
    }
}

/// Fills the weights from a checkpoint of the same network (.safetensors or official .pt).
///
/// # Errors
/// An unreadable file, or one of another model.
pub fn load_weights(parameters: &mut Parameters, path: &Path) -> Result<()> {
    fill(parameters, &checkpoint::load(path)?.state, path)
}

/// Whether the weights in `path` belong to a network that behaves as the official code: an official `.pt`, or a
/// checkpoint of a run that started from one.
///
/// # Errors
/// An unreadable file.
pub fn is_reference(path: &Path) -> Result<bool> {
    let checkpoint = checkpoint::load(path)?;
    match checkpoint.format {
        checkpoint::Format::Torch => Ok(true),
        checkpoint::Format::Safetensors if !checkpoint.metadata.contains_key("network") => Ok(false),
        checkpoint::Format::Safetensors => Ok(entry::<NetworkConfig>(&checkpoint, "network", path)?.is_reference()),
    }
}

/// A value of a checkpoint's metadata.
fn entry<T: serde::de::DeserializeOwned>(checkpoint: &Checkpoint, key: &str, path: &Path) -> Result<T> {
    const REMEDY: &str = "give a checkpoint that this program wrote (.safetensors)";
    let text = checkpoint.metadata.get(key);
    let text = text.ok_or_else(|| Error::data(path, format!("does not say its {key}"), REMEDY))?;
    serde_json::from_str(text).map_err(|error| Error::data(path, format!("has an unusable {key} ({error})"), REMEDY))
}

/// A network with its weights and its task, from a checkpoint that this program wrote.
///
/// # Errors
/// An unreadable file, one of another kind, or no memory.
pub fn load(device: &Device, path: &Path) -> Result<Model> {
    let checkpoint = checkpoint::load(path)?;
    let config: NetworkConfig = entry(&checkpoint, "network", path)?;
    let task: Task = entry(&checkpoint, "task", path)?;
    let mut parameters = Parameters::new(device);
    let network = Network::new(&config, &mut parameters, &mut Rng::new(0))?;
    fill(&mut parameters, &checkpoint.state, path)?;
    Ok(Model { network, parameters, task })
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
