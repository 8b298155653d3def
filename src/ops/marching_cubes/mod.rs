//! Marching cubes: the closed, oriented surface between the voxels above a threshold and the rest.
//!
//! * `field` `[D, H, W]`, f32 or u8 → `vertices` `[V, 3]` f32, in voxel indices (axis order of the field), and `triangles`
//!   `[T, 3]` u32, counterclockwise seen from outside. Inside is `field > threshold`; beside the lattice lies `outside`, so
//!   that the surface closes there too.
//! * Every edge lies in exactly two triangles, in opposite directions; around every vertex there is one fan. Ambiguous faces
//!   separate their inside corners (see [`table`]): each 6-connected component has surfaces of its own.
//! * The order is that of the voxels and depends on nothing else: the same field gives the same arrays on every device,
//!   whatever the number of threads.
//! * No derivative: the result's size depends on the values.
//!
//! # Algorithm
//! A *slot* is a lattice point with the cell above it, the layer before the lattice included: `(D+1)·(H+1)·(W+1)` slots.
//! A slot owns the three edges that leave its point upwards, hence their vertices, and its cell's triangles. 32 slots along
//! the last axis are one word, and words are the unit of work:
//!
//! 1. `pack`: one bit a slot: is its point inside?
//! 2. `count`: of each word, the crossed owned edges (population count of XORs of neighbouring words) and the triangles of its
//!    mixed cells ([`table::TRIANGLES`]);
//! 3. `scan`: exclusive sums of both;
//! 4. `place`: each word writes its vertices, by linear interpolation along the edge;
//! 5. `connect`: each word writes the triangles of its mixed cells. The index of a vertex is the start of its owner's word
//!    plus the rank of its bit there: no table of vertices is needed.
//!
//! Workspace: 12 bytes a word, 3/8 byte a voxel. Interpolation is `(threshold − a)/(b − a)` and one addition, without a
//! product, so no compiler can contract it and devices agree to the bit.
//!
//! Source: Lorensen and Cline 1987; owned edges and passes over rows as in Schroeder, Maynard and Geveci, *Flying edges*, 2015.

pub mod cpu;
mod cuda;
pub mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytemuck::Pod;

use crate::device::cpu::Pool;
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// Slots in a word.
pub const WORD: usize = 32;

/// The slots of a lattice, in words along the last axis.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Points of the lattice along each axis.
    pub shape: [usize; 3],
    /// Words in a row of slots.
    pub words: usize,
}

impl Slots {
    /// Slots of the lattice `shape`.
    pub fn new(shape: [usize; 3]) -> Self {
        Self { shape, words: (shape[2] + 1).div_ceil(WORD) }
    }

    /// Planes of slots.
    pub fn planes(&self) -> usize {
        self.shape[0] + 1
    }

    /// Words in a plane.
    pub fn plane(&self) -> usize {
        (self.shape[1] + 1) * self.words
    }

    /// All words.
    pub fn len(&self) -> usize {
        self.planes() * self.plane()
    }

    /// False: there is a slot before the first point.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of a word; `None` beyond the last slot of an axis.
    fn index(&self, z: usize, y: usize, w: usize) -> Option<usize> {
        let exists = z < self.planes() && y <= self.shape[1] && w < self.words;
        exists.then(|| z * self.plane() + y * self.words + w)
    }

    /// What plane `z` owns of `total` items whose first index in each word is in `starts`.
    fn range(&self, starts: &[u32], z: usize, total: usize) -> Range<usize> {
        let start = |z: usize| starts.get(z * self.plane()).map_or(total, |&start| start as usize);
        start(z)..start(z + 1)
    }
}

/// A surface on a device.
#[derive(Clone, Debug)]
pub struct Surface {
    /// `[vertices, 3]` f32, in voxel indices.
    pub vertices: Tensor,
    /// `[triangles, 3]` u32, indices of vertices.
    pub triangles: Tensor,
}

/// The surface of `field > threshold` (`[D, H, W]`, f32 or u8), with the value `outside` beside the lattice.
///
/// On a plan the surface is empty: its size follows from values that a plan does not have.
///
/// # Errors
/// A shape or type of another kind, an `outside` above the threshold, a surface with more than 2³² vertices or triangles, or
/// no memory.
pub fn marching_cubes(field: &Tensor, threshold: f32, outside: f32) -> Result<Surface> {
    let shape = match <[usize; 3]>::try_from(field.shape()) {
        Ok(shape) if !shape.contains(&0) => shape,
        _ => return Err(refused(format!("expected [D, H, W] without empty axes, got {:?}", field.shape()))),
    };
    if !threshold.is_finite() || !outside.is_finite() || outside > threshold {
        return Err(refused(format!("outside {outside} must not lie above the threshold {threshold}, both finite")));
    }
    field.device().in_op("marching_cubes", || match field.dtype() {
        DType::F32 => extract::<f32>(field, &Slots::new(shape), threshold, outside),
        DType::U8 => extract::<u8>(field, &Slots::new(shape), threshold, outside),
        other => Err(refused(format!("expected elements of type f32 or u8, got {other:?}"))),
    })
}

fn extract<T>(field: &Tensor, slots: &Slots, threshold: f32, outside: f32) -> Result<Surface>
where
    T: Pod + Into<f32> + Sync,
{
    let device = field.device();
    let words = |role| Tensor::empty(device, &[slots.len()], DType::U32, role);
    let (mut inside, mut vertices) = (words(Role::Workspace)?, words(Role::Workspace)?);
    let mut triangles = words(Role::Workspace)?;
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            let field = cpu::Field { values: field.typed::<T>(), threshold, outside };
            on_cpu(device, pool, slots, field, [&mut inside, &mut vertices, &mut triangles])
        }
        Backend::Cuda(cuda) => {
            let mut scratch = cuda::Scratch::new(device, slots)?;
            let words = [&mut inside, &mut vertices, &mut triangles];
            cuda::extract(cuda, slots, field, [threshold, outside], words, &mut scratch)
        }
        Backend::Plan { target } => {
            let _scratch = match target {
                Target::Cpu { .. } => None,
                Target::Cuda(_) => Some(cuda::Scratch::new(device, slots)?),
            };
            surface(device, [0, 0])
        }
    }
}

/// The passes on the CPU; the workspaces are the packed bits and the counts of vertices and triangles.
fn on_cpu<T>(
    device: &Device,
    pool: &Pool,
    slots: &Slots,
    field: cpu::Field<'_, T>,
    [inside, vertices, triangles]: [&mut Tensor; 3],
) -> Result<Surface>
where
    T: Pod + Into<f32> + Sync,
{
    cpu::pack(pool, slots, field, inside.typed_mut());
    let inside: &[u32] = inside.typed();
    let (vertices, triangles) = (vertices.typed_mut(), triangles.typed_mut());
    cpu::count(pool, slots, inside, vertices, triangles);
    let mut surface = surface(device, [cpu::scan(vertices), cpu::scan(triangles)])?;
    cpu::place(pool, slots, field, inside, vertices, surface.vertices.data_mut());
    cpu::connect(pool, slots, inside, vertices, triangles, surface.triangles.typed_mut());
    Ok(surface)
}

/// Room for a surface of so many vertices and triangles.
fn surface(device: &Device, totals: [u64; 2]) -> Result<Surface> {
    let [vertices, triangles] = totals.map(|total| u32::try_from(total).map(|total| total as usize));
    let (Ok(vertices), Ok(triangles)) = (vertices, triangles) else {
        return Err(refused(format!("{} vertices and {} triangles are more than 2³²", totals[0], totals[1])));
    };
    Ok(Surface {
        vertices: Tensor::empty(device, &[vertices, 3], DType::F32, Role::Output)?,
        triangles: Tensor::empty(device, &[triangles, 3], DType::U32, Role::Output)?,
    })
}

fn refused(problem: String) -> Error {
    Error::shape("marching_cubes", problem)
}
