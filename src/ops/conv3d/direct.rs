//! Direct convolution: an implicit matrix product that is right for every shape.
//!
//! The weights are packed into panels of a few vectors of output channels. A piece of work is a block of destination
//! planes and lines (and, for small volumes, a group of panels): it copies the source voxels it reads into a slab, then
//! for each panel, phase and line multiplies tiles of neighbouring destinations by the panel. Channels-last makes the
//! taps along a line one contiguous run of `kernel·channels` floats, whatever the stride.

use pulp::{Simd, WithSimd};

use super::correlation::{AxisPhase, Correlation, Phase};
use super::microkernel::{Start, Tile, even_cuts, max_rows, panel_vectors};
use super::padded_tile;
use crate::device::cpu::{Pool, SharedMut, SimdLevel};

/// Floats of a slab that a piece should not exceed (512 KiB: a quarter of a usual second-level cache).
const SLAB: usize = 1 << 17;

/// Pieces that suffice to keep every thread busy.
const PIECES: usize = 16;

/// Terms of one chain of f32 additions, if a run is not longer: longer sums are cut between runs. Also keeps the part of
/// a panel in use (128 KiB) in the second-level cache.
const CHAIN: usize = 1024;

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Destination planes and lines of a block.
    block: [usize; 2],
    /// Blocks along depth and height.
    blocks: [usize; 2],
    /// Vectors of a panel (the last one may have fewer).
    vectors: usize,
    /// Panels.
    panels: usize,
    /// Panels of a group.
    group: usize,
    /// Groups of panels.
    groups: usize,
    /// Floats of a slab.
    slab: usize,
}

impl Cut {
    fn new(correlation: &Correlation, lanes: usize) -> Self {
        let vectors = panel_vectors(lanes, correlation.axes[2].outputs());
        let panels = correlation.outputs.div_ceil(vectors * lanes).max(1);
        let slab = |block: [usize; 2]| {
            let [depth, height, width] = &correlation.axes;
            let lines = depth.span(0, block[0]).length * height.span(0, block[1]).length;
            lines * width.span(0, width.outputs()).length * correlation.inputs
        };
        let limits = [correlation.axes[0].outputs().max(1), correlation.axes[1].outputs().max(1)];
        let mut block = limits;
        let count = |block: [usize; 2]| limits[0].div_ceil(block[0]) * limits[1].div_ceil(block[1]) * correlation.batch;
        while block != [1, 1] && (slab(block) > SLAB || count(block) * panels < PIECES / 2) {
            let longer = usize::from(block[1] >= block[0]);
            block[longer] = block[longer].div_ceil(2);
        }
        let groups = PIECES.div_ceil(count(block).max(1)).clamp(1, panels);
        let group = panels.div_ceil(groups);
        Self {
            block,
            blocks: [limits[0].div_ceil(block[0]), limits[1].div_ceil(block[1])],
            vectors,
            panels,
            group,
            groups: panels.div_ceil(group),
            slab: slab(block),
        }
    }
}

/// Output channels rounded up to whole vectors.
fn padded(outputs: usize, lanes: usize) -> usize {
    outputs.next_multiple_of(lanes)
}

/// Floats of scratch: packed weights, padded bias, one slab a thread.
pub(super) fn workspace(correlation: &Correlation, simd: SimdLevel, threads: usize) -> usize {
    let outputs = padded(correlation.outputs, simd.lanes());
    (correlation.taps() * correlation.inputs + 1) * outputs + threads * Cut::new(correlation, simd.lanes()).slab
}

/// `destination (+)= correlation of source with weight`, plus a bias unless it is accumulated.
///
/// `weight` is `[out_channels, in_channels, kernel…]` of the convolution, also for its adjoint.
#[allow(clippy::too_many_arguments)]
pub(super) fn run(
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
    if destination.is_empty() {
        return;
    }
    let lanes = pool.simd().lanes();
    let outputs = padded(correlation.outputs, lanes);
    let cut = Cut::new(correlation, lanes);
    let (packed, rest) = scratch.split_at_mut(correlation.taps() * correlation.inputs * outputs);
    let (padded_bias, slabs) = rest.split_at_mut(outputs);
    padded_bias.fill(0.0);
    if let Some(bias) = bias {
        padded_bias[..correlation.outputs].iter_mut().zip(bias.iter().cycle()).for_each(|(to, from)| *to = *from);
    }
    pack(pool, correlation, cut, kernel, weight, packed);
    let (packed, padded_bias) = (&*packed, &*padded_bias);
    let slabs = SharedMut::new(slabs);
    let destination = SharedMut::new(destination);
    let start = match (accumulate, bias) {
        (true, _) => Start::Output,
        (false, Some(_)) => Start::Bias(padded_bias.as_ptr()),
        (false, None) => Start::Zero,
    };
    let pieces = correlation.batch * cut.blocks[0] * cut.blocks[1] * cut.groups;
    let shared = Job { correlation, cut, source, packed, destination, start };
    pool.for_each_with_thread(pieces, |piece, thread| {
        // SAFETY: no other running piece uses this thread's slab.
        let slab = unsafe { slabs.slice(thread * cut.slab, cut.slab) };
        pool.simd().dispatch(Piece { job: &shared, piece, slab });
    });
}

/// Weights as `[phase][panel][taps][inputs][columns of the panel]`, zero beyond the last output.
fn pack(pool: &Pool, correlation: &Correlation, cut: Cut, kernel: [usize; 3], weight: &[f32], packed: &mut [f32]) {
    /// Inputs handled together: their taps stay in the first-level cache while they are gone through.
    const INPUTS: usize = 4;
    let lanes = pool.simd().lanes();
    let outputs = padded(correlation.outputs, lanes);
    let (width, panels) = (cut.vectors * lanes, cut.panels);
    let inputs = correlation.inputs;
    let (input_stride, output_stride) = correlation.weight_strides(kernel);
    let packed = SharedMut::new(packed);
    pool.for_each(correlation.phases.len() * panels, |piece| {
        let phase = &correlation.phases[piece / panels];
        let first = piece % panels * width;
        let columns = width.min(outputs - first);
        let used = columns.min(correlation.outputs - first);
        let taps = phase.taps();
        let place = phase.taps_before * inputs * outputs + taps * inputs * first;
        // SAFETY: panels do not overlap.
        let panel = unsafe { packed.slice(place, taps * inputs * columns) };
        if used < columns {
            panel.fill(0.0);
        }
        // Without folding there is one band: the phase itself.
        let whole = [AxisPhase { lead: 0, ..phase.axes[2] }];
        let bands = if correlation.bands.is_empty() { &whole[..] } else { &correlation.bands };
        let channels = correlation.channels();
        let [d, h, w] = phase.axes;
        for chunk in (0..inputs).step_by(INPUTS) {
            for i in 0..taps {
                let [depth, height, width] = [i / (h.taps * w.taps), i / w.taps % h.taps, i % w.taps];
                let line = (d.tap(depth) * kernel[1] + h.tap(height)) * kernel[2];
                for input in chunk..inputs.min(chunk + INPUTS) {
                    let row = &mut panel[(i * inputs + input) * columns..][..used];
                    for (band, b) in bands.iter().enumerate() {
                        let from = (band * channels).max(first);
                        let to = ((band + 1) * channels).min(first + used);
                        if from >= to {
                            continue;
                        }
                        let row = &mut row[from - first..to - first];
                        let tap = width as isize - b.lead;
                        if !(0..b.taps as isize).contains(&tap) {
                            row.fill(0.0);
                            continue;
                        }
                        let tap = line + b.tap(tap as usize);
                        let weights = &weight[(from - band * channels) * output_stride + input * input_stride + tap..];
                        for (value, weight) in row.iter_mut().zip(weights.iter().step_by(output_stride)) {
                            *value = *weight;
                        }
                    }
                }
            }
        }
    });
}

/// What all pieces share.
struct Job<'a> {
    correlation: &'a Correlation,
    cut: Cut,
    source: &'a [f32],
    packed: &'a [f32],
    destination: SharedMut<'a, f32>,
    start: Start,
}

// SAFETY: the raw pointer of `start` is a shared borrow that outlives the job.
unsafe impl Sync for Job<'_> {}

/// One block of destinations and one group of panels.
struct Piece<'a> {
    job: &'a Job<'a>,
    piece: usize,
    slab: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Job { correlation, cut, .. } = self.job;
        let (block, group) = (self.piece / cut.groups, self.piece % cut.groups);
        let (block, h) = (block / cut.blocks[1], block % cut.blocks[1]);
        let (item, d) = (block / cut.blocks[0], block % cut.blocks[0]);
        let [depth, height, width] = &correlation.axes;
        let from = [d * cut.block[0], h * cut.block[1]];
        let count = [cut.block[0].min(depth.outputs() - from[0]), cut.block[1].min(height.outputs() - from[1])];
        let spans = [depth.span(from[0], count[0]), height.span(from[1], count[1]), width.span(0, width.outputs())];
        let voxels: usize = correlation.source().iter().product();
        let volume = &self.job.source[item * voxels * correlation.inputs..][..voxels * correlation.inputs];
        padded_tile::fill(volume, correlation.source(), correlation.inputs, spans, self.slab);
        let line = spans[2].length * correlation.inputs;
        let plane = spans[1].length * line;
        for panel in group * cut.group..((group + 1) * cut.group).min(cut.panels) {
            for phase in &correlation.phases {
                self.phase(simd, phase, panel, item, from, count, [plane, line]);
            }
        }
    }
}

impl Piece<'_> {
    /// One phase of one panel: all tiles of the block.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn phase<S: Simd>(
        &self,
        simd: S,
        phase: &Phase,
        panel: usize,
        item: usize,
        from: [usize; 2],
        count: [usize; 2],
        [plane, line]: [usize; 2],
    ) {
        let Job { correlation, cut, packed, .. } = self.job;
        let lanes = S::F32_LANES;
        let inputs = correlation.inputs;
        let outputs = padded(correlation.outputs, lanes);
        let first = panel * cut.vectors * lanes;
        let vectors = cut.vectors.min((outputs - first) / lanes);
        let columns = (vectors * lanes).min(correlation.outputs - first);
        let weights = &packed[phase.taps_before * inputs * outputs + phase.taps() * inputs * first..];
        let [depth, height, width] = &correlation.axes;
        let [d_axis, h_axis, w_axis] = &phase.axes;
        let run = w_axis.taps * inputs;
        // One offset for each pair of depth and height taps.
        let taps: Vec<usize> =
            (0..d_axis.taps).flat_map(|i| (0..h_axis.taps).map(move |j| i * plane + j * line)).collect();
        let chain = (CHAIN / run.max(1)).max(1);
        let origin = (d_axis.lead - depth.lead()) as usize * plane
            + (h_axis.lead - height.lead()) as usize * line
            + (w_axis.lead - width.lead()) as usize * inputs;
        let (_, rows) = even_cuts(w_axis.outputs, max_rows(lanes, vectors));
        let destination = correlation.destination();
        let mut done = 0;
        loop {
            let part = &taps[done..taps.len().min(done + chain)];
            let start = match self.job.start {
                _ if done > 0 => Start::Output,
                Start::Bias(bias) => Start::Bias(bias.wrapping_add(first)),
                start => start,
            };
            for d in 0..count[0].min(d_axis.outputs.saturating_sub(from[0])) {
                for h in 0..count[1].min(h_axis.outputs.saturating_sub(from[1])) {
                    let target =
                        [(from[0] + d) * depth.spread + d_axis.place, (from[1] + h) * height.spread + h_axis.place];
                    let target = (item * destination[0] + target[0]) * destination[1] + target[1];
                    let target = (target * destination[2] + w_axis.place) * correlation.outputs + first;
                    let source = origin + d * depth.step * plane + h * height.step * line;
                    for w in (0..w_axis.outputs).step_by(rows) {
                        let rows = rows.min(w_axis.outputs - w);
                        let output_row = width.spread * correlation.outputs;
                        let reach = (rows - 1) * output_row + columns;
                        let output = self.job.destination.pointer(target + w * output_row, reach);
                        let tile = Tile {
                            input: self.slab.as_ptr().wrapping_add(source + w * width.step * inputs),
                            row: width.step * inputs,
                            taps: part,
                            run,
                            panel: weights.as_ptr().wrapping_add(done * run * vectors * lanes),
                            output,
                            output_row,
                            start,
                        };
                        // SAFETY: the slab spans every source voxel of the block, the panel every tap; the range in
                        // the destination was checked, and its columns of the block's voxels are this piece's own.
                        unsafe { tile.run(simd, rows, vectors, columns) };
                    }
                }
            }
            done += part.len();
            if done >= taps.len() {
                break;
            }
        }
    }
}
