//! Local patches of volumes at real-valued coordinates.
//!
//! The patch of a coordinate `c` holds the 7³ voxels `c − 3 … c + 3` in each axis. With `mid_range` it also holds, as
//! further channels after those, the 14³ window `c − 7 … c + 6` (one voxel off centre, as published) pooled by 2³ to 7³.
//! Voxels outside the volume are zero. Between voxels values are trilinear,
//! `v(c) = Σ_{δ ∈ {0,1}³} V[⌊c⌋ + δ]·Π_a (δ_a ? f_a : 1 − f_a)`, `f = c − ⌊c⌋`; at whole coordinates they are the volume's own.
//!
//! * `volume` `[batch, D, H, W, C]`, `coordinates` `[points, 3]` in voxels (the points of each volume together, equally
//!   many for each), result `[points, C, 343]`, or `[points, 2·C, 343]` with mid-range patches.
//! * Gradients: to the volume the adjoint sum (of a maximum: to the first of the largest); to the coordinates
//!   `Σ g·∂v/∂c`, which at whole coordinates is the derivative from the right.
//!
//! Work per point and channel: 343 copies at whole coordinates (2744 additions more with mid-range patches), up to 11
//! FLOPs a voxel between them. Compulsory bytes: each point's own voxels once, and the patches.
//!
//! Source: OSS-Net's data sets (`unfold` of the padded volume, `avg_pool3d` of the large patch).

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;
mod window;

pub use cpu::Samples;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// Voxels along one axis of a patch.
pub const SIDE: usize = 7;
/// Voxels of a patch.
pub const PATCH: usize = SIDE * SIDE * SIDE;

/// How the 14³ window is reduced to 7³.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean of 2³ voxels: the training rule.
    Average,
    /// Largest of 2³ voxels: the official dense inference.
    Max,
}

/// What a patch consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchOptions {
    /// Append the mid-range window, pooled this way.
    pub mid_range: Option<Pooling>,
}

impl PatchOptions {
    /// Channels of the patches of a volume with `channels` channels.
    pub fn channels(self, channels: usize) -> usize {
        channels * if self.mid_range.is_some() { 2 } else { 1 }
    }
}

/// Size of one volume of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSize {
    /// Voxels along the three axes.
    pub size: [usize; 3],
    /// Values of a voxel.
    pub channels: usize,
}

impl VolumeSize {
    /// The grid of volumes of shape `[batch, D, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] in the name of `op` if there are not five axes, or an axis is empty.
    pub fn of(op: &'static str, volumes: &[usize]) -> Result<Self> {
        match *volumes {
            [_, depth, height, width, channels] if !volumes.contains(&0) => {
                Ok(Self { size: [depth, height, width], channels })
            }
            _ => Err(Error::shape(op, format!("volume {volumes:?} is not [batch, D, H, W, C] with all axes above 0"))),
        }
    }

    /// Values of one volume.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.size.iter().product::<usize>() * self.channels
    }
}

/// Storage that voxels can be read from as f32.
pub trait VoxelSource: Sync {
    /// Calls `combine(row[n], value)` with the values `first..first + row.len()` (C order over the whole batch).
    fn read(&self, first: usize, row: &mut [f32], combine: impl Fn(&mut f32, f32));
}

impl VoxelSource for [f32] {
    #[inline(always)]
    fn read(&self, first: usize, row: &mut [f32], combine: impl Fn(&mut f32, f32)) {
        let values = &self[first..first + row.len()];
        for n in 0..values.len() {
            combine(&mut row[n], values[n]);
        }
    }
}

/// Checks `volume` `[batch, D, H, W, C]` against `coordinates` `[points, 3]`; the grid and the points of each volume.
///
/// # Errors
/// [`Error::Shape`] in the name of `op`.
pub(crate) fn check_shapes(op: &'static str, volume: &[usize], coordinates: &[usize]) -> Result<(VolumeSize, usize)> {
    let grid = VolumeSize::of(op, volume)?;
    match *coordinates {
        [points, 3] if points.is_multiple_of(volume[0]) => Ok((grid, points / volume[0])),
        _ => Err(Error::shape(
            op,
            format!(
                "coordinates {coordinates:?} are not [points, 3] with equally many points for each of {} volumes",
                volume[0]
            ),
        )),
    }
}

/// The patches of `volume` at `coordinates`; see the module's page for shapes.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn patch_sample(tape: &Tape, volume: &Var, coordinates: &Var, options: PatchOptions) -> Result<Var> {
    tape.apply(PatchSample { options }, &[volume, coordinates])
}

struct PatchSample {
    options: PatchOptions,
}

const NAME: &str = "patch_sample";

/// Floats of scratch; only the CPU wants any.
fn cpu_workspace(device: &Device, grid: VolumeSize) -> usize {
    match device.target() {
        Target::Cpu { threads, .. } => cpu::workspace(threads, grid),
        Target::Cuda(_) => 0,
    }
}

impl PatchSample {
    /// The kernels' view of the inputs.
    fn samples<'a>(&self, volume: &'a Tensor, coordinates: &'a Tensor) -> Result<Samples<'a, [f32]>> {
        let (grid, points_per_volume) = check_shapes(NAME, volume.shape(), coordinates.shape())?;
        let (voxels, coordinates) = (volume.data(), coordinates.data());
        Ok(Samples { voxels, grid, coordinates, points_per_volume, options: self.options })
    }
}

impl Op for PatchSample {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let (grid, _) = check_shapes(NAME, inputs[0], inputs[1])?;
        Ok(vec![inputs[1][0], self.options.channels(grid.channels), PATCH])
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let (grid, points_per_volume) = check_shapes(NAME, inputs[0].shape(), inputs[1].shape())?;
        let mut scratch = workspace(device, cpu_workspace(device, grid))?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let samples = self.samples(inputs[0], inputs[1])?;
                cpu::forward(pool, samples, output.data_mut(), scratch.data_mut());
            }
            Backend::Cuda(cuda) => {
                let volumes = cuda::Volumes::new(grid, points_per_volume, self.options);
                cuda::forward(cuda, volumes, inputs[0], inputs[1], output)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (volume, coordinates) = (backward.value(0)?, backward.value(1)?);
        let (grid, points_per_volume) = check_shapes(NAME, volume.shape(), coordinates.shape())?;
        let gradient = backward.gradient().clone();
        let volumes = cuda::Volumes::new(grid, points_per_volume, self.options);
        let on_cpu = [cpu::volume_gradient, cpu::coordinate_gradient];
        let on_cuda = [cuda::volume_gradient, cuda::coordinate_gradient];
        for (input, (on_cpu, on_cuda)) in on_cpu.into_iter().zip(on_cuda).enumerate() {
            backward.write_gradient(input, |device, target, accumulate| {
                let mut scratch = workspace(device, cpu_workspace(device, grid))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        let samples = self.samples(&volume, &coordinates)?;
                        on_cpu(pool, samples, gradient.data(), target.data_mut(), accumulate, scratch.data_mut())
                    }
                    Backend::Cuda(cuda) => {
                        on_cuda(cuda, volumes, [&volume, &coordinates, &gradient], target, accumulate)?
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let (points, channels) = (inputs[1][0] as u64, inputs[0].last().copied().unwrap_or(0) as u64);
        // Three blends of two: four along the first axis, two along the second, one along the last (1 or 2 FLOPs each).
        let (voxels, pooling) = match self.options.mid_range {
            None => (PATCH as u64, 0),
            Some(_) => (9 * PATCH as u64, 8 * PATCH as u64),
        };
        let patch = 4 * PATCH as u64 * self.options.channels(channels as usize) as u64;
        Cost {
            flops: points * channels * (11 * voxels + pooling),
            bytes: points * (4 * channels * voxels + 12 + patch),
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 2 * forward.flops, bytes: 2 * forward.bytes }
    }
}
