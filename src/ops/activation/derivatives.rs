//! Values, slopes and curvatures of activations in f64, for second derivatives of whole networks.
//!
//! Padé: with `F = P/Q`, `F' = (P' − F·Q')/Q` and `F'' = (P'' − 2·F'·Q' − F·Q'')/Q`. At 0 the even derivatives of `|x|` are
//! taken as 0. Numbers beyond 10³⁰, where powers leave f64, count as 10³⁰.

use super::Activation;

impl Activation {
    /// `[f(x), f'(x), f''(x)]`; `coefficients` are the learnt parameters one after the other.
    pub fn taylor(self, coefficients: &[f32], x: f64) -> [f64; 3] {
        let line = |slope: f64| [slope * x, slope, 0.0];
        match self {
            Activation::Pade { numerator, .. } => {
                let (numerator, denominator) = coefficients.split_at((numerator + 1).min(coefficients.len()));
                pade(numerator, denominator, x.clamp(-1e30, 1e30))
            }
            Activation::Identity => line(1.0),
            Activation::Relu => line(if x > 0.0 { 1.0 } else { 0.0 }),
            Activation::LeakyRelu(slope) => line(if x > 0.0 { 1.0 } else { f64::from(slope) }),
            Activation::PRelu => line(if x > 0.0 { 1.0 } else { f64::from(coefficients[0]) }),
            Activation::Selu => {
                let (scale, alpha) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);
                if x > 0.0 { line(scale) } else { [x.exp_m1(), x.exp(), x.exp()].map(|v| scale * alpha * v) }
            }
            Activation::Swish => {
                let [s, ds, dds] = sigmoid(x);
                [x * s, s + x * ds, 2.0 * ds + x * dds]
            }
            Activation::Softplus => {
                let [s, ds, _] = sigmoid(x);
                [x.max(0.0) + (-x.abs()).exp().ln_1p(), s, ds]
            }
            Activation::Tanh => {
                let y = x.tanh();
                [y, 1.0 - y * y, -2.0 * y * (1.0 - y * y)]
            }
            Activation::Sigmoid => sigmoid(x),
        }
    }
}

fn sigmoid(x: f64) -> [f64; 3] {
    let s = 1.0 / (1.0 + (-x).exp());
    let slope = s * (1.0 - s);
    [s, slope, slope * (1.0 - 2.0 * s)]
}

fn pade(numerator: &[f32], denominator: &[f32], x: f64) -> [f64; 3] {
    let [p, dp, ddp] = polynomial(numerator.iter().map(|&n| f64::from(n)), x);
    let magnitudes = denominator.iter().map(|&d| f64::from(d).abs());
    let [q, dq, ddq] = polynomial(std::iter::once(1.0).chain(magnitudes), x.abs());
    let dq = if x == 0.0 { 0.0 } else { dq * x.signum() };
    let y = p / q;
    let slope = (dp - y * dq) / q;
    [y, slope, (ddp - 2.0 * slope * dq - y * ddq) / q]
}

/// A polynomial and its first two derivatives, constant term first.
fn polynomial(coefficients: impl DoubleEndedIterator<Item = f64>, x: f64) -> [f64; 3] {
    let horner = |[p, dp, ddp]: [f64; 3], c: f64| [p * x + c, dp * x + p, ddp * x + 2.0 * dp];
    coefficients.rev().fold([0.0; 3], horner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::CLASSIC_ACTIVATIONS;

    /// Slopes and curvatures are the derivatives of values and slopes, away from kinks.
    #[test]
    fn derivatives() {
        for activation in CLASSIC_ACTIVATIONS.into_iter().chain([Activation::PADE]) {
            let coefficients = activation.initial_parameters().unwrap().concat();
            for x in [-7.3, -2.0, -0.4, 0.3, 1.7, 6.1] {
                let (h, at) = (1e-5, |x: f64| activation.taylor(&coefficients, x));
                let [_, slope, curvature] = at(x);
                let difference = |k: usize| (at(x + h)[k] - at(x - h)[k]) / (2.0 * h);
                // Central differences are good to h² and to rounding over h.
                assert!((difference(0) - slope).abs() < 1e-8, "{activation:?} at {x}");
                assert!((difference(1) - curvature).abs() < 1e-8, "{activation:?} at {x}");
            }
        }
        let huge = Activation::PADE.taylor(&Activation::PADE.initial_parameters().unwrap().concat(), -1e38);
        assert!(huge.iter().all(|v| v.is_finite()));
    }
}
