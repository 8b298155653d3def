//! From a segmentation to its mesh, in millimetres.

use bytemuck::Pod;

use super::{Dropped, Mesh, drop_small, simplify, smooth};
use crate::data::{Affine, Labels};
use crate::device::Device;
use crate::error::Result;
use crate::memory::Role;
use crate::ops::marching_cubes;
use crate::tensor::{DType, Tensor};

/// How a mesh is made. The defaults are the official code's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeshOptions {
    /// Probability above which a voxel is inside; labels know no threshold.
    pub threshold: f32,
    /// Components of fewer voxels are dropped, but never the last.
    pub smallest: usize,
    /// Iterations of smoothing.
    pub smoothing: usize,
    /// Most triangles (0: all).
    pub triangles: usize,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self { threshold: 0.5, smallest: 12 * 12 * 12, smoothing: 0, triangles: 10_000 }
    }
}

/// The surface of the voxels of one class, in millimetres of the labels' world.
///
/// # Errors
/// No memory.
pub fn of_labels(device: &Device, labels: &Labels, class: u8, options: &MeshOptions) -> Result<(Mesh, Dropped)> {
    let mask: Vec<u8> = labels.voxels.iter().map(|&voxel| u8::from(voxel == class)).collect();
    let field = Field { values: mask, shape: labels.shape, dtype: DType::U8, inside: 0, threshold: 0.5, outside: 0.0 };
    extract(device, field, &labels.geometry.affine, options)
}

/// The surface of the voxels above [`MeshOptions::threshold`], in millimetres of the world of `affine`. `values` are
/// `shape`, last axis fastest; beside them lies 0, or 1 below a threshold that is not positive.
///
/// # Errors
/// No memory, or a threshold that is not finite.
pub fn of_field(
    device: &Device,
    values: Vec<f32>,
    shape: [usize; 3],
    affine: &Affine,
    options: &MeshOptions,
) -> Result<(Mesh, Dropped)> {
    let threshold = options.threshold;
    let outside = if threshold > 0.0 { 0.0 } else { threshold - 1.0 };
    let field = Field { values, shape, dtype: DType::F32, inside: threshold, threshold, outside };
    extract(device, field, affine, options)
}

/// A field on the host.
struct Field<T> {
    values: Vec<T>,
    shape: [usize; 3],
    dtype: DType,
    /// Inside are values above this, as an element …
    inside: T,
    /// … and where the surface cuts an edge.
    threshold: f32,
    outside: f32,
}

fn extract<T: Pod + PartialOrd>(
    device: &Device,
    mut field: Field<T>,
    affine: &Affine,
    options: &MeshOptions,
) -> Result<(Mesh, Dropped)> {
    let dropped = drop_small(&mut field.values, field.shape, field.inside, options.smallest);
    let tensor = Tensor::from_typed(device, &field.shape, field.dtype, Role::Data, &field.values)?;
    drop(field.values);
    let surface = marching_cubes(&tensor, field.threshold, field.outside)?;
    drop(tensor);
    let mut mesh = Mesh::from_surface(&surface)?.transformed(affine);
    drop(surface);
    smooth(&mut mesh, options.smoothing);
    if options.triangles > 0 {
        mesh = simplify(&mesh, options.triangles);
    }
    Ok((mesh, dropped))
}
