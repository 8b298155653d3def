//! Launches of `avg_pool_*` (`kernels/pool.cu`).

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::ops::cuda::axes::VolumeWindows;
use crate::tensor::Tensor;

pub(super) fn forward(cuda: &Cuda, axes: &VolumeWindows, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("avg_pool_forward", x.dtype())
        .input(x)
        .output(y)
        .value(*axes)
        .value(x.channels() as u32)
        .value(len as u64)
        .launch(LaunchConfig::cover(len))
}

pub(super) fn backward(
    cuda: &Cuda,
    axes: &VolumeWindows,
    dy: &Tensor,
    dx: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let len = dx.len();
    cuda.kernel_of("avg_pool_backward", dy.dtype())
        .input(dy)
        .output(dx)
        .value(*axes)
        .value(dy.channels() as u32)
        .value(len as u64)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(len))
}
