//! Spectra of the weights, and weights from spectra: small plain f64 transforms outside the loop over patches.

use std::f64::consts::TAU;

use super::dft::{BINS, HALF};
use super::{Dims, PATCH};
use crate::ops::patch_sample::SIDE;

/// Bins of a patch's spectrum that are kept: (last axis, half), (middle axis), (first axis).
pub(super) const SPECTRUM: usize = HALF * BINS * BINS;

/// Which convolution a spectrum is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// `y = W ⋆ x`: the kernel reversed in all axes.
    Forward,
    /// `dx = Wᵀ ⋆ dy`: the kernel as it is, inputs and outputs exchanged.
    Adjoint,
}

/// `e^(2πi·n/10)`.
fn root(n: i32) -> [f64; 2] {
    let angle = TAU * f64::from(n.rem_euclid(BINS as i32)) / BINS as f64;
    [angle.cos(), angle.sin()]
}

/// `sum += a·b`.
fn add_product(sum: &mut [f64; 2], a: [f64; 2], b: [f64; 2]) {
    sum[0] += a[0] * b[0] - a[1] * b[1];
    sum[1] += a[0] * b[1] + a[1] * b[0];
}

/// A transform under way: 600 complex numbers are the most that any stage holds.
type Stage = [[f64; 2]; SPECTRUM];

/// One axis of a transform, `out[a, k, b] = Σ_n e^(2πi·phase(k, n)/10)·x[a, n, b]`, with lengths `[a, n, k, b]`.
fn axis(x: &Stage, [before, from, to, after]: [usize; 4], phase: impl Fn(i32, i32) -> i32) -> Stage {
    let mut out = [[0.0; 2]; SPECTRUM];
    for k in 0..to {
        for n in 0..from {
            let factor = root(phase(k as i32, n as i32));
            for a in 0..before {
                for b in 0..after {
                    add_product(&mut out[(a * to + k) * after + b], x[(a * from + n) * after + b], factor);
                }
            }
        }
    }
    out
}

/// Spectra of `weight` `[Co, Ci, 7³]` as the products read them, `[kz, ky, kx, output, input, (re, im)]`, each divided by
/// the inverse transforms' 1000. For [`Direction::Adjoint`] outputs and inputs are exchanged.
pub(super) fn of_weight(weight: &[f32], dims: Dims, direction: Direction, spectra: &mut [f32]) {
    let Dims { inputs, outputs, .. } = dims;
    for (pair, kernel) in weight.chunks_exact(PATCH).enumerate() {
        let (output, input) = (pair / inputs, pair % inputs);
        let place = match direction {
            Direction::Forward => output * inputs + input,
            Direction::Adjoint => input * outputs + output,
        };
        let position = |n: i32| if direction == Direction::Forward { SIDE as i32 - 1 - n } else { n };
        let phase = |k: i32, n: i32| -k * position(n);
        let mut values = [[0.0; 2]; SPECTRUM];
        values.iter_mut().zip(kernel).for_each(|(value, &w)| value[0] = f64::from(w) / 1000.0);
        let values = axis(&values, [SIDE * SIDE, SIDE, HALF, 1], phase);
        let values = axis(&values, [SIDE, SIDE, BINS, HALF], phase);
        let values = axis(&values, [1, SIDE, BINS, BINS * HALF], phase);
        for (i, value) in values.iter().enumerate() {
            let (kx, ky, kz) = (i / (BINS * HALF), i / HALF % BINS, i % HALF);
            let bin = (kz * BINS + ky) * BINS + kx;
            let target = (bin * inputs * outputs + place) * 2;
            spectra[target] = value[0] as f32;
            spectra[target + 1] = value[1] as f32;
        }
    }
}

/// Hands the 343 elements of one pair's kernel to `write(place, value)`, from the spectrum of its correlation in the order
/// of bins above.
pub(super) fn to_kernel(spectrum: impl Fn(usize) -> [f64; 2], mut write: impl FnMut(usize, f64)) {
    // Element m of the kernel is the correlation's value at m − 3, wherever that lies on the circle.
    let phase = |m: i32, k: i32| k * (m - 3);
    let values: Stage = std::array::from_fn(spectrum);
    let values = axis(&values, [HALF * BINS, BINS, SIDE, 1], phase);
    let values = axis(&values, [HALF, BINS, SIDE, SIDE], phase);
    // The last axis: bins 1 … 4 stand for their conjugates, too.
    for z in 0..SIDE {
        for y in 0..SIDE {
            for x in 0..SIDE {
                let mut sum = 0.0;
                for k in 0..HALF {
                    let mut term = [0.0; 2];
                    add_product(&mut term, values[(k * SIDE + y) * SIDE + x], root(phase(z as i32, k as i32)));
                    sum += if k == 0 || k == HALF - 1 { term[0] } else { 2.0 * term[0] };
                }
                write((x * SIDE + y) * SIDE + z, sum / 1000.0);
            }
        }
    }
}
