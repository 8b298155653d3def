//! Launches of `kernels/many.cu`.

use bytemuck::{Pod, Zeroable};

use crate::device::{Cuda, Device, Grid, THREADS, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// Tensors of one launch: the table fits the 32,764 bytes that a kernel's parameters may have.
const TENSORS: usize = 512;

/// Elements of a block.
const CHUNK: usize = 1 << 12;

/// The twin of `Entry` in the kernels' file.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    target: u64,
    other: u64,
    length: u64,
    first_block: u32,
    unused: u32,
}

/// The twin of `Table` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Table {
    entries: [Entry; TENSORS],
    count: u32,
    unused: u32,
}

/// Runs `launch(table, blocks before, blocks)` for each table of `tensors`: addresses of target and other, and length.
fn for_each_table(
    tensors: impl Iterator<Item = [u64; 3]>,
    mut launch: impl FnMut(Table, usize, usize) -> Result<()>,
) -> Result<()> {
    let tensors: Vec<_> = tensors.filter(|&[_, _, length]| length > 0).collect();
    let mut before = 0;
    for tensors in tensors.chunks(TENSORS) {
        let mut table = Table { count: tensors.len() as u32, ..Table::zeroed() };
        let mut blocks = 0;
        for (entry, &[target, other, length]) in table.entries.iter_mut().zip(tensors) {
            *entry = Entry { target, other, length, first_block: blocks as u32, unused: 0 };
            blocks += (length as usize).div_ceil(CHUNK);
        }
        launch(table, before, blocks)?;
        before += blocks;
    }
    Ok(())
}

/// Room for the sums of all blocks of tensors of these lengths, two words each; none elsewhere than on CUDA.
pub(super) fn sums(device: &Device, lengths: &[usize]) -> Result<Tensor> {
    let blocks = match device.target() {
        Target::Cuda(_) => lengths.iter().map(|length| length.div_ceil(CHUNK)).sum(),
        Target::Cpu { .. } => 0,
    };
    Tensor::empty(device, &[blocks, 2], DType::U32, Role::Workspace)
}

/// Sums of the blocks, added up a tensor in their order.
pub(super) fn sums_of_squares(cuda: &Cuda, tensors: &[&Tensor], sums: &mut Tensor) -> Result<Vec<f64>> {
    let entries = tensors.iter().map(|tensor| [0, tensor.address(), tensor.len() as u64]);
    for_each_table(entries, |table, before, blocks| {
        cuda.kernel("many_squares").value(table).output_from(sums, 2 * before).launch(Grid::new(blocks, THREADS))
    })?;
    let words = sums.to_typed::<u32>()?;
    let mut sums = words.chunks_exact(2).map(|pair| f64::from_bits(u64::from(pair[0]) | u64::from(pair[1]) << 32));
    Ok(tensors.iter().map(|tensor| sums.by_ref().take(tensor.len().div_ceil(CHUNK)).sum()).collect())
}

/// `x ← 0`.
pub(super) fn zero_all(cuda: &Cuda, tensors: &mut [&mut Tensor]) -> Result<()> {
    let entries = tensors.iter().map(|tensor| [tensor.address(), 0, tensor.len() as u64]);
    for_each_table(entries, |table, _, blocks| cuda.kernel("many_zero").value(table).launch(Grid::new(blocks, THREADS)))
}

/// `x ← factor·x`.
pub(super) fn scale_all(cuda: &Cuda, tensors: &mut [&mut Tensor], factor: f32) -> Result<()> {
    let entries = tensors.iter().map(|tensor| [tensor.address(), 0, tensor.len() as u64]);
    for_each_table(entries, |table, _, blocks| {
        cuda.kernel("many_scale").value(table).value(factor).launch(Grid::new(blocks, THREADS))
    })
}

/// `x ← x + share·(goal − x)`.
pub(super) fn approach_all(cuda: &Cuda, tensors: &mut [(&mut Tensor, &Tensor)], share: f32) -> Result<()> {
    let entries = tensors.iter().map(|(tensor, goal)| [tensor.address(), goal.address(), tensor.len() as u64]);
    for_each_table(entries, |table, _, blocks| {
        cuda.kernel("many_approach").value(table).value(share).launch(Grid::new(blocks, THREADS))
    })
}
