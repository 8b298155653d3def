//! The op on the CPU, in blocks that stay in the first-level cache.
//!
//! Forward a piece is a few rows of windows, each of four rows of voxels. Backward it is a stretch of voxels in their order, as of
//! [`norm_act`](crate::ops::norm_act()): it sums in f32 what it sees of each channel; an item's pieces are added up in f64, in
//! their order, and the items' sums, which a batch of volumes would have had one by one, in f32.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{SIDE, Volume};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::activation::{BoundActivation, CoefficientSums};
use crate::ops::norm_act::cpu::{Argument, MEAN, NormArgs, SCALE, VECTORS};
use crate::ops::simd;
use crate::ops::tiling_cpu::{CpuTiling, Piece, TILE};

/// Most channels: two voxels are a block at least.
pub(super) const CHANNELS: usize = TILE / SIDE;

/// Elements that a forward piece has at least, if there are as many.
const PIECE: usize = 1 << 14;

/// A voxel's share of its window.
const SHARE: f32 = 1.0 / (SIDE * SIDE * SIDE) as f32;

/// `dx`'s slope in `x − μ`, and its constant part, behind mean, scale and shift.
const SLOPE: usize = 3;
const OFFSET: usize = 4;

impl Volume {
    /// Voxels of an item.
    fn item(&self) -> usize {
        self.sides.iter().product()
    }

    /// How an item is cut for the backward passes.
    fn layout(&self) -> CpuTiling {
        CpuTiling::new(1, self.item(), self.channels)
    }

    /// Elements of an item of the result.
    fn pooled_item(&self) -> usize {
        self.pooled().iter().product::<usize>() * self.channels
    }

    /// Rows of windows.
    fn lines(&self) -> usize {
        let [planes, lines, _] = self.pooled();
        self.batch * planes * lines
    }

    fn lines_of_piece(&self) -> usize {
        (PIECE / (SIDE * SIDE * self.sides[2] * self.channels)).max(1)
    }

    /// Where a line's rows of voxels begin, as elements.
    fn rows(&self, line: usize) -> [usize; SIDE * SIDE] {
        let ([planes, lines, _], [d, h, w]) = (self.pooled(), self.sides);
        let (item, plane, line) = (line / lines / planes, line / lines % planes, line % lines);
        std::array::from_fn(|m| {
            let at = [plane * SIDE + m / SIDE, line * SIDE + m % SIDE];
            ((item * d + at[0]) * h + at[1]) * w * self.channels
        })
    }

    /// Floats of the parts of the scratch of a backward pass: vectors' tiles; `Σ g`, then `Σ g·x̂` of each channel; the
    /// coefficients' gradients; what each piece leaves.
    fn lengths(&self, coefficients: usize) -> [usize; 4] {
        let sums = 2 * self.channels;
        [tiles(self), sums, coefficients, self.batch * self.layout().pieces() * (sums + coefficients)]
    }

    /// `dy/8` of the voxels of a block of an item whose windows' gradients are `dy`; zeros beyond the windows.
    #[inline(always)]
    fn spread<S: Simd>(&self, simd: S, dy: &[f32], block: &Range<usize>, d: &mut [f32]) {
        let ([_, h, w], pooled, channels) = (self.sides, self.pooled(), self.channels);
        let share = simd.splat_f32s(SHARE);
        let mut voxel = block.start / channels;
        let mut rest = d;
        while !rest.is_empty() {
            let (x, row) = (voxel % w, voxel / w);
            let (y, z) = (row % h / SIDE, row / h / SIDE);
            let run = (w - x).min(rest.len() / channels);
            let (own, behind) = rest.split_at_mut(run * channels);
            let whole = if z < pooled[0] && y < pooled[1] { pooled[2] * SIDE } else { 0 };
            for (x, d) in (x..).zip(own.chunks_exact_mut(channels)) {
                if x >= whole {
                    d.fill(0.0);
                    continue;
                }
                let at = ((z * pooled[1] + y) * pooled[2] + x / SIDE) * channels;
                simd::zip(
                    simd,
                    [&dy[at..at + channels]],
                    [d],
                    #[inline(always)]
                    |[dy], _| [simd.mul_f32s(dy, share)],
                );
            }
            (voxel, rest) = (voxel + run, behind);
        }
    }
}

/// Floats of the vectors' tiles.
pub(super) fn tiles(volume: &Volume) -> usize {
    (OFFSET + 1) * volume.layout().tile()
}

/// Floats of scratch that the backward pass needs.
pub(super) fn backward_workspace(volume: &Volume, coefficients: usize) -> usize {
    volume.lengths(coefficients).iter().sum()
}

/// The vectors of a block's argument.
fn vectors<'a>(volume: &Volume, tiles: &'a [f32]) -> [&'a [f32]; VECTORS] {
    let tile = volume.layout().tile();
    std::array::from_fn(|vector| &tiles[vector * tile..][..tile])
}

/// `y`. `scratch` has [`tiles`] floats.
pub(super) fn forward(
    pool: &Pool,
    volume: &Volume,
    norm: &NormArgs<'_>,
    function: &BoundActivation,
    x: &[f32],
    scratch: &mut [f32],
    y: &mut [f32],
) {
    norm.fill(scratch);
    let argument = Argument { vectors: Some(vectors(volume, scratch)), x, before: None };
    let (each, y) = (volume.lines_of_piece(), SharedMut::new(y));
    pool.for_each(volume.lines().div_ceil(each), |piece| {
        let lines = piece * each..((piece + 1) * each).min(volume.lines());
        pool.simd().dispatch(Forward { volume, argument, lines, function, y });
    });
}

struct Forward<'a> {
    volume: &'a Volume,
    argument: Argument<'a>,
    lines: Range<usize>,
    function: &'a BoundActivation,
    y: SharedMut<'a, f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, argument, lines, function, y } = self;
        let (channels, windows) = (volume.channels, volume.pooled()[2]);
        // Windows of a block.
        let block = TILE / channels / SIDE;
        let share = simd.splat_f32s(SHARE);
        let mut v = [0.0f32; TILE];
        for line in lines {
            let rows = volume.rows(line);
            for first in (0..windows).step_by(block) {
                let count = block.min(windows - first);
                // SAFETY: lines have rows of the result of their own.
                let y = unsafe { y.slice((line * windows + first) * channels, count * channels) };
                y.fill(0.0);
                let v = &mut v[..count * SIDE * channels];
                for row in rows {
                    let start = row + first * SIDE * channels;
                    argument.write(simd, &(start..start + v.len()), v);
                    function.apply(simd, v);
                    for (y, pair) in y.chunks_exact_mut(channels).zip(v.chunks_exact(SIDE * channels)) {
                        let (a, b) = pair.split_at(channels);
                        simd::zip(
                            simd,
                            [a, b],
                            [y],
                            #[inline(always)]
                            |[a, b], [y]| [simd.add_f32s(simd.add_f32s(y, a), b)],
                        );
                    }
                }
                simd::zip(
                    simd,
                    [],
                    [y],
                    #[inline(always)]
                    |[], [y]| [simd.mul_f32s(y, share)],
                );
            }
        }
    }
}

/// The sums of `[x, dy]`, with an activation that has so many coefficients.
pub(super) fn first(
    pool: &Pool,
    volume: &Volume,
    norm: &NormArgs<'_>,
    (function, coefficients): (&BoundActivation, usize),
    [x, dy]: [&[f32]; 2],
    scratch: &mut [f32],
) {
    let [tiles, sums, of_coefficients, _] = volume.lengths(coefficients);
    let (tiles, scratch) = scratch.split_at_mut(tiles);
    norm.fill(tiles);
    let (totals, partials) = scratch.split_at_mut(sums + of_coefficients);
    let (layout, slot) = (volume.layout(), totals.len());
    let (pieces, length) = (layout.pieces(), volume.item() * volume.channels);
    let (tiles, shared) = (&*tiles, SharedMut::new(partials));
    pool.for_each(volume.batch * pieces, |index| {
        let item = index / pieces;
        let x = &x[item * length..][..length];
        let dy = &dy[item * volume.pooled_item()..][..volume.pooled_item()];
        let argument = Argument { vectors: Some(vectors(volume, tiles)), x, before: None };
        // SAFETY: each piece owns its slot.
        let partial = unsafe { shared.slice(index * slot, slot) };
        pool.simd().dispatch(First { volume, argument, piece: layout.piece(index % pieces), function, dy, partial });
    });
    for (i, total) in totals.iter_mut().enumerate() {
        // Of products with x − μ become products with x̂.
        let products = (volume.channels..sums).contains(&i);
        let scale = if products { norm.mean_and_scale(0, i - volume.channels).1 } else { 1.0 };
        let items = partials.chunks_exact(pieces * slot).map(|item| {
            let sum = item.iter().skip(i).step_by(slot).map(|&part| f64::from(part)).sum::<f64>() as f32;
            (f64::from(sum) * scale) as f32
        });
        *total = items.reduce(|total, item| total + item).unwrap_or(0.0);
    }
}

struct First<'a> {
    volume: &'a Volume,
    argument: Argument<'a>,
    piece: Piece,
    function: &'a BoundActivation,
    dy: &'a [f32],
    partial: &'a mut [f32],
}

impl WithSimd for First<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, argument, piece, function, dy, partial } = self;
        let [mut v, mut g, mut sums, mut products] = [[0.0f32; TILE]; 4];
        let mut coefficients = CoefficientSums::new();
        let mean = argument.vectors.unwrap_or_default()[MEAN];
        for block in piece.blocks() {
            let len = block.len();
            volume.spread(simd, dy, &block, &mut g[..len]);
            argument.write(simd, &block, &mut v[..len]);
            function.differentiate(simd, &v[..len], &mut g[..len], &mut coefficients);
            simd::zip(
                simd,
                [&g[..len], &argument.x[block], &mean[..len]],
                [&mut sums[..len], &mut products[..len]],
                #[inline(always)]
                |[g, x, mean], [sum, product]| {
                    [simd.add_f32s(sum, g), simd.mul_add_e_f32s(g, simd.sub_f32s(x, mean), product)]
                },
            );
        }
        let (of_channels, of_coefficients) = partial.split_at_mut(2 * volume.channels);
        coefficients.finish(of_coefficients);
        for (values, out) in [sums, products].iter().zip(of_channels.chunks_exact_mut(volume.channels)) {
            for (channel, out) in out.iter_mut().enumerate() {
                let rows = values[..piece.tile().len()].iter().skip(channel).step_by(volume.channels);
                *out = rows.map(|&value| f64::from(value)).sum::<f64>() as f32;
            }
        }
    }
}

/// `Σ g`, then `Σ g·x̂`, of each channel, that [`first`] left in `scratch`: the gradients of shift and scale.
pub(super) fn channel_sums<'a>(volume: &Volume, scratch: &'a [f32]) -> [&'a [f32]; 2] {
    let (of_g, rest) = scratch[tiles(volume)..].split_at(volume.channels);
    [of_g, &rest[..volume.channels]]
}

/// The coefficients' gradients that [`first`] left in `scratch`, and whatever follows them.
pub(super) fn coefficient_sums<'a>(volume: &Volume, scratch: &'a [f32]) -> &'a [f32] {
    &scratch[tiles(volume) + 2 * volume.channels..]
}

/// Where the second pass finds `x`, in `dx` unless it is given, and `dy`; and what becomes of them.
pub(super) struct Flow<'a> {
    pub x: Option<&'a [f32]>,
    pub dy: &'a [f32],
    /// Gradients flow through the statistics, too.
    pub through: bool,
    /// They are added to what is in `dx`.
    pub accumulate: bool,
}

/// `dx (+)= SCALE·g [+ SLOPE·(x − μ) + OFFSET]`, the bracket if gradients flow through the statistics.
pub(super) fn second(
    pool: &Pool,
    volume: &Volume,
    norm: &NormArgs<'_>,
    function: &BoundActivation,
    flow: &Flow<'_>,
    scratch: &mut [f32],
    dx: &mut [f32],
) {
    fill(volume, norm, flow.through, scratch);
    let (layout, tiles) = (volume.layout(), &scratch[..tiles(volume)]);
    let (pieces, dx) = (layout.pieces(), SharedMut::new(dx));
    pool.for_each(volume.batch * pieces, |index| {
        let (item, piece) = (index / pieces, layout.piece(index % pieces));
        pool.simd().dispatch(Second { volume, tiles, item, piece, function, flow, dx });
    });
}

/// All five vectors: `OFFSET = −s·mean(γ·g)`, `SLOPE = −s²·mean(γ·g·x̂)`, means over the channel; or zeros.
fn fill(volume: &Volume, norm: &NormArgs<'_>, through: bool, scratch: &mut [f32]) {
    let (tiles, rest) = scratch.split_at_mut(tiles(volume));
    norm.fill(tiles);
    let (of_g, rest) = rest.split_at(volume.channels);
    let of_products = &rest[..volume.channels];
    let count = (volume.batch * volume.item()) as f64;
    let flows = |sum: f32, channel: usize| {
        let total = f64::from(norm.gamma(0, channel)) * f64::from(sum);
        if through { (-norm.mean_and_scale(0, channel).1 * total / count) as f32 } else { 0.0 }
    };
    norm.write(tiles, 0, OFFSET, |channel| flows(of_g[channel], channel));
    norm.write(tiles, 0, SLOPE, |channel| {
        (norm.mean_and_scale(0, channel).1 * f64::from(flows(of_products[channel], channel))) as f32
    });
}

struct Second<'a> {
    volume: &'a Volume,
    tiles: &'a [f32],
    item: usize,
    piece: Piece,
    function: &'a BoundActivation,
    flow: &'a Flow<'a>,
    dx: SharedMut<'a, f32>,
}

impl WithSimd for Second<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, tiles, item, piece, function, flow, dx } = self;
        let Flow { x, dy, through, accumulate } = *flow;
        let vectors = vectors(volume, tiles);
        let offset = &tiles[OFFSET * volume.layout().tile()..];
        let dy = &dy[item * volume.pooled_item()..][..volume.pooled_item()];
        let first = item * volume.item() * volume.channels;
        let [mut own, mut v, mut g] = [[0.0f32; TILE]; 3];
        let mut unused = CoefficientSums::new();
        for block in piece.blocks() {
            let (start, len) = (first + block.start, block.len());
            // SAFETY: the blocks of all pieces of all items are disjoint.
            let dx = unsafe { dx.slice(start, len) };
            own[..len].copy_from_slice(x.map_or(&*dx, |x| &x[start..start + len]));
            volume.spread(simd, dy, &block, &mut g[..len]);
            let argument = Argument { vectors: Some(vectors), x: &own, before: None };
            argument.write(simd, &(0..len), &mut v[..len]);
            function.differentiate(simd, &v[..len], &mut g[..len], &mut unused);
            let [mean, scale, _, slope] = vectors.map(|vector| &vector[..len]);
            simd::zip(
                simd,
                [&g[..len], &own[..len], mean, scale, slope, &offset[..len]],
                [dx],
                #[inline(always)]
                |[g, x, mean, scale, slope, offset], [former]| {
                    let direct = simd.mul_f32s(g, scale);
                    let full = match through {
                        true => simd.mul_add_e_f32s(simd.sub_f32s(x, mean), slope, simd.add_f32s(offset, direct)),
                        false => direct,
                    };
                    [if accumulate { simd.add_f32s(former, full) } else { full }]
                },
            );
        }
    }
}

const _: () = assert!(MEAN == 0 && SCALE == 1 && SLOPE < VECTORS && OFFSET == VECTORS);
