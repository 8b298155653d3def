//! A network out of a checkpoint, for inference and evaluation: weights by their official names, configuration, task.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use super::convert::with_averages;
use super::prefix::fitting;
use super::safetensors::Entry;
use super::{Checkpoint, Metadata, StateDict, safetensors, sound};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Architecture, Network, NetworkConfig};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::task::Task;

/// What precedes the name of a weight's moving average; it takes the weight's place in inference.
pub const AVERAGE: &str = "average.";

/// What precedes the names of tensors that only a run in training needs.
pub(super) const COURSE: [&str; 2] = [OPTIMIZER, AVERAGE];

/// What precedes the names of an optimiser's state.
const OPTIMIZER: &str = "optimizer.";

/// The budget of a plan that only asks what a network would hold.
const PLAN_BYTES: u64 = 1 << 60;

/// Letters of a foreign name that a message shows.
const LONGEST_NAME: usize = 40;

/// A network as inference needs it.
pub struct Model {
    /// The network.
    pub network: Box<dyn Network>,
    /// Its weights.
    pub parameters: Parameters,
    /// What it was trained for.
    pub task: Task,
}

/// Weights and running statistics under their official names.
pub fn weights(parameters: &Parameters) -> Vec<Entry<'_>> {
    let weights = parameters.iter().map(|parameter| {
        let value = parameter.value();
        Entry::f32(parameter.name().into(), value.shape().to_vec(), move || value.on_host())
    });
    let mut all: Vec<Entry<'_>> = weights.collect();
    for (name, value, updates) in parameters.buffers() {
        let Some(layer) = name.strip_suffix("running") else {
            all.push(Entry::f32(name.into(), value.shape().to_vec(), move || value.on_host()));
            continue;
        };
        let groups = value.len() / 2;
        for (k, ending) in ["running_mean", "running_var"].into_iter().enumerate() {
            let half = k * groups..(k + 1) * groups;
            all.push(Entry::f32(format!("{layer}{ending}"), vec![groups], move || {
                Ok(Cow::Owned(value.to_vec()?[half.clone()].to_vec()))
            }));
        }
        let count = move || Ok(Cow::Owned(vec![updates as f32]));
        all.push(Entry::f32(format!("{layer}num_batches_tracked"), Vec::new(), count));
    }
    all
}

/// Advice for weights that are not the network's.
const OTHER: &str = "it is a checkpoint of another model: name that model, or another checkpoint";

/// Official name and shape of each weight and running statistic; no values are looked at.
fn expected(parameters: &Parameters) -> Vec<(String, Vec<usize>)> {
    let mut expected: Vec<(String, Vec<usize>)> =
        parameters.iter().map(|parameter| (parameter.name().into(), parameter.value().shape().to_vec())).collect();
    for (name, value, _) in parameters.buffers() {
        match name.strip_suffix("running") {
            Some(layer) => {
                let groups = vec![value.channels()];
                expected.push((format!("{layer}running_mean"), groups.clone()));
                expected.push((format!("{layer}running_var"), groups));
                expected.push((format!("{layer}num_batches_tracked"), Vec::new()));
            }
            None => expected.push((name.into(), value.shape().to_vec())),
        }
    }
    expected
}

/// Checks that a state has what `parameters` hold, of those shapes, and nothing else but what belongs to a run.
fn check(parameters: &Parameters, state: &StateDict, path: &Path) -> Result<()> {
    let expected = expected(parameters);
    for (name, shape) in &expected {
        let array = state.get(name).ok_or_else(|| Error::data(path, format!("lacks {name}"), OTHER))?;
        if array.shape() != shape && array.shape() != planar(shape) {
            let problem = format!("has {name} of shape {:?}, the model {shape:?}", array.shape());
            return Err(Error::data(path, problem, OTHER));
        }
    }
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let of_run = |name: &str| COURSE.iter().any(|own| name.starts_with(own));
    match state.iter().map(|(name, _)| name).find(|name| !known.contains(name) && !of_run(name)) {
        None => sound::check(state, path),
        Some(odd) => Err(Error::data(path, format!("has {}, which the model lacks", odd.escape_debug()), OTHER)),
    }
}

/// Fills weights and running statistics from a state dictionary of official names.
///
/// # Errors
/// [`Error::Data`] naming `path` if one is missing, of another shape, unknown, or cannot be right ([`sound::check`]).
pub fn fill(parameters: &mut Parameters, state: &StateDict, path: &Path) -> Result<()> {
    check(parameters, state, path)?;
    let array = |name: &str| {
        let array = state.get(name).ok_or_else(|| Error::data(path, format!("lacks {name}"), OTHER))?;
        Ok::<_, Error>(array.to_f32().into_owned())
    };
    for parameter in parameters.iter_mut() {
        let values = array(parameter.name())?;
        parameter.value_and_gradient().0.write(&values)?;
    }
    for (name, value, updates) in parameters.buffers_mut() {
        match name.strip_suffix("running") {
            Some(layer) => {
                let (mean, variance) =
                    (array(&format!("{layer}running_mean"))?, array(&format!("{layer}running_var"))?);
                value.write(&[mean, variance].concat())?;
                *updates = array(&format!("{layer}num_batches_tracked"))?.first().map_or(0, |&count| count as u64);
            }
            None => value.write(&array(name)?)?,
        }
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
    let state = unwrapped(parameters, super::load(path)?.state);
    fill(parameters, &state, path)
}

/// The part of `state` that has a network's names, without what stands before all of them.
fn unwrapped(parameters: &Parameters, state: StateDict) -> StateDict {
    fitting(state, |state| parameters.iter().all(|parameter| state.get(parameter.name()).is_some()))
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
        super::CheckpointFormat::Safetensors => Ok(config_of(&checkpoint, path)?.is_reference()),
    }
}

/// What a checkpoint says its network is, if the crate has a name for it.
///
/// # Errors
/// [`Error::Data`] if it says nothing, or a network that only the program knows that made the file.
pub fn config_of(checkpoint: &Checkpoint, path: &Path) -> Result<NetworkConfig> {
    let stored = checkpoint.metadata.get("network").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let name = stored.as_ref().and_then(|stored| stored.get("architecture")?.as_str());
    match name.filter(|name| !NetworkConfig::ARCHITECTURES.contains(name)) {
        Some(name) => {
            let name: String = name.escape_debug().take(LONGEST_NAME).collect();
            let problem = format!("holds a network that ossnet has no name for ({name})");
            Err(Error::data(path, problem, "use the program that made it, or another checkpoint"))
        }
        None => entry(checkpoint, "network", path),
    }
}

/// The network that a checkpoint of this program says it holds; no weight is read.
///
/// # Errors
/// An unreadable file, or one that does not say its network.
pub fn network_of(path: &Path) -> Result<NetworkConfig> {
    config_of(&super::load_wanted(path, &|_| false)?, path)
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
    of(device, super::load_wanted(path, &|name| !name.starts_with(OPTIMIZER))?, path)
}

/// The same of a checkpoint that has been read, from `path`.
///
/// # Errors
/// As for [`load`].
pub fn of(device: &Device, checkpoint: Checkpoint, path: &Path) -> Result<Model> {
    let config = config_of(&checkpoint, path)?;
    let task: Task = entry(&checkpoint, "task", path)?;
    built(device, &config, task, with_averages(checkpoint.state), path)
}

/// Your own network with its weights and its task, from a checkpoint that [`Model::save`] or
/// [`training_state::save`](crate::train::training_state::save) made of it.
///
/// # Errors
/// As for [`load`], and a file of another network than `architecture` describes.
pub fn load_as(device: &Device, architecture: &dyn Architecture, path: &Path) -> Result<Model> {
    let checkpoint = super::load_wanted(path, &|name| !name.starts_with(OPTIMIZER))?;
    let own = architecture.to_json().map_err(|error| unstored("network", &error, path))?;
    if entry::<Value>(&checkpoint, "network", path)? != serde_json::from_str::<Value>(&own).unwrap_or_default() {
        let problem = format!("holds another network than {}", architecture.title());
        return Err(Error::data(
            path,
            problem,
            "describe the network that it was saved from, or give another checkpoint",
        ));
    }
    let task: Task = entry(&checkpoint, "task", path)?;
    built(device, architecture, task, with_averages(checkpoint.state), path)
}

/// The network of a configuration and a task that nobody has vouched for, with the weights of `state`. Memory is taken only
/// for weights that are there.
fn built(device: &Device, architecture: &dyn Architecture, task: Task, state: StateDict, path: &Path) -> Result<Model> {
    let unusable = |error: Error| match error {
        Error::Model(problem) | Error::Usage(problem) => {
            Error::data(path, format!("describes no usable network: {problem}"), "use another checkpoint")
        }
        other => other,
    };
    architecture.check().map_err(unusable)?;
    task.fits(architecture).map_err(unusable)?;
    let mut planned = Parameters::new(&Device::plan_for(device.target(), PLAN_BYTES));
    architecture.build(&mut planned, &mut Rng::new(0))?;
    let state = unwrapped(&planned, state);
    check(&planned, &state, path)?;
    let mut parameters = Parameters::new(device);
    let network = architecture.build(&mut parameters, &mut Rng::new(0))?;
    fill(&mut parameters, &state, path)?;
    Ok(Model { network, parameters, task })
}

impl Model {
    /// Writes a checkpoint that inference and [`load`] take, without the state of a run.
    ///
    /// # Errors
    /// A full disk or a folder that refuses.
    pub fn save(network: &dyn Network, parameters: &Parameters, task: &Task, path: &Path) -> Result<()> {
        let mut metadata = Metadata::new();
        metadata.insert("network".into(), network_json(network, path)?);
        metadata.insert("task".into(), to_json("task", task, path)?);
        safetensors::write_entries(path, &weights(parameters), &metadata)
    }
}

/// A value of a checkpoint's metadata, called `key`, as text.
///
/// # Errors
/// [`Error::Data`] naming `path`; no value of the engine's makes it so.
pub fn to_json(key: &str, value: &impl serde::Serialize, path: &Path) -> Result<String> {
    serde_json::to_string(value).map_err(|error| unstored(key, &error, path))
}

/// The network's configuration as a checkpoint at `path` stores it.
///
/// # Errors
/// As for [`to_json`].
pub fn network_json(network: &dyn Network, path: &Path) -> Result<String> {
    network.architecture().to_json().map_err(|error| unstored("network", &error, path))
}

fn unstored(key: &str, error: &serde_json::Error, path: &Path) -> Error {
    Error::data(path, format!("cannot store its {key} ({error})"), "report this")
}

/// A network of the given configuration with the weights in an official `.pt` (or any other checkpoint of it), which says
/// neither configuration nor task itself.
///
/// # Errors
/// An unreadable file, one of another network, or no memory.
pub fn load_official(device: &Device, path: &Path, config: NetworkConfig, task: Task) -> Result<Model> {
    built(device, &config, task, super::load(path)?.state, path)
}
