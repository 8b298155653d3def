//! Arrays as scans have them, indexed `[i, j, k]` or `[i, j, k, channel]` along the axes of the affine (nibabel's order), and
//! as the engine has them, canonical or as stored. One pass brings one into the other, whatever the strides.

use numpy::ndarray::{ArrayViewD, Axis};
use numpy::{Element, PyReadonlyArray2, PyReadonlyArrayDyn};
use ossnet::data::geometry::{Affine, Geometry, Orientation, StoredGrid};
use pyo3::prelude::*;

use crate::running::usage;

/// A 4×4 affine's upper three rows.
///
/// # Errors
/// Another shape, a last row other than `0 0 0 1`, axes that do not span space, or numbers that are not finite.
pub fn affine(matrix: &PyReadonlyArray2<'_, f64>) -> PyResult<Affine> {
    let matrix = matrix.as_array();
    if matrix.shape() != [4, 4] {
        return Err(usage(format!("the affine has shape {:?}; give a 4×4 matrix from voxels to mm", matrix.shape())));
    }
    let affine = Affine([0, 1, 2].map(|r| [0, 1, 2, 3].map(|c| matrix[[r, c]])));
    match affine.is_valid() {
        false => Err(usage(format!("the affine {affine} does not span space; give the one of the image"))),
        true if [0, 1, 2, 3].map(|column| matrix[[3, column]]) != [0.0, 0.0, 0.0, 1.0] => {
            Err(usage("the affine's last row is not 0 0 0 1; transpose it if its translation stands there"))
        }
        true => Ok(affine),
    }
}

/// The grid of an array with this affine.
pub fn geometry(affine: Affine, shape: [usize; 3], canonical: bool) -> Geometry {
    Geometry::new(StoredGrid::from_affine(affine, shape), canonical)
}

/// Voxels along the first three axes, of which none is without a voxel, and channels along the fourth, if there is one and `channels` are admitted.
pub fn shape<T: Element>(
    array: &PyReadonlyArrayDyn<'_, T>,
    what: &str,
    channels: bool,
) -> PyResult<([usize; 3], usize)> {
    let found = array.as_array();
    let (shape, count) = match *found.shape() {
        [x, y, z] => ([x, y, z], 1),
        [x, y, z, count] if channels => ([x, y, z], count),
        ref other => {
            let wanted = if channels { "three axes, or four with channels" } else { "three axes" };
            return Err(usage(format!("{what} has shape {other:?}; give an array of {wanted}")));
        }
    };
    match shape.contains(&0) || count == 0 {
        true => Err(usage(format!("{what} has shape {:?}, and so no voxel", found.shape()))),
        false => Ok((shape, count)),
    }
}

/// An array's values in the engine's order: canonical axes, channels last, last axis fastest.
pub fn in_memory<T: Element + Copy>(array: ArrayViewD<'_, T>, orientation: &Orientation) -> Vec<T> {
    let mut order: Vec<usize> = orientation.axes.to_vec();
    order.extend(3..array.ndim());
    let mut view = array.permuted_axes(order);
    for (axis, _) in orientation.flips.iter().enumerate().filter(|(_, flip)| **flip) {
        view.invert_axis(Axis(axis));
    }
    match view.as_slice() {
        Some(values) => values.to_vec(),
        None => view.iter().copied().collect(),
    }
}

/// The way back to the scan's axes: axes and flips for `array.transpose(axes)`, then a flip of the scan's axes.
pub fn way_back(orientation: &Orientation) -> ([usize; 3], [bool; 3]) {
    let (mut axes, mut flips) = ([0; 3], [false; 3]);
    for inside in 0..3 {
        axes[orientation.axes[inside]] = inside;
        flips[orientation.axes[inside]] = orientation.flips[inside];
    }
    (axes, flips)
}
