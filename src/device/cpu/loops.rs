//! How loops over elements are cut: by the problem, never by the number of threads.

use super::{Pool, SharedMut};

/// Elements that one piece of an element-wise loop handles.
pub(crate) const PIECE: usize = 1 << 14;

/// Rows of `row` elements that make one piece: about [`PIECE`] elements, one row at least.
pub(crate) fn rows_in_piece(row: usize) -> usize {
    (PIECE / row.max(1)).max(1)
}

/// Cuts `out` into pieces of whole rows and runs `work(index of the first row, piece)` on each.
pub(crate) fn by_rows(pool: &Pool, out: &mut [f32], row: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
    rows(pool, out, row, &work);
}

/// Compiled once.
fn rows(pool: &Pool, out: &mut [f32], row: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync + Send)) {
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
