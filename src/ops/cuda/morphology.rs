//! Dilation on CUDA (`kernels/morphology.cu`).

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// Replaces each element of `mask` (bytes 0 or 1, `[X, Y, Z]`) by the largest within `radius` along all three axes.
pub(crate) fn dilate(
    cuda: &Cuda,
    shape: [usize; 3],
    radius: usize,
    mask: &mut Tensor,
    scratch: &mut Tensor,
) -> Result<()> {
    along(cuda, shape, 2, radius, mask, scratch)?;
    along(cuda, shape, 1, radius, scratch, mask)?;
    along(cuda, shape, 0, radius, mask, scratch)?;
    mask.copy_from(scratch)
}

fn along(cuda: &Cuda, shape: [usize; 3], axis: usize, radius: usize, from: &Tensor, to: &mut Tensor) -> Result<()> {
    let (len, stride) = (from.len(), shape[axis + 1..].iter().product::<usize>());
    cuda.kernel("dilate_axis")
        .input(from)
        .output(to)
        .value(shape[axis] as u32)
        .value(stride as u64)
        .value(radius.min(shape[axis]) as u32)
        .value(len as u64)
        .launch(LaunchConfig::cover(len))
}
