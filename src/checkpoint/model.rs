//! A network out of a checkpoint, for inference and evaluation: weights by their official names, configuration, task.

use std::collections::HashSet;
use std::path::Path;

use super::convert::with_averages;
use super::prefix::fitting;
use super::{Checkpoint, Metadata, StateDict, View, safetensors};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Network, NetworkConfig};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::task::Task;

/// Version of the metadata's layout.
pub const FORMAT: &str = "1";

/// What precedes the name of a weight's moving average; it takes the weight's place in inference.
pub const AVERAGE: &str = "average.";

/// What precedes the names of tensors that only a run in training needs.
pub(super) const COURSE: [&str; 2] = [OPTIMIZER, AVERAGE];

/// What precedes the names of an optimiser's state.
const OPTIMIZER: &str = "optimizer.";

/// A network as inference needs it.
pub struct Model {
    /// The network.
    pub network: Network,
    /// Its weights.
    pub parameters: Parameters,
    /// What it was trained for.
    pub task: Task,
}

/// A tensor on the host: name, shape, elements.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

/// Weights and running statistics under their official names.
///
/// # Errors
/// What the device's driver says.
pub fn named_weights(parameters: &Parameters) -> Result<Vec<NamedTensor>> {
    let mut named = parameters
        .iter()
        .map(|parameter| {
            let value = parameter.value();
            Ok((parameter.name().into(), value.shape().to_vec(), value.to_vec()?))
        })
        .collect::<Result<Vec<NamedTensor>>>()?;
    for (name, value, updates) in parameters.buffers() {
        let values = value.to_vec()?;
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
    Ok(named)
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
        parameter.value_and_gradient().0.write(&values)?;
    }
    for (name, value, updates) in parameters.buffers_mut() {
        match name.strip_suffix("running") {
            Some(layer) => {
                let groups = value.channels();
                let mean = array(&format!("{layer}running_mean"), &[groups])?;
                let variance = array(&format!("{layer}running_var"), &[groups])?;
                value.write(&[mean, variance].concat())?;
                *updates = array(&format!("{layer}num_batches_tracked"), &[])?.first().map_or(0, |&count| count as u64);
                known += 3;
            }
            None => {
                let values = array(name, value.shape())?;
                value.write(&values)?;
                known += 1;
            }
        }
    }
    let weights: Vec<&str> =
        state.iter().map(|(name, _)| name).filter(|name| !COURSE.iter().any(|own| name.starts_with(own))).collect();
    if weights.len() != known {
        let own: HashSet<String> = named_weights(parameters)?.into_iter().map(|(name, _, _)| name).collect();
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

/// Fills the weights from a checkpoint of the same network (.safetensors or official .pt), whatever stands before all of
/// its names.
///
/// # Errors
/// An unreadable file, or one of another model.
pub fn load_weights(parameters: &mut Parameters, path: &Path) -> Result<()> {
    let state = super::load(path)?.state;
    let names: Vec<String> = parameters.iter().map(|parameter| parameter.name().to_owned()).collect();
    let state = fitting(state, |state| names.iter().all(|name| state.get(name).is_some()));
    fill(parameters, &state, path)
}

/// Whether the weights in `path` belong to a network that behaves as the official code: an official `.pt`, or a
/// checkpoint of a run that started from one.
///
/// # Errors
/// An unreadable file.
pub fn is_reference(path: &Path) -> Result<bool> {
    let checkpoint = super::load(path)?;
    match checkpoint.format {
        super::CheckpointFormat::Torch => Ok(true),
        super::CheckpointFormat::Safetensors if !checkpoint.metadata.contains_key("network") => Ok(false),
        super::CheckpointFormat::Safetensors => {
            Ok(entry::<NetworkConfig>(&checkpoint, "network", path)?.is_reference())
        }
    }
}

/// A value of a checkpoint's metadata.
///
/// # Errors
/// [`Error::Data`] if it is missing or not a `T`.
pub fn entry<T: serde::de::DeserializeOwned>(checkpoint: &Checkpoint, key: &str, path: &Path) -> Result<T> {
    const REMEDY: &str =
        "give a checkpoint that this program wrote (.safetensors), or name its network by the flag for that";
    let text = checkpoint.metadata.get(key);
    let text = text.ok_or_else(|| Error::data(path, format!("does not say its {key}"), REMEDY))?;
    serde_json::from_str(text).map_err(|error| Error::data(path, format!("has an unusable {key} ({error})"), REMEDY))
}

/// A network with its weights and its task, from a checkpoint that this program wrote.
///
/// # Errors
/// An unreadable file, one of another kind, or no memory.
pub fn load(device: &Device, path: &Path) -> Result<Model> {
    // Three quarters of a checkpoint and more are for going on with training.
    let checkpoint = super::load_wanted(path, &|name| !name.starts_with(OPTIMIZER))?;
    let config: NetworkConfig = entry(&checkpoint, "network", path)?;
    let task: Task = entry(&checkpoint, "task", path)?;
    let mut parameters = Parameters::new(device);
    let network = Network::new(&config, &mut parameters, &mut Rng::new(0))?;
    fill(&mut parameters, &with_averages(checkpoint.state), path)?;
    Ok(Model { network, parameters, task })
}

impl Model {
    /// Writes a checkpoint that inference and [`load`] take, without the state of a run.
    ///
    /// # Errors
    /// A full disk or a folder that refuses.
    pub fn save(network: &Network, parameters: &Parameters, task: &Task, path: &Path) -> Result<()> {
        let mut metadata = Metadata::new();
        metadata.insert("format".into(), FORMAT.into());
        metadata.insert("network".into(), to_json("network", &network.config(), path)?);
        metadata.insert("task".into(), to_json("task", task, path)?);
        let weights = named_weights(parameters)?;
        let views: Vec<(&str, View<'_>)> = weights
            .iter()
            .filter_map(|(name, shape, values)| Some((name.as_str(), View::f32(shape, values)?)))
            .collect();
        safetensors::write(path, &views, &metadata)
    }
}

/// A value of a checkpoint's metadata, called `key`, as text.
///
/// # Errors
/// [`Error::Data`] naming `path`; no value of the engine's makes it so.
pub fn to_json(key: &str, value: &impl serde::Serialize, path: &Path) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::data(path, format!("cannot store its {key} ({error})"), "report this"))
}

/// A network of the given configuration with the weights in an official `.pt` (or any other checkpoint of it), which says
/// neither configuration nor task itself.
///
/// # Errors
/// An unreadable file, one of another network, or no memory.
pub fn load_official(device: &Device, path: &Path, config: NetworkConfig, task: Task) -> Result<Model> {
    let mut parameters = Parameters::new(device);
    let network = Network::new(&config, &mut parameters, &mut Rng::new(0))?;
    load_weights(&mut parameters, path)?;
    Ok(Model { network, parameters, task })
}
