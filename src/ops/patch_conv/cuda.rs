//! Launches of `kernels/patch_conv.cu`.

use bytemuck::{Pod, Zeroable};

use super::spectra::{Direction, SPECTRUM};
use super::{Dims, NAME};
use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::Result;
use crate::ops::cuda::gemm::lengths;
use crate::ops::patch_sample::cuda::Volumes;
use crate::ops::patch_sample::{PatchOptions, check_shapes};
use crate::tensor::{DType, Tensor};

/// Threads of a block, patches of a block, most inputs and outputs of a launch.
const BLOCK: u32 = 320;
const POINTS: usize = 2;
const INPUTS: usize = 8;
const OUTPUTS: usize = 4;
/// Inputs and outputs of a block of the weight gradient.
const PAIR_SIDE: usize = 4;

/// Most pieces that the points are cut into for sums over them, and most floats (16 MiB) of all pieces' spectra unless
/// those of sixteen pieces are more.
const PIECES: usize = 128;
const SUMS: usize = 4 << 20;

/// `Source` of the kernels: where patches come from.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Source {
    data: u64,
    coordinates: u64,
    volumes: Volumes,
    narrow: u32,
    unused: u32,
}

/// 1 for bf16.
fn narrow(tensor: &Tensor) -> u32 {
    u32::from(tensor.dtype() == DType::Bf16)
}

impl Source {
    /// Given patches.
    pub fn patches(patches: &Tensor) -> Self {
        let (data, narrow) = (patches.address(), narrow(patches));
        Self { data, coordinates: 0, volumes: Volumes::zeroed(), narrow, unused: 0 }
    }

    /// Patches to be cut from `[volume, coordinates]`, or `[patches]` without options.
    pub fn new(options: Option<PatchOptions>, tensors: &[&Tensor]) -> Result<Self> {
        let Some(options) = options else { return Ok(Self::patches(tensors[0])) };
        let (grid, points_per_volume) = check_shapes(NAME, tensors[0].shape(), tensors[1].shape())?;
        let volumes = Volumes::new(grid, points_per_volume, options);
        let (data, coordinates) = (tensors[0].address(), tensors[1].address());
        Ok(Self { data, coordinates, volumes, narrow: narrow(tensors[0]), unused: 0 })
    }
}

/// `Part` of the kernels: the channels of one launch.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Part {
    channels: u32,
    first: u32,
    count: u32,
}

/// `channels` in parts of at most `most`.
fn parts(channels: usize, most: usize) -> impl Iterator<Item = Part> {
    (0..channels).step_by(most).map(move |first| Part {
        channels: channels as u32,
        first: first as u32,
        count: most.min(channels - first) as u32,
    })
}

/// Dynamic shared memory for so many channels of each of a block's patches.
fn regions(channels: usize) -> usize {
    POINTS * channels * SPECTRUM * size_of::<[f32; 2]>()
}

/// Floats of the spectra of all pairs of channels.
fn spectra_len(dims: Dims) -> usize {
    2 * SPECTRUM * dims.inputs * dims.outputs
}

/// Floats of scratch that [`convolve`] needs.
pub(super) fn workspace(dims: Dims) -> usize {
    spectra_len(dims)
}

/// `output (+)= W ⋆ source + bias`, or for [`Direction::Adjoint`] with the kernel transposed; `dims` names the channels of
/// `source` and of `output`, `weight` is `[Co, Ci, 7³]` of the forward direction in either case.
#[allow(clippy::too_many_arguments)] // one convolution's operands
pub(super) fn convolve(
    cuda: &Cuda,
    source: Source,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (dims, direction): (Dims, Direction),
    output: &mut Tensor,
    accumulate: bool,
    spectra: &mut Tensor,
) -> Result<()> {
    lengths(NAME, [dims.points])?;
    let adjoint = direction == Direction::Adjoint;
    let stored = if adjoint { dims.adjoint() } else { dims };
    cuda.kernel("patch_conv_spectra")
        .input(weight)
        .value(stored.inputs as u32)
        .value(stored.outputs as u32)
        .value(u32::from(adjoint))
        .output(spectra)
        .launch(LaunchConfig::new(dims.inputs * dims.outputs, THREADS))?;
    for to in parts(dims.outputs, OUTPUTS) {
        for from in parts(dims.inputs, INPUTS) {
            cuda.kernel("patch_conv_forward")
                .value(source)
                .value(from)
                .value(to)
                .input(spectra)
                .optional(bias.filter(|_| from.first == 0))
                .output(output)
                .value(narrow(output))
                .value(dims.points as u64)
                .value(u32::from(accumulate || from.first > 0))
                .launch(
                    LaunchConfig::new(dims.points.div_ceil(POINTS), BLOCK)
                        .shared(regions(from.count.max(to.count) as usize)),
                )?;
        }
    }
    Ok(())
}

/// Points of a piece of the weight gradient, and number of pieces.
fn pieces(dims: Dims) -> [usize; 2] {
    let most = (SUMS / spectra_len(dims)).clamp(16, PIECES);
    let piece = dims.points.div_ceil(most).next_multiple_of(POINTS).max(POINTS);
    [piece, dims.points.div_ceil(piece)]
}

/// Floats of scratch that [`weight_gradient`] needs.
pub(super) fn weight_gradient_workspace(dims: Dims) -> usize {
    pieces(dims)[1] * spectra_len(dims)
}

/// `dW (+)= Σ_points dy ⋆ x`, `[Co, Ci, 7³]`, from `dy` `[points, Co, 343]`.
pub(super) fn weight_gradient(
    cuda: &Cuda,
    source: Source,
    dy: &Tensor,
    dims: Dims,
    dw: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let Dims { points, inputs, outputs } = dims;
    let [piece, pieces] = pieces(dims);
    let blocks = [pieces as u32, inputs.div_ceil(PAIR_SIDE) as u32, outputs.div_ceil(PAIR_SIDE) as u32];
    let shared = regions(inputs.min(PAIR_SIDE) + outputs.min(PAIR_SIDE));
    cuda.kernel("patch_conv_weight_sums")
        .value(source)
        .input(dy)
        .value(narrow(dy))
        .value(inputs as u32)
        .value(outputs as u32)
        .value(points as u64)
        .value(piece as u64)
        .output(scratch)
        .launch(LaunchConfig { blocks, threads: [BLOCK, 1, 1], shared: 0 }.shared(shared))?;
    cuda.kernel("patch_conv_weight_gradient")
        .input(scratch)
        .value(pieces as u32)
        .value((inputs * outputs) as u32)
        .output(dw)
        .value(u32::from(accumulate))
        .launch(LaunchConfig::new(inputs * outputs, THREADS))
}

/// Floats of scratch that [`bias_gradient`] needs.
pub(super) fn bias_gradient_workspace(dims: Dims) -> usize {
    PIECES.min(dims.points).max(1) * dims.outputs
}

/// `db (+)= Σ dy` over points and voxels.
pub(super) fn bias_gradient(
    cuda: &Cuda,
    dy: &Tensor,
    dims: Dims,
    db: &mut Tensor,
    accumulate: bool,
    scratch: &mut Tensor,
) -> Result<()> {
    let pieces = PIECES.min(dims.points).max(1);
    cuda.kernel("patch_conv_bias_gradient")
        .input(dy)
        .value(narrow(dy))
        .value(dims.outputs as u32)
        .value(dims.points as u64)
        .value(dims.points.div_ceil(pieces) as u64)
        .output(scratch)
        .output(db)
        .value(u32::from(accumulate))
        .tickets(dims.outputs)?
        .launch(LaunchConfig { blocks: [pieces as u32, dims.outputs as u32, 1], threads: [THREADS, 1, 1], shared: 0 })
}
