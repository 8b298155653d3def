//! Winograd's F(2, 3) along all three axes, for 3×3×3 kernels with stride 1.
//!
//! Two neighbouring outputs of a 3-tap filter need 4 products instead of 6, so a 2×2×2 block of outputs needs 64 instead
//! of 216: with `d` a 4×4×4 block of inputs and `g` the kernel, `y = Aᵀ[(G g) ⊙ (Bᵀ d)]` along each axis, where
//!
//! ```text
//! Bᵀ = 1  0 −1  0     G = 1    0    0     Aᵀ = 1  1  1  0
//!      0  1  1  0         1/2  1/2  1/2        0  1 −1 −1
//!      0 −1  1  0         1/2 −1/2  1/2
//!      0  1  0 −1         0    0    1
//! ```
//!
//! Summed over channels the products are 64 small matrix products `[blocks, in]·[in, out]`. A piece of work transforms a
//! few blocks into a scratch that stays in the second-level cache, multiplies, and transforms back. Source: Lavin & Gray,
//! "Fast algorithms for convolutional neural networks", CVPR 2016.

// Counted loops over a block's axes read like the matrices above, and are unrolled.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

use super::correlation::Correlation;
use super::microkernel::{PANEL_VECTORS, Start, Tile, even_cuts, load, max_rows, store};
use crate::device::cpu::{Pool, SharedMut};

/// Products of one block.
const PRODUCTS: usize = 64;

/// Floats of a piece's transformed blocks, inputs and outputs together (1 MiB).
const BLOCKS: usize = 1 << 18;

/// Floats of the transformed weights above which they no longer stay near a core (4 MiB).
const WEIGHTS: usize = 1 << 20;

/// Blocks below which transforming the weights does not pay.
const FEW: usize = 128;

/// Pieces that suffice to keep every thread busy.
const PIECES: usize = 8;

/// Floats between the 64 matrices beyond their size: a power of two would map all to the same cache lines.
const SKEW: usize = 16;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Blocks along each axis.
    blocks: [usize; 3],
    /// Blocks of all volumes.
    total: usize,
    /// Blocks of a piece.
    piece: usize,
    /// Floats of a piece's transformed inputs.
    inputs: usize,
    /// Floats of a piece's products.
    products: usize,
}

impl Cut {
    fn new(correlation: &Correlation) -> Self {
        let blocks = correlation.destination().map(|length| length.div_ceil(2));
        let total = correlation.batch * blocks.iter().product::<usize>();
        let fitting = BLOCKS / (PRODUCTS * (correlation.inputs + correlation.outputs));
        let piece = fitting.min(total.div_ceil(PIECES)).max(1);
        Self {
            blocks,
            total,
            piece,
            inputs: PRODUCTS * (piece * correlation.inputs + SKEW),
            products: PRODUCTS * (piece * correlation.outputs + SKEW),
        }
    }
}

/// True if this is the faster way: 3×3×3 with stride 1, channels in whole vectors and more than 16 on one side (16 → 16 is
/// a draw), enough blocks, and transformed weights that stay in the cache.
pub(super) fn suits(correlation: &Correlation) -> bool {
    let plain = correlation
        .axes
        .iter()
        .all(|axis| axis.step == 1 && axis.spread == 1 && axis.phases.len() == 1 && axis.phases[0].taps == 3);
    plain
        && correlation.inputs.is_multiple_of(16)
        && correlation.outputs.is_multiple_of(16)
        && correlation.inputs + correlation.outputs > 32
        && PRODUCTS * correlation.inputs * correlation.outputs <= WEIGHTS
        && Cut::new(correlation).total >= FEW
}

/// Floats of scratch: transformed weights and each thread's blocks.
pub(super) fn workspace(correlation: &Correlation, threads: usize) -> usize {
    let cut = Cut::new(correlation);
    PRODUCTS * correlation.inputs * correlation.outputs + threads * (cut.inputs + cut.products)
}

/// As [`direct::run`](super::direct::run), for a correlation that [`suits`].
#[allow(clippy::too_many_arguments)]
pub(super) fn run(
    pool: &Pool,
    correlation: &Correlation,
    source: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    destination: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let cut = Cut::new(correlation);
    let (weights, scratch) = scratch.split_at_mut(PRODUCTS * correlation.inputs * correlation.outputs);
    let columns = pool.simd().lanes();
    {
        let weights = SharedMut::new(weights);
        pool.for_each(correlation.outputs / columns, |piece| {
            let first = piece * columns;
            pool.simd().dispatch(WeightPiece { correlation, weight, weights, first });
        });
    }
    let weights = &*weights;
    let scratch = SharedMut::new(scratch);
    let job = Job { correlation, cut, source, weights, bias, destination: SharedMut::new(destination), accumulate };
    pool.for_each_with_thread(cut.total.div_ceil(cut.piece), |piece, thread| {
        let len = cut.inputs + cut.products;
        // SAFETY: no other running piece uses this thread's scratch.
        let (inputs, products) = unsafe { scratch.slice(thread * len, len) }.split_at_mut(cut.inputs);
        pool.simd().dispatch(Piece { job: &job, piece, inputs, products });
    });
}

/// `Bᵀ d`.
#[inline(always)]
fn input_transform<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(d[0], d[2]), simd.add_f32s(d[1], d[2]), simd.sub_f32s(d[2], d[1]), simd.sub_f32s(d[1], d[3])]
}

/// `G g`.
#[inline(always)]
fn weight_transform<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; 4] {
    let half = simd.splat_f32s(0.5);
    let outer = simd.mul_f32s(half, simd.add_f32s(g[0], g[2]));
    let inner = simd.mul_f32s(half, g[1]);
    [g[0], simd.add_f32s(outer, inner), simd.sub_f32s(outer, inner), g[2]]
}

/// `Aᵀ m`.
#[inline(always)]
fn output_transform<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
    let (sum, difference) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    [simd.add_f32s(m[0], sum), simd.sub_f32s(difference, m[3])]
}

/// Transforms the weights of one vector of outputs into `[64][panel][inputs][columns of the panel]`.
struct WeightPiece<'a> {
    correlation: &'a Correlation,
    weight: &'a [f32],
    weights: SharedMut<'a, f32>,
    first: usize,
}

impl WithSimd for WeightPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { correlation, weight, weights, first } = self;
        let lanes = S::F32_LANES;
        let (inputs, outputs) = (correlation.inputs, correlation.outputs);
        let (input_stride, output_stride) = correlation.weight_strides([3; 3]);
        let panel = first - first % (PANEL_VECTORS * lanes);
        let columns = (PANEL_VECTORS * lanes).min(outputs - panel);
        let zero = simd.splat_f32s(0.0);
        for input in 0..inputs {
            let mut kernel = [[0.0f32; 16]; 27];
            for lane in 0..lanes {
                let taps = &weight[(first + lane) * output_stride + input * input_stride..][..27];
                for (tap, &value) in taps.iter().enumerate() {
                    // The adjoint goes through the kernel backwards.
                    kernel[if correlation.adjoint { 26 - tap } else { tap }][lane] = value;
                }
            }
            // SAFETY: each row of `kernel` holds a vector.
            let tap = |i: usize| unsafe { load::<S>(kernel[i].as_ptr()) };
            let mut lines = [[zero; 4]; 9];
            for (i, line) in lines.iter_mut().enumerate() {
                *line = weight_transform(simd, [tap(3 * i), tap(3 * i + 1), tap(3 * i + 2)]);
            }
            let mut planes = [[zero; 16]; 3];
            for z in 0..3 {
                for x in 0..4 {
                    let column = [lines[3 * z][x], lines[3 * z + 1][x], lines[3 * z + 2][x]];
                    for (y, value) in weight_transform(simd, column).into_iter().enumerate() {
                        planes[z][y * 4 + x] = value;
                    }
                }
            }
            for i in 0..16 {
                let depth = weight_transform(simd, [planes[0][i], planes[1][i], planes[2][i]]);
                for (z, value) in depth.into_iter().enumerate() {
                    let matrix = (z * 16 + i) * inputs * outputs;
                    let place = weights.pointer(matrix + panel * inputs + input * columns + first - panel, lanes);
                    // SAFETY: the range was checked; each piece owns its columns.
                    unsafe { store::<S>(place, value) };
                }
            }
        }
    }
}

/// What all pieces share.
struct Job<'a> {
    correlation: &'a Correlation,
    cut: Cut,
    source: &'a [f32],
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    destination: SharedMut<'a, f32>,
    accumulate: bool,
}

/// A few consecutive blocks.
struct Piece<'a> {
    job: &'a Job<'a>,
    piece: usize,
    inputs: &'a mut [f32],
    products: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let cut = self.job.cut;
        let first = self.piece * cut.piece;
        let count = cut.piece.min(cut.total - first);
        for block in 0..count {
            self.transform_input(simd, first + block, block);
        }
        self.multiply(simd, count);
        for block in 0..count {
            self.transform_output(simd, first + block, block);
        }
    }
}

impl Piece<'_> {
    /// Volume of a block and the coordinates of its first output.
    #[inline(always)]
    fn place(&self, block: usize) -> (usize, [usize; 3]) {
        let [depth, height, width] = self.job.cut.blocks;
        let (rest, w) = (block / width, block % width);
        let (rest, h) = (rest / height, rest % height);
        (rest / depth, [2 * (rest % depth), 2 * h, 2 * w])
    }

    /// `Bᵀ` along each axis of the 4×4×4 inputs of `block`, as the `slot`-th row of the 64 matrices.
    #[inline(always)]
    fn transform_input<S: Simd>(&mut self, simd: S, block: usize, slot: usize) {
        let correlation = self.job.correlation;
        let (item, output) = self.place(block);
        let channels = correlation.inputs;
        let lengths = correlation.source();
        let corner = [0, 1, 2].map(|axis| output[axis] as isize + correlation.axes[axis].lead());
        let inside = (0..3).all(|axis| corner[axis] >= 0 && corner[axis] as usize + 4 <= lengths[axis]);
        let volume = item * lengths.iter().product::<usize>();
        let zero = simd.splat_f32s(0.0);
        let matrix = self.inputs.len() / PRODUCTS;
        for channel in (0..channels).step_by(S::F32_LANES) {
            let mut planes = [[zero; 16]; 4];
            for z in 0..4 {
                let mut lines = [[zero; 4]; 4];
                for y in 0..4 {
                    for x in 0..4 {
                        let at = [corner[0] + z as isize, corner[1] + y as isize, corner[2] + x as isize];
                        if inside || (0..3).all(|axis| at[axis] >= 0 && (at[axis] as usize) < lengths[axis]) {
                            let voxel = (at[0] as usize * lengths[1] + at[1] as usize) * lengths[2] + at[2] as usize;
                            let source = self.job.source.as_ptr().wrapping_add((volume + voxel) * channels + channel);
                            // SAFETY: the voxel lies inside the volume, and channels come in whole vectors.
                            lines[y][x] = unsafe { load::<S>(source) };
                        }
                    }
                }
                for line in &mut lines {
                    *line = input_transform(simd, *line);
                }
                for x in 0..4 {
                    let column = input_transform(simd, [lines[0][x], lines[1][x], lines[2][x], lines[3][x]]);
                    for y in 0..4 {
                        planes[z][y * 4 + x] = column[y];
                    }
                }
            }
            let row = slot * channels + channel;
            for i in 0..16 {
                let depth = input_transform(simd, [planes[0][i], planes[1][i], planes[2][i], planes[3][i]]);
                for z in 0..4 {
                    let place = self.inputs.as_mut_ptr().wrapping_add((z * 16 + i) * matrix + row);
                    // SAFETY: row and vector lie inside matrix `z·16 + i`.
                    unsafe { store::<S>(place, depth[z]) };
                }
            }
        }
    }

    /// The 64 matrix products of `count` rows.
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, count: usize) {
        let Job { correlation, weights, .. } = self.job;
        let (inputs, outputs) = (correlation.inputs, correlation.outputs);
        let (from, to) = (self.inputs.len() / PRODUCTS, self.products.len() / PRODUCTS);
        let width = PANEL_VECTORS * S::F32_LANES;
        let (_, rows) = even_cuts(count, max_rows(S::F32_LANES, PANEL_VECTORS));
        for matrix in 0..PRODUCTS {
            for first in (0..outputs).step_by(width) {
                let columns = width.min(outputs - first);
                let panel = weights[matrix * inputs * outputs + first * inputs..].as_ptr();
                for row in (0..count).step_by(rows) {
                    let tile = Tile {
                        input: self.inputs[matrix * from + row * inputs..].as_ptr(),
                        row: inputs,
                        taps: &[0],
                        run: inputs,
                        panel,
                        output: self.products[matrix * to + row * outputs + first..].as_mut_ptr(),
                        output_row: outputs,
                        start: Start::Zero,
                    };
                    // SAFETY: the rows lie inside the matrices, the panel holds `inputs` rows of `columns`.
                    unsafe { tile.run(simd, rows.min(count - row), columns / S::F32_LANES, columns) };
                }
            }
        }
    }

    /// `Aᵀ` along each axis of the products in row `slot`, into the 2×2×2 outputs of `block`.
    #[inline(always)]
    fn transform_output<S: Simd>(&self, simd: S, block: usize, slot: usize) {
        let Job { correlation, bias, destination, accumulate, .. } = self.job;
        let (item, output) = self.place(block);
        let channels = correlation.outputs;
        let lengths = correlation.destination();
        let zero = simd.splat_f32s(0.0);
        let matrix = self.products.len() / PRODUCTS;
        for channel in (0..channels).step_by(S::F32_LANES) {
            let mut planes = [[zero; 16]; 2];
            for i in 0..16 {
                let mut depth = [zero; 4];
                for z in 0..4 {
                    let place = self.products.as_ptr().wrapping_add((z * 16 + i) * matrix + slot * channels + channel);
                    // SAFETY: row and vector lie inside matrix `z·16 + i`.
                    depth[z] = unsafe { load::<S>(place) };
                }
                let depth = output_transform(simd, depth);
                planes[0][i] = depth[0];
                planes[1][i] = depth[1];
            }
            let offset = match bias {
                // SAFETY: channels come in whole vectors.
                Some(bias) => unsafe { load::<S>(bias[channel..].as_ptr()) },
                None => zero,
            };
            for z in 0..2 {
                let mut lines = [[zero; 4]; 2];
                for x in 0..4 {
                    let plane = &planes[z];
                    let column = output_transform(simd, [plane[x], plane[4 + x], plane[8 + x], plane[12 + x]]);
                    lines[0][x] = column[0];
                    lines[1][x] = column[1];
                }
                for y in 0..2 {
                    let line = output_transform(simd, lines[y]);
                    for x in 0..2 {
                        let at = [output[0] + z, output[1] + y, output[2] + x];
                        if (0..3).any(|axis| at[axis] >= lengths[axis]) {
                            continue;
                        }
                        let voxel = ((item * lengths[0] + at[0]) * lengths[1] + at[1]) * lengths[2] + at[2];
                        let place = destination.pointer(voxel * channels + channel, S::F32_LANES);
                        // SAFETY: the range was checked; each piece owns its blocks' voxels.
                        unsafe {
                            let start = if *accumulate { load::<S>(place) } else { offset };
                            store::<S>(place, simd.add_f32s(start, line[x]));
                        }
                    }
                }
            }
        }
    }
}
