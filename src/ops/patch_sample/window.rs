//! One row of a sampling window, and its adjoint.
//!
//! All voxels of one window lie at whole steps from its coordinate, so they share one fractional part. A row along the
//! last axis is therefore a blend of at most four rows of the volume (two neighbours in each of the first two axes), each
//! one voxel longer than the window, followed by one blend along the row. Neighbours of weight zero are not read: at whole
//! coordinates a row is a plain copy and its values are exactly the volume's.

use super::{VolumeSize, VoxelSource};

/// Where one coordinate of an axis lies: the voxel below it and the weights of that voxel and of the next one.
#[derive(Clone, Copy, Debug)]
struct Position {
    below: isize,
    weights: [f32; 2],
}

impl Position {
    /// `coordinate` in voxels of an axis of `length` voxels.
    fn new(coordinate: f32, length: usize) -> Self {
        // Windows this far outside see zeros only: the clamp keeps the integer arithmetic below from overflowing.
        const FAR: f32 = 32.0;
        let coordinate = coordinate.clamp(-FAR, length as f32 + FAR);
        let below = coordinate.floor();
        let fraction = coordinate - below;
        Self { below: below as isize, weights: [1.0 - fraction, fraction] }
    }

    /// The neighbours (0: below, 1: above) that carry weight.
    fn neighbours(self) -> impl Iterator<Item = (isize, f32)> {
        (0..).zip(self.weights).filter(|&(_, weight)| weight != 0.0)
    }
}

/// A cube of `size` voxels an axis whose voxel `i` lies `first + i` voxels from a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub first: isize,
    pub size: usize,
}

/// A window at one coordinate of one volume.
pub(super) struct PatchWindow<'a, V: ?Sized> {
    voxels: &'a V,
    grid: VolumeSize,
    item: usize,
    shape: Shape,
    axes: [Position; 3],
}

/// Longest row in voxels that a window reads: the mid-range window and one neighbour.
const LONGEST_ROW: usize = 15;

impl<'a, V: VoxelSource + ?Sized> PatchWindow<'a, V> {
    /// The window of `shape` at `coordinate` in volume `item` of the batch.
    pub fn new(voxels: &'a V, grid: VolumeSize, item: usize, coordinate: &[f32], shape: Shape) -> Self {
        let axes = std::array::from_fn(|axis| Position::new(coordinate[axis], grid.size[axis]));
        Self { voxels, grid, item, shape, axes }
    }

    /// Floats of scratch that the methods need.
    pub fn scratch(channels: usize) -> usize {
        LONGEST_ROW * channels
    }

    /// Planes of the volume that row plane `i` of the window depends on; may reach outside the volume.
    pub fn planes(&self, i: usize) -> std::ops::Range<isize> {
        let first = self.axes[0].below + self.shape.first + i as isize;
        first..first + 2
    }

    /// Calls `combine(row[n], value n)` for all values of row `(i, j)` of the window, `[size, C]`.
    #[inline(always)]
    pub fn combine_row(
        &self,
        i: usize,
        j: usize,
        row: &mut [f32],
        scratch: &mut [f32],
        combine: impl Fn(&mut f32, f32) + Copy,
    ) {
        let [x, y, z] = self.axes;
        let (channels, Shape { first, size }) = (self.grid.channels, self.shape);
        let (x0, y0) = (x.below + first + i as isize, y.below + first + j as isize);
        if self.axes.iter().all(|axis| axis.weights[1] == 0.0) {
            return self.read([x0, y0], size, row, combine);
        }
        let blend = &mut scratch[..(size + 1) * channels];
        blend.fill(0.0);
        for (dx, wx) in x.neighbours() {
            for (dy, wy) in y.neighbours() {
                let weight = wx * wy;
                self.read([x0 + dx, y0 + dy], size + 1, blend, |sum, value| *sum += weight * value);
            }
        }
        let blend = &*blend;
        if z.weights[1] == 0.0 {
            return row.iter_mut().zip(blend).for_each(|(to, &value)| combine(to, value));
        }
        for ((to, a), b) in row.iter_mut().zip(blend).zip(&blend[channels..]) {
            combine(to, z.weights[0] * a + z.weights[1] * b);
        }
    }

    /// Adds the gradient of row `(i, j)` to the planes `own` of the volume's gradient; `planes` holds those planes only.
    pub fn add_row_gradient(
        &self,
        [i, j]: [usize; 2],
        gradient: &[f32],
        own: &std::ops::Range<usize>,
        planes: &mut [f32],
        scratch: &mut [f32],
    ) {
        let [x, y, z] = self.axes;
        let channels = self.grid.channels;
        let wide = &mut scratch[..gradient.len() + channels];
        wide.fill(0.0);
        for (dz, wz) in z.neighbours() {
            let shifted = &mut wide[dz as usize * channels..][..gradient.len()];
            shifted.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += wz * value);
        }
        for (dx, wx) in x.neighbours() {
            let plane = x.below + self.shape.first + i as isize + dx;
            let Some(plane) = usize::try_from(plane).ok().filter(|plane| own.contains(plane)) else { continue };
            for (dy, wy) in y.neighbours() {
                let line = y.below + self.shape.first + j as isize + dy;
                let Some((start, from, len)) = self.inside(plane as isize, line, self.shape.size + 1) else { continue };
                let target = &mut planes[start - own.start * self.grid.size[1] * self.grid.size[2] * channels..][..len];
                target.iter_mut().zip(&wide[from..]).for_each(|(sum, value)| *sum += wx * wy * value);
            }
        }
    }

    /// Adds `⟨gradient, ∂row(i, j)/∂coordinate⟩` to `sums`. At whole coordinates this is the derivative from the right.
    pub fn add_coordinate_gradient(
        &self,
        [i, j]: [usize; 2],
        gradient: &[f32],
        sums: &mut [f64; 3],
        scratch: &mut [f32],
    ) {
        let [x, y, z] = self.axes;
        let (channels, Shape { first, size }) = (self.grid.channels, self.shape);
        let row = &mut scratch[..(size + 1) * channels];
        for dx in 0..2 {
            for dy in 0..2 {
                let at = [x.below + first + i as isize + dx, y.below + first + j as isize + dy];
                self.read(at, size + 1, row, |to, value| *to = value);
                let signs = [-1.0, 1.0];
                let (wx, wy) = (x.weights[dx as usize], y.weights[dy as usize]);
                // ⟨gradient, row blended along z⟩ and ⟨gradient, the row's own difference along z⟩.
                let (mut value, mut slope) = (0.0f64, 0.0f64);
                for ((&g, &a), &b) in gradient.iter().zip(&*row).zip(&row[channels..]) {
                    value += f64::from(g) * f64::from(z.weights[0] * a + z.weights[1] * b);
                    slope += f64::from(g) * (f64::from(b) - f64::from(a));
                }
                sums[0] += signs[dx as usize] * f64::from(wy) * value;
                sums[1] += f64::from(wx) * signs[dy as usize] * value;
                sums[2] += f64::from(wx * wy) * slope;
            }
        }
    }

    /// The part of a row of so many `voxels` on plane `x`, line `y` that lies inside the volume: its place within the item's
    /// voxels, its place within the row, its length.
    #[inline(always)]
    fn inside(&self, x: isize, y: isize, voxels: usize) -> Option<(usize, usize, usize)> {
        let VolumeSize { size: [depth, height, width], channels } = self.grid;
        let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
        if x >= depth || y >= height {
            return None;
        }
        let z = self.axes[2].below + self.shape.first;
        let from = z.clamp(0, width as isize);
        let to = (z + voxels as isize).clamp(from, width as isize);
        let start = ((x * height + y) * width + from as usize) * channels;
        (to > from).then(|| (start, (from - z) as usize * channels, (to - from) as usize * channels))
    }

    /// Calls `combine(row[n], value n)` for the volume's own voxels on plane `x`, line `y`, from the window's first voxel
    /// on; values outside are zero.
    #[inline(always)]
    fn read(&self, [x, y]: [isize; 2], voxels: usize, row: &mut [f32], combine: impl Fn(&mut f32, f32) + Copy) {
        let (start, from, len) = self.inside(x, y, voxels).unwrap_or((0, 0, 0));
        let (before, rest) = row.split_at_mut(from);
        let (inside, after) = rest.split_at_mut(len);
        before.iter_mut().for_each(|to| combine(to, 0.0));
        self.voxels.read(self.item * self.grid.len() + start, inside, combine);
        after.iter_mut().for_each(|to| combine(to, 0.0));
    }
}
