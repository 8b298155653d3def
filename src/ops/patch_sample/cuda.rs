//! Launches of `kernels/patch.cu`.

use bytemuck::{Pod, Zeroable};

use super::{PatchOptions, Pooling, VolumeSize};
use crate::device::{self, Cuda, THREADS};
use crate::error::Result;
use crate::tensor::Tensor;

/// `Volumes` of `kernels/patch.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Volumes {
    size: [u32; 3],
    channels: u32,
    points_per_volume: u32,
    mid_range: u32,
}

/// Blocks that a kernel with a block a point is launched with, at most.
const MANY_POINTS: usize = 1 << 16;

/// Threads of a block whose threads share the 343 voxels of a patch.
const PATCH_THREADS: u32 = 352;

/// Side of the voxels that a block of the volume's gradient owns.
const OWN: usize = 8;

impl Volumes {
    pub(crate) fn new(grid: VolumeSize, points_per_volume: usize, options: PatchOptions) -> Self {
        let mid_range = match options.mid_range {
            None => 0,
            Some(Pooling::Average) => 1,
            Some(Pooling::Max) => 2,
        };
        Self {
            size: grid.size.map(|side| side as u32),
            channels: grid.channels as u32,
            points_per_volume: points_per_volume.max(1) as u32,
            mid_range,
        }
    }
}

fn by_points(points: usize) -> device::LaunchConfig {
    device::LaunchConfig::new(points.min(MANY_POINTS), PATCH_THREADS)
}

/// All patches `[points, channels, 343]`.
pub(super) fn forward(
    cuda: &Cuda,
    volumes: Volumes,
    voxels: &Tensor,
    coordinates: &Tensor,
    patches: &mut Tensor,
) -> Result<()> {
    let name = if volumes.channels.is_multiple_of(4) { "patch_sample_4" } else { "patch_sample_1" };
    cuda.kernel(name)
        .input(voxels)
        .input(coordinates)
        .output(patches)
        .value(volumes)
        .value(coordinates.rows() as u64)
        .launch(by_points(coordinates.rows()))
}

/// Gradient of the volumes, of `[volumes, coordinates, gradient of the patches]`.
pub(super) fn volume_gradient(
    cuda: &Cuda,
    volumes: Volumes,
    [voxels, coordinates, gradient]: [&Tensor; 3],
    target: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    let blocks: usize = volumes.size.iter().map(|&side| (side as usize).div_ceil(OWN)).product();
    cuda.kernel("patch_volume_gradient")
        .input(voxels)
        .input(coordinates)
        .input(gradient)
        .output(target)
        .value(volumes)
        .value(u32::from(accumulate))
        .launch(device::LaunchConfig {
            blocks: [blocks as u32, volumes.channels, voxels.shape()[0] as u32],
            threads: [THREADS, 1, 1],
            shared: 0,
        })
}

/// Gradient of the coordinates, of `[volumes, coordinates, gradient of the patches]`.
pub(super) fn coordinate_gradient(
    cuda: &Cuda,
    volumes: Volumes,
    [voxels, coordinates, gradient]: [&Tensor; 3],
    target: &mut Tensor,
    accumulate: bool,
) -> Result<()> {
    cuda.kernel("patch_coordinate_gradient")
        .input(voxels)
        .input(coordinates)
        .input(gradient)
        .output(target)
        .value(volumes)
        .value(coordinates.rows() as u64)
        .value(u32::from(accumulate))
        .launch(by_points(coordinates.rows()))
}
