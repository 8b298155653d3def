//! Launch of `kernels/moments.cu`.

use super::Grouping;
use crate::device::Cuda;
use crate::error::Result;
use crate::ops::cuda::tiling::CudaTiling;
use crate::tensor::Tensor;

/// Floats that a piece leaves for each channel: the mean (to nearest, and what that leaves over), and the sum of squares
/// about it.
const PARTS: usize = 3;

/// Pieces that one block joins: `GROUP` of the kernel.
const GROUP: usize = 32;

/// How one item of `rows` rows is cut; elements of one group need no channels.
pub(crate) fn tiling(grouping: Grouping, rows: usize, channels: usize) -> CudaTiling {
    match grouping {
        Grouping::Scalar => CudaTiling::new(rows * channels, 1),
        Grouping::Channel | Grouping::Instance { .. } => CudaTiling::new(rows / grouping.items(), channels),
    }
}

/// Floats of scratch that the pieces take, and their groups.
fn lengths(tiling: &CudaTiling, items: usize) -> [usize; 2] {
    [tiling.pieces(), tiling.pieces().div_ceil(GROUP)].map(|parts| items * parts * PARTS * tiling.width())
}

/// Floats of scratch that [`moments`] needs.
pub(crate) fn workspace(tiling: &CudaTiling, items: usize) -> usize {
    lengths(tiling, items).iter().sum()
}

/// `out = [means, biased variances]` of the groups.
pub(crate) fn moments(
    cuda: &Cuda,
    tiling: CudaTiling,
    items: usize,
    x: &Tensor,
    scratch: &mut Tensor,
    out: &mut Tensor,
) -> Result<()> {
    let grid = tiling.grid(items);
    let [of_pieces, _] = lengths(&tiling, items);
    let groups = tiling.pieces().div_ceil(GROUP);
    cuda.kernel_of("moments", x.dtype())
        .input(x)
        .output(scratch)
        .output_from(scratch, of_pieces)
        .output(out)
        .tickets(items * (grid.blocks[1] as usize * groups + 1))?
        .value(tiling)
        .launch(grid)
}
