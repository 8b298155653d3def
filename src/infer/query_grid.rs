//! Where an occupancy network is asked: points of a regular grid, in the coordinates of the volume that it has seen.

use crate::data::preprocess::GridTransform;

/// Points `start + step·index` along each axis, in voxels of the network's volume (the first voxel's centre is 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryGrid {
    /// Points along each axis.
    pub shape: [usize; 3],
    /// The first point.
    pub start: [f64; 3],
    /// Distance between neighbours.
    pub step: [f64; 3],
}

impl QueryGrid {
    /// The voxels of a volume of `shape` themselves.
    pub fn voxels(shape: [usize; 3]) -> Self {
        Self { shape, start: [0.0; 3], step: [1.0; 3] }
    }

    /// The centres of `shape` equal cells that the scan at the end of `way` is divided into. With the scan's own shape these
    /// are its voxels, whatever it was resampled and padded to.
    pub fn over(way: &GridTransform, shape: [usize; 3]) -> Self {
        let step = [0, 1, 2].map(|k| way.resampled[k] as f64 / shape[k] as f64);
        let start = [0, 1, 2].map(|k| 0.5 * step[k] - 0.5 + way.padding.before[k] as f64);
        Self { shape, start, step }
    }

    /// Every `stride`-th point along each axis, the first included.
    pub fn strided(&self, stride: usize) -> Self {
        let step = self.step.map(|step| step * stride as f64);
        Self { shape: self.shape.map(|points| points.div_ceil(stride)), step, ..*self }
    }

    /// The coordinates of the point at `index`.
    pub fn at(&self, index: [usize; 3]) -> [f64; 3] {
        [0, 1, 2].map(|k| self.start[k] + self.step[k] * index[k] as f64)
    }

    /// Number of points.
    #[allow(clippy::len_without_is_empty)] // a shape of the engine's is never empty
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Affine, Geometry, Padding};

    /// A scan of 10 × 4 × 5 voxels that was brought to 20 × 4 × 5 and padded to 24 × 8 × 8.
    fn way() -> GridTransform {
        GridTransform {
            shape: [10, 4, 5],
            geometry: Geometry::from_affine(Affine::from_spacing([1.0; 3]), [10, 4, 5]),
            resampled: [20, 4, 5],
            padding: Padding::to_shape([20, 4, 5], [24, 8, 8]).unwrap(),
        }
    }

    #[test]
    fn a_scans_own_voxels() {
        let grid = QueryGrid::over(&way(), [10, 4, 5]);
        // The first voxel covers the first two resampled ones, which come after two of padding.
        assert_eq!(grid.at([0; 3]), [2.5, 2.0, 2.0]);
        assert_eq!(grid.at([9, 3, 4]), [20.5, 5.0, 6.0]);
        assert_eq!(grid.len(), 200);
    }

    #[test]
    fn finer_than_the_scan() {
        let grid = QueryGrid::over(&way(), [40, 8, 5]);
        assert_eq!(grid.step, [0.5, 0.5, 1.0]);
        // The outer faces stay where they are: half a cell before the first point and after the last.
        assert_eq!(grid.at([0; 3]), [1.75, 1.75, 2.0]);
        assert_eq!(grid.at([39, 7, 4]), [21.25, 5.25, 6.0]);
    }

    #[test]
    fn every_fourth_point() {
        let grid = QueryGrid::voxels([10, 4, 5]).strided(4);
        assert_eq!((grid.shape, grid.at([2, 0, 1])), ([3, 1, 2], [8.0, 0.0, 4.0]));
    }
}
