//! Launches of `resize_*` (`kernels/resize.cu`).

use super::AlignCorners;
use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::ops::cuda::axes::VolumeWindows;
use crate::tensor::Tensor;

pub(super) fn forward(
    cuda: &Cuda,
    axes: &VolumeWindows,
    corners: AlignCorners,
    x: &Tensor,
    y: &mut Tensor,
) -> Result<()> {
    let len = y.len();
    cuda.kernel("resize_forward")
        .input(x)
        .output(y)
        .value(*axes)
        .value(x.channels() as u32)
        .value(len as u64)
        .value(u32::from(corners == AlignCorners::Aligned))
        .launch(LaunchConfig::cover(len))
}

pub(super) fn backward(
    cuda: &Cuda,
    axes: &VolumeWindows,
    corners: AlignCorners,
    dy: &Tensor,
    dx: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let len = dx.len();
    cuda.kernel("resize_backward")
        .input(dy)
        .output(dx)
        .value(*axes)
        .value(dy.channels() as u32)
        .value(len as u64)
        .value(u32::from(corners == AlignCorners::Aligned))
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(len))
}
