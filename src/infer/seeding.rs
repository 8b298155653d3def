//! Where a seeded search begins: the encoder's low-resolution segmentation on the coarsest lattice.

use super::{Occupancy, QueryGrid, SearchRule};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::lattice::Lattice;
use crate::ops::{self, AlignCorners};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// Marks the points of `lattice`, which is `grid`'s, where the low-resolution probability of not being background exceeds
/// `threshold`. Under [`SearchRule::Reference`] the corners of the two grids coincide, as in the official code, else
/// their voxels lie where they lie in the volume.
///
/// # Errors
/// [`Error::Model`] for a network without that output; no memory.
pub fn mark(
    occupancy: &Occupancy<'_>,
    rule: SearchRule,
    grid: &QueryGrid,
    threshold: f32,
    lattice: &mut Lattice,
) -> Result<()> {
    let Some((low_shape, low)) = occupancy.low_resolution()? else {
        return Err(Error::Model("the encoder gives no low-resolution segmentation to start from".into()));
    };
    let device = occupancy.device();
    let values = match rule {
        SearchRule::Reference => {
            let [d, h, w] = low_shape;
            let tape = Tape::new(device, Mode::Eval);
            let low = tape.constant(Tensor::from_slice(device, &[1, d, h, w, 1], Role::Transient, &low)?);
            ops::resize(&tape, &low, lattice.shape(), AlignCorners::Aligned)?.tensor()
        }
        SearchRule::Mixed { .. } => {
            let values = at_points(&low, low_shape, occupancy.shape(), grid);
            Tensor::from_slice(device, &lattice.shape(), Role::Transient, &values)?
        }
    };
    lattice.mark_above(&values, threshold)
}

/// Trilinear values of `low`, whose voxels divide a volume of `shape` into equal cells, at the points of `grid`.
fn at_points(low: &[f32], low_shape: [usize; 3], shape: [usize; 3], grid: &QueryGrid) -> Vec<f32> {
    let taps = [0, 1, 2].map(|k| {
        let scale = low_shape[k] as f64 / shape[k] as f64;
        let last = low_shape[k] - 1;
        let tap = |index: usize| {
            let at = (grid.start[k] + grid.step[k] * index as f64 + 0.5) * scale - 0.5;
            let at = at.clamp(0.0, last as f64);
            let below = (at as usize).min(last);
            (below, (below + 1).min(last), (at - below as f64) as f32)
        };
        (0..grid.shape[k]).map(tap).collect::<Vec<_>>()
    });
    let [_, h, w] = low_shape;
    let mut values = Vec::with_capacity(grid.len());
    for &(x0, x1, wx) in &taps[0] {
        for &(y0, y1, wy) in &taps[1] {
            for &(z0, z1, wz) in &taps[2] {
                let row = |x: usize, y: usize| {
                    let row = &low[(x * h + y) * w..][..w];
                    row[z0] * (1.0 - wz) + row[z1] * wz
                };
                let plane = |x: usize| row(x, y0) * (1.0 - wy) + row(x, y1) * wy;
                values.push(plane(x0) * (1.0 - wx) + plane(x1) * wx);
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells of 8 voxels; a ramp along the second axis stays one between their centres and is flat beyond.
    #[test]
    fn low_resolution_voxels_lie_where_they_lie_in_the_volume() {
        let low: Vec<f32> = (0..2 * 3).map(|i| (i / 2) as f32).collect();
        let grid = QueryGrid { shape: [1, 24, 1], start: [3.5, 0.0, 2.0], step: [1.0; 3] };
        let values = at_points(&low, [1, 3, 2], [8, 24, 16], &grid);
        for (y, value) in values.into_iter().enumerate() {
            let expected = ((y as f32 - 3.5) / 8.0).clamp(0.0, 2.0);
            // Two roundings of numbers up to 2.
            assert!((value - expected).abs() < 1e-6, "{y}: {value} for {expected}");
        }
    }
}
