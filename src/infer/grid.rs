//! Where an occupancy network is asked: points of a regular grid, in the coordinates of the volume that it has seen.

use crate::data::preprocess::Way;
use crate::data::{Geometry, geometry::Axis};
use crate::error::{Error, Result};

/// Points `start + step·index` along each axis, in voxels of the network's volume (the first voxel's centre is 0).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Points along each axis.
    pub shape: [usize; 3],
    /// The first point.
    pub start: [f64; 3],
    /// Distance between neighbours.
    pub step: [f64; 3],
}

impl Grid {
    /// The voxels of a volume of `shape` themselves.
    pub fn voxels(shape: [usize; 3]) -> Self {
        Self { shape, start: [0.0; 3], step: [1.0; 3] }
    }

    /// `shape` points that divide the scan at the end of `way` into equal cells and lie at their centres. With the scan's
    /// own shape these are its voxels, whatever it was resampled and padded to.
    pub fn over(way: &Way, shape: [usize; 3]) -> Self {
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
}
