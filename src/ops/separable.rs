//! Separable linear maps of volumes: one small sparse matrix for each spatial axis.
//!
//! `y[b, o, c] = Σ_i A₀[o₀, i₀]·A₁[o₁, i₁]·A₂[o₂, i₂]·x[b, i, c]`
//!
//! Average pooling and linear interpolation are such maps with one to a few entries a row, and their gradients are the
//! maps of the transposed matrices. Every output row gathers what it needs, so nothing is scattered, any piece can run
//! on any thread, and the order of each sum is that of the inputs.

use std::ops::Range;

use super::par_loops::by_rows;
use crate::device::cpu::Pool;

/// A sparse matrix in compressed rows: for each output index the inputs that it draws on, with their weights.
pub(super) struct Taps {
    inputs: usize,
    starts: Vec<u32>,
    entries: Vec<(u32, f32)>,
}

impl Taps {
    /// Collects the rows of a matrix with `inputs` columns; zero weights are left out.
    pub(super) fn new<R: IntoIterator<Item = (usize, f64)>>(inputs: usize, rows: impl Iterator<Item = R>) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for row in rows {
            let row = row.into_iter().filter(|&(_, weight)| weight != 0.0);
            entries.extend(row.map(|(input, weight)| (input as u32, weight as f32)));
            starts.push(entries.len() as u32);
        }
        Self { inputs, starts, entries }
    }

    /// Means over windows: row `o` is `1/len` on `window(o)`.
    pub(super) fn means(inputs: usize, outputs: usize, window: impl Fn(usize) -> Range<usize>) -> Self {
        Self::new(
            inputs,
            (0..outputs).map(|output| {
                let window = window(output);
                let weight = 1.0 / window.len() as f64;
                window.map(move |input| (input, weight))
            }),
        )
    }

    /// The matrix of the gradient.
    pub(super) fn transposed(&self) -> Self {
        let mut columns = vec![Vec::new(); self.inputs];
        for output in 0..self.outputs() {
            self.row(output).iter().for_each(|&(input, weight)| {
                columns[input as usize].push((output, f64::from(weight)));
            });
        }
        Self::new(self.outputs(), columns.into_iter())
    }

    fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    fn row(&self, output: usize) -> &[(u32, f32)] {
        &self.entries[self.starts[output] as usize..self.starts[output + 1] as usize]
    }
}

/// `y (+)= A₀⊗A₁⊗A₂·x` for `x` `[batch, inputs₀, inputs₁, inputs₂, channels]`.
pub(super) fn apply(pool: &Pool, taps: &[Taps; 3], channels: usize, x: &[f32], y: &mut [f32], accumulate: bool) {
    let [inputs, outputs] = [taps.each_ref().map(|t| t.inputs), taps.each_ref().map(Taps::outputs)];
    let (line_in, line_out) = (inputs[2] * channels, outputs[2] * channels);
    by_rows(pool, y, line_out, |first, piece| {
        for (i, y) in piece.chunks_exact_mut(line_out).enumerate() {
            let line = first + i;
            let (batch, o0, o1) = (line / (outputs[1] * outputs[0]), line / outputs[1] % outputs[0], line % outputs[1]);
            if !accumulate {
                y.fill(0.0);
            }
            for &(i0, w0) in taps[0].row(o0) {
                for &(i1, w1) in taps[1].row(o1) {
                    let source = (batch * inputs[0] + i0 as usize) * inputs[1] + i1 as usize;
                    add_line(&taps[2], channels, w0 * w1, &x[source * line_in..][..line_in], y);
                }
            }
        }
    });
}

/// `y += weight·A·x` along one line.
fn add_line(taps: &Taps, channels: usize, weight: f32, x: &[f32], y: &mut [f32]) {
    for (output, y) in y.chunks_exact_mut(channels).enumerate() {
        for &(input, w) in taps.row(output) {
            let w = weight * w;
            let x = &x[input as usize * channels..][..channels];
            y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
        }
    }
}

/// Work of [`apply`], from the number of weights: a multiplication and an addition for each product of weights.
pub(super) fn flops(taps: &[Taps; 3], batch: usize, channels: usize) -> u64 {
    2 * (batch * channels) as u64 * taps.iter().map(|t| t.entries.len() as u64).product::<u64>()
}
