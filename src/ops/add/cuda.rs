//! Launches of `kernels/elementwise.cu`.

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// `y = a + factor·b`.
pub(super) fn forward(cuda: &Cuda, a: &Tensor, b: &Tensor, factor: f32, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("add_scaled", y.dtype())
        .input(a)
        .input(b)
        .value(factor)
        .output(y)
        .value(len as u64)
        .launch(LaunchConfig::cover(len.div_ceil(4)))
}

/// `y (+)= factor·x`.
pub(super) fn scale(cuda: &Cuda, x: &Tensor, factor: f32, y: &mut Tensor, accumulate: bool) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("scale", y.dtype())
        .input(x)
        .value(factor)
        .output(y)
        .value(len as u64)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::cover(len.div_ceil(4)))
}
