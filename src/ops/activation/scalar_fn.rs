//! Functions of one variable with a few learnt coefficients, applied to vectors.
//!
//! A [`ScalarFn`] says what happens to one vector; [`BoundActivation`] is an [`Activation`] together with its
//! coefficients' values and runs the matching curve over a slice. Fused kernels call it on blocks that are still in the
//! first-level cache.

use pulp::{Simd, WithSimd};

use super::Activation;
use super::pade::{Fixed, Given, Pade};
use super::standard::{Leaky, Selu, Sigmoid, Softplus, Swish, Tanh};
use crate::ops::simd;

/// Coefficients of the largest curve: the Padé unit of orders 8/8.
pub(crate) const MAX_COEFFICIENTS: usize = 17;

/// f32 lanes of the widest vector.
const MAX_LANES: usize = 16;

/// Terms that one lane sums in f32 before the sum goes on in f64.
const LANE_TERMS: usize = 256;

/// A function of one variable.
pub(super) trait ScalarFn: Copy {
    /// Number of learnt coefficients.
    fn coefficients(self) -> usize {
        0
    }

    /// Arguments of larger magnitude, and NaN, go through the scalar functions in f64.
    const BOUND: f32 = f32::INFINITY;

    /// `f(x)`.
    fn value<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s;

    /// `g·f'(x)`; adds `g·∂f/∂c_k` to `sums[k]`.
    fn gradient<S: Simd>(self, simd: S, x: S::f32s, g: S::f32s, sums: &mut [S::f32s; MAX_COEFFICIENTS]) -> S::f32s;

    /// `f(x)` of an argument beyond [`ScalarFn::BOUND`].
    fn extreme_value(self, x: f64) -> f64 {
        x
    }

    /// `g·f'(x)` of an argument beyond [`ScalarFn::BOUND`].
    fn extreme_gradient(self, _x: f64, g: f64, _sums: &mut [f64; MAX_COEFFICIENTS]) -> f64 {
        g
    }
}

/// Sums of coefficient gradients: lanes in f32 for a while, then f64.
pub(crate) struct CoefficientSums {
    lanes: [[f32; MAX_LANES]; MAX_COEFFICIENTS],
    totals: [f64; MAX_COEFFICIENTS],
    terms: usize,
}

impl CoefficientSums {
    pub(crate) fn new() -> Self {
        Self { lanes: [[0.0; MAX_LANES]; MAX_COEFFICIENTS], totals: [0.0; MAX_COEFFICIENTS], terms: 0 }
    }

    /// Moves what the lanes hold to the totals.
    fn flush(&mut self) {
        for (total, lanes) in self.totals.iter_mut().zip(&mut self.lanes) {
            *total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
            lanes.fill(0.0);
        }
        self.terms = 0;
    }

    /// Writes the sums of the first `out.len()` coefficients.
    pub(crate) fn finish(mut self, out: &mut [f32]) {
        self.flush();
        out.iter_mut().zip(&self.totals).for_each(|(out, &total)| *out = total as f32);
    }
}

/// An activation and the values of its coefficients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundActivation {
    activation: Activation,
    coefficients: [f32; MAX_COEFFICIENTS],
}

impl BoundActivation {
    /// `parameters` in the order of [`Activation::parameter_lengths`].
    pub(crate) fn new<'a>(activation: Activation, parameters: impl IntoIterator<Item = &'a [f32]>) -> Self {
        let mut coefficients = [0.0; MAX_COEFFICIENTS];
        let values = parameters.into_iter().flatten();
        coefficients.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        Self { activation, coefficients }
    }

    /// `x ← f(x)`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, simd: S, x: &mut [f32]) {
        self.visit(simd, Apply { x });
    }

    /// `g ← g·f'(x)`; adds the coefficients' gradients to `sums`.
    #[inline(always)]
    pub(crate) fn differentiate<S: Simd>(&self, simd: S, x: &[f32], g: &mut [f32], sums: &mut CoefficientSums) {
        self.visit(simd, Differentiate { x, g, sums });
    }

    fn visit<S: Simd>(&self, simd: S, kernel: impl Kernel) {
        let c = &self.coefficients;
        match self.activation {
            Activation::Identity => {}
            Activation::Relu => simd.vectorize(Run(Leaky::<0>(0.0), kernel)),
            Activation::LeakyRelu(slope) => simd.vectorize(Run(Leaky::<0>(slope), kernel)),
            Activation::PRelu => simd.vectorize(Run(Leaky::<1>(c[0]), kernel)),
            Activation::Selu => simd.vectorize(Run(Selu, kernel)),
            Activation::Swish => simd.vectorize(Run(Swish, kernel)),
            Activation::Softplus => simd.vectorize(Run(Softplus, kernel)),
            Activation::Tanh => simd.vectorize(Run(Tanh, kernel)),
            Activation::Sigmoid => simd.vectorize(Run(Sigmoid, kernel)),
            Activation::Pade { numerator, denominator } => match (numerator, denominator) {
                (5, 4) => simd.vectorize(Run(Pade::new(Fixed::<6, 4>, c), kernel)),
                (numerator, denominator) => {
                    simd.vectorize(Run(Pade::new(Given(numerator + 1, denominator), c), kernel))
                }
            },
        }
    }
}

/// A loop over a slice for any curve.
trait Kernel {
    fn run<S: Simd, C: ScalarFn>(self, simd: S, curve: C);
}

struct Run<C, K>(C, K);

impl<C: ScalarFn, K: Kernel> WithSimd for Run<C, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.1.run(simd, self.0);
    }
}

struct Apply<'a> {
    x: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<S: Simd, C: ScalarFn>(self, simd: S, curve: C) {
        let careful = any_extreme::<S, C>(simd, self.x);
        simd::zip(
            simd,
            [],
            [self.x],
            #[inline(always)]
            |[], [x]| {
                let y = curve.value(simd, x);
                [if careful { extreme_values::<S, C>(curve, x, y) } else { y }]
            },
        );
    }
}

/// True if the curve has a bound and an element lies beyond it or is NaN.
#[inline(always)]
fn any_extreme<S: Simd, C: ScalarFn>(simd: S, x: &[f32]) -> bool {
    if C::BOUND.is_infinite() {
        return false;
    }
    let (head, tail) = S::as_simd_f32s(x);
    let mut any = mark_extremes::<S, C>(simd, simd.partial_load_f32s(tail), simd.splat_f32s(0.0));
    for &x in head {
        any = mark_extremes::<S, C>(simd, x, any);
    }
    simd.reduce_max_f32s(any) > 0.0
}

/// `marks`, with ones in the lanes where `x` is extreme.
#[inline(always)]
fn mark_extremes<S: Simd, C: ScalarFn>(simd: S, x: S::f32s, marks: S::f32s) -> S::f32s {
    let within = simd.less_than_or_equal_f32s(simd.abs_f32s(x), simd.splat_f32s(C::BOUND));
    simd.select_f32s(within, marks, simd.splat_f32s(1.0))
}

/// True if `x` is left to the scalar functions.
fn is_extreme<C: ScalarFn>(x: f32) -> bool {
    x.is_nan() || x.abs() > C::BOUND
}

/// `y` with the lanes of extreme arguments done in f64.
#[cold]
#[inline(never)]
fn extreme_values<S: Simd, C: ScalarFn>(curve: C, x: S::f32s, mut y: S::f32s) -> S::f32s {
    let x: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&x));
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut y));
    for (y, &x) in lanes.iter_mut().zip(x).filter(|(_, x)| is_extreme::<C>(**x)) {
        *y = curve.extreme_value(f64::from(x)) as f32;
    }
    y
}

struct Differentiate<'a> {
    x: &'a [f32],
    g: &'a mut [f32],
    sums: &'a mut CoefficientSums,
}

impl Kernel for Differentiate<'_> {
    #[inline(always)]
    fn run<S: Simd, C: ScalarFn>(self, simd: S, curve: C) {
        let Self { x, g, sums } = self;
        let zero = simd.splat_f32s(0.0);
        let mut terms = [zero; MAX_COEFFICIENTS];
        for (terms, sums) in terms.iter_mut().zip(&sums.lanes[..curve.coefficients()]) {
            *terms = S::as_simd_f32s(sums).0[0];
        }
        let totals = &mut sums.totals;
        let careful = any_extreme::<S, C>(simd, x);
        simd::zip(
            simd,
            [x],
            [g],
            #[inline(always)]
            |[x], [g]| {
                if careful {
                    // Extreme lanes leave the vector, and their results are put in afterwards.
                    let regular = simd.less_than_or_equal_f32s(simd.abs_f32s(x), simd.splat_f32s(C::BOUND));
                    let (tame, g0) = (simd.select_f32s(regular, x, zero), simd.select_f32s(regular, g, zero));
                    let d = curve.gradient(simd, tame, g0, &mut terms);
                    return [extreme_gradients::<S, C>(curve, x, g, d, totals)];
                }
                [curve.gradient(simd, x, g, &mut terms)]
            },
        );
        for (&terms, sums) in terms.iter().zip(&mut sums.lanes[..curve.coefficients()]) {
            S::as_mut_simd_f32s(sums).0[0] = terms;
        }
        sums.terms += x.len().div_ceil(S::F32_LANES);
        if sums.terms >= LANE_TERMS {
            sums.flush();
        }
    }
}

/// `d` with the lanes of extreme arguments done in f64.
#[cold]
#[inline(never)]
fn extreme_gradients<S: Simd, C: ScalarFn>(
    curve: C,
    x: S::f32s,
    g: S::f32s,
    mut d: S::f32s,
    totals: &mut [f64; MAX_COEFFICIENTS],
) -> S::f32s {
    let x: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&x));
    let g: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&g));
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut d));
    for ((d, &x), &g) in lanes.iter_mut().zip(x).zip(g) {
        if is_extreme::<C>(x) {
            *d = curve.extreme_gradient(f64::from(x), f64::from(g), totals) as f32;
        }
    }
    d
}
