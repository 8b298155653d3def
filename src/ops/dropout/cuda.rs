//! Launch of `kernels/dropout.cu`.

use super::Mask;
use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// `y = x·m/(1 − p)`; `x` is `y` itself unless given.
pub(super) fn apply(cuda: &Cuda, mask: Mask, x: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
    let len = y.len();
    cuda.kernel_of("dropout", y.dtype())
        .value(x.map_or(y.address(), Tensor::address))
        .output(y)
        .value(len as u64)
        .value(mask.start)
        .value(mask.seed)
        .value(mask.stream)
        .value(mask.threshold)
        .value(mask.scale)
        .launch(LaunchConfig::cover(len.div_ceil(4)))
}
