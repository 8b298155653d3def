//! Between the engine's checkpoints and what PyTorch holds: the same names, and the same shapes and types as there.

use super::model::{AVERAGE, COURSE};
use super::{Array, Checkpoint, Data, StateDict};
use crate::models::{Architecture, NetworkConfig, UNetConfig};

/// The state dictionary that PyTorch has of the network in `checkpoint`: averaged weights in the place of those that have
/// averages, nothing of the run, counts of batches as 64-bit integers, and in 2D kernels without an axis of length 1.
pub fn to_torch(checkpoint: Checkpoint) -> StateDict {
    let stored = checkpoint.metadata.get("network").and_then(|text| serde_json::from_str::<NetworkConfig>(text).ok());
    let planar = stored.is_some_and(|config| config.supervision().slice_axis().is_some());
    let state = with_averages(checkpoint.state);
    let own = state.into_iter().filter(|(name, _)| !COURSE.iter().any(|prefix| name.starts_with(prefix)));
    own.map(|(name, array)| {
        let array = if name.ends_with("num_batches_tracked") { counted(array) } else { array };
        let array = if planar { flattened(array) } else { array };
        (name, array)
    })
    .collect()
}

/// The state with each weight that has a moving average replaced by it.
pub(super) fn with_averages(state: StateDict) -> StateDict {
    let averages: Vec<(String, Array)> = state
        .iter()
        .filter_map(|(name, array)| Some((name.strip_prefix(AVERAGE)?.to_owned(), array.clone())))
        .collect();
    let mut state: StateDict = state.into_iter().filter(|(name, _)| !name.starts_with(AVERAGE)).collect();
    for (name, array) in averages {
        state.insert(name, array);
    }
    state
}

/// A count as PyTorch stores it.
fn counted(array: Array) -> Array {
    let counts = array.to_f32().iter().map(|&count| count as i64).collect();
    Array::new(array.shape(), Data::I64(counts)).unwrap_or(array)
}

/// A kernel `[outputs, inputs, 1, H, W]` as `[outputs, inputs, H, W]`; any other array as it is.
fn flattened(array: Array) -> Array {
    match *array.shape() {
        [outputs, inputs, 1, height, width] => {
            let shape = [outputs, inputs, height, width];
            Array::new(shape, array.data().clone()).unwrap_or(array)
        }
        _ => array,
    }
}

/// The configuration of a MONAI U-Net (`num_res_units=2`, strides 2) from the shapes of its weights; `None` if they are
/// not those of one.
pub fn unet_of(state: &StateDict) -> Option<UNetConfig> {
    let shape = |path: &str, layer: &str| state.get(&format!("{path}{layer}.conv.weight")).map(Array::shape);
    let (mut path, mut channels) = ("model".to_string(), Vec::new());
    while let Some(down) = shape(&path, ".0.conv.unit0") {
        channels.push(*down.first()?);
        path += ".1.submodule";
    }
    channels.push(*shape(&path, ".conv.unit0")?.first()?);
    let first = shape("model", ".0.conv.unit0")?;
    let last = shape("model", ".2.1.conv.unit0")?;
    let dimensions = match first {
        [_, _, 1, 3, 3] | [_, _, _, _] => 2,
        _ => 3,
    };
    let standard = UNetConfig::standard(dimensions, *first.get(1)?, *last.first()?);
    Some(UNetConfig { strides: vec![2; channels.len() - 1], channels, ..standard })
}
