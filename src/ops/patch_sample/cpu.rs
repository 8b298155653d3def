//! Patch sampling on the CPU.

use pulp::{Simd, WithSimd};

use super::window::{PatchWindow, Shape};
use super::{PATCH, PatchOptions, Pooling, SIDE, VolumeSize, VoxelSource};
use crate::device::cpu::{Pool, SharedMut};

/// The voxels `c − 3 … c + 3`.
const LOCAL: Shape = Shape { first: -3, size: SIDE };
/// The voxels `c − 7 … c + 6`.
const MID_RANGE: Shape = Shape { first: -7, size: 2 * SIDE };

/// Points of one piece of work.
const POINTS: usize = 64;
/// Planes of the volume's gradient that one piece of work owns.
const PLANES: usize = 8;

/// Volumes and coordinates: where patches come from.
pub struct Samples<'a, V: ?Sized> {
    /// Voxels of the whole batch, `[batch, D, H, W, C]`.
    pub voxels: &'a V,
    /// Size of one volume.
    pub grid: VolumeSize,
    /// Voxel coordinates `[points, 3]`, the points of each volume together.
    pub coordinates: &'a [f32],
    /// Points of each volume.
    pub points_per_volume: usize,
    /// What a patch consists of.
    pub options: PatchOptions,
}

impl<V: ?Sized> Clone for Samples<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: ?Sized> Copy for Samples<'_, V> {}

impl<V: VoxelSource + ?Sized> Samples<'_, V> {
    /// Number of points.
    pub fn points(&self) -> usize {
        self.coordinates.len() / 3
    }

    /// Channels of a patch.
    pub fn channels(&self) -> usize {
        self.options.channels(self.grid.channels)
    }

    /// Floats of scratch that one thread needs.
    pub fn scratch(grid: VolumeSize) -> usize {
        PatchWindow::<V>::scratch(grid.channels) + 5 * MID_RANGE.size * grid.channels
    }

    fn window(&self, point: usize, shape: Shape) -> PatchWindow<'_, V> {
        let coordinate = &self.coordinates[3 * point..][..3];
        PatchWindow::new(self.voxels, self.grid, point / self.points_per_volume, coordinate, shape)
    }

    /// The patch `[channels, 343]` of `point`.
    // Inlined so that it is compiled for the instruction set of the kernel that calls it.
    #[inline(always)]
    pub fn patch(&self, point: usize, patch: &mut [f32], scratch: &mut [f32]) {
        let channels = self.grid.channels;
        let (rows, scratch) = scratch.split_at_mut(5 * MID_RANGE.size * channels);
        let (local, mid_range) = patch.split_at_mut(channels * PATCH);
        let window = self.window(point, LOCAL);
        let row = &mut rows[..SIDE * channels];
        for line in 0..SIDE * SIDE {
            window.combine_row(line / SIDE, line % SIDE, row, scratch, |to, value| *to = value);
            scatter(row, channels, 1, &mut local[line * SIDE..], |pair, channel| pair[channel]);
        }
        let row = &mut rows[..MID_RANGE.size * channels];
        match self.options.mid_range {
            None => {}
            Some(Pooling::Average) => self.pooled(point, mid_range, (row, scratch), |sum, value| *sum += value, 0.125),
            Some(Pooling::Max) => {
                self.pooled(point, mid_range, (row, scratch), |max, value| *max = larger(*max, value), 1.0)
            }
        }
    }

    /// The mid-range window of `point`, eight voxels combined into one and the result times `scale`.
    #[inline(always)]
    fn pooled(
        &self,
        point: usize,
        patch: &mut [f32],
        (row, scratch): (&mut [f32], &mut [f32]),
        combine: impl Fn(&mut f32, f32) + Copy,
        scale: f32,
    ) {
        let channels = self.grid.channels;
        let window = self.window(point, MID_RANGE);
        for line in 0..SIDE * SIDE {
            let [i, j] = window_row(line, 0);
            window.combine_row(i, j, row, scratch, |to, value| *to = value);
            for corner in 1..4 {
                let [i, j] = window_row(line, corner);
                window.combine_row(i, j, row, scratch, combine);
            }
            scatter(row, channels, 2, &mut patch[line * SIDE..], |pair, channel| {
                let mut value = pair[channel];
                combine(&mut value, pair[channels + channel]);
                value * scale
            });
        }
    }

    /// Calls `visit(window, [i, j], gradient of that row)` for the rows of `point`'s windows that `wanted(planes)`
    /// selects, given the gradient of its patch.
    fn for_each_row(
        &self,
        point: usize,
        gradient: &[f32],
        wanted: impl Fn(std::ops::Range<isize>) -> bool,
        scratch: &mut [f32],
        mut visit: impl FnMut(&PatchWindow<'_, V>, [usize; 2], &[f32], &mut [f32]),
    ) {
        let channels = self.grid.channels;
        let (rows, scratch) = scratch.split_at_mut(5 * MID_RANGE.size * channels);
        let window = self.window(point, LOCAL);
        let row = &mut rows[..SIDE * channels];
        for line in (0..SIDE * SIDE).filter(|line| wanted(window.planes(line / SIDE))) {
            for (channel, voxels) in gradient.chunks_exact(PATCH).take(channels).enumerate() {
                let values = row[channel..].iter_mut().step_by(channels);
                values.zip(&voxels[line * SIDE..]).for_each(|(to, from)| *to = *from);
            }
            visit(&window, [line / SIDE, line % SIDE], row, scratch);
        }
        let Some(pooling) = self.options.mid_range else { return };
        let window = self.window(point, MID_RANGE);
        let size = MID_RANGE.size * channels;
        let planes = |line: usize| window.planes(2 * (line / SIDE)).start..window.planes(2 * (line / SIDE) + 1).end;
        for line in (0..SIDE * SIDE).filter(|&line| wanted(planes(line))) {
            if pooling == Pooling::Max {
                for (corner, row) in (0..4).zip(rows.chunks_exact_mut(size)) {
                    let [i, j] = window_row(line, corner);
                    window.combine_row(i, j, row, scratch, |to, value| *to = value);
                }
            }
            for k in 0..SIDE {
                for channel in 0..channels {
                    let g = gradient[(channels + channel) * PATCH + line * SIDE + k];
                    let places: [usize; 8] =
                        std::array::from_fn(|at| at / 2 * size + (2 * k + at % 2) * channels + channel);
                    match pooling {
                        Pooling::Average => places.iter().for_each(|&place| rows[place] = g * 0.125),
                        Pooling::Max => {
                            let first = places.iter().copied().reduce(|a, b| if rows[b] > rows[a] { b } else { a });
                            places.iter().for_each(|&place| rows[place] = if Some(place) == first { g } else { 0.0 });
                        }
                    }
                }
            }
            for (corner, row) in (0..4).zip(rows.chunks_exact(size)) {
                visit(&window, window_row(line, corner), row, scratch);
            }
        }
    }
}

/// Puts the seven voxels of a row into the channels of a patch, `patch[c·343 + k] = value(voxels, c)` with so many `voxels`
/// of the row for each `k`.
#[inline(always)]
fn scatter(
    row: &[f32],
    channels: usize,
    voxels: usize,
    patch: &mut [f32],
    value: impl Fn(&[f32], usize) -> f32 + Copy,
) {
    // A constant number of channels lets the compiler unroll everything.
    match channels {
        1 => scatter_channels(row, 1, voxels, patch, value),
        2 => scatter_channels(row, 2, voxels, patch, value),
        4 => scatter_channels(row, 4, voxels, patch, value),
        _ => scatter_channels(row, channels, voxels, patch, value),
    }
}

#[inline(always)]
fn scatter_channels(
    row: &[f32],
    channels: usize,
    voxels: usize,
    patch: &mut [f32],
    value: impl Fn(&[f32], usize) -> f32 + Copy,
) {
    let row = &row[..SIDE * voxels * channels];
    for channel in 0..channels {
        let target = &mut patch[channel * PATCH..][..SIDE];
        for k in 0..SIDE {
            target[k] = value(&row[k * voxels * channels..][..voxels * channels], channel);
        }
    }
}

/// Row of the mid-range window that is number `corner` of the four pooled into row `line` of the patch.
fn window_row(line: usize, corner: usize) -> [usize; 2] {
    [2 * (line / SIDE) + corner / 2, 2 * (line % SIDE) + corner % 2]
}

/// The larger of two values; the first of equal ones, and NaN if it comes first.
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Floats of scratch for all threads.
pub(super) fn workspace(threads: usize, grid: VolumeSize) -> usize {
    threads * Samples::<[f32]>::scratch(grid)
}

/// Runs `work(piece, scratch)` for all pieces.
fn for_each_with_scratch(
    pool: &Pool,
    pieces: usize,
    grid: VolumeSize,
    scratch: &mut [f32],
    work: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let size = Samples::<[f32]>::scratch(grid);
    let scratch = SharedMut::new(scratch);
    pool.for_each_with_thread(pieces, |piece, thread| {
        // SAFETY: each running piece has its thread's own scratch.
        let scratch = unsafe { scratch.slice(thread * size, size) };
        work(piece, scratch);
    });
}

/// One piece of [`forward`].
struct Piece<'a> {
    samples: Samples<'a, [f32]>,
    first_point: usize,
    patches: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let patches = self.patches.chunks_exact_mut(self.samples.channels() * PATCH);
        for (point, patch) in (self.first_point..).zip(patches) {
            self.samples.patch(point, patch, self.scratch);
        }
    }
}

/// All patches `[points, channels, 343]`.
pub(super) fn forward(pool: &Pool, samples: Samples<'_, [f32]>, patches: &mut [f32], scratch: &mut [f32]) {
    let (points, len) = (samples.points(), samples.channels() * PATCH);
    let patches = SharedMut::new(patches);
    for_each_with_scratch(pool, points.div_ceil(POINTS), samples.grid, scratch, |piece, scratch| {
        let first_point = piece * POINTS;
        let points = POINTS.min(points - first_point);
        // SAFETY: pieces own disjoint points.
        let patches = unsafe { patches.slice(first_point * len, points * len) };
        pool.simd().dispatch(Piece { samples, first_point, patches, scratch });
    });
}

/// Gradient of the volumes from that of the patches. Each piece owns a slab of planes and adds all points' shares of it
/// in the order of the points, so the sums do not depend on the threads.
pub(super) fn volume_gradient(
    pool: &Pool,
    samples: Samples<'_, [f32]>,
    gradient: &[f32],
    volumes: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let (grid, len) = (samples.grid, samples.channels() * PATCH);
    let plane = grid.size[1] * grid.size[2] * grid.channels;
    let (items, slabs) = (volumes.len() / grid.len(), grid.size[0].div_ceil(PLANES));
    let volumes = SharedMut::new(volumes);
    for_each_with_scratch(pool, items * slabs, grid, scratch, |piece, scratch| {
        let (item, first) = (piece / slabs, piece % slabs * PLANES);
        let own = first..grid.size[0].min(first + PLANES);
        // SAFETY: pieces own disjoint slabs.
        let planes = unsafe { volumes.slice(item * grid.len() + first * plane, own.len() * plane) };
        if !accumulate {
            planes.fill(0.0);
        }
        let wanted = |range: std::ops::Range<isize>| range.start < own.end as isize && (own.start as isize) < range.end;
        for point in item * samples.points_per_volume..(item + 1) * samples.points_per_volume {
            let gradient = &gradient[point * len..][..len];
            samples.for_each_row(point, gradient, wanted, scratch, |window, at, row, scratch| {
                window.add_row_gradient(at, row, &own, planes, scratch);
            });
        }
    });
}

/// Gradient of the coordinates `[points, 3]` from that of the patches, summed in f64.
pub(super) fn coordinate_gradient(
    pool: &Pool,
    samples: Samples<'_, [f32]>,
    gradient: &[f32],
    coordinates: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let (points, len) = (samples.points(), samples.channels() * PATCH);
    let coordinates = SharedMut::new(coordinates);
    for_each_with_scratch(pool, points.div_ceil(POINTS), samples.grid, scratch, |piece, scratch| {
        for point in piece * POINTS..points.min((piece + 1) * POINTS) {
            let mut sums = [0.0f64; 3];
            let gradient = &gradient[point * len..][..len];
            samples.for_each_row(
                point,
                gradient,
                |_| true,
                scratch,
                |window, at, row, scratch| {
                    window.add_coordinate_gradient(at, row, &mut sums, scratch);
                },
            );
            // SAFETY: each point has its own coordinates.
            let target = unsafe { coordinates.slice(3 * point, 3) };
            for (target, sum) in target.iter_mut().zip(sums) {
                *target = if accumulate { *target + sum as f32 } else { sum as f32 };
            }
        }
    });
}
