//! What is done to all weights or gradients together; on CUDA in one launch of `kernels/tensors.cu`.

use bytemuck::{Pod, Zeroable};

use crate::device::{Backend, Device, LaunchConfig, THREADS, Target};
use crate::error::Result;
use crate::ops::par_loops::by_elements;
use crate::ops::workspace;
use crate::tensor::Tensor;

/// Tensors of one launch: their table fits the 32,764 bytes that a kernel's parameters may have.
pub(super) const TENSORS: usize = 512;

/// Elements of a block.
pub(super) const CHUNK: usize = 1 << 12;

/// The twin of `Entry` in the kernels' file.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Entry {
    data: u64,
    other: u64,
    length: u64,
    first_block: u64,
}

/// The twin of `Tensors` in the kernels' file.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Tensors {
    entries: [Entry; TENSORS],
    guard: u64,
    count: u32,
    factor: f32,
}

impl Tensors {
    /// A table, and the blocks it takes.
    fn new<'a>(factor: f32, tensors: impl Iterator<Item = (&'a Tensor, Option<&'a Tensor>)>) -> (Self, usize) {
        let mut table = Self { factor, ..Zeroable::zeroed() };
        let mut blocks = 0;
        for (entry, (tensor, other)) in table.entries.iter_mut().zip(tensors) {
            *entry = Entry {
                data: tensor.address(),
                other: other.map_or(0, Tensor::address),
                length: tensor.len() as u64,
                first_block: blocks as u64,
            };
            table.count += 1;
            blocks += tensor.len().div_ceil(CHUNK);
        }
        (table, blocks)
    }
}

/// The f64 whose halves these are.
fn joined(halves: &[f32]) -> f64 {
    f64::from_bits(halves.iter().rev().fold(0, |bits, half| bits << 32 | u64::from(half.to_bits())))
}

/// `a ← a + factor·(b − a)` for each pair, on CUDA unless the number of `guard` is not finite.
///
/// # Errors
/// What the device's driver says.
pub(crate) fn average(
    device: &Device,
    factor: f32,
    pairs: &mut [(&mut Tensor, &Tensor)],
    guard: Option<&Tensor>,
) -> Result<()> {
    match device.backend() {
        Backend::Cpu { pool, .. } => pairs.iter_mut().for_each(|(tensor, other)| {
            let other = other.data();
            by_elements(pool, tensor.data_mut(), |first, piece| {
                piece.iter_mut().zip(&other[first..]).for_each(|(a, b)| *a += factor * (b - *a));
            });
        }),
        Backend::Cuda(cuda) => {
            for pairs in pairs.chunks(TENSORS) {
                let (table, blocks) =
                    Tensors::new(factor, pairs.iter().map(|(tensor, other)| (&**tensor, Some(*other))));
                let table = Tensors { guard: guard.map_or(0, Tensor::address), ..table };
                cuda.kernel("tensors_average").value(table).launch(LaunchConfig::new(blocks, THREADS))?;
            }
        }
        Backend::Plan { .. } => {}
    }
    Ok(())
}

/// `a ← factor·a` for each.
///
/// # Errors
/// What the device's driver says.
pub(crate) fn scale(device: &Device, factor: f32, tensors: &mut [&mut Tensor]) -> Result<()> {
    match device.backend() {
        Backend::Cpu { pool, .. } => tensors.iter_mut().for_each(|tensor| {
            by_elements(pool, tensor.data_mut(), |_, piece| piece.iter_mut().for_each(|a| *a *= factor));
        }),
        Backend::Cuda(cuda) => {
            for tensors in tensors.chunks(TENSORS) {
                let (table, blocks) = Tensors::new(factor, tensors.iter().map(|tensor| (&**tensor, None)));
                cuda.kernel("tensors_scale").value(table).launch(LaunchConfig::new(blocks, THREADS))?;
            }
        }
        Backend::Plan { .. } => {}
    }
    Ok(())
}

/// The sum of the squares of each, in f64; zeros on a plan. Waits for a CUDA device.
///
/// # Errors
/// No memory, or what the device's driver says.
pub(crate) fn squares(device: &Device, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    if let Target::Cpu { .. } = device.target() {
        let square = |tensor: &&Tensor| tensor.data().iter().map(|&value| f64::from(value).powi(2)).sum();
        return Ok(tensors.iter().map(square).collect());
    }
    let mut all = Vec::with_capacity(tensors.len());
    for tensors in tensors.chunks(TENSORS) {
        let (table, blocks) = Tensors::new(1.0, tensors.iter().map(|&tensor| (tensor, None)));
        let (mut partials, mut sums) = (workspace(device, 2 * blocks)?, workspace(device, 2 * tensors.len())?);
        if let Backend::Cuda(cuda) = device.backend() {
            let kernel = cuda.kernel("tensors_squares").value(table).output(&mut partials).output(&mut sums);
            kernel.tickets(1)?.launch(LaunchConfig::new(blocks, THREADS))?;
        }
        all.extend(sums.to_vec()?.chunks(2).map(joined));
    }
    Ok(all)
}
