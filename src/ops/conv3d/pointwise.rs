//! The convolution's passes on CUDA: where its kernel is a single voxel, without stride and padding, it is a linear layer over
//! voxels, whose weight lies in memory as the layer's; else those of [`cuda`].

use super::Sizes;
use super::cuda;
use crate::device::Cuda;
use crate::device::cudnn_desc::Pass;
use crate::error::Result;
use crate::ops::linear::{self, Dims};
use crate::tape::Precision;
use crate::tensor::Tensor;

/// The layer that the convolution is.
fn layer(sizes: &Sizes) -> Option<Dims> {
    let Sizes { in_channels: features, out_channels: outputs, window, .. } = *sizes;
    let alone = window.kernel == [1; 3] && window.stride == [1; 3] && window.padding == [0; 3];
    let rows = sizes.output_voxels();
    alone.then_some(Dims { rows, features, outputs, stride: features, first: 0, rows_per_bias: rows.max(1) })
}

/// Floats of scratch that [`forward`] needs.
pub(super) fn forward_workspace(sizes: &Sizes) -> usize {
    layer(sizes).map_or_else(|| cuda::forward_workspace(sizes), linear::cuda::forward_workspace)
}

/// `y = conv(x, weight) + bias`, of `[x, weight]`.
pub(super) fn forward(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    bias: Option<&Tensor>,
    y: &mut Tensor,
    scratch: &mut Tensor,
) -> Result<()> {
    match layer(sizes) {
        None => cuda::forward(cuda, (sizes, precision), operands, bias, y, false, scratch),
        Some(_) if cuda::by_cudnn(cuda, sizes, Pass::Forward, operands, bias, y, false)? => Ok(()),
        Some(dims) => linear::cuda::forward(cuda, (dims, precision), operands, bias, y, scratch),
    }
}

/// Floats of scratch that [`input_gradient`] needs.
pub(super) fn input_gradient_workspace(sizes: &Sizes) -> usize {
    layer(sizes).map_or_else(|| cuda::input_gradient_workspace(sizes), linear::cuda::input_gradient_workspace)
}

/// `dx (+)= convᵀ(dy, weight)`, of `[dy, weight]`.
pub(super) fn input_gradient(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    dx: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    match layer(sizes) {
        None => cuda::input_gradient(cuda, (sizes, precision), operands, None, dx, accumulate, scratch),
        Some(_) if cuda::by_cudnn(cuda, sizes, Pass::InputGradient, operands, None, dx, accumulate)? => Ok(()),
        Some(dims) => linear::cuda::input_gradient(cuda, (dims, precision), operands, dx, accumulate, scratch),
    }
}

/// Floats of scratch that [`weight_gradient`] needs.
pub(super) fn weight_gradient_workspace(sizes: &Sizes) -> usize {
    layer(sizes).map_or_else(
        || cuda::weight_gradient_workspace(sizes),
        |dims| linear::cuda::weight_gradient_workspace(dims, false),
    )
}

/// `dw (+)= Σ_voxel x·dy`, of `[x, dy]`.
pub(super) fn weight_gradient(
    cuda: &Cuda,
    (sizes, precision): (&Sizes, Precision),
    operands: [&Tensor; 2],
    dw: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    match layer(sizes) {
        None => cuda::weight_gradient(cuda, (sizes, precision), operands, dw, accumulate, scratch),
        Some(_) if cuda::by_cudnn(cuda, sizes, Pass::WeightGradient, operands, None, dw, accumulate)? => Ok(()),
        Some(dims) => linear::cuda::weight_gradient(cuda, (dims, precision), operands, (dw, accumulate), None, scratch),
    }
}
