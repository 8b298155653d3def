//! Gradients of weight and bias on the CPU.
//!
//! The weight gradient is a correlation: its spectrum is `Σ_points conj(DY)·X`, summed bin by bin, and transformed back
//! once at the end. With one accumulator a lane that sum would stream through megabytes for each group of patches. So
//! each line of the inputs' bins is transposed: a vector then holds the real and imaginary parts of *channels* (and of
//! neighbouring bins, if there are few channels) of one patch, the other factor is one number of one patch, and the
//! accumulators are as many times fewer as there are lanes:
//!
//! ```text
//! for each bin, each patch l:   sums[j][rows] += dy[j][l] · x[rows][l]     j: real and imaginary parts of the outputs
//!                                                                        rows: those of the inputs, in vectors
//! ```
//!
//! Points are cut into at most [`PIECES`] pieces; each has its own sums, and these are added in order in f64.

use pulp::{Simd, WithSimd, bytemuck};

use super::cpu::{LINES, Scratch, group_forward, lines_forward, scratch_len};
use super::dft::{BINS, Dft};
use super::lane_transpose::transpose;
use super::source::Source;
use super::spectra::{SPECTRUM, to_kernel};
use super::{Dims, PATCH};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::patch_sample::VoxelSource;

/// Most pieces that the points are cut into.
const PIECES: usize = 64;
/// Most floats (16 MiB) of all pieces' sums, unless those of one piece are more.
const SUMS: usize = 4 << 20;

/// How the sums of one piece lie: `[bin, 2·outputs, tiles, lanes]`.
#[derive(Clone, Copy)]
struct Layout {
    dims: Dims,
    lanes: usize,
    /// First and end of the tiles of `lanes` rows that each bin of a line has part in.
    tiles_of: [(usize, usize); BINS],
    /// Most tiles of a bin.
    tiles: usize,
}

impl Layout {
    fn new(dims: Dims, lanes: usize) -> Self {
        let rows = 2 * dims.inputs;
        let tiles_of = std::array::from_fn(|k| (k * rows / lanes, ((k + 1) * rows).div_ceil(lanes)));
        let tiles = tiles_of.iter().map(|(first, end)| end - first).max().unwrap_or(0);
        Self { dims, lanes, tiles_of, tiles }
    }

    /// Floats of one piece's sums.
    fn len(self) -> usize {
        SPECTRUM * 2 * self.dims.outputs * self.tiles * self.lanes
    }

    /// Groups of patches of one piece.
    fn groups(self) -> usize {
        let groups = self.dims.points.div_ceil(self.lanes);
        groups.div_ceil((SUMS / self.len()).clamp(1, PIECES)).max(1)
    }

    /// Points of one piece.
    fn points(self) -> usize {
        self.groups() * self.lanes
    }

    /// Number of pieces.
    fn pieces(self) -> usize {
        self.dims.points.div_ceil(self.points())
    }

    /// Place of the product of the outputs' row `j` (2·output + part) and the inputs' row `i` for `bin`.
    fn place(self, bin: usize, j: usize, i: usize) -> usize {
        let k = bin % BINS;
        let row = k * 2 * self.dims.inputs + i - self.tiles_of[k].0 * self.lanes;
        (bin * 2 * self.dims.outputs + j) * self.tiles * self.lanes + row
    }
}

/// One piece.
struct Piece<'a, V: ?Sized> {
    source: &'a Source<'a, V>,
    dy: &'a Source<'a>,
    layout: Layout,
    points: std::ops::Range<usize>,
    sums: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl<V: VoxelSource + ?Sized> WithSimd for Piece<'_, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Layout { dims, lanes, .. } = self.layout;
        let dft = Dft::new(simd);
        let Scratch { planes, plane, voxels, lines, staging, source: scratch } = Scratch::<S>::new(self.scratch, dims);
        let (inputs, outputs) = planes.split_at_mut(dims.inputs);
        let (x, lines) = lines.split_at_mut((2 * BINS * dims.inputs).next_multiple_of(lanes));
        let (transposed, dy) = lines.split_at_mut(x.len());
        // Rows that pad the last tile must be numbers: they are multiplied, though never read.
        x.fill(simd.splat_f32s(0.0));
        self.sums.fill(0.0);
        let sums: &mut [S::f32s] = bytemuck::cast_slice_mut(self.sums);
        for first in self.points.clone().step_by(lanes) {
            let points = first..self.points.end.min(first + lanes);
            let patches = self.source.load(points.clone(), lanes, dims, staging, scratch);
            group_forward(dft, patches, voxels, plane, inputs);
            let patches = self.dy.load(points, lanes, dims.adjoint(), staging, scratch);
            group_forward(dft, patches, voxels, plane, outputs);
            for q in 0..LINES {
                lines_forward(dft, inputs, q, x.as_chunks_mut::<2>().0);
                lines_forward(dft, outputs, q, dy.as_chunks_mut::<2>().0);
                let rows: &[f32] = bytemuck::cast_slice(x);
                let columns: &mut [f32] = bytemuck::cast_slice_mut(transposed);
                for (rows, columns) in rows.chunks_exact(lanes * lanes).zip(columns.chunks_exact_mut(lanes * lanes)) {
                    transpose(simd, [lanes, lanes], rows, lanes, columns, lanes);
                }
                add_line(simd, &self.layout, q, transposed, bytemuck::cast_slice(dy), sums);
            }
        }
    }
}

/// Adds the products of line `q`.
#[inline(always)]
fn add_line<S: Simd>(simd: S, layout: &Layout, q: usize, x: &[S::f32s], dy: &[f32], sums: &mut [S::f32s]) {
    let (tiles, rows) = (layout.tiles, 2 * layout.dims.outputs);
    for k in 0..BINS {
        let dy = &dy[k * rows * layout.lanes..][..rows * layout.lanes];
        let sums = &mut sums[(q * BINS + k) * rows * tiles..][..rows * tiles];
        let (first, end) = layout.tiles_of[k];
        for tile in first..end {
            let t = tile - first;
            let x = &x[tile * layout.lanes..][..layout.lanes];
            let mut j = 0;
            while j + 8 <= rows {
                add_products::<S, 8>(simd, x, &dy[j * layout.lanes..], &mut sums[j * tiles + t..], tiles);
                j += 8;
            }
            while j < rows {
                add_products::<S, 2>(simd, x, &dy[j * layout.lanes..], &mut sums[j * tiles + t..], tiles);
                j += 2;
            }
        }
    }
}

/// `sums[j·stride] += Σ_l dy[j][l]·x[l]` for `J` rows of `dy`.
#[inline(always)]
fn add_products<S: Simd, const J: usize>(simd: S, x: &[S::f32s], dy: &[f32], sums: &mut [S::f32s], stride: usize) {
    let lanes = S::F32_LANES;
    let (x, dy) = (&x[..lanes], &dy[..J * lanes]);
    let mut totals = [simd.splat_f32s(0.0); J];
    for j in 0..J {
        totals[j] = sums[j * stride];
    }
    for (l, &x) in x.iter().enumerate() {
        for j in 0..J {
            totals[j] = simd.mul_add_e_f32s(simd.splat_f32s(dy[j * lanes + l]), x, totals[j]);
        }
    }
    for j in 0..J {
        sums[j * stride] = totals[j];
    }
}

/// Floats of scratch that [`weight_gradient`] needs.
pub(super) fn workspace<V: VoxelSource + ?Sized>(
    threads: usize,
    lanes: usize,
    source: &Source<'_, V>,
    dims: Dims,
) -> usize {
    let layout = Layout::new(dims, lanes);
    layout.pieces() * layout.len() + threads * scratch_len(source, dims, lanes)
}

/// `dW (+)= Σ_points dy ⋆ x`, `[Co, Ci, 7³]`, from `dy` `[points, Co, 343]`.
pub(super) fn weight_gradient<V: VoxelSource + ?Sized>(
    pool: &Pool,
    source: &Source<'_, V>,
    dy: &[f32],
    dims: Dims,
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let layout = Layout::new(dims, pool.simd().lanes());
    let (pieces, len) = (layout.pieces(), layout.len());
    let (sums, scratch) = scratch.split_at_mut(pieces * len);
    let per_thread = scratch_len(source, dims, layout.lanes);
    let dy = &Source::Patches(dy);
    {
        let (sums, scratch) = (SharedMut::new(sums), SharedMut::new(scratch));
        pool.for_each_with_thread(pieces, |piece, thread| {
            let first = piece * layout.points();
            let points = first..dims.points.min(first + layout.points());
            // SAFETY: each piece has its own sums.
            let sums = unsafe { sums.slice(piece * len, len) };
            // SAFETY: each running piece has its thread's own scratch.
            let scratch = unsafe { scratch.slice(thread * per_thread, per_thread) };
            pool.simd().dispatch(Piece { source, dy, layout, points, sums, scratch });
        });
    }
    add_pieces(pool, sums, len);
    let sums = &sums[..len.min(sums.len())];
    let dw = SharedMut::new(dw);
    pool.for_each(dims.outputs * dims.inputs, |pair| {
        let (output, input) = (pair / dims.inputs, pair % dims.inputs);
        // SAFETY: each piece owns one pair's kernel.
        let dw = unsafe { dw.slice(pair * PATCH, PATCH) };
        let sum = |bin: usize, j: usize, i: usize| match pieces {
            0 => 0.0,
            _ => f64::from(sums[layout.place(bin, 2 * output + j, 2 * input + i)]),
        };
        // conj(DY)·X.
        let spectrum = |bin| [sum(bin, 0, 0) + sum(bin, 1, 1), sum(bin, 0, 1) - sum(bin, 1, 0)];
        to_kernel(spectrum, |place, value| {
            dw[place] = if accumulate { dw[place] + value as f32 } else { value as f32 };
        });
    });
}

/// Adds the pieces' `sums`, each of `len` floats, to the first, in order and in f64.
fn add_pieces(pool: &Pool, sums: &mut [f32], len: usize) {
    /// Floats that one piece of this loop adds: a stack array of f64.
    const WIDTH: usize = 512;
    let pieces = sums.len() / len;
    let sums = SharedMut::new(sums);
    pool.for_each(if pieces > 1 { len.div_ceil(WIDTH) } else { 0 }, |piece| {
        let start = piece * WIDTH;
        let width = WIDTH.min(len - start);
        let mut totals = [0.0f64; WIDTH];
        for part in 0..pieces {
            // SAFETY: each piece of the loop owns these columns of all parts.
            let part = unsafe { sums.slice(part * len + start, width) };
            totals.iter_mut().zip(&*part).for_each(|(total, &value)| *total += f64::from(value));
        }
        // SAFETY: as above, and the slices before are gone.
        let first = unsafe { sums.slice(start, width) };
        first.iter_mut().zip(&totals).for_each(|(to, &total)| *to = total as f32);
    });
}

/// `db (+)= Σ dy` over points and voxels, in f64.
pub(super) fn bias_gradient(pool: &Pool, dy: &[f32], dims: Dims, db: &mut [f32], accumulate: bool) {
    /// Points of one piece.
    const POINTS: usize = 256;
    let pieces = dims.points.div_ceil(POINTS);
    for (output, db) in db.iter_mut().enumerate() {
        let parts = pool.map(pieces, |piece| {
            let points = piece * POINTS..dims.points.min((piece + 1) * POINTS);
            let values = points.flat_map(|point| &dy[(point * dims.outputs + output) * PATCH..][..PATCH]);
            values.map(|&value| f64::from(value)).sum::<f64>()
        });
        let sum = parts.iter().sum::<f64>() as f32;
        *db = if accumulate { *db + sum } else { sum };
    }
}
