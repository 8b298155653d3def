//! Launches of `kernels/softmax.cu`.

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// `y = 1/(1 + e^−x)`.
pub(super) fn forward(cuda: &Cuda, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let len = x.len();
    cuda.kernel("sigmoid").input(x).output(y).value(len as u64).launch(LaunchConfig::cover(len.div_ceil(4)))
}

/// `gradient *= y·(1 − y)`.
pub(super) fn backward(cuda: &Cuda, y: &Tensor, gradient: &mut Tensor) -> Result<()> {
    let len = y.len();
    let kernel = cuda.kernel("sigmoid_backward").input(y).output(gradient);
    kernel.value(len as u64).launch(LaunchConfig::cover(len.div_ceil(4)))
}
