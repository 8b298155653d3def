//! Patches side by side in the lanes of vectors: the transposition from and to one patch after the other.

use std::any::Any;

use pulp::Simd;

/// Transposes `rows` × `columns` floats: `target[c·target_stride + r] = source[r·source_stride + c]`.
///
/// Both counts must be at least the number of lanes unless there is one lane: ragged edges are covered by tiles that
/// overlap their neighbours.
///
/// # Panics
/// If a slice is too short.
#[inline(always)]
pub(super) fn transpose<S: Simd>(
    simd: S,
    [rows, columns]: [usize; 2],
    source: &[f32],
    source_stride: usize,
    target: &mut [f32],
    target_stride: usize,
) {
    let lanes = S::F32_LANES;
    assert!(rows >= lanes && columns >= lanes, "{rows}×{columns} floats are less than a tile of {lanes} lanes");
    for row in (0..rows).step_by(lanes) {
        let row = row.min(rows - lanes);
        for column in (0..columns).step_by(lanes) {
            let column = column.min(columns - lanes);
            let source = &source[row * source_stride + column..];
            tile(simd, source, source_stride, &mut target[column * target_stride + row..], target_stride);
        }
    }
}

/// Transposes one tile of lanes × lanes floats.
#[inline(always)]
fn tile<S: Simd>(simd: S, source: &[f32], source_stride: usize, target: &mut [f32], target_stride: usize) {
    // The types decide at compile time; the branches cost nothing.
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V4>() {
        return tile16(*simd, source, source_stride, target, target_stride);
    }
    match S::F32_LANES {
        8 => tile_of::<8>(source, source_stride, target, target_stride),
        4 => tile_of::<4>(source, source_stride, target, target_stride),
        lanes => {
            for row in 0..lanes {
                for column in 0..lanes {
                    target[column * target_stride + row] = source[row * source_stride + column];
                }
            }
        }
    }
}

/// A tile of a size for which the compiler finds the shuffles by itself.
#[inline(always)]
fn tile_of<const L: usize>(source: &[f32], source_stride: usize, target: &mut [f32], target_stride: usize) {
    let mut rows = [[0.0f32; L]; L];
    for (row, values) in rows.iter_mut().enumerate() {
        values.copy_from_slice(&source[row * source_stride..][..L]);
    }
    let mut columns = [[0.0f32; L]; L];
    for row in 0..L {
        for column in 0..L {
            columns[column][row] = rows[row][column];
        }
    }
    for (column, values) in columns.iter().enumerate() {
        target[column * target_stride..][..L].copy_from_slice(values);
    }
}

/// A 16 × 16 tile, for which the compiler does not: four rounds of exchanges, of pairs, fours, eights and sixteens.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn tile16(simd: pulp::x86::V4, source: &[f32], source_stride: usize, target: &mut [f32], target_stride: usize) {
    let avx = simd.avx512f;
    let mut rows = [avx._mm512_setzero_ps(); 16];
    for (i, row) in rows.iter_mut().enumerate() {
        let source = &source[i * source_stride..][..16];
        // SAFETY: the slice holds sixteen floats.
        *row = unsafe { avx._mm512_loadu_ps(source.as_ptr()) };
    }
    // Pairs of rows: within each 128-bit part, columns alternate between the two rows.
    let mut pairs = [avx._mm512_setzero_pd(); 16];
    for i in 0..8 {
        let (a, b) = (rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i] = avx._mm512_castps_pd(avx._mm512_unpacklo_ps(a, b));
        pairs[2 * i + 1] = avx._mm512_castps_pd(avx._mm512_unpackhi_ps(a, b));
    }
    // Fours of rows: part p of vector 4·g + c holds column 4·p + c of rows 4·g … 4·g + 3.
    let mut fours = rows;
    for group in 0..4 {
        for half in 0..2 {
            let (a, b) = (pairs[4 * group + half], pairs[4 * group + 2 + half]);
            fours[4 * group + 2 * half] = avx._mm512_castpd_ps(avx._mm512_unpacklo_pd(a, b));
            fours[4 * group + 2 * half + 1] = avx._mm512_castpd_ps(avx._mm512_unpackhi_pd(a, b));
        }
    }
    // For each c a 4 × 4 transposition of whole parts, in two rounds.
    for column in 0..4 {
        let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
        let even = (avx._mm512_shuffle_f32x4::<0x88>(a, b), avx._mm512_shuffle_f32x4::<0x88>(c, d));
        let odd = (avx._mm512_shuffle_f32x4::<0xdd>(a, b), avx._mm512_shuffle_f32x4::<0xdd>(c, d));
        let columns = [
            avx._mm512_shuffle_f32x4::<0x88>(even.0, even.1),
            avx._mm512_shuffle_f32x4::<0x88>(odd.0, odd.1),
            avx._mm512_shuffle_f32x4::<0xdd>(even.0, even.1),
            avx._mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1),
        ];
        for (part, values) in columns.into_iter().enumerate() {
            let target = &mut target[(4 * part + column) * target_stride..][..16];
            // SAFETY: the slice holds sixteen floats.
            unsafe { avx._mm512_storeu_ps(target.as_mut_ptr(), values) };
        }
    }
}
