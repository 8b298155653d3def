//! Copies of columns on CUDA (`kernels/layout.cu`), for the ops that only move elements.

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Columns of a row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Distance between rows, in elements.
    pub(crate) stride: usize,
    /// First column.
    pub(crate) first: usize,
}

/// `to[r, to.first + c] (+)= from[r, from.first + c]`, each in its storage type, for `r < rows`, `c < width`.
pub(crate) fn copy(
    cuda: &Cuda,
    (source, from): (&Tensor, Columns),
    (target, to): (&mut Tensor, Columns),
    [rows, width]: [usize; 2],
    accumulate: bool,
) -> Result<()> {
    if rows * width == 0 {
        return Ok(());
    }
    cuda.kernel(match (source.dtype(), target.dtype()) {
        (DType::Bf16, DType::Bf16) => "copy_columns_bf16",
        (DType::Bf16, _) => "copy_columns_from_bf16",
        (_, DType::Bf16) => "copy_columns_to_bf16",
        _ => "copy_columns",
    })
    .input_from(source, from.first)
    .value(from.stride as u64)
    .output_from(target, to.first)
    .value(to.stride as u64)
    .value(width as u64)
    .value(rows as u64)
    .value(u32::from(accumulate))
    .launch(LaunchConfig::cover(rows * width))
}
