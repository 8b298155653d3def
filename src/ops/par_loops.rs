//! How ops cut their loops: by the problem, never by the number of threads.

use crate::device::cpu::Pool;
use crate::device::cpu::loops::rows_in_piece;
pub(crate) use crate::device::cpu::loops::{by_elements, by_rows};
use crate::error::{Error, Result};

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
