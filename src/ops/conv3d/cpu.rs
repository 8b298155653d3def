//! Convolution on the CPU: slices in, slices out. Each kernel's scratch is stated by its `…_workspace` function.

use super::correlation::Correlation;
use super::sizes::Sizes;
use super::{direct, weight_gradient as outer};
use crate::device::cpu::{Pool, SharedMut, SimdLevel};

/// Floats of scratch of [`forward`].
pub(crate) fn forward_workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    direct::workspace(&Correlation::forward(sizes), simd, threads)
}

/// `y (+)= conv(x, weight)`, plus `bias` (which is ignored when accumulating).
#[allow(clippy::too_many_arguments)]
pub(crate) fn forward(
    pool: &Pool,
    sizes: &Sizes,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let correlation = Correlation::forward(sizes);
    direct::run(pool, &correlation, sizes.window.kernel, x, weight, bias, y, accumulate, scratch);
}

/// Floats of scratch of [`input_gradient`].
pub(crate) fn input_gradient_workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    direct::workspace(&Correlation::adjoint(sizes), simd, threads)
}

/// `dx (+)= convᵀ(dy, weight)`, plus `bias` (for the transposed convolution; ignored when accumulating).
#[allow(clippy::too_many_arguments)]
pub(crate) fn input_gradient(
    pool: &Pool,
    sizes: &Sizes,
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    dx: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let correlation = Correlation::adjoint(sizes);
    direct::run(pool, &correlation, sizes.window.kernel, dy, weight, bias, dx, accumulate, scratch);
}

/// Floats of scratch of [`weight_gradient`].
pub(crate) fn weight_gradient_workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    outer::workspace(sizes, simd, threads)
}

/// `dw (+)= Σ_voxel x·dy`.
pub(crate) fn weight_gradient(
    pool: &Pool,
    sizes: &Sizes,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    outer::run(pool, sizes, x, dy, dw, accumulate, scratch);
}

/// Voxels of one piece of a bias gradient.
const BIAS_PIECE: usize = 4096;

/// Floats of scratch of [`bias_gradient`].
pub(crate) fn bias_gradient_workspace(voxels: usize, channels: usize) -> usize {
    voxels.div_ceil(BIAS_PIECE) * channels
}

/// `db (+)= Σ_voxel dy`: f32 sums over 64 voxels, then over a piece, then pairwise over the pieces.
pub(crate) fn bias_gradient(
    pool: &Pool,
    channels: usize,
    dy: &[f32],
    db: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    /// Voxels of one short sum.
    const SHORT: usize = 64;
    let pieces = dy.len().div_ceil(BIAS_PIECE * channels);
    let partials = SharedMut::new(scratch);
    pool.for_each(pieces, |piece| {
        // SAFETY: each piece owns one partial.
        let sums = unsafe { partials.slice(piece * channels, channels) };
        sums.fill(0.0);
        let dy = &dy[piece * BIAS_PIECE * channels..];
        let dy = &dy[..dy.len().min(BIAS_PIECE * channels)];
        // A few channels at a time, for sums that stay in registers.
        const CHANNELS: usize = 32;
        for first in (0..channels).step_by(CHANNELS) {
            let count = CHANNELS.min(channels - first);
            for block in dy.chunks(SHORT * channels) {
                let mut short = [0.0f32; CHANNELS];
                for voxel in block.chunks_exact(channels) {
                    short[..count].iter_mut().zip(&voxel[first..first + count]).for_each(|(sum, value)| *sum += value);
                }
                sums[first..first + count].iter_mut().zip(&short).for_each(|(sum, value)| *sum += value);
            }
        }
    });
    outer::add_pairwise(pool, scratch, pieces, channels);
    for (i, value) in db.iter_mut().enumerate() {
        let sum = if pieces == 0 { 0.0 } else { scratch[i] };
        *value = if accumulate { *value + sum } else { sum };
    }
}
