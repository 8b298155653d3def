//! The Padé activation unit in its safe form: `F(x) = P(x)/Q(x)`, `P(x) = Σ n_i x^i`, `Q(x) = 1 + Σ |d_j| |x|^{j+1}`.
//!
//! Gradients: `F' = (P' − F·Q')/Q` with `Q' = sign(x)·Σ (j+1)|d_j||x|^j`, `∂F/∂n_i = x^i/Q`,
//! `∂F/∂d_j = −sign(d_j)·F·|x|^{j+1}/Q`; `sign(0) = 0`.
//!
//! Powers of large arguments overflow f32. Up to |x| = 1024 the eighth power is 2^80 and all is well; beyond, numerator
//! and denominator are divided by powers of |x| and evaluated in `1/|x|`, in f64, where even the eighth power of the
//! reciprocal of the largest f32 is still a number. So the result is finite wherever the exact value fits f32.

use pulp::Simd;

use super::scalar_fn::{MAX_COEFFICIENTS, ScalarFn};

/// Most coefficients of a denominator; a numerator has one more.
const WIDEST: usize = MAX_COEFFICIENTS / 2;

/// How many coefficients numerator and denominator have: one more than their orders' and as many.
pub(super) trait Orders: Copy {
    fn counts(self) -> (usize, usize);
}

/// Orders that the compiler knows: it unrolls the polynomials, and keeps their sums in registers.
#[derive(Clone, Copy)]
pub(super) struct Fixed<const N: usize, const D: usize>;

impl<const N: usize, const D: usize> Orders for Fixed<N, D> {
    #[inline(always)]
    fn counts(self) -> (usize, usize) {
        (N, D)
    }
}

/// Any orders.
#[derive(Clone, Copy)]
pub(super) struct Given(pub usize, pub usize);

impl Orders for Given {
    #[inline(always)]
    fn counts(self) -> (usize, usize) {
        (self.0, self.1)
    }
}

/// A unit with its coefficients; as many are used as `orders` says.
#[derive(Clone, Copy)]
pub(super) struct Pade<O> {
    orders: O,
    numerator: [f32; WIDEST + 1],
    /// Magnitudes.
    denominator: [f32; WIDEST],
    /// `−sign(d_j)`.
    minus_sign: [f32; WIDEST],
}

impl<O: Orders> Pade<O> {
    /// `coefficients`: the numerator's, then the denominator's.
    #[inline(always)]
    pub(super) fn new(orders: O, coefficients: &[f32; MAX_COEFFICIENTS]) -> Self {
        let (n, d) = orders.counts();
        let (mut numerator, mut signed) = ([0.0; WIDEST + 1], [0.0; WIDEST]);
        numerator[..n].copy_from_slice(&coefficients[..n]);
        signed[..d].copy_from_slice(&coefficients[n..n + d]);
        let minus_sign = signed.map(|d: f32| if d == 0.0 { 0.0 } else { -d.signum() });
        Self { orders, numerator, denominator: signed.map(f32::abs), minus_sign }
    }

    /// `P`, `Q` at `x`, `a = |x|`.
    #[inline(always)]
    fn fraction<S: Simd>(&self, simd: S, x: S::f32s, a: S::f32s) -> (S::f32s, S::f32s) {
        let (n, d) = self.orders.counts();
        let mut p = simd.splat_f32s(self.numerator[n - 1]);
        for i in (0..n - 1).rev() {
            p = simd.mul_add_e_f32s(p, x, simd.splat_f32s(self.numerator[i]));
        }
        let mut q = simd.splat_f32s(self.denominator[d - 1]);
        for j in (0..d - 1).rev() {
            q = simd.mul_add_e_f32s(q, a, simd.splat_f32s(self.denominator[j]));
        }
        (p, simd.mul_add_e_f32s(q, a, simd.splat_f32s(1.0)))
    }

    /// At `|x| = a > 1`: `t = 1/a`, `P/a^(N−1)` and `Q/a^D`.
    fn scaled_fraction(&self, x: f64) -> (f64, f64, f64) {
        let (t, sign) = (x.abs().recip(), x.signum());
        // Horner in t, from the constant term up: each step divides what is there by a.
        let (n, d) = self.orders.counts();
        let numerator = self.numerator[..n].iter().enumerate();
        let p = numerator.fold(0.0, |p, (i, &n)| p * t + f64::from(n) * sign.powi(i as i32));
        let q = self.denominator[..d].iter().fold(1.0, |q, &d| q * t + f64::from(d));
        (t, p, q)
    }

    /// `a^(N−1−D)`.
    fn growth(self, x: f64) -> f64 {
        let (n, d) = self.orders.counts();
        x.abs().powi(n as i32 - 1 - d as i32)
    }
}

impl<O: Orders> ScalarFn for Pade<O> {
    const BOUND: f32 = 1024.0;

    #[inline(always)]
    fn coefficients(self) -> usize {
        let (n, d) = self.orders.counts();
        n + d
    }

    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let (p, q) = self.fraction(simd, x, simd.abs_f32s(x));
        simd.div_f32s(p, q)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, sums: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        let (n, d) = self.orders.counts();
        let a = simd.abs_f32s(x);
        let (p, q) = self.fraction(simd, x, a);
        let mut dp = simd.splat_f32s((n - 1) as f32 * self.numerator[n - 1]);
        for i in (1..n - 1).rev() {
            dp = simd.mul_add_e_f32s(dp, x, simd.splat_f32s(i as f32 * self.numerator[i]));
        }
        let mut dq = simd.splat_f32s(d as f32 * self.denominator[d - 1]);
        for j in (1..d).rev() {
            dq = simd.mul_add_e_f32s(dq, a, simd.splat_f32s(j as f32 * self.denominator[j - 1]));
        }
        let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
        let sign = simd.select_f32s(
            simd.greater_than_f32s(x, zero),
            one,
            simd.select_f32s(simd.less_than_f32s(x, zero), simd.splat_f32s(-1.0), zero),
        );
        let reciprocal = simd.div_f32s(one, q);
        let y = simd.mul_f32s(p, reciprocal);
        let gq = simd.mul_f32s(g, reciprocal);
        let mut term = gq;
        sums[0] = simd.add_f32s(sums[0], term);
        for sum in &mut sums[1..n] {
            term = simd.mul_f32s(term, x);
            *sum = simd.add_f32s(*sum, term);
        }
        let mut term = simd.mul_f32s(gq, y);
        for j in 0..d {
            term = simd.mul_f32s(term, a);
            sums[n + j] = simd.mul_add_e_f32s(term, simd.splat_f32s(self.minus_sign[j]), sums[n + j]);
        }
        simd.mul_f32s(gq, simd.negate_mul_add_e_f32s(y, simd.mul_f32s(sign, dq), dp))
    }

    fn extreme_value(self, x: f64) -> f64 {
        let (_, p, q) = self.scaled_fraction(x);
        p / q * self.growth(x)
    }

    fn extreme_gradient(self, x: f64, g: f64, sums: &mut [f64; MAX_COEFFICIENTS]) -> f64 {
        let (n, d) = self.orders.counts();
        let (t, p, q) = self.scaled_fraction(x);
        let sign = x.signum();
        // P'/a^(N−2) and |Q'|/a^(D−1).
        let dp = (1..n).fold(0.0, |dp, i| dp * t + i as f64 * f64::from(self.numerator[i]) * sign.powi(i as i32 - 1));
        let dq = (0..d).fold(0.0, |dq, j| dq * t + (j + 1) as f64 * f64::from(self.denominator[j]));
        let slope = t * self.growth(x);
        let y = p / q * self.growth(x);
        // x^i/Q = sign^i·a^(i−D)/(Q/a^D), from i = N − 1 down.
        let mut term = g / q * self.growth(x);
        for i in (0..n).rev() {
            sums[i] += term * sign.powi(i as i32);
            term *= t;
        }
        let mut term = g / q * y;
        for j in (0..d).rev() {
            sums[n + j] += term * f64::from(self.minus_sign[j]);
            term *= t;
        }
        g * slope * (dp - sign * (p / q) * dq) / q
    }
}
