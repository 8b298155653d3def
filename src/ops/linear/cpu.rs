//! The linear layer on the CPU, on the f32 kernels of the `gemm` crate.
//!
//! The crate is always called single-threaded on pieces of a fixed number of rows, so that the bits do not depend on the
//! number of threads and its packing scratch stays small (one panel of the weight a thread).

use gemm_common::Parallelism;
use pulp::{Simd, WithSimd};

use super::Dims;
use crate::device::cpu::{Pool, SharedMut};

/// Rows of one piece. Large enough to amortise packing the weight, small enough to stay in the second-level cache.
const ROWS: usize = 512;

/// Rows that one partial weight gradient sums over: short enough for f32 sums, long enough to be worth a product.
const SPLIT: usize = 2048;

/// Columns of one call: the crate packs that many of the right operand, 512 rows at a time, in a buffer outside the ledger.
const COLUMNS: usize = 96;

/// Weight gradients are computed in this many blocks of outputs, to keep all threads busy.
const OUTPUT_BLOCK: usize = 128;

/// A matrix: elements, distance between rows, distance between columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// `c[m, n] (+)= a[m, k]·b[k, n]`, `c` row-major with rows `c_row` apart.
pub(crate) fn product(
    c: &mut [f32],
    c_row: usize,
    accumulate: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
    [m, n, k]: [usize; 3],
) {
    if m == 0 || n == 0 {
        return;
    }
    let last = |matrix: Matrix<'_>, rows: usize, columns: usize| {
        rows == 0 || columns == 0 || (rows - 1) * matrix.row + (columns - 1) * matrix.column < matrix.data.len()
    };
    assert!(last(a, m, k) && last(b, k, n) && (m - 1) * c_row + n <= c.len(), "matrix sizes {m}×{n}×{k}");
    for first in (0..n).step_by(COLUMNS) {
        let width = COLUMNS.min(n - first);
        let [a_row, a_column, b_row, b_column, c_row] =
            [a.row, a.column, b.row, b.column, c_row].map(|stride| stride as isize);
        let left = a.data.as_ptr();
        let right = b.data[(first * b.column).min(b.data.len())..].as_ptr();
        // The kernels want column-major results: where rows are apart, cᵀ = bᵀ·aᵀ.
        let (sizes, c_strides, left, left_strides, right, right_strides) = match c_row > 1 {
            true => ([width, m], [c_row, 1], right, [b_row, b_column], left, [a_row, a_column]),
            false => ([m, width], [1, c_row], left, [a_column, a_row], right, [b_column, b_row]),
        };
        // SAFETY: the assertion bounds every element that the strides reach.
        unsafe {
            gemm_f32::gemm::f32::get_gemm_fn()(
                sizes[0],
                sizes[1],
                k,
                c[first..].as_mut_ptr(),
                c_strides[0],
                c_strides[1],
                accumulate,
                left,
                left_strides[0],
                left_strides[1],
                right,
                right_strides[0],
                right_strides[1],
                1.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// `y = x·Wᵀ + b`.
pub(super) fn forward(pool: &Pool, dims: Dims, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let Dims { rows, features, outputs, stride, first, rows_per_bias } = dims;
    let y = SharedMut::new(y);
    pool.for_each(rows.div_ceil(ROWS), |piece| {
        let start = piece * ROWS;
        let count = ROWS.min(rows - start);
        // SAFETY: pieces are disjoint rows.
        let y = unsafe { y.slice(start * outputs, count * outputs) };
        if let Some(bias) = bias {
            for (i, row) in y.chunks_exact_mut(outputs).enumerate() {
                let item = (start + i) / rows_per_bias;
                row.copy_from_slice(&bias[item * outputs..][..outputs]);
            }
        }
        let x = Matrix { data: &x[start * features..][..count * features], row: features, column: 1 };
        let w = Matrix { data: &weight[first.min(weight.len())..], row: 1, column: stride };
        product(y, outputs, bias.is_some(), x, w, [count, outputs, features]);
    });
}

/// `dx (+)= dy·W`.
pub(super) fn input_gradient(pool: &Pool, dims: Dims, dy: &[f32], weight: &[f32], dx: &mut [f32], accumulate: bool) {
    let Dims { rows, features, outputs, stride, first, .. } = dims;
    let dx = SharedMut::new(dx);
    pool.for_each(rows.div_ceil(ROWS), |piece| {
        let start = piece * ROWS;
        let count = ROWS.min(rows - start);
        // SAFETY: pieces are disjoint rows.
        let dx = unsafe { dx.slice(start * features, count * features) };
        let dy = Matrix { data: &dy[start * outputs..][..count * outputs], row: outputs, column: 1 };
        let w = Matrix { data: &weight[first.min(weight.len())..], row: stride, column: 1 };
        product(dx, features, accumulate, dy, w, [count, features, outputs]);
    });
}

/// Floats of scratch that [`weight_gradient`] needs: one partial gradient for each split but the first.
pub(super) fn weight_gradient_workspace(dims: Dims) -> usize {
    dims.rows.div_ceil(SPLIT).max(1) * dims.features * dims.outputs
}

/// `dW[:, columns] (+)= dyᵀ·x`: partial gradients over [`SPLIT`] rows, then a pairwise sum of the partials.
pub(super) fn weight_gradient(
    pool: &Pool,
    dims: Dims,
    x: &[f32],
    dy: &[f32],
    scratch: &mut [f32],
    dw: &mut [f32],
    accumulate: bool,
) {
    let Dims { rows, features, outputs, stride, first, .. } = dims;
    let splits = rows.div_ceil(SPLIT).max(1);
    let blocks = outputs.div_ceil(OUTPUT_BLOCK);
    let size = features * outputs;
    {
        let scratch = SharedMut::new(scratch);
        pool.for_each(splits * blocks, |piece| {
            let (split, block) = (piece / blocks, piece % blocks);
            let (start, column) = (split * SPLIT, block * OUTPUT_BLOCK);
            let (count, width) = (SPLIT.min(rows - start), OUTPUT_BLOCK.min(outputs - column));
            // SAFETY: each piece owns the rows `column..column + width` of its split's partial.
            let partial = unsafe { scratch.slice(split * size + column * features, width * features) };
            let a = Matrix { data: &dy[(start * outputs + column).min(dy.len())..], row: 1, column: outputs };
            let b = Matrix { data: &x[start * features..], row: features, column: 1 };
            product(partial, features, false, a, b, [width, features, count]);
        });
    }
    let (dw, scratch) = (SharedMut::new(dw), SharedMut::new(scratch));
    pool.for_each(outputs, |output| {
        // SAFETY: each piece owns one row of the gradient and of every partial.
        let (row, partial) = unsafe {
            let partial = |split: usize| scratch.slice(split * size + output * features, features);
            (dw.slice(output * stride + first, features), partial)
        };
        pool.simd().dispatch(PairwiseSum { row, partial, splits, accumulate });
    });
}

/// `row (+)= Σ partial(split)`, in pairs, then pairs of pairs: the error grows with the logarithm of the count.
struct PairwiseSum<'a, F> {
    row: &'a mut [f32],
    partial: F,
    splits: usize,
    accumulate: bool,
}

impl<'a, F: Fn(usize) -> &'a mut [f32]> WithSimd for PairwiseSum<'a, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mut distance = 1;
        while distance < self.splits {
            for split in (0..self.splits - distance).step_by(2 * distance) {
                add((self.partial)(split), (self.partial)(split + distance));
            }
            distance *= 2;
        }
        match self.accumulate {
            true => add(self.row, (self.partial)(0)),
            false => self.row.copy_from_slice((self.partial)(0)),
        }
    }
}

/// `a += b`.
#[inline(always)]
fn add(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

/// Outputs of one piece of a bias gradient: a few cache lines of columns at a time.
const WIDTH: usize = 64;

/// `db (+)= Σ dy` over the rows of each bias row, in f64.
pub(super) fn bias_gradient(pool: &Pool, dims: Dims, dy: &[f32], db: &mut [f32], accumulate: bool) {
    let Dims { rows, outputs, rows_per_bias, .. } = dims;
    let (items, blocks) = (rows / rows_per_bias, outputs.div_ceil(WIDTH));
    let db = SharedMut::new(db);
    pool.for_each(items * blocks, |piece| {
        let (item, column) = (piece / blocks, piece % blocks * WIDTH);
        let width = WIDTH.min(outputs - column);
        let rows = &dy[item * rows_per_bias * outputs..][..rows_per_bias * outputs];
        let mut sums = [0.0f64; WIDTH];
        pool.simd().dispatch(ColumnSums { rows, outputs, column, sums: &mut sums[..width] });
        // SAFETY: each piece owns its columns of its item.
        let db = unsafe { db.slice(item * outputs + column, width) };
        for (value, &sum) in db.iter_mut().zip(&sums) {
            *value = if accumulate { *value + sum as f32 } else { sum as f32 };
        }
    });
}

/// Sums of some columns of row-major `rows`.
struct ColumnSums<'a> {
    rows: &'a [f32],
    outputs: usize,
    column: usize,
    sums: &'a mut [f64],
}

impl WithSimd for ColumnSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact(self.outputs) {
            for (sum, &value) in self.sums.iter_mut().zip(&row[self.column..]) {
                *sum += f64::from(value);
            }
        }
    }
}
