//! Gradient of the weights: outer products of inputs and output gradients, summed over voxels.
//!
//! `dW[t, i, o] = Σ_voxel x[voxel·stride + t − padding, i] · dy[voxel, o]`. The output voxels are cut into blocks whose
//! inputs fit a slab; runs of blocks (splits) sum into partial gradients of their own, which are added pairwise. Within a
//! split, registers sum at most [`CHAIN`] voxels before they are added to the partial, so no chain of f32 additions is
//! long.

use pulp::{Simd, WithSimd};

use super::correlation::CorrelationAxis;
use super::microkernel::{OuterTile, PANEL_VECTORS, even_cuts, max_rows};
use super::padded_tile;
use super::sizes::Sizes;
use crate::device::cpu::{Pool, SharedMut, SimdLevel};

/// Floats that a piece's slabs should not exceed (512 KiB).
const SLAB: usize = 1 << 17;

/// Floats of all partial gradients together, unless one alone is larger (4 MiB).
const PARTIALS: usize = 1 << 20;

/// Pieces that suffice to keep every thread busy.
const PIECES: usize = 16;

/// Voxels that one register sums before it is added to the partial.
const CHAIN: usize = 256;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Output planes and lines of a block.
    block: [usize; 2],
    /// Blocks along depth and height.
    blocks: [usize; 2],
    /// Partial gradients.
    splits: usize,
    /// Panels of a group.
    panels: usize,
    /// Groups of panels.
    groups: usize,
    /// Floats of the slab of inputs.
    inputs: usize,
    /// Floats of the slab of output gradients; none if they are read in place.
    gradients: usize,
    /// Floats of one partial.
    partial: usize,
}

impl Cut {
    fn new(sizes: &Sizes, lanes: usize) -> Self {
        let axes = [0, 1, 2].map(|axis| CorrelationAxis::forward(sizes, axis));
        let outputs = sizes.out_channels.next_multiple_of(lanes);
        // One panel of whole vectors is read where it lies.
        let one_panel = outputs == sizes.out_channels && outputs <= PANEL_VECTORS * lanes;
        let [depth, height, width] = sizes.output;
        let slabs = |block: [usize; 2]| {
            let lines = axes[0].span(0, block[0]).length * axes[1].span(0, block[1]).length;
            let inputs = lines * axes[2].span(0, width).length * sizes.in_channels;
            (inputs, if one_panel { 0 } else { block[0] * block[1] * width * outputs })
        };
        let count = |block: [usize; 2]| sizes.batch * depth.div_ceil(block[0]) * height.div_ceil(block[1]);
        let partial = sizes.window.taps() * sizes.in_channels * outputs;
        let most = (PARTIALS / partial.max(1)).clamp(1, 2 * PIECES);
        let mut block = [depth, height];
        let too_large = |block| slabs(block).0 + slabs(block).1 > SLAB || count(block) < most.min(PIECES);
        while block != [1, 1] && too_large(block) {
            let longer = usize::from(block[1] >= block[0]);
            block[longer] = block[longer].div_ceil(2);
        }
        let splits = count(block).min(most).max(1);
        let all_panels = outputs.div_ceil(PANEL_VECTORS * lanes).max(1);
        let groups = PIECES.div_ceil(splits).clamp(1, all_panels);
        let panels = all_panels.div_ceil(groups);
        let (inputs, gradients) = slabs(block);
        Self {
            block,
            blocks: [depth.div_ceil(block[0]), height.div_ceil(block[1])],
            splits,
            panels,
            groups: all_panels.div_ceil(panels),
            inputs,
            gradients,
            partial,
        }
    }
}

/// Treats neighbouring outputs of a line as further output channels, as [`Correlation::folded`] does, if that fills
/// vectors: the sizes, and how many outputs became one.
///
/// [`Correlation::folded`]: super::correlation::Correlation::folded
fn folded(sizes: &Sizes, lanes: usize) -> (Sizes, usize) {
    let mut fold = 1;
    while 2 * fold * sizes.out_channels <= lanes && sizes.output[2].is_multiple_of(2 * fold) {
        fold *= 2;
    }
    let (kernel, stride) = (sizes.window.kernel[2], sizes.window.stride[2]);
    let run = (fold - 1) * stride + kernel;
    if run >= fold * kernel {
        return (*sizes, 1);
    }
    let mut folded = *sizes;
    folded.out_channels *= fold;
    folded.output[2] /= fold;
    folded.window.kernel[2] = run;
    folded.window.stride[2] *= fold;
    (folded, fold)
}

/// Floats of scratch: the partial gradients and, for each thread, slabs of inputs and output gradients.
pub(super) fn workspace(sizes: &Sizes, simd: SimdLevel, threads: usize) -> usize {
    let cut = Cut::new(&folded(sizes, simd.lanes()).0, simd.lanes());
    cut.splits * cut.partial + threads * (cut.inputs + cut.gradients)
}

/// `dw[out, in, taps] (+)= Σ_voxel x·dy`.
pub(super) fn run(
    pool: &Pool,
    sizes: &Sizes,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let (folded, fold) = folded(sizes, pool.simd().lanes());
    let cut = Cut::new(&folded, pool.simd().lanes());
    let (partials, slabs) = scratch.split_at_mut(cut.splits * cut.partial);
    {
        let slabs = SharedMut::new(slabs);
        let job = Job {
            sizes: &folded,
            cut,
            axes: [0, 1, 2].map(|axis| CorrelationAxis::forward(&folded, axis)),
            x,
            dy,
            partials: SharedMut::new(partials),
        };
        pool.for_each_with_thread(cut.splits * cut.groups, |piece, thread| {
            let len = cut.inputs + cut.gradients;
            // SAFETY: no other running piece uses this thread's slabs.
            let (inputs, gradients) = unsafe { slabs.slice(thread * len, len) }.split_at_mut(cut.inputs);
            pool.simd().dispatch(Piece { job: &job, piece, inputs, gradients });
        });
    }
    add_pairwise(pool, partials, cut.splits, cut.partial);
    match fold {
        1 => unpack(pool, sizes, &partials[..cut.partial], dw, accumulate),
        _ => unfold(sizes, &folded, fold, &partials[..cut.partial], dw, accumulate),
    }
}

/// Adds `count` arrays of `len` floats into the first, pairwise.
pub(super) fn add_pairwise(pool: &Pool, arrays: &mut [f32], count: usize, len: usize) {
    /// Floats of one piece.
    const PIECE: usize = 1 << 13;
    let arrays = SharedMut::new(arrays);
    pool.for_each(len.div_ceil(PIECE), |piece| {
        let start = piece * PIECE;
        let size = PIECE.min(len - start);
        let mut distance = 1;
        while distance < count {
            for target in (0..count - distance).step_by(2 * distance) {
                // SAFETY: each piece owns its range of every array, and the two arrays differ.
                let (target, other) = unsafe {
                    (arrays.slice(target * len + start, size), arrays.slice((target + distance) * len + start, size))
                };
                target.iter_mut().zip(other).for_each(|(sum, term)| *sum += *term);
            }
            distance *= 2;
        }
    });
}

/// `dw[out, in, taps] (+)= sums[taps, in, padded out]`.
fn unpack(pool: &Pool, sizes: &Sizes, sums: &[f32], dw: &mut [f32], accumulate: bool) {
    /// Outputs handled together: one cache line of the sums.
    const OUTPUTS: usize = 16;
    let (taps, inputs, outputs) = (sizes.window.taps(), sizes.in_channels, sizes.out_channels);
    let row = sums.len() / (taps * inputs).max(1);
    let dw = SharedMut::new(dw);
    pool.for_each(outputs.div_ceil(OUTPUTS), |piece| {
        let first = piece * OUTPUTS;
        let count = OUTPUTS.min(outputs - first);
        // SAFETY: pieces are disjoint ranges of outputs.
        let dw = unsafe { dw.slice(first * inputs * taps, count * inputs * taps) };
        for input in 0..inputs {
            for tap in 0..taps {
                let sums = &sums[(tap * inputs + input) * row + first..][..count];
                for (output, &sum) in sums.iter().enumerate() {
                    let value = &mut dw[(output * inputs + input) * taps + tap];
                    *value = if accumulate { *value + sum } else { sum };
                }
            }
        }
    });
}

/// `dw[out, in, taps] (+)= Σ_i sums[taps of the folded kernel, in, folded out]` over the outputs `i` that became one.
fn unfold(sizes: &Sizes, folded: &Sizes, fold: usize, sums: &[f32], dw: &mut [f32], accumulate: bool) {
    let (taps, inputs, outputs) = (sizes.window.taps(), sizes.in_channels, sizes.out_channels);
    let (short, long) = (sizes.window.kernel[2], folded.window.kernel[2]);
    let row = sums.len() / (folded.window.taps() * inputs).max(1);
    for (i, value) in dw.iter_mut().enumerate() {
        let (output, input, tap) = (i / (inputs * taps), i / taps % inputs, i % taps);
        let (line, tap) = (tap / short, tap % short);
        let sum: f32 = (0..fold)
            .map(|j| {
                sums[((line * long + tap + j * sizes.window.stride[2]) * inputs + input) * row + j * outputs + output]
            })
            .sum();
        *value = if accumulate { *value + sum } else { sum };
    }
}

/// What all pieces share.
struct Job<'a> {
    sizes: &'a Sizes,
    cut: Cut,
    axes: [CorrelationAxis; 3],
    x: &'a [f32],
    dy: &'a [f32],
    partials: SharedMut<'a, f32>,
}

/// One split and one group of panels.
struct Piece<'a> {
    job: &'a Job<'a>,
    piece: usize,
    inputs: &'a mut [f32],
    gradients: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Job { sizes, cut, partials, .. } = self.job;
        let lanes = S::F32_LANES;
        let (split, group) = (self.piece / cut.groups, self.piece % cut.groups);
        let outputs = sizes.out_channels.next_multiple_of(lanes);
        let first = group * cut.panels * PANEL_VECTORS * lanes;
        let columns = (cut.panels * PANEL_VECTORS * lanes).min(outputs - first);
        for row in 0..cut.partial / outputs {
            let row = partials.pointer(split * cut.partial + row * outputs + first, columns);
            // SAFETY: each piece owns its columns of its split's partial; the range was checked.
            unsafe { row.write_bytes(0, columns) };
        }
        let blocks = sizes.batch * cut.blocks[0] * cut.blocks[1];
        for block in split * blocks / cut.splits..(split + 1) * blocks / cut.splits {
            self.block(simd, block, split, first..first + columns);
        }
    }
}

impl Piece<'_> {
    /// Adds one block of output voxels to the columns `columns` of partial `split`.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, block: usize, split: usize, columns: std::ops::Range<usize>) {
        let Job { sizes, cut, axes, x, dy, partials } = self.job;
        let lanes = S::F32_LANES;
        let (rest, h) = (block / cut.blocks[1], block % cut.blocks[1]);
        let (item, d) = (rest / cut.blocks[0], rest % cut.blocks[0]);
        let [_, height, width] = sizes.output;
        let from = [d * cut.block[0], h * cut.block[1]];
        let count = [cut.block[0].min(sizes.output[0] - from[0]), cut.block[1].min(height - from[1])];
        let spans = [axes[0].span(from[0], count[0]), axes[1].span(from[1], count[1]), axes[2].span(0, width)];
        let voxels: usize = sizes.input.iter().product();
        let volume = &x[item * voxels * sizes.in_channels..][..voxels * sizes.in_channels];
        padded_tile::fill(volume, sizes.input, sizes.in_channels, spans, self.inputs);
        let voxels = count[0] * count[1] * width;
        let first = ((item * sizes.output[0] + from[0]) * height + from[1]) * width * sizes.out_channels;
        let (gradients, gradient_lines) = match cut.gradients {
            0 => (&dy[first..], height),
            _ => {
                self.copy_gradients(lanes, item, from, count, columns.clone());
                (&*self.gradients, count[1])
            }
        };
        let outputs = sizes.out_channels.next_multiple_of(lanes);
        let [kd, kh, kw] = sizes.window.kernel;
        let [sd, sh, sw] = sizes.window.stride;
        let line = spans[2].length * sizes.in_channels;
        let plane = spans[1].length * line;
        let run = kw * sizes.in_channels;
        let (_, rows) = even_cuts(run, max_rows(lanes, PANEL_VECTORS));
        let lines = (CHAIN / width).clamp(1, count[1]);
        let planes = if lines < count[1] { 1 } else { (CHAIN / (lines * width)).clamp(1, count[0]) };
        for d in (0..count[0]).step_by(planes) {
            let planes = planes.min(count[0] - d);
            for h in (0..count[1]).step_by(lines) {
                let lines = lines.min(count[1] - h);
                for tap in 0..kd * kh {
                    let (i, j) = (tap / kh, tap % kh);
                    for row in (0..run).step_by(rows) {
                        for column in columns.clone().step_by(PANEL_VECTORS * lanes) {
                            let vectors = PANEL_VECTORS.min((columns.end - column) / lanes);
                            let panel = vectors * lanes;
                            let rows = rows.min(run - row);
                            let place = split * cut.partial + (tap * run + row) * outputs + column;
                            let tile = OuterTile {
                                x: self.inputs[(d * sd + i) * plane + (h * sh + j) * line + row..].as_ptr(),
                                x_plane: sd * plane,
                                x_line: sh * line,
                                x_step: sw * sizes.in_channels,
                                dy: gradients
                                    [(column - columns.start) * voxels + (d * gradient_lines + h) * width * panel..]
                                    .as_ptr(),
                                dy_plane: gradient_lines * width * panel,
                                dy_line: width * panel,
                                dy_step: panel,
                                planes,
                                lines,
                                positions: width,
                                sums: partials.pointer(place, (rows - 1) * outputs + panel),
                                sums_row: outputs,
                            };
                            // SAFETY: the slab spans every input of the block, the gradients are whole vectors, and
                            // the piece owns these columns of its split's partial, whose range was checked.
                            unsafe { tile.run(simd, rows, vectors) };
                        }
                    }
                }
            }
        }
    }

    /// Copies a block's output gradients, the channels `columns`, as `[panel][voxels][columns of the panel]`: contiguous, for
    /// whole cache lines a power of two apart would evict each other. Channels beyond the last are zero.
    #[inline(always)]
    fn copy_gradients(
        &mut self,
        lanes: usize,
        item: usize,
        from: [usize; 2],
        count: [usize; 2],
        columns: std::ops::Range<usize>,
    ) {
        let Job { sizes, dy, .. } = self.job;
        let [depth, height, width] = sizes.output;
        let channels = sizes.out_channels;
        let mut rest = &mut *self.gradients;
        for column in columns.clone().step_by(PANEL_VECTORS * lanes) {
            let panel = (PANEL_VECTORS * lanes).min(columns.end - column);
            let used = panel.min(channels - column);
            for d in from[0]..from[0] + count[0] {
                let (target, after) = rest.split_at_mut(count[1] * width * panel);
                let first = ((item * depth + d) * height + from[1]) * width * channels;
                let voxels = dy[first..first + count[1] * width * channels].chunks_exact(channels);
                for (target, voxel) in target.chunks_exact_mut(panel).zip(voxels) {
                    target[..used].copy_from_slice(&voxel[column..column + used]);
                    target[used..].fill(0.0);
                }
                rest = after;
            }
        }
    }
}
