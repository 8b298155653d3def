//! Launches of `fourier_*` (`kernels/layout.cu`).

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// `y = [cos 2πc·b | sin 2πc·b]`.
pub(super) fn forward(cuda: &Cuda, c: &Tensor, b: &Tensor, y: &mut Tensor) -> Result<()> {
    cuda.kernel("fourier_forward")
        .input(c)
        .input(b)
        .output(y)
        .value(c.rows() as u64)
        .value(c.channels() as u32)
        .value(b.channels() as u32)
        .launch(LaunchConfig::cover(c.rows() * b.channels()))
}

/// The gradient of the coordinates.
pub(super) fn backward(cuda: &Cuda, [c, b, dy]: [&Tensor; 3], dc: &mut Tensor, accumulate: bool) -> Result<()> {
    cuda.kernel("fourier_backward")
        .input(c)
        .input(b)
        .input(dy)
        .output(dc)
        .value(c.rows() as u64)
        .value(c.channels() as u32)
        .value(b.channels() as u32)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(c.len()))
}
