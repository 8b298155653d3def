//! Forward and input gradient on the CPU.

use pulp::{Simd, WithSimd, bytemuck};

use super::dft::{BINS, Complex, Dft, HALF};
use super::lane_transpose::transpose;
use super::source::Source;
use super::spectra::{self, Direction, SPECTRUM};
use super::{Dims, PATCH};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::patch_sample::{SIDE, VoxelSource};

/// Groups of patches of one piece of work.
const GROUPS: usize = 4;

/// Bins of the last two axes; for each of them the first axis is a line of its own.
pub(super) const LINES: usize = HALF * BINS;
/// Vectors (complex) of a channel that is transformed along the last two axes only.
pub(super) const PLANES: usize = SIDE * LINES;

/// One thread's scratch, cut into its parts.
pub(super) struct Scratch<'a, S: Simd> {
    /// Channels transformed along the last two axes, `[channel, x, line]`.
    pub planes: &'a mut [[Complex<S::f32s>; PLANES]],
    /// One plane transformed along the last axis, `[kz, y]`.
    pub plane: &'a mut [Complex<S::f32s>; HALF * SIDE],
    /// One channel's voxels.
    pub voxels: &'a mut [S::f32s; PATCH],
    /// Lines of all channels along the first axis.
    pub lines: &'a mut [S::f32s],
    /// A group's patches, one after the other.
    pub staging: &'a mut [f32],
    /// Scratch of the source.
    pub source: &'a mut [f32],
}

/// Vectors for the lines of all channels: those of the inputs twice, padded to whole tiles, for the weight gradient.
fn line_vectors(dims: Dims, lanes: usize) -> usize {
    2 * (2 * BINS * dims.inputs).next_multiple_of(lanes) + 2 * BINS * dims.outputs
}

/// Floats of one thread's scratch.
pub(super) fn scratch_len<V: VoxelSource + ?Sized>(source: &Source<'_, V>, dims: Dims, lanes: usize) -> usize {
    let Dims { inputs, outputs, .. } = dims;
    let vectors = 2 * PLANES * (inputs + outputs) + 2 * HALF * SIDE + PATCH + line_vectors(dims, lanes);
    lanes * (vectors + inputs.max(outputs) * PATCH) + source.scratch().next_multiple_of(16)
}

impl<'a, S: Simd> Scratch<'a, S> {
    /// Cuts `floats` (as many as [`scratch_len`] says) into its parts.
    #[inline(always)]
    pub fn new(floats: &'a mut [f32], dims: Dims) -> Self {
        let lanes = S::F32_LANES;
        let Dims { inputs, outputs, .. } = dims;
        let line_vectors = line_vectors(dims, lanes);
        let vectors = 2 * PLANES * (inputs + outputs) + 2 * HALF * SIDE + PATCH + line_vectors;
        let (vectors, floats) = floats.split_at_mut(vectors * lanes);
        let (staging, source) = floats.split_at_mut(lanes * inputs.max(outputs) * PATCH);
        let vectors: &mut [S::f32s] = bytemuck::cast_slice_mut(vectors);
        let (planes, vectors) = vectors.split_at_mut(2 * PLANES * (inputs + outputs));
        let (plane, vectors) = vectors.split_at_mut(2 * HALF * SIDE);
        let (voxels, lines) = vectors.split_at_mut(PATCH);
        Self {
            planes: planes.as_chunks_mut().0.as_chunks_mut().0,
            plane: plane.as_chunks_mut().0.try_into().expect("cut to this length"),
            voxels: voxels.try_into().expect("cut to this length"),
            lines,
            staging,
            source,
        }
    }
}

/// Voxels of one channel to its bins along the last two axes.
#[inline(always)]
fn planes_forward<S: Simd>(
    dft: Dft<S>,
    voxels: &[S::f32s; PATCH],
    plane: &mut [Complex<S::f32s>; HALF * SIDE],
    planes: &mut [Complex<S::f32s>; PLANES],
) {
    for x in 0..SIDE {
        for y in 0..SIDE {
            let mut line = [dft.zero(); SIDE];
            for z in 0..SIDE {
                line[z] = voxels[(x * SIDE + y) * SIDE + z];
            }
            let bins = dft.forward_real(line);
            for k in 0..HALF {
                plane[k * SIDE + y] = bins[k];
            }
        }
        for k in 0..HALF {
            let mut line = [[dft.zero(); 2]; SIDE];
            for y in 0..SIDE {
                line[y] = plane[k * SIDE + y];
            }
            let bins = dft.forward(line);
            for j in 0..BINS {
                planes[x * LINES + k * BINS + j] = bins[j];
            }
        }
    }
}

/// Back again, for the seven wanted elements of each axis; adds `bias`.
#[inline(always)]
fn planes_inverse<S: Simd>(
    dft: Dft<S>,
    planes: &[Complex<S::f32s>; PLANES],
    plane: &mut [Complex<S::f32s>; HALF * SIDE],
    voxels: &mut [S::f32s; PATCH],
    bias: f32,
) {
    let bias = dft.simd.splat_f32s(bias);
    for x in 0..SIDE {
        for k in 0..HALF {
            let mut bins = [[dft.zero(); 2]; BINS];
            for j in 0..BINS {
                bins[j] = planes[x * LINES + k * BINS + j];
            }
            let line = dft.inverse(bins);
            for y in 0..SIDE {
                plane[k * SIDE + y] = line[y];
            }
        }
        for y in 0..SIDE {
            let mut bins = [[dft.zero(); 2]; HALF];
            for k in 0..HALF {
                bins[k] = plane[k * SIDE + y];
            }
            let line = dft.inverse_real(bins);
            for z in 0..SIDE {
                voxels[(x * SIDE + y) * SIDE + z] = dft.simd.add_f32s(line[z], bias);
            }
        }
    }
}

/// All channels of a group of patches (one after the other in `patches`) to `planes`.
#[inline(always)]
pub(super) fn group_forward<S: Simd>(
    dft: Dft<S>,
    patches: &[f32],
    voxels: &mut [S::f32s; PATCH],
    plane: &mut [Complex<S::f32s>; HALF * SIDE],
    planes: &mut [[Complex<S::f32s>; PLANES]],
) {
    let (lanes, stride) = (S::F32_LANES, planes.len() * PATCH);
    for (channel, planes) in planes.iter_mut().enumerate() {
        let target: &mut [f32] = bytemuck::cast_slice_mut(voxels);
        transpose(dft.simd, [lanes, PATCH], &patches[channel * PATCH..], stride, target, lanes);
        planes_forward(dft, voxels, plane, planes);
    }
}

/// The bins of line `q` along the first axis, for each of `planes`: `lines[k·channels + channel]`.
#[inline(always)]
pub(super) fn lines_forward<S: Simd>(
    dft: Dft<S>,
    planes: &[[Complex<S::f32s>; PLANES]],
    q: usize,
    lines: &mut [Complex<S::f32s>],
) {
    let channels = planes.len();
    let lines = &mut lines[..BINS * channels];
    for (channel, planes) in planes.iter().enumerate() {
        let mut line = [[dft.zero(); 2]; SIDE];
        for x in 0..SIDE {
            line[x] = planes[x * LINES + q];
        }
        let bins = dft.forward(line);
        for k in 0..BINS {
            lines[k * channels + channel] = bins[k];
        }
    }
}

/// `J` outputs' products for one bin: `y[o] = Σ_c w[o, c]·x[c]`, complex, with the weights equal for all lanes.
#[inline(always)]
fn products<S: Simd, const J: usize>(simd: S, weights: &[f32], x: &[Complex<S::f32s>]) -> [Complex<S::f32s>; J] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; J];
    let (weights, _) = weights.as_chunks::<2>();
    for (c, &[re, im]) in x.iter().enumerate() {
        for o in 0..J {
            let [wr, wi] = weights[o * x.len() + c];
            let (wr, wi) = (simd.splat_f32s(wr), simd.splat_f32s(wi));
            let [sr, si] = sums[o];
            sums[o] = [
                simd.negate_mul_add_e_f32s(wi, im, simd.mul_add_e_f32s(wr, re, sr)),
                simd.mul_add_e_f32s(wi, re, simd.mul_add_e_f32s(wr, im, si)),
            ];
        }
    }
    sums
}

/// What all pieces of one convolution share.
struct Convolution<'a, V: ?Sized> {
    source: &'a Source<'a, V>,
    spectra: &'a [f32],
    bias: Option<&'a [f32]>,
    dims: Dims,
    accumulate: bool,
}

/// One piece of it.
struct Piece<'a, V: ?Sized> {
    job: &'a Convolution<'a, V>,
    first_point: usize,
    /// The piece's own patches `[points, outputs, 343]`.
    output: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl<V: VoxelSource + ?Sized> WithSimd for Piece<'_, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Convolution { source, spectra, bias, dims, accumulate } = *self.job;
        let (lanes, len) = (S::F32_LANES, dims.outputs * PATCH);
        let Scratch { planes, plane, voxels, lines, staging, source: scratch } = Scratch::<S>::new(self.scratch, dims);
        let (inputs, outputs) = planes.split_at_mut(dims.inputs);
        let lines: &mut [Complex<S::f32s>] = lines.as_chunks_mut().0;
        let (x, y) = lines.split_at_mut(BINS * dims.inputs);
        let dft = Dft::new(simd);
        for (group, output) in self.output.chunks_mut(lanes * len).enumerate() {
            let first = self.first_point + group * lanes;
            let patches = source.load(first..first + output.len() / len, lanes, dims, staging, scratch);
            group_forward(dft, patches, voxels, plane, inputs);
            for q in 0..LINES {
                lines_forward(dft, inputs, q, x);
                for k in 0..BINS {
                    let weights = &spectra[(q * BINS + k) * dims.inputs * dims.outputs * 2..];
                    let x = &x[k * dims.inputs..][..dims.inputs];
                    let mut o = 0;
                    while o + 4 <= dims.outputs {
                        let sums = products::<S, 4>(simd, &weights[o * dims.inputs * 2..], x);
                        for i in 0..4 {
                            y[(o + i) * BINS + k] = sums[i];
                        }
                        o += 4;
                    }
                    while o < dims.outputs {
                        let [sum] = products::<S, 1>(simd, &weights[o * dims.inputs * 2..], x);
                        y[o * BINS + k] = sum;
                        o += 1;
                    }
                }
                for (o, planes) in outputs.iter_mut().enumerate() {
                    let mut bins = [[dft.zero(); 2]; BINS];
                    for k in 0..BINS {
                        bins[k] = y[o * BINS + k];
                    }
                    let line = dft.inverse(bins);
                    for i in 0..SIDE {
                        planes[i * LINES + q] = line[i];
                    }
                }
            }
            // A whole group that overwrites goes straight to its place.
            let whole = output.len() == lanes * len && !accumulate;
            let target = if whole { &mut *output } else { &mut staging[..lanes * len] };
            for (o, planes) in outputs.iter().enumerate() {
                planes_inverse(dft, planes, plane, voxels, bias.map_or(0.0, |bias| bias[o]));
                let values: &[f32] = bytemuck::cast_slice(&voxels[..]);
                transpose(simd, [PATCH, lanes], values, lanes, &mut target[o * PATCH..], len);
            }
            if !whole {
                let values = output.iter_mut().zip(&*staging);
                values.for_each(|(output, value)| *output = if accumulate { *output + value } else { *value });
            }
        }
    }
}

/// Floats of scratch that [`convolve`] needs.
pub(super) fn workspace<V: VoxelSource + ?Sized>(
    threads: usize,
    lanes: usize,
    source: &Source<'_, V>,
    dims: Dims,
) -> usize {
    weight_spectra_len(dims) + threads * scratch_len(source, dims, lanes)
}

/// Floats of the weights' spectra, whole cache lines.
fn weight_spectra_len(dims: Dims) -> usize {
    (2 * SPECTRUM * dims.inputs * dims.outputs).next_multiple_of(16)
}

/// `output (+)= W ⋆ source + bias`, or for [`Direction::Adjoint`] with the kernel transposed; `dims` names the channels of
/// `source` and of `output` in either case, `weight` is `[Co, Ci, 7³]` of the forward direction in either case.
#[allow(clippy::too_many_arguments)] // one convolution's operands
pub(super) fn convolve<V: VoxelSource + ?Sized>(
    pool: &Pool,
    source: &Source<'_, V>,
    weight: &[f32],
    bias: Option<&[f32]>,
    (dims, direction): (Dims, Direction),
    output: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let lanes = pool.simd().lanes();
    let (spectra, scratch) = scratch.split_at_mut(weight_spectra_len(dims));
    let stored = match direction {
        Direction::Forward => dims,
        Direction::Adjoint => dims.adjoint(),
    };
    spectra::of_weight(weight, stored, direction, spectra);
    let job = Convolution { source, spectra, bias, dims, accumulate };
    let (per_piece, per_thread) = (GROUPS * lanes, scratch_len(source, dims, lanes));
    let (output, scratch) = (SharedMut::new(output), SharedMut::new(scratch));
    pool.for_each_with_thread(dims.points.div_ceil(per_piece), |piece, thread| {
        let first_point = piece * per_piece;
        let points = per_piece.min(dims.points - first_point);
        let len = dims.outputs * PATCH;
        // SAFETY: pieces own disjoint points.
        let output = unsafe { output.slice(first_point * len, points * len) };
        // SAFETY: each running piece has its thread's own scratch.
        let scratch = unsafe { scratch.slice(thread * per_thread, per_thread) };
        pool.simd().dispatch(Piece { job: &job, first_point, output, scratch });
    });
}
