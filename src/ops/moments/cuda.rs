//! Launches of `kernels/moments.cu`.

use super::Grouping;
use crate::device::{Cuda, Grid, THREADS};
use crate::error::Result;
use crate::ops::tiling::Tiling;
use crate::tensor::Tensor;

/// Floats that a piece leaves for each channel: the mean (to nearest, and what that leaves over), and the sum of squares
/// about it.
const PARTS: usize = 3;

/// How one item of `rows` rows is cut; elements of one group need no channels.
pub(super) fn tiling(grouping: Grouping, rows: usize, channels: usize) -> Tiling {
    match grouping {
        Grouping::Scalar => Tiling::new(rows * channels, 1),
        Grouping::Channel | Grouping::Instance { .. } => Tiling::new(rows / grouping.items(), channels),
    }
}

/// Floats of scratch that [`moments`] needs.
pub(super) fn workspace(tiling: &Tiling, items: usize) -> usize {
    items * tiling.pieces() * PARTS * tiling.width()
}

/// `out = [means, biased variances]` of the groups.
pub(super) fn moments(
    cuda: &Cuda,
    tiling: Tiling,
    items: usize,
    x: &Tensor,
    scratch: &mut Tensor,
    out: &mut Tensor,
) -> Result<()> {
    cuda.kernel_of("moments_pieces", x.dtype()).input(x).output(scratch).value(tiling).launch(tiling.grid(items))?;
    let (span, chunks) = tiling.chunks();
    let grid = Grid { blocks: [chunks as u32, items as u32, 1], threads: [THREADS, 1, 1], shared: 0 };
    cuda.kernel("moments_join").input(scratch).output(out).value(span as u32).value(tiling).launch(grid)
}
