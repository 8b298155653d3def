//! Launches of `kernels/softmax.cu`.

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// Lanes of a warp that share a row of `classes` classes.
pub(in crate::ops) fn span(classes: usize) -> usize {
    classes.next_power_of_two().min(32)
}

/// `y` of each row of `x`.
pub(super) fn forward(cuda: &Cuda, x: &Tensor, y: &mut Tensor) -> Result<()> {
    let (rows, classes) = (x.rows(), x.channels());
    let kernel = cuda.kernel("softmax").input(x).output(y).value(rows as u64).value(classes as u32);
    kernel.value(span(classes) as u32).launch(LaunchConfig::cover(rows * span(classes)))
}

/// `gradient = y·(gradient − Σ gradient·y)`.
pub(super) fn backward(cuda: &Cuda, y: &Tensor, gradient: &mut Tensor) -> Result<()> {
    let (rows, classes) = (y.rows(), y.channels());
    let kernel = cuda.kernel("softmax_backward").input(y).output(gradient).value(rows as u64).value(classes as u32);
    kernel.value(span(classes) as u32).launch(LaunchConfig::cover(rows * span(classes)))
}
