//! The two backward passes.

use pulp::{Simd, WithSimd};

use super::{Argument, MEAN, NormArgs, OFFSET, SCALE, SLOPE, tiles, tiles_of};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::activation::{BoundActivation, CoefficientSums};
use crate::ops::simd;
use crate::ops::tiling_cpu::{CpuTiling, Piece, TILE};

/// Channels whose partial sums one thread adds up at a time.
const CHANNELS: usize = 64;

/// Floats that a piece leaves: two sums a channel, one a coefficient.
fn slot(layout: &CpuTiling, affine: bool, coefficients: usize) -> usize {
    coefficients + if affine { 2 * layout.width() } else { 0 }
}

/// Floats of the parts of the scratch: vectors' tiles; sums `Σ g` and `Σ g·(x − μ)` of each channel of each item; the
/// coefficients' gradients; what each piece leaves.
fn lengths(layout: &CpuTiling, affine: bool, coefficients: usize) -> [usize; 4] {
    let (tiles, sums) = if affine { (tiles(layout), 2 * layout.items * layout.channels) } else { (0, 0) };
    [tiles, sums, coefficients, layout.pieces() * slot(layout, affine, coefficients)]
}

/// Floats of scratch that the backward pass needs.
pub(crate) fn workspace(layout: &CpuTiling, affine: bool, coefficients: usize) -> usize {
    lengths(layout, affine, coefficients).iter().sum()
}

/// The coefficients' gradients that [`first`] left in `scratch`, and whatever follows them.
pub(crate) fn coefficient_gradients<'a>(norm: &NormArgs<'_>, scratch: &'a [f32]) -> &'a [f32] {
    let [tiles, sums, ..] = lengths(&norm.layout, norm.is_affine(), 0);
    &scratch[tiles + sums..]
}

/// What the first pass reads.
#[derive(Clone, Copy)]
pub(crate) struct First<'a> {
    pub function: &'a BoundActivation,
    pub coefficients: usize,
    /// Empty if it is not needed.
    pub x: &'a [f32],
    /// Added before the activation.
    pub residual: Option<&'a [f32]>,
    /// The sums are wanted.
    pub sums: bool,
}

/// `g = dy·act'(v)`, the sums, and the coefficients' gradients. `dy` is in `g` unless given; without `g` the activation
/// is the identity and `dy` is `g`.
pub(crate) fn first(
    pool: &Pool,
    norm: &NormArgs<'_>,
    first: First<'_>,
    dy: Option<&[f32]>,
    g: Option<&mut [f32]>,
    scratch: &mut [f32],
) {
    let (layout, affine, coefficients) = (&norm.layout, norm.is_affine(), first.coefficients);
    let [tiles, sums, ..] = lengths(layout, affine, coefficients);
    let (tiles, scratch) = scratch.split_at_mut(tiles);
    let (sums, scratch) = scratch.split_at_mut(sums);
    let (totals, partials) = scratch.split_at_mut(coefficients);
    if affine {
        norm.fill(tiles);
    }
    if g.is_none() && !first.sums {
        return;
    }
    let slot = slot(layout, affine, coefficients);
    let tiles = &*tiles;
    let g = g.map(SharedMut::new);
    let shared = SharedMut::new(partials);
    pool.for_each(layout.pieces(), |index| {
        let piece = layout.piece(index);
        let vectors = affine.then(|| tiles_of(layout, tiles, piece));
        // SAFETY: each piece owns its slot.
        let partial = unsafe { shared.slice(index * slot, slot) };
        let argument = Argument { vectors, x: first.x, before: first.residual };
        pool.simd().dispatch(FirstPiece { first, argument, piece, dy, g, partial });
    });
    let partials = &*partials;
    for (k, total) in totals.iter_mut().enumerate() {
        let parts = partials.iter().skip(k).step_by(slot);
        *total = parts.map(|&part| f64::from(part)).sum::<f64>() as f32;
    }
    if first.sums {
        add_sums(pool, layout, coefficients, partials, sums);
    }
}

struct FirstPiece<'a> {
    first: First<'a>,
    argument: Argument<'a>,
    piece: Piece,
    dy: Option<&'a [f32]>,
    g: Option<SharedMut<'a, f32>>,
    partial: &'a mut [f32],
}

impl WithSimd for FirstPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { first, argument, piece, dy, g, partial } = self;
        let (mut v, mut sums, mut products) = ([0.0f32; TILE], [0.0f32; TILE], [0.0f32; TILE]);
        let mut coefficients = CoefficientSums::new();
        for block in piece.blocks() {
            let len = block.len();
            let g: &[f32] = match g {
                None => dy.map_or(&[], |dy| &dy[block.clone()]),
                Some(g) => {
                    // SAFETY: the blocks of all pieces are disjoint.
                    let g = unsafe { g.slice(block.start, len) };
                    if let Some(dy) = dy {
                        g.copy_from_slice(&dy[block.clone()]);
                    }
                    argument.write(simd, &block, &mut v[..len]);
                    first.function.differentiate(simd, &v[..len], g, &mut coefficients);
                    g
                }
            };
            if let Some(vectors) = argument.vectors.filter(|_| first.sums) {
                simd::zip(
                    simd,
                    [g, &first.x[block], &vectors[MEAN][..len]],
                    [&mut sums[..len], &mut products[..len]],
                    #[inline(always)]
                    |[g, x, mean], [sum, product]| {
                        [simd.add_f32s(sum, g), simd.mul_add_e_f32s(g, simd.sub_f32s(x, mean), product)]
                    },
                );
            }
        }
        let (of_coefficients, of_channels) = partial.split_at_mut(first.coefficients);
        coefficients.finish(of_coefficients);
        if first.sums {
            let (of_g, of_products) = of_channels.split_at_mut(of_channels.len() / 2);
            for (values, out) in [(&sums, of_g), (&products, of_products)] {
                for (channel, out) in out[..piece.width].iter_mut().enumerate() {
                    let rows = values[..piece.tile().len()].iter().skip(channel).step_by(piece.width);
                    *out = rows.map(|&value| f64::from(value)).sum::<f64>() as f32;
                }
            }
        }
    }
}

/// Sums over the pieces, in their order and in f64: `sums[item] = [Σ g; Σ g·(x − μ)]` by channel.
fn add_sums(pool: &Pool, layout: &CpuTiling, coefficients: usize, partials: &[f32], sums: &mut [f32]) {
    let (channels, width, slot) = (layout.channels, layout.width(), slot(layout, true, coefficients));
    let chunks = channels.div_ceil(CHANNELS);
    let sums = SharedMut::new(sums);
    pool.for_each(layout.items * 2 * chunks, |index| {
        let (item, rest) = (index / (2 * chunks), index % (2 * chunks));
        let (which, start) = (rest / chunks, rest % chunks * CHANNELS);
        let count = CHANNELS.min(channels - start);
        // SAFETY: each piece of work owns its channels of its sum.
        let out = unsafe { sums.slice((item * 2 + which) * channels + start, count) };
        for (channel, out) in (start..).zip(out) {
            let place = coefficients + which * width + channel % TILE;
            let parts = layout.pieces_with(item, channel).map(|piece| f64::from(partials[piece * slot + place]));
            *out = parts.sum::<f64>() as f32;
        }
    });
}

/// A sum of the first pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    /// `Σ g`: the gradient of the shift.
    Gradient,
    /// `Σ g·x̂`: the gradient of the scale.
    GradientTimesInput,
}

/// `Σ g` or `Σ g·x̂` of a channel of an item.
fn sum_of(norm: &NormArgs<'_>, sums: &[f32], sum: Sum, item: usize, channel: usize) -> f64 {
    let channels = norm.layout.channels;
    match sum {
        Sum::Gradient => f64::from(sums[2 * item * channels + channel]),
        Sum::GradientTimesInput => {
            f64::from(sums[(2 * item + 1) * channels + channel]) * norm.mean_and_scale(item, channel).1
        }
    }
}

/// The part of the scratch that holds the sums.
fn sums_of<'a>(norm: &NormArgs<'_>, scratch: &'a [f32]) -> &'a [f32] {
    let [tiles, sums, ..] = lengths(&norm.layout, norm.is_affine(), 0);
    &scratch[tiles..tiles + sums]
}

/// Gradient of the scale or the shift, `[C]` or `[items, C]`.
pub(crate) fn vector_gradient(norm: &NormArgs<'_>, sum: Sum, scratch: &[f32], out: &mut [f32], accumulate: bool) {
    let CpuTiling { items, channels, .. } = norm.layout;
    let sums = sums_of(norm, scratch);
    let shared = out.len() == channels;
    for (i, out) in out.iter_mut().enumerate() {
        let (item, channel) = (i / channels, i % channels);
        let of = if shared { 0..items } else { item..item + 1 };
        let total = of.map(|item| sum_of(norm, sums, sum, item, channel)).sum::<f64>() as f32;
        *out = if accumulate { *out + total } else { total };
    }
}

/// Where the second pass finds `g` and `x`; one of them lies where `dx` goes if it is not given.
#[derive(Clone, Copy)]
pub(crate) struct Second<'a> {
    pub g: Option<&'a [f32]>,
    pub x: Option<&'a [f32]>,
}

/// `dx (+)= SCALE·g [+ SLOPE·(x − μ) + OFFSET]`, the bracket if gradients flow through the statistics.
pub(crate) fn second(
    pool: &Pool,
    norm: &NormArgs<'_>,
    through: bool,
    source: Second<'_>,
    accumulate: bool,
    scratch: &mut [f32],
    dx: &mut [f32],
) {
    let layout = &norm.layout;
    if through {
        fill_offsets_and_slopes(norm, scratch);
    }
    let tiles = &scratch[..tiles(layout)];
    let dx = SharedMut::new(dx);
    pool.for_each(layout.pieces(), |index| {
        let piece = layout.piece(index);
        let vectors = tiles_of(layout, tiles, piece);
        pool.simd().dispatch(SecondPiece { vectors, through, source, accumulate, piece, dx });
    });
}

/// With means over the group: `OFFSET = −s·mean(γ·g)`, `SLOPE = −s²·mean(γ·g·x̂)`.
fn fill_offsets_and_slopes(norm: &NormArgs<'_>, scratch: &mut [f32]) {
    let Some((_, grouping)) = norm.statistics else { return };
    let CpuTiling { items, rows, channels, .. } = norm.layout;
    let [tiles, sums, ..] = lengths(&norm.layout, true, 0);
    let (tiles, rest) = scratch.split_at_mut(tiles);
    let sums = &rest[..sums];
    let mean = |group: usize, sum: Sum| -> f64 {
        let (of_items, of_channels) = grouping.members(group, items, channels);
        let count = of_items.len() * of_channels.len() * rows;
        let terms = of_items.flat_map(|item| of_channels.clone().map(move |channel| (item, channel)));
        let total: f64 = terms
            .map(|(item, channel)| f64::from(norm.gamma(item, channel)) * sum_of(norm, sums, sum, item, channel))
            .sum();
        total / count as f64
    };
    let mut last = None;
    let mut means = |group: usize| match last {
        // All channels of the one group share its means.
        Some((known, means)) if known == group => means,
        _ => {
            let means = (mean(group, Sum::Gradient), mean(group, Sum::GradientTimesInput));
            last = Some((group, means));
            means
        }
    };
    for item in 0..items {
        norm.write(tiles, item, OFFSET, |channel| {
            let s = norm.mean_and_scale(item, channel).1;
            (-s * means(grouping.group(item, channel, channels)).0) as f32
        });
        norm.write(tiles, item, SLOPE, |channel| {
            let s = norm.mean_and_scale(item, channel).1;
            (-s * s * means(grouping.group(item, channel, channels)).1) as f32
        });
    }
}

/// `SCALE·g + SLOPE·(x − MEAN) + OFFSET`.
#[inline(always)]
fn through_statistics<S: Simd>(simd: S, g: S::f32s, x: S::f32s, [mean, scale, slope, offset]: [S::f32s; 4]) -> S::f32s {
    let rest = simd.mul_add_e_f32s(simd.sub_f32s(x, mean), slope, offset);
    simd.mul_add_e_f32s(g, scale, rest)
}

struct SecondPiece<'a> {
    vectors: [&'a [f32]; super::VECTORS],
    through: bool,
    source: Second<'a>,
    accumulate: bool,
    piece: Piece,
    dx: SharedMut<'a, f32>,
}

impl WithSimd for SecondPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { vectors, through, source, accumulate, piece, dx } = self;
        let zero = simd.splat_f32s(0.0);
        for block in piece.blocks() {
            let len = block.len();
            // SAFETY: the blocks of all pieces are disjoint.
            let dx = unsafe { dx.slice(block.start, len) };
            let [mean, scale, slope, offset] = [MEAN, SCALE, SLOPE, OFFSET].map(|vector| &vectors[vector][..len]);
            match (through, source.g.map(|g| &g[block.clone()]), source.x.map(|x| &x[block.clone()])) {
                (false, None, _) => simd::zip(
                    simd,
                    [scale],
                    [dx],
                    #[inline(always)]
                    |[scale], [g]| [simd.mul_f32s(g, scale)],
                ),
                (false, Some(g), _) => simd::zip(
                    simd,
                    [g, scale],
                    [dx],
                    #[inline(always)]
                    |[g, scale], [dx]| [simd.mul_add_e_f32s(g, scale, if accumulate { dx } else { zero })],
                ),
                (true, None, x) => {
                    let x = x.expect("x is given if g is not");
                    simd::zip(
                        simd,
                        [x, mean, scale, slope, offset],
                        [dx],
                        #[inline(always)]
                        |[x, m, k, q, p], [g]| [through_statistics(simd, g, x, [m, k, q, p])],
                    );
                }
                (true, Some(g), None) => {
                    simd::zip(
                        simd,
                        [g, mean, scale, slope, offset],
                        [dx],
                        #[inline(always)]
                        |[g, m, k, q, p], [x]| [through_statistics(simd, g, x, [m, k, q, p])],
                    );
                }
                (true, Some(g), Some(x)) => {
                    simd::zip(
                        simd,
                        [g, x, mean, scale, slope, offset],
                        [dx],
                        #[inline(always)]
                        |[g, x, m, k, q, p], [dx]| {
                            let full = through_statistics(simd, g, x, [m, k, q, p]);
                            [if accumulate { simd.add_f32s(dx, full) } else { full }]
                        },
                    );
                }
            }
        }
    }
}
