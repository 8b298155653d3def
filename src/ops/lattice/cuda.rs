//! Launches of `kernels/lattice.cu`.

use std::ops::Range;

use super::BLOCK;
use crate::device::{Cuda, Device, LaunchConfig, THREADS, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::cuda::scan;
use crate::tensor::{DType, Tensor};

/// A lattice's points along each axis, as the kernels see them.
fn sides(shape: [usize; 3]) -> [u32; 3] {
    shape.map(|side| side as u32)
}

/// What counting due points needs: nothing on a CPU.
pub(super) struct Scratch(Option<[Tensor; 2]>);

impl Scratch {
    /// For `points` points.
    pub(super) fn new(device: &Device, points: usize) -> Result<Self> {
        let words = |len| Tensor::empty(device, &[len], DType::U32, Role::Workspace);
        let blocks = points.div_ceil(BLOCK);
        match device.target() {
            Target::Cpu { .. } => Ok(Self(None)),
            Target::Cuda(_) => Ok(Self(Some([words(blocks)?, words(scan::workspace(blocks))?]))),
        }
    }
}

pub(super) fn mark_all(cuda: &Cuda, status: &mut Tensor) -> Result<()> {
    let len = status.len();
    cuda.kernel("lattice_mark_all").output(status).value(len as u64).launch(LaunchConfig::cover(len))
}

pub(super) fn mark_above(cuda: &Cuda, values: &Tensor, threshold: f32, status: &mut Tensor) -> Result<()> {
    let len = status.len();
    cuda.kernel("lattice_mark_above")
        .input(values)
        .value(threshold)
        .output(status)
        .value(len as u64)
        .launch(LaunchConfig::cover(len))
}

pub(super) fn mark_background(cuda: &Cuda, near: &Tensor, classes: &Tensor, status: &mut Tensor) -> Result<()> {
    let len = status.len();
    cuda.kernel("lattice_mark_background")
        .input(near)
        .input(classes)
        .output(status)
        .value(len as u64)
        .launch(LaunchConfig::cover(len))
}

pub(super) fn mark_mixed_neighbours(
    cuda: &Cuda,
    shape: [usize; 3],
    classes: &Tensor,
    status: &mut Tensor,
) -> Result<()> {
    cuda.kernel("lattice_mark_mixed_neighbours")
        .input(classes)
        .output(status)
        .value(sides(shape))
        .launch(LaunchConfig::cover(classes.len()))
}

pub(super) fn mixed_cells(
    cuda: &Cuda,
    shape: [usize; 3],
    side: usize,
    classes: &Tensor,
    cells: [usize; 3],
    mixed: &mut Tensor,
) -> Result<()> {
    let len = mixed.len();
    cuda.kernel("lattice_mixed_cells")
        .input(classes)
        .output(mixed)
        .value(sides(shape))
        .value(sides(cells))
        .value(side as u32)
        .launch(LaunchConfig::cover(len))
}

pub(super) fn mark_cells(
    cuda: &Cuda,
    shape: [usize; 3],
    side: usize,
    cells: [usize; 3],
    marked: &Tensor,
    status: &mut Tensor,
) -> Result<()> {
    let len = status.len();
    cuda.kernel("lattice_mark_cells")
        .input(marked)
        .output(status)
        .value(sides(shape))
        .value(sides(cells))
        .value(side as u32)
        .launch(LaunchConfig::cover(len))
}

pub(super) fn nonzero(cuda: &Cuda, from: &Tensor, to: &mut Tensor) -> Result<()> {
    let len = from.len();
    cuda.kernel("nonzero").input(from).output(to).value(len as u64).launch(LaunchConfig::cover(len))
}

/// Due points of each block, on the host.
pub(super) fn count_due(cuda: &Cuda, status: &Tensor, scratch: &mut Scratch) -> Result<Vec<usize>> {
    let Some([counts, _]) = &mut scratch.0 else { return Ok(Vec::new()) };
    cuda.kernel("lattice_count_due")
        .input(status)
        .output(counts)
        .value(status.len() as u64)
        .launch(LaunchConfig::new(counts.len(), THREADS))?;
    Ok(counts.to_typed::<u32>()?.into_iter().map(|count| count as usize).collect())
}

/// Indices of the due points in `range`.
pub(super) fn due(
    cuda: &Cuda,
    shape: [usize; 3],
    range: Range<usize>,
    status: &Tensor,
    scratch: &mut Scratch,
    points: &mut Tensor,
) -> Result<()> {
    let Some([counts, sums]) = &mut scratch.0 else { return Ok(()) };
    let blocks = LaunchConfig::new(counts.len(), THREADS);
    let len = range.len() as u64;
    cuda.kernel("lattice_count_due").input_from(status, range.start).output(counts).value(len).launch(blocks)?;
    scan::starts(cuda, counts, sums)?;
    cuda.kernel("lattice_due")
        .input_from(status, range.start)
        .input(counts)
        .output(points)
        .value(sides(shape))
        .value(range.start as u64)
        .value(len)
        .launch(blocks)
}

pub(super) fn write(
    cuda: &Cuda,
    shape: [usize; 3],
    points: &Tensor,
    answers: &Tensor,
    [classes, status]: [&mut Tensor; 2],
) -> Result<()> {
    cuda.kernel("lattice_write")
        .input(points)
        .input(answers)
        .output(classes)
        .output(status)
        .value(sides(shape))
        .value(answers.len() as u64)
        .launch(LaunchConfig::cover(answers.len()))
}

pub(super) fn refine(
    cuda: &Cuda,
    (shape, [classes, status]): ([usize; 3], [&Tensor; 2]),
    factor: usize,
    fill: bool,
    (fine, [fine_classes, fine_status]): ([usize; 3], [&mut Tensor; 2]),
) -> Result<()> {
    let len = fine_classes.len();
    cuda.kernel("lattice_refine")
        .input(classes)
        .input(status)
        .output(fine_classes)
        .output(fine_status)
        .value(sides(shape))
        .value(sides(fine))
        .value(factor as u32)
        .value(u32::from(fill))
        .launch(LaunchConfig::cover(len))
}

pub(super) fn classify(cuda: &Cuda, logits: &Tensor, threshold: f32, classes: &mut Tensor) -> Result<()> {
    cuda.kernel("lattice_classify")
        .input(logits)
        .value(logits.channels() as u32)
        .value(threshold)
        .output(classes)
        .value(logits.rows() as u64)
        .launch(LaunchConfig::cover(logits.rows()))
}
