//! The two register-blocked inner loops that every convolution ends in.
//!
//! [`Tile`] multiplies a few rows by a packed panel of weights (forward and data gradient, and Winograd's products);
//! [`OuterTile`] sums outer products over positions (weight gradient). A tile has `ROWS` rows of `VECTORS` SIMD vectors
//! whose sums stay in registers: 14×2 or, for short lines, 6×4 of the 32 AVX-512 registers, 6×2 of the 16 AVX2 ones, 4×2
//! scalars.

// Counted loops over a tile read like its formula, and are unrolled.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};

/// Vectors of a panel of weights, for lines of usual length.
pub(super) const PANEL_VECTORS: usize = 2;

/// Vectors of a panel for lines of `length` outputs: short lines fill the registers with more columns.
pub(super) const fn panel_vectors(lanes: usize, length: usize) -> usize {
    if lanes == 16 && length <= max_rows(lanes, 4) { 4 } else { PANEL_VECTORS }
}

/// Rows of the largest tile of `vectors` vectors of `lanes` floats.
pub(super) const fn max_rows(lanes: usize, vectors: usize) -> usize {
    match (lanes, vectors) {
        (16, 1 | 2) => 14,
        (16, _) | (8, 1 | 2) => 6,
        (_, 1 | 2) => 4,
        _ => 0,
    }
}

/// Cuts `length` into as few runs of at most `limit` as possible, as even as possible: `(count, longest)`.
pub(super) fn even_cuts(length: usize, limit: usize) -> (usize, usize) {
    let count = length.div_ceil(limit).max(1);
    (count, length.div_ceil(count))
}

/// What a tile adds its sums to.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// Nothing.
    Zero,
    /// A bias, padded to whole vectors.
    Bias(*const f32),
    /// What the output holds.
    Output,
}

/// `output[r, c] = start + Σ_tap Σ_i input[r·row + tap + i] · panel[tap, i, c]`.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// First element of the first row's first run.
    pub input: *const f32,
    /// Floats between rows of the input.
    pub row: usize,
    /// Where each contiguous run begins, from `input`.
    pub taps: &'a [usize],
    /// Floats of a run.
    pub run: usize,
    /// `[taps·run][vectors·lanes]`.
    pub panel: *const f32,
    /// First element of the output.
    pub output: *mut f32,
    /// Floats between rows of the output.
    pub output_row: usize,
    /// What the sums are added to.
    pub start: Start,
}

impl Tile<'_> {
    /// Computes `rows` rows of `vectors` vectors, of which the first `columns` columns reach the output.
    ///
    /// # Safety
    /// Every element the formula names must be inside its buffer, and `output` free of other accesses.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, simd: S, rows: usize, vectors: usize, columns: usize) {
        // SAFETY: the caller's promise; a tile with fewer columns works on a copy of whole vectors.
        unsafe {
            if columns == vectors * S::F32_LANES {
                return self.whole(simd, rows, vectors);
            }
            let width = vectors * S::F32_LANES;
            let mut copy = [0.0f32; 14 * PANEL_VECTORS * 16];
            for r in 0..rows {
                let output = self.output.add(r * self.output_row);
                if matches!(self.start, Start::Output) {
                    copy.as_mut_ptr().add(r * width).copy_from_nonoverlapping(output, columns);
                }
            }
            Tile { output: copy.as_mut_ptr(), output_row: width, ..*self }.whole(simd, rows, vectors);
            for r in 0..rows {
                let output = self.output.add(r * self.output_row);
                output.copy_from_nonoverlapping(copy.as_ptr().add(r * width), columns);
            }
        }
    }

    /// Computes `rows × vectors` vectors.
    ///
    /// # Safety
    /// As [`Tile::run`], for all columns of the vectors.
    #[inline(always)]
    unsafe fn whole<S: Simd>(&self, simd: S, rows: usize, vectors: usize) {
        debug_assert!(rows <= max_rows(S::F32_LANES, vectors));
        macro_rules! arms {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (rows, vectors) {
                    $($(($rows, $vectors) => simd.vectorize(Sized::<_, $rows, $vectors>(self)),)*)*
                    _ => unreachable!("a tile of {rows} rows of {vectors} vectors"),
                }
            };
        }
        arms! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            3: 1 2 3 4 5 6;
            4: 1 2 3 4 5 6;
        }
    }
}

/// A tile with its size in the type.
struct Sized<'a, T, const ROWS: usize, const VECTORS: usize>(&'a T);

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Sized<'_, Tile<'_>, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Larger tiles than the registers hold are never asked for; not compiling them saves code.
        if ROWS > max_rows(S::F32_LANES, VECTORS) {
            return;
        }
        let tile = self.0;
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        let mut panel = tile.panel;
        // SAFETY: `Tile::run`'s caller vouches for every element.
        unsafe {
            for &tap in tile.taps {
                let input = tile.input.add(tap);
                for i in 0..tile.run {
                    let mut weights = [simd.splat_f32s(0.0); VECTORS];
                    for v in 0..VECTORS {
                        weights[v] = load::<S>(panel.add(v * lanes));
                    }
                    panel = panel.add(VECTORS * lanes);
                    for r in 0..ROWS {
                        let x = simd.splat_f32s(*input.add(r * tile.row + i));
                        for v in 0..VECTORS {
                            sums[r][v] = simd.mul_add_e_f32s(x, weights[v], sums[r][v]);
                        }
                    }
                }
            }
            // Loops with bodies this small are unrolled, which keeps the sums in registers.
            match tile.start {
                Start::Zero => {}
                Start::Bias(bias) => {
                    for v in 0..VECTORS {
                        let bias = load::<S>(bias.add(v * lanes));
                        for r in 0..ROWS {
                            sums[r][v] = simd.add_f32s(sums[r][v], bias);
                        }
                    }
                }
                Start::Output => {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            let former = load::<S>(tile.output.add(r * tile.output_row + v * lanes));
                            sums[r][v] = simd.add_f32s(sums[r][v], former);
                        }
                    }
                }
            }
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    store::<S>(tile.output.add(r * tile.output_row + v * lanes), sums[r][v]);
                }
            }
        }
    }
}

/// `sums[r, c] += Σ_plane Σ_line Σ_position x[plane·x_plane + line·x_line + position·x_step + r]
/// · dy[plane·dy_plane + line·dy_line + position·dy_step + c]`.
///
/// The sum over all positions is one chain of f32 additions a register, so the caller keeps it short.
#[derive(Clone, Copy)]
pub(super) struct OuterTile {
    /// First element of the left factor.
    pub x: *const f32,
    /// Floats between planes of `x`.
    pub x_plane: usize,
    /// Floats between lines of `x`.
    pub x_line: usize,
    /// Floats between positions of `x`.
    pub x_step: usize,
    /// First element of the right factor.
    pub dy: *const f32,
    /// Floats between planes of `dy`.
    pub dy_plane: usize,
    /// Floats between lines of `dy`.
    pub dy_line: usize,
    /// Floats between positions of `dy`.
    pub dy_step: usize,
    /// Number of planes.
    pub planes: usize,
    /// Lines of a plane.
    pub lines: usize,
    /// Positions of a line.
    pub positions: usize,
    /// First element of the result.
    pub sums: *mut f32,
    /// Floats between rows of the result.
    pub sums_row: usize,
}

impl OuterTile {
    /// Computes `rows × vectors` vectors.
    ///
    /// # Safety
    /// Every element the formula names must be inside its buffer, and `sums` free of other accesses.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, simd: S, rows: usize, vectors: usize) {
        debug_assert!(rows <= max_rows(S::F32_LANES, vectors));
        macro_rules! arms {
            ($($rows:literal)*) => {
                match (rows, vectors) {
                    $(
                        ($rows, 1) => simd.vectorize(Sized::<_, $rows, 1>(self)),
                        ($rows, 2) => simd.vectorize(Sized::<_, $rows, 2>(self)),
                    )*
                    _ => unreachable!("a tile of {rows} rows of {vectors} vectors"),
                }
            };
        }
        arms!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }
}

impl<const ROWS: usize, const VECTORS: usize> WithSimd for Sized<'_, OuterTile, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if ROWS > max_rows(S::F32_LANES, VECTORS) {
            return;
        }
        let tile = self.0;
        let lanes = S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
        // SAFETY: `OuterTile::run`'s caller vouches for every element.
        unsafe {
            for line in 0..tile.planes * tile.lines {
                let (plane, line) = (line / tile.lines, line % tile.lines);
                let mut x = tile.x.add(plane * tile.x_plane + line * tile.x_line);
                let mut dy = tile.dy.add(plane * tile.dy_plane + line * tile.dy_line);
                for _ in 0..tile.positions {
                    let mut gradient = [simd.splat_f32s(0.0); VECTORS];
                    for v in 0..VECTORS {
                        gradient[v] = load::<S>(dy.add(v * lanes));
                    }
                    for r in 0..ROWS {
                        let x = simd.splat_f32s(*x.add(r));
                        for v in 0..VECTORS {
                            sums[r][v] = simd.mul_add_e_f32s(x, gradient[v], sums[r][v]);
                        }
                    }
                    x = x.wrapping_add(tile.x_step);
                    dy = dy.wrapping_add(tile.dy_step);
                }
            }
            for (r, row) in sums.iter().enumerate() {
                for (v, &sum) in row.iter().enumerate() {
                    let place = tile.sums.add(r * tile.sums_row + v * lanes);
                    store::<S>(place, simd.add_f32s(sum, load::<S>(place)));
                }
            }
        }
    }
}

/// An unaligned vector.
///
/// # Safety
/// `S::F32_LANES` floats must be readable at `place`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(place: *const f32) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe { place.cast::<S::f32s>().read_unaligned() }
}

/// Writes an unaligned vector.
///
/// # Safety
/// `S::F32_LANES` floats must be writable at `place`.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(place: *mut f32, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe { place.cast::<S::f32s>().write_unaligned(value) }
}
