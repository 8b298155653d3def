//! Launches of `max_pool_*` (`kernels/pool.cu`).

use super::PoolAxis;
use super::windows::PoolWindows;
use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::ops::cuda::axes::{self, VolumeWindows};
use crate::tensor::Tensor;

fn axes(axes: &[PoolAxis; 3]) -> VolumeWindows {
    axes.map(|axis| {
        let (kernel, stride) = match axis.windows() {
            PoolWindows::Fixed { kernel, stride } => (kernel, stride),
            PoolWindows::Adaptive { .. } => (0, 0),
        };
        axes::AxisWindows::new(axis.inputs, axis.outputs, kernel, stride)
    })
}

pub(super) fn forward(cuda: &Cuda, windows: &[PoolAxis; 3], x: &Tensor, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("max_pool_forward", x.dtype())
        .input(x)
        .output(y)
        .value(axes(windows))
        .value(x.channels() as u32)
        .value(len as u64)
        .launch(LaunchConfig::cover(len))
}

/// `places`: a word for each output.
pub(super) fn backward(
    cuda: &Cuda,
    windows: &[PoolAxis; 3],
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
        .launch(LaunchConfig::cover(dy.len()))?;
    let len = dx.len();
    cuda.kernel_of("max_pool_backward", dy.dtype())
        .input(places)
        .input(dy)
        .output(dx)
        .value(axes)
        .value(channels)
        .value(len as u64)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(len))
}
