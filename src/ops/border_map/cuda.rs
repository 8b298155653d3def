//! Launches of `kernels/morphology.cu`.

use super::REACH;
use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::ops::cuda::morphology;
use crate::tensor::Tensor;

pub(super) fn border_map(cuda: &Cuda, label: &Tensor, map: &mut Tensor, scratch: &mut Tensor) -> Result<()> {
    let shape = [label.shape()[0], label.shape()[1], label.shape()[2]];
    cuda.kernel("sobel_edges")
        .input(label)
        .output(map)
        .value(shape.map(|side| side as u32))
        .value(label.len() as u64)
        .launch(LaunchConfig::cover(label.len()))?;
    morphology::dilate(cuda, shape, REACH, map, scratch)
}
