//! How ops cut their loops: by the problem, never by the number of threads.

use super::PIECE;
use crate::device::cpu::{Pool, SharedMut};
use crate::error::{Error, Result};

/// Rows of `row` elements that make one piece: about [`PIECE`] elements, one row at least.
fn rows_in_piece(row: usize) -> usize {
    (PIECE / row.max(1)).max(1)
}

/// Cuts `out` into pieces of whole rows and runs `work(index of the first row, piece)` on each.
pub(super) fn by_rows(pool: &Pool, out: &mut [f32], row: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    let (rows, step) = (out.len().checked_div(row).unwrap_or(0), rows_in_piece(row));
    let out = SharedMut::new(out);
    pool.for_each(rows.div_ceil(step), |piece| {
        let first = piece * step;
        // SAFETY: pieces are disjoint rows.
        let part = unsafe { out.slice(first * row, step.min(rows - first) * row) };
        work(first, part);
    });
}

/// Cuts `out` into pieces of elements and runs `work(index of the first element, piece)` on each.
pub(crate) fn by_elements(pool: &Pool, out: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    by_rows(pool, out, 1, work);
}

/// `Σ part(range)` over pieces of the rows `0..rows`, each piece a sum in f64, added in their order.
pub(super) fn sum_rows(
    pool: &Pool,
    rows: usize,
    row: usize,
    part: impl Fn(std::ops::Range<usize>) -> f64 + Sync + Send,
) -> f64 {
    let step = rows_in_piece(row);
    pool.map(rows.div_ceil(step), |piece| part(piece * step..rows.min((piece + 1) * step))).into_iter().sum()
}

/// `to (+)= value`.
pub(super) fn put(to: &mut f32, value: f32, accumulate: bool) {
    *to = if accumulate { *to + value } else { value };
}

/// `to (+)= from`, element by element.
pub(super) fn put_all(to: &mut [f32], from: &[f32], accumulate: bool) {
    match accumulate {
        true => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
        false => to.copy_from_slice(from),
    }
}

/// The axes of a volume `[batch, D, H, W, C]` with at least one element.
///
/// # Errors
/// [`Error::Shape`] in the name of `op` if the shape is another.
pub(super) fn volume_axes(op: &'static str, shape: &[usize]) -> Result<[usize; 5]> {
    match <[usize; 5]>::try_from(shape) {
        Ok(axes) if !axes.contains(&0) => Ok(axes),
        _ => Err(Error::shape(op, format!("expected [batch, D, H, W, C] without empty axes, got {shape:?}"))),
    }
}
