//! Triangle meshes on the host: what marching cubes leaves, in voxel indices or in millimetres of the patient.
//!
//! The way of a segmentation: [`drop_small`] on its field, [`marching_cubes`](crate::ops::marching_cubes()), [`Mesh::from_surface`],
//! [`Mesh::transformed`] into millimetres, [`smooth`], [`simplify`], [`write()`]. [`of_labels`] and [`of_field`] go it as
//! [`MeshOptions`] say. All steps keep the surface closed. Independent of networks.

mod components;
mod extract;
mod format;
mod glb;
mod simplify;
mod smooth;

pub use components::{Dropped, drop_small};
pub use extract::{MeshOptions, of_field, of_labels};
pub use format::{MeshFormat, Part, Space, write, write_parts};
pub use simplify::simplify;
pub use smooth::smooth;

use std::ops::Add;

use crate::data::Affine;
use crate::error::Result;
use crate::ops::Surface;

/// Triangles over shared vertices, counterclockwise seen from outside.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    /// Positions.
    pub vertices: Vec<[f32; 3]>,
    /// Indices of vertices.
    pub triangles: Vec<[u32; 3]>,
}

impl Mesh {
    /// A surface of a device as a mesh in voxel indices.
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn from_surface(surface: &Surface) -> Result<Self> {
        let vertices = surface.vertices.to_typed::<f32>()?.as_chunks().0.to_vec();
        let triangles = surface.triangles.to_typed::<u32>()?.as_chunks().0.to_vec();
        Ok(Self { vertices, triangles })
    }

    /// The mesh whose vertices `affine` moves; where it mirrors space, triangles are turned so that they still face
    /// outwards.
    pub fn transformed(mut self, affine: &Affine) -> Self {
        for vertex in &mut self.vertices {
            *vertex = affine.apply(vertex.map(f64::from)).map(|v| v as f32);
        }
        if affine.determinant() < 0.0 {
            self.triangles.iter_mut().for_each(|triangle| triangle.swap(1, 2));
        }
        self
    }

    /// The corners of a triangle.
    pub fn corners(&self, triangle: [u32; 3]) -> [[f64; 3]; 3] {
        triangle.map(|vertex| self.vertices[vertex as usize].map(f64::from))
    }

    /// Sum of the triangles' areas.
    pub fn area(&self) -> f64 {
        self.triangles.iter().map(|&triangle| norm(normal(self.corners(triangle))) / 2.0).fold(0.0, Add::add)
    }

    /// Enclosed volume by the divergence theorem; meaningful for closed meshes, positive if they face outwards.
    pub fn volume(&self) -> f64 {
        // About a vertex of the mesh rather than the origin, from which a scan can lie far away.
        let origin = self.vertices.first().map_or([0.0; 3], |vertex| vertex.map(f64::from));
        let tetrahedron = |[a, b, c]: [[f64; 3]; 3]| dot(sub(a, origin), cross(sub(b, origin), sub(c, origin))) / 6.0;
        self.triangles.iter().map(|&triangle| tetrahedron(self.corners(triangle))).fold(0.0, Add::add)
    }

    /// Outward unit normals of the vertices: the area-weighted mean of their triangles' (zero where that vanishes).
    pub fn normals(&self) -> Vec<[f32; 3]> {
        let mut sums = vec![[0.0; 3]; self.vertices.len()];
        for &triangle in &self.triangles {
            let normal = normal(self.corners(triangle));
            for vertex in triangle {
                (0..3).for_each(|i| sums[vertex as usize][i] += normal[i]);
            }
        }
        sums.into_iter()
            .map(|sum| match norm(sum) {
                length if length > 0.0 => sum.map(|v| (v / length) as f32),
                _ => [0.0; 3],
            })
            .collect()
    }
}

/// `a − b`.
pub(crate) fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// Scalar product.
pub(crate) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Vector product.
pub(crate) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

/// Length.
pub(crate) fn norm(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

/// Normal of a triangle, of twice its area's length.
pub(crate) fn normal([a, b, c]: [[f64; 3]; 3]) -> [f64; 3] {
    cross(sub(b, a), sub(c, a))
}
