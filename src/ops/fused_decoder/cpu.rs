//! The folded decoder on the CPU: some points at a time through all layers, on the products of the linear layer.

use pulp::{Simd, WithSimd};

use super::{DecoderLayer, FoldedDecoder, Part};
use crate::device::cpu::{Pool, SharedMut};
use crate::ops::activation::BoundActivation;
use crate::ops::linear::{Matrix, product};

/// Points of a piece: as those of the linear layer.
const ROWS: usize = 512;

/// Elements that an activation handles at a time: they stay in the first-level cache.
const BLOCK: usize = 1 << 10;

/// Folds one part of a layer.
pub(super) fn fold(folded: &mut FoldedDecoder, part: Part, layer: &DecoderLayer) {
    let (width, columns) = (folded.packing.width, folded.packing.columns);
    let (weight, stride) = (layer.weight.data(), layer.weight.channels());
    let rescale = layer.norm.as_ref().map_or(1.0, |norm| (norm.statistics.data()[1] + norm.epsilon).sqrt().recip());
    let scale = |n: usize| layer.norm.as_ref().map_or(1.0, |norm| norm.gamma.data()[n] * rescale);
    let scales: Vec<f32> = (0..width).map(scale).collect();
    let packed = &mut folded.packed.data_mut()[part.at..][..part.rows * columns];
    for (k, row) in packed.chunks_exact_mut(columns).enumerate() {
        for (n, (value, scale)) in row.iter_mut().zip(&scales).enumerate() {
            *value = scale * weight[n * stride + part.first + k];
        }
    }
    let coefficients = part.product.checked_sub(1).map(|layer| folded.coefficients_at(layer));
    let vectors = folded.vectors.data_mut();
    let offsets = &mut vectors[part.product * columns..][..width];
    for (n, (offset, bias)) in offsets.iter_mut().zip(layer.bias.data()).enumerate() {
        *offset = match &layer.norm {
            Some(norm) => scales[n].mul_add(bias - norm.statistics.data()[0], norm.beta.data()[n]),
            None => *bias,
        };
    }
    if let Some(at) = coefficients {
        let values = layer.coefficients.iter().flat_map(|coefficients| coefficients.data());
        vectors[at..].iter_mut().zip(values).for_each(|(to, from)| *to = *from);
    }
}

/// Floats of scratch that [`forward`] needs: hidden features and residual of a piece for each thread.
pub(super) fn workspace(folded: &FoldedDecoder, threads: usize) -> usize {
    threads * 2 * ROWS * folded.packing.columns
}

/// Logits of the points `x`.
pub(super) fn forward(pool: &Pool, folded: &FoldedDecoder, x: &[f32], scratch: &mut [f32], logits: &mut [f32]) {
    let (features, width, classes) = (folded.features, folded.packing.width, folded.classes());
    let points = x.len() / features;
    let (vectors, last, packed) = (folded.vectors.data(), folded.last.data(), folded.packed.data());
    let functions: Vec<BoundActivation> = (0..folded.layers)
        .map(|layer| {
            let coefficients = &vectors[folded.coefficients_at(layer)..][..folded.activation.coefficients()];
            BoundActivation::new(folded.activation, [coefficients])
        })
        .collect();
    let parts = folded.packing.parts(features, folded.layers).0;
    let (scratch, logits) = (SharedMut::new(scratch), SharedMut::new(logits));
    pool.for_each_with_thread(points.div_ceil(ROWS), |piece, thread| {
        let (start, count) = (piece * ROWS, ROWS.min(points - piece * ROWS));
        // SAFETY: each thread has its own part of the scratch, each piece its own points.
        let (scratch, logits) = unsafe {
            (scratch.slice(thread * 2 * ROWS * width, 2 * ROWS * width), logits.slice(start * classes, count * classes))
        };
        let (hidden, y) = scratch.split_at_mut(ROWS * width);
        let (hidden, y) = (&mut hidden[..count * width], &mut y[..count * width]);
        let x = Matrix { data: &x[start * features..][..count * features], row: features, column: 1 };
        y.fill(0.0);
        for part in &parts {
            let offset = &vectors[part.product * width..][..width];
            let weight = Matrix { data: &packed[part.at..][..part.rows * width], row: width, column: 1 };
            // Odd products make hidden features, even ones add to the residual.
            let (from, to) = match part.product {
                0 => (x, &mut *y),
                1 => (x, &mut *hidden),
                odd if odd % 2 == 1 => (Matrix { data: y, row: width, column: 1 }, &mut *hidden),
                _ => (Matrix { data: hidden, row: width, column: 1 }, &mut *y),
            };
            match part.product % 2 {
                0 => to.chunks_exact_mut(width).for_each(|row| row.iter_mut().zip(offset).for_each(|(y, c)| *y += c)),
                _ => to.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(offset)),
            }
            product(to, width, true, from, weight, [count, width, part.rows]);
            if part.product > 0 {
                pool.simd().dispatch(Activate { function: &functions[part.product - 1], values: to });
            }
        }
        let y = Matrix { data: y, row: width, column: 1 };
        product(logits, classes, false, y, Matrix { data: last, row: 1, column: width }, [count, classes, width]);
    });
}

struct Activate<'a> {
    function: &'a BoundActivation,
    values: &'a mut [f32],
}

impl WithSimd for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.values.chunks_mut(BLOCK).for_each(|block| self.function.apply(simd, block));
    }
}
