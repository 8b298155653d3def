//! The fused op on the CPU: pieces of a [`CpuTiling`], in blocks that stay in the first-level cache.
//!
//! Per-channel vectors are computed once an item, repeated to a tile's length, so that every loop is element-wise
//! whatever the number of channels. `x − μ` is formed first: a large mean costs no accuracy.

mod backward;

use std::ops::Range;

pub(super) use backward::{First, Second, Sum, first, second, vector_gradient};
pub(super) use backward::{coefficient_gradients, workspace as backward_workspace};
use pulp::{Simd, WithSimd};

use crate::device::cpu::{Pool, SharedMut};
use crate::ops::activation::BoundActivation;
use crate::ops::moments::Grouping;
use crate::ops::simd;
use crate::ops::tiling_cpu::{CpuTiling, Piece};

/// Vectors of an item: [`MEAN`], [`SCALE`], [`SHIFT`], and for the second backward pass [`OFFSET`] in place of the shift,
/// and [`SLOPE`].
pub(crate) const VECTORS: usize = 4;
/// `μ`.
pub(crate) const MEAN: usize = 0;
/// `γ/√(σ² + ε)`.
pub(crate) const SCALE: usize = 1;
/// `β`.
pub(crate) const SHIFT: usize = 2;
/// `dx`'s constant part.
const OFFSET: usize = 2;
/// `dx`'s slope in `x − μ`.
const SLOPE: usize = 3;

/// Shapes and vectors of one call.
#[derive(Clone, Copy)]
pub(crate) struct NormArgs<'a> {
    pub layout: CpuTiling,
    /// `[2, groups]`.
    pub statistics: Option<(&'a [f32], Grouping)>,
    pub epsilon: f32,
    /// `[C]` or `[items, C]`.
    pub gamma: Option<&'a [f32]>,
    /// `[C]` or `[items, C]`.
    pub beta: Option<&'a [f32]>,
}

impl<'a> NormArgs<'a> {
    /// One item of `[rows, channels]` with statistics, scale and shift a channel.
    pub(crate) fn of_channels(
        [rows, channels]: [usize; 2],
        statistics: &'a [f32],
        epsilon: f32,
        [gamma, beta]: [&'a [f32]; 2],
    ) -> Self {
        let statistics = Some((statistics, Grouping::Channel));
        Self { layout: CpuTiling::new(1, rows, channels), statistics, epsilon, gamma: Some(gamma), beta: Some(beta) }
    }

    /// True if there is a map between `x` and the residual's addition.
    fn is_affine(&self) -> bool {
        self.statistics.is_some() || self.gamma.is_some() || self.beta.is_some()
    }

    /// Mean and `1/√(variance + ε)`; 0 and 1 without statistics.
    pub(crate) fn mean_and_scale(&self, item: usize, channel: usize) -> (f32, f64) {
        self.statistics.map_or((0.0, 1.0), |(statistics, grouping)| {
            let (means, variances) = statistics.split_at(statistics.len() / 2);
            let group = grouping.group(item, channel, self.layout.channels);
            (means[group], (f64::from(variances[group]) + f64::from(self.epsilon)).sqrt().recip())
        })
    }

    /// The element for a channel of an item of a vector that may be shared by the items.
    fn pick(&self, vector: Option<&[f32]>, absent: f32, item: usize, channel: usize) -> f32 {
        vector.map_or(absent, |values| values[(item * self.layout.channels + channel) % values.len()])
    }

    pub(crate) fn gamma(&self, item: usize, channel: usize) -> f32 {
        self.pick(self.gamma, 1.0, item, channel)
    }

    /// Writes a vector of an item, repeated to the tile's length.
    pub(crate) fn write(&self, tiles: &mut [f32], item: usize, vector: usize, mut value: impl FnMut(usize) -> f32) {
        let (tile, channels) = (self.layout.tile(), self.layout.channels);
        let values = &mut tiles[(item * VECTORS + vector) * tile..][..tile];
        for (channel, value_of) in values[..channels].iter_mut().enumerate() {
            *value_of = value(channel);
        }
        for start in (channels..tile).step_by(channels) {
            values.copy_within(..channels, start);
        }
    }

    /// Mean, scale and shift of all items.
    pub(crate) fn fill(&self, tiles: &mut [f32]) {
        for item in 0..self.layout.items {
            self.write(tiles, item, MEAN, |channel| self.mean_and_scale(item, channel).0);
            self.write(tiles, item, SCALE, |channel| {
                (self.mean_and_scale(item, channel).1 * f64::from(self.gamma(item, channel))) as f32
            });
            self.write(tiles, item, SHIFT, |channel| self.pick(self.beta, 0.0, item, channel));
        }
    }
}

/// Floats of the vectors' tiles.
pub(super) fn tiles(layout: &CpuTiling) -> usize {
    VECTORS * layout.items * layout.tile()
}

/// The vectors that line up with a piece's blocks.
fn tiles_of<'a>(layout: &CpuTiling, tiles: &'a [f32], piece: Piece) -> [&'a [f32]; VECTORS] {
    let tile = layout.tile();
    let item = &tiles[piece.item * VECTORS * tile..][..VECTORS * tile];
    std::array::from_fn(|vector| &item[vector * tile..][..tile][piece.tile()])
}

/// `y`; `residual` with true if it is added before the activation. `scratch` has [`tiles`] floats, or none if there are
/// neither statistics nor scale nor shift.
pub(super) fn forward(
    pool: &Pool,
    norm: &NormArgs<'_>,
    function: &BoundActivation,
    x: &[f32],
    residual: Option<(&[f32], bool)>,
    scratch: &mut [f32],
    y: &mut [f32],
) {
    let layout = &norm.layout;
    let affine = !scratch.is_empty();
    if affine {
        norm.fill(scratch);
    }
    let (before, after) = match residual {
        Some((residual, true)) => (Some(residual), None),
        Some((residual, false)) => (None, Some(residual)),
        None => (None, None),
    };
    let scratch = &*scratch;
    let y = SharedMut::new(y);
    pool.for_each(layout.pieces(), |index| {
        let piece = layout.piece(index);
        let vectors = affine.then(|| tiles_of(layout, scratch, piece));
        pool.simd().dispatch(Forward { argument: Argument { vectors, x, before }, piece, function, after, y });
    });
}

/// What the activation's argument is made of.
#[derive(Clone, Copy)]
pub(crate) struct Argument<'a> {
    pub vectors: Option<[&'a [f32]; VECTORS]>,
    pub x: &'a [f32],
    pub before: Option<&'a [f32]>,
}

impl Argument<'_> {
    /// `v` of one block.
    #[inline(always)]
    pub(crate) fn write<S: Simd>(&self, simd: S, block: &Range<usize>, v: &mut [f32]) {
        let (x, len) = (&self.x[block.clone()], block.len());
        let residual = self.before.map(|before| &before[block.clone()]);
        match (self.vectors, residual) {
            (None, None) => v.copy_from_slice(x),
            (None, Some(r)) => simd::zip(
                simd,
                [x, r],
                [v],
                #[inline(always)]
                |[x, r], _| [simd.add_f32s(x, r)],
            ),
            (Some(vectors), None) => {
                let [mean, scale, shift, _] = vectors.map(|vector| &vector[..len]);
                simd::zip(
                    simd,
                    [x, mean, scale, shift],
                    [v],
                    #[inline(always)]
                    |[x, mean, scale, shift], _| [simd.mul_add_e_f32s(simd.sub_f32s(x, mean), scale, shift)],
                );
            }
            (Some(vectors), Some(r)) => {
                let [mean, scale, shift, _] = vectors.map(|vector| &vector[..len]);
                simd::zip(
                    simd,
                    [x, mean, scale, shift, r],
                    [v],
                    #[inline(always)]
                    |[x, mean, scale, shift, r], _| {
                        let shift = simd.add_f32s(shift, r);
                        [simd.mul_add_e_f32s(simd.sub_f32s(x, mean), scale, shift)]
                    },
                );
            }
        }
    }
}

struct Forward<'a> {
    argument: Argument<'a>,
    piece: Piece,
    function: &'a BoundActivation,
    after: Option<&'a [f32]>,
    y: SharedMut<'a, f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for block in self.piece.blocks() {
            // SAFETY: the blocks of all pieces are disjoint.
            let y = unsafe { self.y.slice(block.start, block.len()) };
            self.argument.write(simd, &block, y);
            self.function.apply(simd, y);
            if let Some(after) = self.after {
                simd::zip(
                    simd,
                    [&after[block]],
                    [y],
                    #[inline(always)]
                    |[r], [y]| [simd.add_f32s(y, r)],
                );
            }
        }
    }
}
