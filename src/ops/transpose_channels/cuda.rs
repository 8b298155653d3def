//! Launches of `transpose` (`kernels/layout.cu`).

use crate::device::{Cuda, LaunchConfig};
use crate::error::Result;
use crate::tensor::Tensor;

/// Side of a tile.
const TILE: usize = 32;

/// `y[b, c, v] (+)= x[b, v, c]` for `y` `[batch, C, voxels]`.
pub(super) fn transpose(cuda: &Cuda, x: &Tensor, y: &mut Tensor, accumulate: bool) -> Result<()> {
    let sizes = [y.shape()[0], y.shape()[2], y.shape()[1]];
    launch(cuda, x, y, sizes, accumulate)
}

/// The adjoint: `dx[b, v, c] (+)= dy[b, c, v]` for `dy` `[batch, C, voxels]`.
pub(super) fn untranspose(cuda: &Cuda, dy: &Tensor, dx: &mut Tensor, accumulate: bool) -> Result<()> {
    let sizes = [dy.shape()[0], dy.shape()[1], dy.shape()[2]];
    launch(cuda, dy, dx, sizes, accumulate)
}

fn launch(
    cuda: &Cuda,
    from: &Tensor,
    to: &mut Tensor,
    [batch, rows, columns]: [usize; 3],
    accumulate: bool,
) -> Result<()> {
    let blocks = [columns.div_ceil(TILE), rows.div_ceil(TILE).min(1 << 15), batch.min(1 << 15)];
    cuda.kernel("transpose")
        .input(from)
        .output(to)
        .value(rows as u32)
        .value(columns as u32)
        .value(batch as u32)
        .value(u32::from(accumulate))
        .launch(LaunchConfig { blocks: blocks.map(|n| n as u32), threads: [TILE as u32, 8, 1], shared: 0 })
}
