//! The segmentation of one prepared scan.

use super::dense;
use crate::data::Labels;
use crate::device::Device;
use crate::error::Result;
use crate::models::Network;
use crate::nn::Parameters;
use crate::task::{Case, Task};

/// The labels that a network gives to a case, on the scan's own grid with the stored label values.
///
/// # Errors
/// No memory, or a case that does not fit the network.
pub fn segment(
    device: &Device,
    network: &Network,
    parameters: &Parameters,
    task: &Task,
    case: &Case,
) -> Result<Labels> {
    let volume = device.in_op("batch", || dense::volume_tensor(device, &[&case.volume]))?;
    let probabilities = dense::predict(network, parameters, &volume, 0)?;
    drop(volume);
    let classes = task.classify(&probabilities);
    let predicted = Labels { shape: case.volume.shape, voxels: classes, geometry: case.volume.geometry };
    task.preprocessing.restore_labels(&predicted, &case.way)
}
