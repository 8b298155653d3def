//! The usual activations: rectifiers, and those made of an exponential.

use pulp::Simd;

use super::scalar_fn::{MAX_COEFFICIENTS, ScalarFn};

/// `x` if positive, else `slope·x`. With one coefficient the slope is learnt.
#[derive(Clone, Copy)]
pub(super) struct Leaky<const LEARNT: usize>(pub f32);

impl<const LEARNT: usize> ScalarFn for Leaky<LEARNT> {
    #[inline(always)]
    fn coefficients(self) -> usize {
        LEARNT
    }

    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        // A slope of zero times minus infinity would be NaN.
        let below = if self.0 == 0.0 { zero } else { simd.mul_f32s(x, simd.splat_f32s(self.0)) };
        simd.select_f32s(simd.less_than_f32s(x, zero), below, x)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, sums: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        if LEARNT == 1 {
            let below = simd.select_f32s(simd.greater_than_f32s(x, zero), zero, x);
            sums[0] = simd.mul_add_e_f32s(g, below, sums[0]);
        }
        simd.select_f32s(simd.greater_than_f32s(x, zero), g, simd.mul_f32s(g, simd.splat_f32s(self.0)))
    }
}

/// `scale·x` if positive, else `scale·α·(e^x − 1)` (Klambauer et al. 2017).
#[derive(Clone, Copy)]
pub(super) struct Selu;

const SELU_SCALE: f32 = 1.050_701;
const SELU_SCALE_ALPHA: f32 = 1.758_099_3;

impl ScalarFn for Selu {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let positive = simd.greater_than_f32s(x, simd.splat_f32s(0.0));
        let below = simd.mul_f32s(simd.splat_f32s(SELU_SCALE_ALPHA), Exponential::of(simd, x).minus_one(simd));
        simd.select_f32s(positive, simd.mul_f32s(simd.splat_f32s(SELU_SCALE), x), below)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, _: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        let positive = simd.greater_than_f32s(x, simd.splat_f32s(0.0));
        let below = simd.mul_f32s(simd.splat_f32s(SELU_SCALE_ALPHA), Exponential::of(simd, x).value(simd));
        simd.mul_f32s(g, simd.select_f32s(positive, simd.splat_f32s(SELU_SCALE), below))
    }
}

/// `σ(x) = 1/(1 + e^−x)`.
#[derive(Clone, Copy)]
pub(super) struct Sigmoid;

/// `σ(x)` and `σ(−x) = 1 − σ(x)`, both without cancellation.
#[inline(always)]
fn sigmoids<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    let e = Exponential::of(simd, simd.neg_f32s(simd.abs_f32s(x))).value(simd);
    let large = simd.div_f32s(one, simd.add_f32s(one, e));
    let small = simd.mul_f32s(e, large);
    let negative = simd.less_than_f32s(x, zero);
    (simd.select_f32s(negative, small, large), simd.select_f32s(negative, large, small))
}

impl ScalarFn for Sigmoid {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        sigmoids(simd, x).0
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, _: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        let (s, opposite) = sigmoids(simd, x);
        simd.mul_f32s(g, simd.mul_f32s(s, opposite))
    }
}

/// `x·σ(x)`.
#[derive(Clone, Copy)]
pub(super) struct Swish;

impl ScalarFn for Swish {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_f32s(x, sigmoids(simd, x).0)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, _: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        let (s, opposite) = sigmoids(simd, x);
        let slope = simd.mul_add_e_f32s(simd.mul_f32s(x, s), opposite, s);
        simd.mul_f32s(g, slope)
    }
}

/// `ln(1 + e^x) = max(x, 0) + ln(1 + e^−|x|)`.
#[derive(Clone, Copy)]
pub(super) struct Softplus;

impl ScalarFn for Softplus {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        let e = Exponential::of(simd, simd.neg_f32s(simd.abs_f32s(x))).value(simd);
        // ln(1 + e) = 2·artanh(s), s = e/(2 + e) ≤ 1/3: the series' first term left out is below 2e-8 of the sum.
        let s = simd.div_f32s(e, simd.add_f32s(simd.splat_f32s(2.0), e));
        let square = simd.mul_f32s(s, s);
        let mut series = simd.splat_f32s(1.0 / 15.0);
        for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            series = simd.mul_add_e_f32s(series, square, simd.splat_f32s(1.0 / odd));
        }
        let rectified = simd.select_f32s(simd.less_than_f32s(x, zero), zero, x);
        simd.mul_add_e_f32s(simd.add_f32s(s, s), series, rectified)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, _: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        simd.mul_f32s(g, sigmoids(simd, x).0)
    }
}

/// `tanh x`.
#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Tanh {
    /// `e^(−2|x|)`.
    #[inline(always)]
    fn exponential<S: Simd>(simd: S, x: S::f32s) -> Exponential<S> {
        Exponential::of(simd, simd.mul_f32s(simd.splat_f32s(-2.0), simd.abs_f32s(x)))
    }
}

impl ScalarFn for Tanh {
    #[inline(always)]
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let e = Self::exponential(simd, x).minus_one(simd);
        let magnitude = simd.div_f32s(simd.neg_f32s(e), simd.add_f32s(simd.splat_f32s(2.0), e));
        let negative = simd.less_than_f32s(x, simd.splat_f32s(0.0));
        simd.select_f32s(negative, simd.neg_f32s(magnitude), magnitude)
    }

    #[inline(always)]
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, _: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s {
        // 1 − tanh² = 4e/(1 + e)².
        let e = Self::exponential(simd, x).value(simd);
        let root = simd.div_f32s(simd.splat_f32s(2.0), simd.add_f32s(simd.splat_f32s(1.0), e));
        simd.mul_f32s(g, simd.mul_f32s(e, simd.mul_f32s(root, root)))
    }
}

/// `e^x` for `x ≤ 0`, as `2^n·(1 + m)`.
struct Exponential<S: Simd> {
    /// `2^n`.
    power: S::f32s,
    /// `e^r − 1` for the rest `r = x − n·ln 2`, `|r| ≤ ln 2 / 2`.
    mantissa: S::f32s,
}

impl<S: Simd> Exponential<S> {
    /// Positive arguments count as 0, those below −87 (where `e^x` leaves the normal numbers) as −87; NaN stays NaN.
    #[inline(always)]
    fn of(simd: S, x: S::f32s) -> Self {
        /// Added to a small number it leaves the nearest integer in the low bits.
        const ROUNDER: f32 = 12_582_912.0;
        /// `ln 2` in two parts; products of the first with |n| < 128 are exact.
        const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        let (lowest, highest) = (simd.splat_f32s(-87.0), simd.splat_f32s(0.0));
        let x = simd.select_f32s(simd.less_than_f32s(x, lowest), lowest, x);
        let x = simd.select_f32s(simd.greater_than_f32s(x, highest), highest, x);
        let shifted = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), simd.splat_f32s(ROUNDER));
        let n = simd.sub_f32s(shifted, simd.splat_f32s(ROUNDER));
        let r = simd.negate_mul_add_e_f32s(n, simd.splat_f32s(LN_2[0]), x);
        let r = simd.negate_mul_add_e_f32s(n, simd.splat_f32s(LN_2[1]), r);
        // Taylor: the first term left out is r^8/8!, below 2e-8 of the sum.
        let mut series = simd.splat_f32s(1.0 / 5040.0);
        for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0] {
            series = simd.mul_add_e_f32s(series, r, simd.splat_f32s(1.0 / factorial));
        }
        let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
        let power = simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(1f32.to_bits())));
        Self { power, mantissa: simd.mul_f32s(series, r) }
    }

    /// `e^x`.
    #[inline(always)]
    fn value(self, simd: S) -> S::f32s {
        simd.mul_add_e_f32s(self.power, self.mantissa, self.power)
    }

    /// `e^x − 1`, accurate near 0.
    #[inline(always)]
    fn minus_one(self, simd: S) -> S::f32s {
        simd.mul_add_e_f32s(self.power, self.mantissa, simd.sub_f32s(self.power, simd.splat_f32s(1.0)))
    }
}
