//! Launch of `kernels/dropout.cu`.

use super::Mask;
use crate::device::{Cuda, Grid};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// `y = x·m/(1 − p)`; `x` is `y` itself unless given.
pub(super) fn apply(cuda: &Cuda, mask: Mask, x: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
    if mask.start > 0 {
        // The kernel counts words from the first element.
        let problem = "dropout in chunks of points has no CUDA kernel; use recompute level 0 or a dropout of 0";
        return Err(Error::Device(problem.into()));
    }
    let len = y.len();
    cuda.kernel("dropout")
        .value(x.map_or(y.address(), Tensor::address))
        .output(y)
        .value(len as u64)
        .value(mask.seed)
        .value(mask.stream)
        .value(mask.threshold)
        .value(mask.scale)
        .launch(Grid::cover(len.div_ceil(4)))
}
