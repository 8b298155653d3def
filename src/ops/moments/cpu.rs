//! Statistics on the CPU.

use pulp::{Simd, WithSimd};

use super::Grouping;
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::simd;
use crate::ops::tiling_cpu::{CpuTiling, Piece, TILE};

/// Groups whose pieces one thread combines at a time.
const GROUPS: usize = 64;

/// Floats that a piece leaves for each of its groups: the mean (to nearest, and what that leaves over), and the sum of
/// squares about it.
const PARTS: usize = 3;

/// Floats that a piece leaves.
fn slot(layout: &CpuTiling, grouping: Grouping) -> usize {
    match grouping {
        Grouping::Scalar => PARTS,
        Grouping::Channel | Grouping::Instance { .. } => PARTS * layout.width(),
    }
}

/// Floats of scratch that [`moments`] needs.
pub(super) fn workspace(layout: &CpuTiling, grouping: Grouping) -> usize {
    layout.pieces() * slot(layout, grouping)
}

/// `out = [means, biased variances]` of the groups.
pub(super) fn moments(
    pool: &Pool,
    layout: &CpuTiling,
    grouping: Grouping,
    x: &[f32],
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let slot = slot(layout, grouping);
    let shared = SharedMut::new(scratch);
    pool.for_each(layout.pieces(), |index| {
        // SAFETY: each piece owns its slot.
        let out = unsafe { shared.slice(index * slot, slot) };
        let scalar = grouping == Grouping::Scalar;
        pool.simd().dispatch(PieceMoments { x, piece: layout.piece(index), channels: layout.channels, scalar, out });
    });
    let scratch = &*scratch;
    let (means, variances) = out.split_at_mut(grouping.groups(layout.channels));
    let groups = means.len();
    let (means, variances) = (SharedMut::new(means), SharedMut::new(variances));
    pool.for_each(groups.div_ceil(GROUPS), |chunk| {
        let start = chunk * GROUPS;
        let count = GROUPS.min(groups - start);
        // SAFETY: chunks do not overlap.
        let (means, variances) = unsafe { (means.slice(start, count), variances.slice(start, count)) };
        for (i, (mean, variance)) in means.iter_mut().zip(variances).enumerate() {
            (*mean, *variance) = combine(layout, grouping, scratch, start + i);
        }
    });
}

/// Mean and variance of a group from those of its pieces.
fn combine(layout: &CpuTiling, grouping: Grouping, slots: &[f32], group: usize) -> (f32, f32) {
    let slot = slot(layout, grouping);
    // The item and the first channel (or the only one) of the group.
    let (items, channels) = grouping.members(group, layout.items, layout.channels);
    let pieces = match grouping {
        Grouping::Scalar => 0..layout.pieces(),
        Grouping::Channel | Grouping::Instance { .. } => layout.pieces_with(items.start, channels.start),
    };
    let parts = || {
        pieces.clone().map(|index| {
            let piece = layout.piece(index);
            let (count, place) = match grouping {
                Grouping::Scalar => (piece.rows * piece.width, 0),
                Grouping::Channel | Grouping::Instance { .. } => (piece.rows, channels.start - piece.channel),
            };
            let at = &slots[index * slot + place * PARTS..][..PARTS];
            (count as f64, f64::from(at[0]) + f64::from(at[1]), f64::from(at[2]))
        })
    };
    let (count, sum) = parts().fold((0.0, 0.0), |(count, sum), (n, mean, _)| (count + n, sum + n * mean));
    let mean = sum / count;
    let squares: f64 = parts().map(|(n, part, squares)| squares + n * (part - mean) * (part - mean)).sum();
    (mean as f32, (squares / count) as f32)
}

/// Means and sums of squares about them, of one piece.
struct PieceMoments<'a> {
    x: &'a [f32],
    piece: Piece,
    channels: usize,
    /// One group instead of one a channel.
    scalar: bool,
    out: &'a mut [f32],
}

impl WithSimd for PieceMoments<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, piece, channels, scalar, out } = self;
        let (tile, width) = (piece.tile().len(), piece.width);
        let (mut sums, mut squares, mut shift) = ([0.0f32; TILE], [0.0f32; TILE], [0.0f32; TILE]);
        for block in piece.blocks() {
            let len = block.len();
            simd::zip(
                simd,
                [&x[block]],
                [&mut sums[..len]],
                #[inline(always)]
                |[x], [sum]| [simd.add_f32s(sum, x)],
            );
        }
        // A group's slots in the tile: all of them, or every `width`-th.
        let groups = if scalar { 1 } else { width };
        let count = (piece.rows * width / groups) as f64;
        debug_assert!(tile.is_multiple_of(groups) && width <= channels);
        for group in 0..groups {
            let mean = fold(&sums[..tile], group, groups) / count;
            shift[..tile].iter_mut().skip(group).step_by(groups).for_each(|shift| *shift = mean as f32);
        }
        sums.fill(0.0);
        for block in piece.blocks() {
            let len = block.len();
            simd::zip(
                simd,
                [&x[block], &shift[..len]],
                [&mut sums[..len], &mut squares[..len]],
                #[inline(always)]
                |[x, shift], [sum, square]| {
                    let centred = simd.sub_f32s(x, shift);
                    [simd.add_f32s(sum, centred), simd.mul_add_e_f32s(centred, centred, square)]
                },
            );
        }
        for (group, parts) in out.chunks_exact_mut(PARTS).take(groups).enumerate() {
            // What rounding the mean to f32 left over is put right here.
            let rest = fold(&sums[..tile], group, groups);
            let square = fold(&squares[..tile], group, groups) - rest * rest / count;
            parts[0] = shift[group];
            parts[1] = (rest / count) as f32;
            parts[2] = if square < 0.0 { 0.0 } else { square as f32 };
        }
    }
}

/// Sum in f64 of every `groups`-th element from `group` on.
fn fold(values: &[f32], group: usize, groups: usize) -> f64 {
    values.iter().skip(group).step_by(groups).map(|&value| f64::from(value)).sum()
}
