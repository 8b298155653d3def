//! Max pooling on the CPU.

use super::PoolAxis;
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::par_loops::by_rows;

/// Channels whose maxima the backward pass looks for together.
const BLOCK: usize = 16;

/// True if `candidate` replaces the maximum so far: NaN spreads, and of equals the first stays.
fn replaces(candidate: f32, best: f32) -> bool {
    candidate > best || candidate.is_nan()
}

/// Index of the voxel at `[batch, d, h, w]`.
fn voxel(axes: &[PoolAxis; 3], batch: usize, d: usize, h: usize, w: usize) -> usize {
    ((batch * axes[0].inputs + d) * axes[1].inputs + h) * axes[2].inputs + w
}

/// `y[o] = max x[window(o)]`.
pub(super) fn forward(pool: &Pool, axes: &[PoolAxis; 3], channels: usize, x: &[f32], y: &mut [f32]) {
    let [outer, middle, inner] = axes.map(|axis| axis.outputs);
    by_rows(pool, y, inner * channels, |first, piece| {
        for (i, line) in piece.chunks_exact_mut(inner * channels).enumerate() {
            let line_index = first + i;
            let batch = line_index / middle / outer;
            let (o0, o1) = (line_index / middle % outer, line_index % middle);
            for (o2, y) in line.chunks_exact_mut(channels).enumerate() {
                y.fill(f32::NEG_INFINITY);
                for d in axes[0].window(o0) {
                    for h in axes[1].window(o1) {
                        let window = axes[2].window(o2);
                        let start = voxel(axes, batch, d, h, window.start) * channels;
                        for x in x[start..][..window.len() * channels].chunks_exact(channels) {
                            y.iter_mut().zip(x).for_each(|(y, &x)| *y = if replaces(x, *y) { x } else { *y });
                        }
                    }
                }
            }
        }
    });
}

/// `dx[argmax x[window(o)]] += dy[o]`, on zeros if not `accumulate`.
///
/// Runs of outputs whose windows overlap are one piece of work, so no two pieces write the same voxel.
pub(super) fn backward(
    pool: &Pool,
    axes: &[PoolAxis; 3],
    channels: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    accumulate: bool,
) {
    if !accumulate {
        by_rows(pool, dx, 1, |_, piece| piece.fill(0.0));
    }
    let (outer, middle) = (axes[0].separate_runs(), axes[1].separate_runs());
    let batch = dx.len() / channels / axes.iter().map(|axis| axis.inputs).product::<usize>();
    let dx = SharedMut::new(dx);
    pool.for_each(batch * outer.len() * middle.len(), |piece| {
        let run = piece / middle.len();
        let item = run / outer.len();
        for o0 in outer[run % outer.len()].clone() {
            for o1 in middle[piece % middle.len()].clone() {
                for o2 in 0..axes[2].outputs {
                    let output = ((item * axes[0].outputs + o0) * axes[1].outputs + o1) * axes[2].outputs + o2;
                    for (block, dy) in dy[output * channels..][..channels].chunks(BLOCK).enumerate() {
                        let first = block * BLOCK;
                        let places = places(axes, [item, o0, o1, o2], x, channels, first, dy.len());
                        for (c, (&place, dy)) in places.iter().zip(dy).enumerate() {
                            // SAFETY: the voxel lies in this piece's windows, which no other piece's share.
                            unsafe { dx.slice(place * channels + first + c, 1)[0] += dy };
                        }
                    }
                }
            }
        }
    });
}

/// Voxels that hold the maxima of the channels `first..first + count` of one window.
fn places(
    axes: &[PoolAxis; 3],
    [batch, o0, o1, o2]: [usize; 4],
    x: &[f32],
    channels: usize,
    first: usize,
    count: usize,
) -> [usize; BLOCK] {
    let start = voxel(axes, batch, axes[0].window(o0).start, axes[1].window(o1).start, axes[2].window(o2).start);
    let (mut best, mut places) = ([f32::NEG_INFINITY; BLOCK], [start; BLOCK]);
    for d in axes[0].window(o0) {
        for h in axes[1].window(o1) {
            for w in axes[2].window(o2) {
                let place = voxel(axes, batch, d, h, w);
                let x = &x[place * channels + first..][..count];
                for ((best, at), &x) in best.iter_mut().zip(&mut places).zip(x) {
                    if replaces(x, *best) {
                        (*best, *at) = (x, place);
                    }
                }
            }
        }
    }
    places
}
