//! Launches of `max_pool_*` (`kernels/pool.cu`).

use super::Axis;
use super::windows::Windows;
use crate::device::{Cuda, Grid};
use crate::error::Result;
use crate::ops::volume_cuda::{self, Axes};
use crate::tensor::Tensor;

fn axes(axes: &[Axis; 3]) -> Axes {
    axes.map(|axis| {
        let (kernel, stride) = match axis.windows() {
            Windows::Fixed { kernel, stride } => (kernel, stride),
            Windows::Adaptive { .. } => (0, 0),
        };
        volume_cuda::Axis::new(axis.inputs, axis.outputs, kernel, stride)
    })
}

pub(super) fn forward(cuda: &Cuda, windows: &[Axis; 3], x: &Tensor, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("max_pool_forward", x.dtype())
        .input(x)
        .output(y)
        .value(axes(windows))
        .value(x.channels() as u32)
        .value(len as u64)
        .launch(Grid::cover(len))
}

/// `places`: a word for each output.
pub(super) fn backward(
    cuda: &Cuda,
    windows: &[Axis; 3],
    [x, dy]: [&Tensor; 2],
    dx: &mut Tensor,
    accumulate: bool,
    places: &mut Tensor,
) -> Result<()> {
    let (axes, channels) = (axes(windows), x.channels() as u32);
    cuda.kernel_of("max_pool_places", x.dtype())
        .input(x)
        .output(places)
        .value(axes)
        .value(channels)
        .value(dy.len() as u64)
        .launch(Grid::cover(dy.len()))?;
    let len = dx.len();
    cuda.kernel_of("max_pool_backward", dy.dtype())
        .input(places)
        .input(dy)
        .output(dx)
        .value(axes)
        .value(channels)
        .value(len as u64)
        .value(u32::from(accumulate))
        .launch(Grid::cover(len))
}
