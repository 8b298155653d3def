//! Convolution of 7³ patches with a 7³ kernel, by ten-point Fourier transforms.
//!
//! `y[p, o, n] = b[o] + Σ_c Σ_m W[o, c, m]·x[p, c, n + m − 3]` over the 7³ elements `m` of the kernel, zero outside the
//! patch.
//!
//! * patches `[points, Ci, 343]` (or cut from a volume on the way: [`PatchSource`]), `W` `[Co, Ci, 7, 7, 7]` as PyTorch
//!   stores it, `b` `[Co]`, result `[points, Co, 343]`.
//! * Gradients: `dx[p, c, n] = Σ_o Σ_m W[o, c, m]·dy[p, o, n − m + 3]`, `dW[o, c, m] = Σ_p Σ_n dy[p, o, n]·x[p, c, n + m − 3]`,
//!   `db[o] = Σ_p Σ_n dy[p, o, n]`.
//!
//! # Why transforms of length ten
//!
//! Along one axis the sum above is a linear convolution `L = reversed(W) * x` of seven by seven, of length 13, of which
//! only the middle seven elements 3 … 9 are outputs. A circular convolution of length ten folds elements 10, 11, 12 onto
//! 0, 1, 2 and nothing onto 3 … 9: it is *exact* where it matters. The weight gradient is the correlation at lags −3 … 3;
//! all lags are within ±6, and modulo ten ±4, ±5, ±6 miss −3 … 3. The input gradient is the convolution with the kernel
//! not reversed. So each pass is: transform the patches along the three axes, multiply bin by bin over channels, transform
//! back. The patches are real, so only six of the last axis's ten bins are needed: 600 complex bins a channel.
//!
//! Counting fused operations a patch for 8 → 4 channels: dense 3.8 M, without the padding 1.6 M, here 77 k for the products
//! and some 10 k a channel for the transforms, 0.2 M together; and the error is about that of one FFT, 10⁻⁷ of the maximum,
//! less than that of direct sums of 343 terms a channel. Vectors hold as many patches as there are lanes, side by side.
//!
//! # How the work is cut
//!
//! A *group* is as many patches as a vector has lanes. For each group the inputs are transformed along the last two axes
//! and kept (54 KiB a channel for 16 lanes: they stay in the second-level cache); then for each of the 60 bins of those
//! axes, the line along the first axis is transformed, multiplied and transformed back in registers and first-level cache.
//! Pieces hold a fixed number of groups. The lanes depend on the machine; the threads change nothing.

mod cpu;
mod dft;
mod lanes;
mod source;
mod spectra;
#[cfg(test)]
mod tests;
mod weight_gradient;

pub use source::PatchSource;

use crate::ops::patch_sample::PATCH;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
struct Dims {
    points: usize,
    inputs: usize,
    outputs: usize,
}

impl Dims {
    /// Inputs and outputs exchanged.
    fn adjoint(self) -> Self {
        Self { points: self.points, inputs: self.outputs, outputs: self.inputs }
    }
}
