//! Launches of `kernels/morphology.cu`.

use super::REACH;
use crate::device::{Cuda, Grid};
use crate::error::Result;
use crate::ops::morphology_cuda;
use crate::tensor::Tensor;

pub(super) fn border_map(cuda: &Cuda, label: &Tensor, map: &mut Tensor, scratch: &mut Tensor) -> Result<()> {
    let shape = [label.shape()[0], label.shape()[1], label.shape()[2]];
    cuda.kernel("sobel_edges")
        .input(label)
        .output(map)
        .value(shape.map(|side| side as u32))
        .value(label.len() as u64)
        .launch(Grid::cover(label.len()))?;
    morphology_cuda::dilate(cuda, shape, REACH, map, scratch)
}
