//! Exclusive sums on CUDA (`kernels/scan.cu`).

use crate::device::{Cuda, LaunchConfig, THREADS};
use crate::error::Result;
use crate::tensor::Tensor;

/// Counts of a tile.
const TILE: usize = 1024;

/// Words (32 bits) of scratch for `n` counts.
pub(crate) fn workspace(n: usize) -> usize {
    2 * (n.div_ceil(TILE) + 1)
}

/// `counts` (u32) becomes the index of each place's first item; returns the number of all items, for which it waits.
pub(crate) fn exclusive(cuda: &Cuda, counts: &mut Tensor, scratch: &mut Tensor) -> Result<u64> {
    starts(cuda, counts, scratch)?;
    let (sums, tiles) = (scratch.to_typed::<u32>()?, counts.len().div_ceil(TILE));
    Ok(u64::from(sums[2 * tiles]) | u64::from(sums[2 * tiles + 1]) << 32)
}

/// `counts` (u32) becomes the index of each place's first item.
pub(crate) fn starts(cuda: &Cuda, counts: &mut Tensor, scratch: &mut Tensor) -> Result<()> {
    let (n, tiles) = (counts.len(), counts.len().div_ceil(TILE));
    let grid = LaunchConfig::new(tiles, THREADS);
    cuda.kernel("scan_tiles").input(counts).output(scratch).value(n as u64).launch(grid)?;
    cuda.kernel("scan_sums").output(scratch).value(tiles as u64).launch(LaunchConfig::new(1, THREADS))?;
    cuda.kernel("scan_apply").output(counts).input(scratch).value(n as u64).launch(grid)
}
