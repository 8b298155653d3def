//! Activations on the CPU: flat loops in pieces of [`PIECE`] elements.

use pulp::{Simd, WithSimd};

use super::{BoundActivation, CoefficientSums};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::PIECE;

/// Elements that a vector loop handles before the next step: they stay in the first-level cache.
const BLOCK: usize = 1 << 10;

/// `y = f(x)`.
pub(super) fn forward(pool: &Pool, function: &BoundActivation, x: &[f32], y: &mut [f32]) {
    let y = SharedMut::new(y);
    pool.for_each(x.len().div_ceil(PIECE), |piece| {
        let start = piece * PIECE;
        let x = &x[start..(start + PIECE).min(x.len())];
        // SAFETY: pieces do not overlap.
        let y = unsafe { y.slice(start, x.len()) };
        pool.simd().dispatch(Forward { function, x, y });
    });
}

struct Forward<'a> {
    function: &'a BoundActivation,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (x, y) in self.x.chunks(BLOCK).zip(self.y.chunks_mut(BLOCK)) {
            y.copy_from_slice(x);
            self.function.apply(simd, y);
        }
    }
}

/// Floats of scratch that [`backward`] needs: the coefficients' gradients, whole and of each piece.
pub(super) fn backward_workspace(elements: usize, coefficients: usize) -> usize {
    coefficients * (1 + elements.div_ceil(PIECE))
}

/// `g ← g·f'(x)`; the gradients of the `coefficients` coefficients go to the first places of `scratch`.
pub(super) fn backward(
    pool: &Pool,
    function: &BoundActivation,
    coefficients: usize,
    x: &[f32],
    g: &mut [f32],
    scratch: &mut [f32],
) {
    let (totals, partials) = scratch.split_at_mut(coefficients);
    let g = SharedMut::new(g);
    let shared = SharedMut::new(partials);
    pool.for_each(x.len().div_ceil(PIECE), |piece| {
        let start = piece * PIECE;
        let x = &x[start..(start + PIECE).min(x.len())];
        // SAFETY: pieces do not overlap, and each has its own sums.
        let (g, sums) = unsafe { (g.slice(start, x.len()), shared.slice(piece * coefficients, coefficients)) };
        pool.simd().dispatch(Differentiate { function, x, g, sums });
    });
    add_pieces(partials, totals);
}

struct Differentiate<'a> {
    function: &'a BoundActivation,
    x: &'a [f32],
    g: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Differentiate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut sums = CoefficientSums::new();
        for (x, g) in self.x.chunks(BLOCK).zip(self.g.chunks_mut(BLOCK)) {
            self.function.differentiate(simd, x, g, &mut sums);
        }
        sums.finish(self.sums);
    }
}

/// `totals[k] = Σ partials[piece][k]` in f64, in the order of the pieces.
fn add_pieces(partials: &[f32], totals: &mut [f32]) {
    let count = totals.len();
    for (k, total) in totals.iter_mut().enumerate() {
        *total = partials.iter().skip(k).step_by(count).map(|&part| f64::from(part)).sum::<f64>() as f32;
    }
}
