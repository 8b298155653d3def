//! Lattices on the CPU. Pieces of work are planes of the first axis, or blocks of points.

use super::{BLOCK, DUE, EVALUATED, class_of};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::sigmoid::logistic;

/// Points that one piece of an element-wise loop handles.
const PIECE: usize = 1 << 16;

/// Runs `work(first, piece)` on pieces of `values` of `len` elements.
fn by_pieces(pool: &Pool, values: &mut [u8], len: usize, work: impl Fn(usize, &mut [u8]) + Sync + Send) {
    let total = values.len();
    let shared = SharedMut::new(values);
    pool.for_each(total.div_ceil(len.max(1)), |piece| {
        let first = piece * len;
        // SAFETY: pieces do not overlap.
        work(first, unsafe { shared.slice(first, len.min(total - first)) });
    });
}

/// Unevaluated points are due.
pub(super) fn mark_all(pool: &Pool, status: &mut [u8]) {
    by_pieces(pool, status, PIECE, |_, piece| piece.iter_mut().for_each(|s| *s |= due_if(*s & EVALUATED == 0)));
}

/// Unevaluated points with large values are due.
pub(super) fn mark_above(pool: &Pool, values: &[f32], threshold: f32, status: &mut [u8]) {
    by_pieces(pool, status, PIECE, |first, piece| {
        let values = &values[first..first + piece.len()];
        piece.iter_mut().zip(values).for_each(|(s, &v)| *s |= due_if(*s & EVALUATED == 0 && v > threshold));
    });
}

/// Background near something is due.
pub(super) fn mark_background(pool: &Pool, near: &[u8], classes: &[u8], status: &mut [u8]) {
    by_pieces(pool, status, PIECE, |first, piece| {
        let points = near[first..].iter().zip(&classes[first..]);
        piece.iter_mut().zip(points).for_each(|(s, (&near, &class))| *s |= due_if(near != 0 && class == 0));
    });
}

fn due_if(condition: bool) -> u8 {
    if condition { DUE } else { 0 }
}

/// The smallest and largest class, element by element, of some rows.
struct Extremes {
    low: Vec<u8>,
    high: Vec<u8>,
}

impl Extremes {
    fn new(len: usize) -> Self {
        Self { low: vec![0; len], high: vec![0; len] }
    }

    fn of<'a>(&mut self, rows: impl Iterator<Item = &'a [u8]>) {
        self.low.fill(u8::MAX);
        self.high.fill(0);
        for row in rows {
            self.low.iter_mut().zip(row).for_each(|(low, &class)| *low = (*low).min(class));
            self.high.iter_mut().zip(row).for_each(|(high, &class)| *high = (*high).max(class));
        }
    }

    /// True if the rows' elements `from..to` do not all have one class.
    fn mixed(&self, from: usize, to: usize) -> bool {
        let low = self.low[from..to].iter().min();
        low != self.high[from..to].iter().max()
    }
}

/// The indices at most `radius` from `at`, of `len`.
fn around(at: usize, radius: usize, len: usize) -> std::ops::Range<usize> {
    at.saturating_sub(radius)..(at + radius + 1).min(len)
}

/// Unevaluated points whose neighbours differ are due.
pub(super) fn mark_mixed_neighbours(pool: &Pool, shape: [usize; 3], classes: &[u8], status: &mut [u8]) {
    let [nx, ny, nz] = shape;
    by_pieces(pool, status, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        let mut extremes = Extremes::new(nz);
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            let rows = around(x, 1, nx).flat_map(|x| around(y, 1, ny).map(move |y| (x * ny + y) * nz));
            extremes.of(rows.map(|start| &classes[start..start + nz]));
            if !extremes.mixed(0, nz) {
                continue;
            }
            for (z, s) in line.iter_mut().enumerate() {
                let near = around(z, 1, nz);
                *s |= due_if(*s & EVALUATED == 0 && extremes.mixed(near.start, near.end));
            }
        }
    });
}

/// 1 for each cell whose points do not all have one class, else 0.
pub(super) fn mixed_cells(
    pool: &Pool,
    [nx, ny, nz]: [usize; 3],
    side: usize,
    classes: &[u8],
    [_, cy, cz]: [usize; 3],
    mixed: &mut [u8],
) {
    let span = |cell: usize, len: usize| cell * side..((cell + 1) * side + 1).min(len);
    by_pieces(pool, mixed, cy * cz, |first, plane| {
        let i = first / (cy * cz);
        let mut extremes = Extremes::new(nz);
        for (j, line) in plane.chunks_exact_mut(cz).enumerate() {
            let rows = span(i, nx).flat_map(|x| span(j, ny).map(move |y| (x * ny + y) * nz));
            extremes.of(rows.map(|start| &classes[start..start + nz]));
            for (k, cell) in line.iter_mut().enumerate() {
                let points = span(k, nz);
                *cell = u8::from(extremes.mixed(points.start, points.end));
            }
        }
    });
}

/// Unevaluated points of marked cells are due.
pub(super) fn mark_cells(
    pool: &Pool,
    [_, ny, nz]: [usize; 3],
    side: usize,
    cells: [usize; 3],
    marked: &[u8],
    status: &mut [u8],
) {
    let [_, cy, cz] = cells;
    by_pieces(pool, status, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        let mut any = vec![0u8; cz];
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            any.fill(0);
            for i in cells_of(x, side, cells[0]) {
                for j in cells_of(y, side, cy) {
                    let row = &marked[(i * cy + j) * cz..][..cz];
                    any.iter_mut().zip(row).for_each(|(any, &cell)| *any |= cell);
                }
            }
            for (z, s) in line.iter_mut().enumerate() {
                let inside = any[cells_of(z, side, cz)].iter().any(|&cell| cell != 0);
                *s |= due_if(*s & EVALUATED == 0 && inside);
            }
        }
    });
}

/// The cells, of `cells` along an axis, that hold the point `at`: two where cells meet.
fn cells_of(at: usize, side: usize, cells: usize) -> std::ops::Range<usize> {
    let last = (at / side).min(cells - 1);
    let first = if at.is_multiple_of(side) { (at / side).saturating_sub(1) } else { last };
    first.min(last)..last + 1
}

/// Replaces each element of `mask` (0 or 1) by the largest within `radius` along all three axes.
pub(super) fn dilate(pool: &Pool, [nx, ny, nz]: [usize; 3], radius: usize, mask: &mut [u8], scratch: &mut [u8]) {
    // Along the last axis.
    by_pieces(pool, scratch, ny * nz, |first, plane| {
        for (line, source) in plane.chunks_exact_mut(nz).zip(mask[first..].chunks_exact(nz)) {
            spread(source, radius, line);
        }
    });
    // Along the middle one, back into the mask; along the first, into the scratch.
    let maximum = |rows: &mut dyn Iterator<Item = usize>, source: &[u8], line: &mut [u8]| {
        line.fill(0);
        for row in rows {
            line.iter_mut().zip(&source[row * nz..][..nz]).for_each(|(to, &from)| *to |= from);
        }
    };
    by_pieces(pool, mask, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            maximum(&mut around(y, radius, ny).map(|y| x * ny + y), scratch, line);
        }
    });
    by_pieces(pool, scratch, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            maximum(&mut around(x, radius, nx).map(|x| x * ny + y), mask, line);
        }
    });
    mask.copy_from_slice(scratch);
}

/// One line of [`dilate`]: how far back the last set element lies, forwards and backwards.
fn spread(source: &[u8], radius: usize, line: &mut [u8]) {
    line.fill(0);
    let mut left = 0;
    for (to, &from) in line.iter_mut().zip(source) {
        left = if from != 0 { radius + 1 } else { left.saturating_sub(1) };
        *to |= u8::from(left > 0);
    }
    left = 0;
    for (to, &from) in line.iter_mut().zip(source).rev() {
        left = if from != 0 { radius + 1 } else { left.saturating_sub(1) };
        *to |= u8::from(left > 0);
    }
}

/// Due points of each block.
pub(super) fn count_due(pool: &Pool, status: &[u8]) -> Vec<usize> {
    pool.map(status.len().div_ceil(BLOCK), |block| {
        let points = &status[block * BLOCK..((block + 1) * BLOCK).min(status.len())];
        points.iter().filter(|&&s| s & DUE != 0).count()
    })
}

/// Indices of the due points of `status`, whose first is point `first` of the lattice.
pub(super) fn due([_, ny, nz]: [usize; 3], first: usize, status: &[u8], points: &mut [f32]) {
    let due = (first..).zip(status).filter(|(_, s)| **s & DUE != 0);
    for (to, (at, _)) in points.chunks_exact_mut(3).zip(due) {
        to.copy_from_slice(&[at / (ny * nz), at / nz % ny, at % nz].map(|index| index as f32));
    }
}

/// Enters answers.
pub(super) fn write(
    [_, ny, nz]: [usize; 3],
    points: &[f32],
    answers: &[u8],
    (classes, status): (&mut [u8], &mut [u8]),
) {
    for (point, &answer) in points.chunks_exact(3).zip(answers) {
        let at = (point[0] as usize * ny + point[1] as usize) * nz + point[2] as usize;
        classes[at] = answer;
        status[at] = EVALUATED;
    }
}

/// A lattice's shape, classes and status, as they are read …
type Read<'a> = ([usize; 3], (&'a [u8], &'a [u8]));
/// … and written.
type Write<'a> = ([usize; 3], (&'a mut [u8], &'a mut [u8]));

/// Fills the finer lattice, which holds zeros.
pub(super) fn refine(
    pool: &Pool,
    (coarse, (classes, status)): Read<'_>,
    factor: usize,
    fill: bool,
    (shape, (fine_classes, fine_status)): Write<'_>,
) {
    let [_, cy, cz] = coarse;
    let [_, ny, nz] = shape;
    let nearest = |at: usize, axis: usize| ((at + factor / 2) / factor).min(coarse[axis] - 1);
    by_pieces(pool, fine_classes, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            if !(fill || x.is_multiple_of(factor) && y.is_multiple_of(factor)) {
                continue;
            }
            let row = &classes[(nearest(x, 0) * cy + nearest(y, 1)) * cz..][..cz];
            let own = line.iter_mut().enumerate().filter(|(z, _)| fill || z.is_multiple_of(factor));
            own.for_each(|(z, to)| *to = row[nearest(z, 2)]);
        }
    });
    by_pieces(pool, fine_status, ny * nz, |first, plane| {
        let x = first / (ny * nz);
        for (y, line) in plane.chunks_exact_mut(nz).enumerate() {
            if x.is_multiple_of(factor) && y.is_multiple_of(factor) {
                let row = &status[(x / factor * cy + y / factor) * cz..][..cz];
                line.iter_mut().step_by(factor).zip(row).for_each(|(to, &from)| *to = from & EVALUATED);
            }
        }
    });
}

/// The class of each row.
pub(super) fn classify(pool: &Pool, logits: &[f32], outputs: usize, threshold: f32, classes: &mut [u8]) {
    by_pieces(pool, classes, PIECE, |first, piece| {
        for (class, row) in piece.iter_mut().zip(logits[first * outputs..].chunks_exact(outputs)) {
            *class = match row {
                [logit] => class_of(&[logistic(*logit)], threshold),
                row => class_of(row, threshold),
            };
        }
    });
}
