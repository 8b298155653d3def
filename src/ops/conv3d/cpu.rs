//! Convolution on the CPU: slices in, slices out. Each kernel's scratch is stated by its `…_workspace` function.

use super::correlation::Correlation;
use super::sizes::Sizes;
use super::{direct, weight_gradient as outer, winograd};
use crate::device::cpu::{Pool, SharedMut, SimdLevel};

/// Floats of scratch of [`correlate`].
fn correlation_workspace(correlation: &Correlation, simd: SimdLevel, threads: usize) -> usize {
    match winograd::suits(correlation) {
        true => winograd::workspace(correlation, threads),
        false => direct::workspace(&correlation.clone().folded(simd.lanes()), simd, threads),
    }
}

/// A correlation by whichever way is faster.
#[allow(clippy::too_many_arguments)]
fn correlate(
    pool: &Pool,
    correlation: &Correlation,
    kernel: [usize; 3],
    source: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    destination: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    match winograd::suits(correlation) {
        true => winograd::run(pool, correlation, source, weight, bias, destination, accumulate, scratch),
        false => {
            let correlation = correlation.clone().folded(pool.simd().lanes());
            direct::run(pool, &correlation, kernel, source, weight, bias, destination, accumulate, scratch)
        }
    }
}

/// Floats of scratch of [`forward`].
pub(crate) fn forward_workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    correlation_workspace(&Correlation::forward(sizes), simd, threads)
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
    let kernel = sizes.window.kernel;
    correlate(pool, &Correlation::forward(sizes), kernel, x, weight, bias, y, accumulate, scratch);
}

/// Floats of scratch of [`input_gradient`].
pub(crate) fn input_gradient_workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    correlation_workspace(&Correlation::adjoint(sizes), simd, threads)
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
    let kernel = sizes.window.kernel;
    correlate(pool, &Correlation::adjoint(sizes), kernel, dy, weight, bias, dx, accumulate, scratch);
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

/// `db (+)= Σ_voxel dy`: f32 sums over 64 terms, then over a piece, then pairwise over the pieces.
pub(crate) fn bias_gradient(
    pool: &Pool,
    channels: usize,
    dy: &[f32],
    db: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    /// Terms of one short sum.
    const SHORT: usize = 64;
    let pieces = dy.len().div_ceil(BIAS_PIECE * channels);
    let partials = SharedMut::new(scratch);
    pool.for_each(pieces, |piece| {
        // SAFETY: each piece owns one partial.
        let sums = unsafe { partials.slice(piece * channels, channels) };
        sums.fill(0.0);
        let dy = &dy[piece * BIAS_PIECE * channels..];
        let dy = &dy[..dy.len().min(BIAS_PIECE * channels)];
        // Few channels: several voxels at a time. Many: a few at a time, for sums that stay in registers.
        const COLUMNS: usize = 32;
        let width = (COLUMNS / channels).max(1) * channels;
        for first in (0..width).step_by(COLUMNS) {
            let count = COLUMNS.min(width - first);
            for block in dy.chunks(SHORT * width) {
                let mut short = [0.0f32; COLUMNS];
                for row in block.chunks(width) {
                    let row = &row[first..row.len().min(first + count)];
                    short.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
                short[..count].iter().enumerate().for_each(|(i, value)| sums[(first + i) % channels] += value);
            }
        }
    });
    outer::add_pairwise(pool, scratch, pieces, channels);
    for (i, value) in db.iter_mut().enumerate() {
        let sum = if pieces == 0 { 0.0 } else { scratch[i] };
        *value = if accumulate { *value + sum } else { sum };
    }
}
