//! The op on the CPU: lines of windows, in blocks that stay in the first-level cache.
//!
//! A line is a row of windows: up to four rows of voxels, two planes by two. A piece is a few lines; it sums in f32 what it
//! sees of each channel, and pieces are added up in f64, in their order.

use pulp::{Simd, WithSimd};

use super::{SIDE, Volume};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::activation::{CoefficientSums, Function};
use crate::ops::lanes;
use crate::ops::layout::TILE;
use crate::ops::norm_act::cpu::{Argument, MEAN, Norm, SCALE, VECTORS};

/// Most channels: two voxels are a block at least.
pub(super) const CHANNELS: usize = TILE / SIDE;

/// Elements that a piece has at least, if there are as many.
const PIECE: usize = 1 << 14;

/// `1/8`, a voxel's share of its window.
const SHARE: f32 = 1.0 / (SIDE * SIDE * SIDE) as f32;

/// `dx`'s slope in `x − μ`, and its constant part, behind mean, scale and shift.
const SLOPE: usize = 3;
const OFFSET: usize = 4;

/// Rows of voxels of one row of windows: where they begin, as elements, if they exist; and where that row of `y` does.
struct Line {
    rows: [Option<usize>; 4],
    pooled: Option<usize>,
}

impl Volume {
    /// Elements of a vector of the channels repeated over a block.
    fn tile(&self) -> usize {
        TILE / self.channels * self.channels
    }

    /// Voxels of a block: pairs of them.
    fn block(&self) -> usize {
        TILE / self.channels / SIDE * SIDE
    }

    fn lines(&self) -> usize {
        let [planes, lines, _] = self.windows();
        self.batch * planes * lines
    }

    fn line(&self, index: usize) -> Line {
        let ([planes, lines, _], [d, h, w], pooled) = (self.windows(), self.sides, self.pooled());
        let (item, plane, line) = (index / lines / planes, index / lines % planes, index % lines);
        let row = |m: usize| {
            let at = [plane * SIDE + m / SIDE, line * SIDE + m % SIDE];
            (at[0] < d && at[1] < h).then(|| ((item * d + at[0]) * h + at[1]) * w * self.channels)
        };
        let whole = plane < pooled[0] && line < pooled[1];
        let start = ((item * pooled[0] + plane) * pooled[1] + line) * pooled[2] * self.channels;
        Line { rows: [0, 1, 2, 3].map(row), pooled: whole.then_some(start) }
    }

    fn lines_of_piece(&self) -> usize {
        (PIECE / (SIDE * SIDE * self.sides[2] * self.channels)).max(1)
    }

    fn pieces(&self) -> usize {
        self.lines().div_ceil(self.lines_of_piece())
    }

    fn piece(&self, index: usize) -> impl Iterator<Item = Line> + use<> {
        let (volume, each) = (*self, self.lines_of_piece());
        (index * each..((index + 1) * each).min(self.lines())).map(move |line| volume.line(line))
    }

    /// First voxels and lengths of the blocks of a row of `voxels`.
    fn blocks(&self, voxels: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let block = self.block();
        (0..voxels).step_by(block).map(move |first| (first, block.min(voxels - first)))
    }

    /// Floats of the parts of the scratch of a backward pass: vectors' tiles; `Σ g` and `Σ g·(x − μ)` of each channel; the
    /// coefficients' gradients; the same of each piece.
    fn lengths(&self, coefficients: usize) -> [usize; 4] {
        let sums = 2 * self.channels;
        [tiles(self), sums, coefficients, self.pieces() * (sums + coefficients)]
    }
}

/// Floats of the vectors' tiles.
pub(super) fn tiles(volume: &Volume) -> usize {
    (OFFSET + 1) * volume.tile()
}

/// Floats of scratch that the backward pass needs.
pub(super) fn backward_workspace(volume: &Volume, coefficients: usize) -> usize {
    volume.lengths(coefficients).iter().sum()
}

/// The vectors of a block's argument.
fn vectors<'a>(volume: &Volume, tiles: &'a [f32]) -> [&'a [f32]; VECTORS] {
    std::array::from_fn(|vector| &tiles[vector * volume.tile()..][..volume.tile()])
}

/// `y`. `scratch` has [`tiles`] floats.
pub(super) fn forward(
    pool: &Pool,
    volume: &Volume,
    norm: &Norm<'_>,
    function: &Function,
    x: &[f32],
    scratch: &mut [f32],
    y: &mut [f32],
) {
    norm.fill(scratch);
    let argument = Argument { vectors: Some(vectors(volume, scratch)), x, before: None };
    let y = SharedMut::new(y);
    pool.for_each(volume.pieces(), |piece| {
        pool.simd().dispatch(Forward { volume, argument, piece, function, y });
    });
}

struct Forward<'a> {
    volume: &'a Volume,
    argument: Argument<'a>,
    piece: usize,
    function: &'a Function,
    y: SharedMut<'a, f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, argument, piece, function, y } = self;
        let (channels, share) = (volume.channels, simd.splat_f32s(SHARE));
        let (mut v, mut sum) = ([0.0f32; TILE], [0.0f32; TILE]);
        for line in volume.piece(piece) {
            let Some(pooled) = line.pooled else { continue };
            for (first, voxels) in volume.blocks(volume.pooled()[2] * SIDE) {
                let len = voxels * channels;
                sum[..len].fill(0.0);
                for row in line.rows.into_iter().flatten() {
                    let start = row + first * channels;
                    argument.write(simd, &(start..start + len), &mut v[..len]);
                    function.apply(simd, &mut v[..len]);
                    lanes::zip(
                        simd,
                        [&v[..len]],
                        [&mut sum[..len]],
                        #[inline(always)]
                        |[v], [sum]| [simd.add_f32s(sum, v)],
                    );
                }
                // SAFETY: lines have rows of the result of their own.
                let y = unsafe { y.slice(pooled + first / SIDE * channels, len / SIDE) };
                for (y, pair) in y.chunks_exact_mut(channels).zip(sum.chunks_exact(SIDE * channels)) {
                    let (a, b) = pair.split_at(channels);
                    lanes::zip(
                        simd,
                        [a, b],
                        [y],
                        #[inline(always)]
                        |[a, b], _| [simd.mul_f32s(simd.add_f32s(a, b), share)],
                    );
                }
            }
        }
    }
}

/// `dy/8` of the voxels of a block whose windows' gradients begin at `dy`.
#[inline(always)]
fn spread<S: Simd>(simd: S, channels: usize, dy: &[f32], d: &mut [f32]) {
    let share = simd.splat_f32s(SHARE);
    for (pair, dy) in d.chunks_exact_mut(SIDE * channels).zip(dy.chunks_exact(channels)) {
        let (a, b) = pair.split_at_mut(channels);
        lanes::zip(
            simd,
            [dy],
            [a, b],
            #[inline(always)]
            |[dy], _| [simd.mul_f32s(dy, share); 2],
        );
    }
}

/// The sums of `[x, dy]`, with an activation that has so many coefficients.
pub(super) fn first(
    pool: &Pool,
    volume: &Volume,
    norm: &Norm<'_>,
    (function, coefficients): (&Function, usize),
    [x, dy]: [&[f32]; 2],
    scratch: &mut [f32],
) {
    let [tiles, sums, of_coefficients, _] = volume.lengths(coefficients);
    let (tiles, scratch) = scratch.split_at_mut(tiles);
    norm.fill(tiles);
    let (totals, partials) = scratch.split_at_mut(sums + of_coefficients);
    let argument = Argument { vectors: Some(vectors(volume, tiles)), x, before: None };
    let (slot, shared) = (totals.len(), SharedMut::new(partials));
    pool.for_each(volume.pieces(), |piece| {
        // SAFETY: each piece owns its slot.
        let partial = unsafe { shared.slice(piece * slot, slot) };
        pool.simd().dispatch(First { volume, argument, piece, function, dy, partial });
    });
    for (i, total) in totals.iter_mut().enumerate() {
        *total = partials.iter().skip(i).step_by(slot).map(|&part| f64::from(part)).sum::<f64>() as f32;
    }
}

struct First<'a> {
    volume: &'a Volume,
    argument: Argument<'a>,
    piece: usize,
    function: &'a Function,
    dy: &'a [f32],
    partial: &'a mut [f32],
}

impl WithSimd for First<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, argument, piece, function, dy, partial } = self;
        let channels = volume.channels;
        let [mut v, mut d, mut g, mut sums, mut products] = [[0.0f32; TILE]; 5];
        let mut coefficients = CoefficientSums::new();
        let [mean, ..] = vectors_of(&argument);
        for line in volume.piece(piece) {
            let Some(pooled) = line.pooled else { continue };
            for (first, voxels) in volume.blocks(volume.pooled()[2] * SIDE) {
                let len = voxels * channels;
                spread(simd, channels, &dy[pooled + first / SIDE * channels..][..len / SIDE], &mut d[..len]);
                for row in line.rows.into_iter().flatten() {
                    let start = row + first * channels;
                    argument.write(simd, &(start..start + len), &mut v[..len]);
                    g[..len].copy_from_slice(&d[..len]);
                    function.differentiate(simd, &v[..len], &mut g[..len], &mut coefficients);
                    lanes::zip(
                        simd,
                        [&g[..len], &argument.x[start..start + len], &mean[..len]],
                        [&mut sums[..len], &mut products[..len]],
                        #[inline(always)]
                        |[g, x, mean], [sum, product]| {
                            [simd.add_f32s(sum, g), simd.mul_add_e_f32s(g, simd.sub_f32s(x, mean), product)]
                        },
                    );
                }
            }
        }
        let (of_channels, of_coefficients) = partial.split_at_mut(2 * channels);
        coefficients.finish(of_coefficients);
        for (values, out) in [sums, products].iter().zip(of_channels.chunks_exact_mut(channels)) {
            for (channel, out) in out.iter_mut().enumerate() {
                let rows = values[..volume.tile()].iter().skip(channel).step_by(channels);
                *out = rows.map(|&value| f64::from(value)).sum::<f64>() as f32;
            }
        }
    }
}

/// The vectors of an argument that has some.
#[inline(always)]
fn vectors_of<'a>(argument: &Argument<'a>) -> [&'a [f32]; VECTORS] {
    argument.vectors.unwrap_or_default()
}

/// `Σ g`, then `Σ g·(x − μ)`, of each channel, that [`first`] left in `scratch`.
fn channel_sums<'a>(volume: &Volume, scratch: &'a [f32]) -> &'a [f32] {
    &scratch[tiles(volume)..][..2 * volume.channels]
}

/// The coefficients' gradients that [`first`] left in `scratch`, and whatever follows them.
pub(super) fn coefficient_sums<'a>(volume: &Volume, scratch: &'a [f32]) -> &'a [f32] {
    &scratch[tiles(volume) + 2 * volume.channels..]
}

/// The gradient of the shift, or with `norm` that of the scale, `Σ g·x̂`.
pub(super) fn vector_gradient(
    volume: &Volume,
    norm: Option<&Norm<'_>>,
    scratch: &[f32],
    out: &mut [f32],
    accumulate: bool,
) {
    let (of_g, of_products) = channel_sums(volume, scratch).split_at(volume.channels);
    for (channel, out) in out.iter_mut().enumerate() {
        let total = match norm {
            None => of_g[channel],
            Some(norm) => (f64::from(of_products[channel]) * norm.mean_and_scale(0, channel).1) as f32,
        };
        *out = if accumulate { *out + total } else { total };
    }
}

/// What flows, and where to.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    /// Through the statistics, too.
    pub through: bool,
    /// To what is in `dx` already.
    pub accumulate: bool,
}

/// `dx (+)= SCALE·g [+ SLOPE·(x − μ) + OFFSET]`, the bracket if gradients flow through the statistics. `x` lies in `dx` unless
/// given.
#[allow(clippy::too_many_arguments)]
pub(super) fn second(
    pool: &Pool,
    volume: &Volume,
    norm: &Norm<'_>,
    function: &Function,
    (x, dy): (Option<&[f32]>, &[f32]),
    flow: Flow,
    scratch: &mut [f32],
    dx: &mut [f32],
) {
    fill(volume, norm, flow.through, scratch);
    let tiles = &scratch[..tiles(volume)];
    let dx = SharedMut::new(dx);
    pool.for_each(volume.pieces(), |piece| {
        pool.simd().dispatch(Second { volume, tiles, piece, function, x, dy, accumulate: flow.accumulate, dx });
    });
}

/// All five vectors: with means over the channel `OFFSET = −s·mean(γ·g)`, `SLOPE = −s²·mean(γ·g·x̂)`, or zeros.
fn fill(volume: &Volume, norm: &Norm<'_>, through: bool, scratch: &mut [f32]) {
    let (tiles, sums) = scratch.split_at_mut(tiles(volume));
    norm.fill(tiles);
    let mean = |sums: &[f32], channel: usize| {
        let scale = norm.mean_and_scale(0, channel).1 * f64::from(norm.gamma(0, channel));
        -scale * f64::from(sums[channel]) / volume.voxels() as f64
    };
    let (of_g, of_products) = sums.split_at(volume.channels);
    norm.write(tiles, 0, OFFSET, |channel| if through { mean(of_g, channel) as f32 } else { 0.0 });
    norm.write(tiles, 0, SLOPE, |channel| {
        let s = norm.mean_and_scale(0, channel).1;
        if through { (s * s * mean(of_products, channel)) as f32 } else { 0.0 }
    });
}

struct Second<'a> {
    volume: &'a Volume,
    tiles: &'a [f32],
    piece: usize,
    function: &'a Function,
    x: Option<&'a [f32]>,
    dy: &'a [f32],
    accumulate: bool,
    dx: SharedMut<'a, f32>,
}

impl WithSimd for Second<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { volume, tiles, piece, function, x, dy, accumulate, dx } = self;
        let channels = volume.channels;
        let (argument, offset) = (vectors(volume, tiles), &tiles[OFFSET * volume.tile()..]);
        let [mut own, mut v, mut g] = [[0.0f32; TILE]; 3];
        let mut unused = CoefficientSums::new();
        let whole = volume.pooled()[2] * SIDE;
        for line in volume.piece(piece) {
            for (row, (first, voxels)) in
                line.rows.into_iter().flatten().flat_map(|row| volume.blocks(volume.sides[2]).map(move |at| (row, at)))
            {
                let (start, len) = (row + first * channels, voxels * channels);
                // SAFETY: lines have rows of voxels of their own.
                let dx = unsafe { dx.slice(start, len) };
                own[..len].copy_from_slice(x.map_or(&*dx, |x| &x[start..start + len]));
                // Windows that are cut short see no gradient.
                let within = line.pooled.map_or(0, |_| voxels.min(whole.saturating_sub(first)) * channels);
                g[within..len].fill(0.0);
                if let Some(pooled) = line.pooled {
                    let dy = &dy[pooled + first / SIDE * channels..][..within / SIDE];
                    spread(simd, channels, dy, &mut g[..within]);
                    let argument = Argument { vectors: Some(argument), x: &own, before: None };
                    argument.write(simd, &(0..within), &mut v[..within]);
                    function.differentiate(simd, &v[..within], &mut g[..within], &mut unused);
                }
                let [mean, scale, _, slope] = argument.map(|vector| &vector[..len]);
                lanes::zip(
                    simd,
                    [&g[..len], &own[..len], mean, scale, slope, &offset[..len]],
                    [dx],
                    #[inline(always)]
                    |[g, x, mean, scale, slope, offset], [former]| {
                        let rest = simd.mul_add_e_f32s(simd.sub_f32s(x, mean), slope, offset);
                        let full = simd.mul_add_e_f32s(g, scale, rest);
                        [if accumulate { simd.add_f32s(former, full) } else { full }]
                    },
                );
            }
        }
    }
}

const _: () = assert!(MEAN == 0 && SCALE == 1 && SLOPE < VECTORS && OFFSET == VECTORS);
