//! Launches of `resize_*` (`kernels/resize.cu`).

use super::Corners;
use crate::device::{Cuda, Grid};
use crate::error::Result;
use crate::ops::volume_cuda::Axes;
use crate::tensor::Tensor;

pub(super) fn forward(cuda: &Cuda, axes: &Axes, corners: Corners, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel("resize_forward")
        .input(x)
        .output(y)
        .value(*axes)
        .value(x.channels() as u32)
        .value(len as u64)
        .value(u32::from(corners == Corners::Aligned))
        .launch(Grid::cover(len))
}

pub(super) fn backward(
    cuda: &Cuda,
    axes: &Axes,
    corners: Corners,
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
        .value(u32::from(corners == Corners::Aligned))
        .value(u32::from(accumulate))
        .launch(Grid::cover(len))
}
