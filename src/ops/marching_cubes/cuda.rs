//! Launches of `kernels/marching_cubes.cu`.

use bytemuck::{Pod, Zeroable};

use super::table::{EDGES, TRIANGLES};
use super::{Slots, Surface, WORD, surface};
use crate::device::{Cuda, Device, LaunchConfig, MANY_BLOCKS, THREADS};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::cuda::scan;
use crate::tensor::{DType, Tensor};

/// `Lattice` of the kernels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Lattice {
    shape: [u32; 3],
    words: u32,
}

/// The table's rows, then the edges as (corner, axis).
fn table_bytes() -> Vec<u8> {
    TRIANGLES.iter().flatten().copied().chain(EDGES.iter().flat_map(|&(corner, axis)| [corner, axis])).collect()
}

/// Scratch of the passes.
pub(super) struct Scratch {
    table: Tensor,
    sums: Tensor,
}

impl Scratch {
    /// Room for it, and the table.
    pub(super) fn new(device: &Device, slots: &Slots) -> Result<Self> {
        let bytes = table_bytes();
        let table = Tensor::from_typed(device, &[bytes.len()], DType::U8, Role::Workspace, &bytes)?;
        let words = scan::workspace(slots.len());
        Ok(Self { table, sums: Tensor::empty(device, &[words], DType::U32, Role::Workspace)? })
    }
}

/// The passes; the workspaces are the packed bits and the counts of vertices and triangles.
pub(super) fn extract(
    cuda: &Cuda,
    slots: &Slots,
    field: &Tensor,
    [threshold, outside]: [f32; 2],
    [inside, vertices, triangles]: [&mut Tensor; 3],
    scratch: &mut Scratch,
) -> Result<Surface> {
    let lattice = Lattice { shape: slots.shape.map(|points| points as u32), words: slots.words as u32 };
    let (pack, place) = match field.dtype() {
        DType::U8 => ("mc_pack_u8", "mc_place_u8"),
        _ => ("mc_pack_f32", "mc_place_f32"),
    };
    // A warp a word.
    let by_word = LaunchConfig::new(slots.len().div_ceil(THREADS as usize / WORD).min(MANY_BLOCKS), THREADS);
    cuda.kernel(pack).input(field).output(inside).value(lattice).value(threshold).launch(by_word)?;
    cuda.kernel("mc_count")
        .input(inside)
        .input(&scratch.table)
        .output(vertices)
        .output(triangles)
        .value(lattice)
        .launch(LaunchConfig::cover(slots.len()))?;
    let totals =
        [scan::exclusive(cuda, vertices, &mut scratch.sums)?, scan::exclusive(cuda, triangles, &mut scratch.sums)?];
    let mut surface = surface(field.device(), totals)?;
    if totals == [0, 0] {
        return Ok(surface);
    }
    cuda.kernel(place)
        .input(field)
        .input(inside)
        .input(vertices)
        .output(&mut surface.vertices)
        .value(lattice)
        .value(threshold)
        .value(outside)
        .launch(by_word)?;
    cuda.kernel("mc_connect")
        .input(inside)
        .input(&scratch.table)
        .input(vertices)
        .input(triangles)
        .output(&mut surface.triangles)
        .value(lattice)
        .launch(by_word)?;
    Ok(surface)
}
