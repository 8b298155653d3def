//! Padé units equal the official ones: values, slopes and coefficient gradients, for the published coefficients and for
//! others with negative denominators; and they stay finite where the official code overflows.

use crate::common::cuda::{assert_clean, cuda_device};
use crate::common::dot::dot;
use crate::common::fixture::{self, Fixture};
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::nn::Parameters;
use ossnet::ops::{self, Activation};
use ossnet::tape::{Mode, Tape};
use ossnet::tensor::Tensor;

/// The CPU and CUDA.
fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::cpu(2, 1 << 28).unwrap()).chain(cuda_device(1))
}

/// Values, slopes times `gradient`, coefficient gradients of numerator and denominator.
fn pade(device: &Device, x: &[f32], gradient: &[f32], numerator: &[f32], denominator: &[f32]) -> [Vec<f32>; 4] {
    let tape = Tape::new(device, Mode::Train);
    let leaf =
        |values: &[f32], shape: &[usize]| tape.input(Tensor::from_slice(device, shape, Role::Data, values).unwrap());
    let x = leaf(x, &[1, x.len()]);
    let (numerator, denominator) = (leaf(numerator, &[numerator.len()]), leaf(denominator, &[denominator.len()]));
    let y = ops::activation(&tape, &x, Activation::PADE, &[&numerator, &denominator]).unwrap();
    let values = y.tensor().to_vec().unwrap();
    let weights = Tensor::from_slice(device, &[1, gradient.len()], Role::Data, gradient).unwrap();
    let loss = dot(&tape, &y, weights).unwrap();
    drop(y);
    tape.backward(loss, &mut Parameters::new(device)).unwrap();
    assert_clean();
    let gradient = |var| tape.gradient(var).unwrap().to_vec().unwrap();
    [values, gradient(&x), gradient(&numerator), gradient(&denominator)]
}

/// Largest error, each relative to its own value (plus a thousandth, below which values have cancelled).
fn error(ours: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(ours.len(), exact.len());
    ours.iter().zip(exact).fold(0.0, |max, (&a, &b)| max.max((f64::from(a) - b).abs() / (b.abs() + 1e-3)))
}

#[test]
fn values_and_slopes() {
    let fixture = Fixture::open(&fixture::path("pade.npz"));
    for set in ["default", "b"] {
        let (n, d) = (fixture.f32(&format!("n_{set}")), fixture.f32(&format!("d_{set}")));
        for device in devices() {
            let [y, dx, _, _] = pade(&device, &fixture.f32("x"), &fixture.f32("grad_out"), &n, &d);
            for (name, ours) in [("y", y), ("dx", dx)] {
                let exact = fixture.f64(&format!("{name}_{set}_f64"));
                let theirs = error(&fixture.f32(&format!("{name}_{set}_f32")), exact);
                let ours = error(&ours, exact);
                // Another order of evaluation than PyTorch's: a few times its error, plus a few roundings.
                assert!(ours <= 4.0 * theirs + 1e-6, "{device:?}: {name} {set}: {ours:.1e}");
            }
        }
    }
}

#[test]
fn coefficient_gradients() {
    for file in ["pade.npz", "pade_moderate.npz"] {
        let (all, fixture) = (Fixture::open(&fixture::path("pade.npz")), Fixture::open(&fixture::path(file)));
        for set in ["default", "b"] {
            let (n, d) = (all.f32(&format!("n_{set}")), all.f32(&format!("d_{set}")));
            for device in devices() {
                let [_, _, dn, dd] = pade(&device, &fixture.f32("x"), &fixture.f32("grad_out"), &n, &d);
                for (name, ours) in [("dn", dn), ("dd", dd)] {
                    let ours = error(&ours, fixture.f64(&format!("{name}_{set}_f64")));
                    // Terms are f32, each rounded a few times, of either sign; their sum is f64.
                    assert!(ours <= 5e-6, "{device:?}: {file} {name} {set}: {ours:.1e}");
                }
            }
        }
    }
}

#[test]
fn finite_where_the_official_code_overflows() {
    let fixture = Fixture::open(&fixture::path("pade.npz"));
    let (n, d) = (fixture.f32("n_default"), fixture.f32("d_default"));
    let x = fixture.f32("x_overflow");
    for device in devices() {
        let [y, dx, _, _] = pade(&device, &x, &vec![1.0; x.len()], &n, &d);
        // P/Q → n5/d4·x far out: about 0.505·x, as the slope is there.
        for ((x, y), dx) in x.iter().zip(y).zip(dx).filter(|((x, _), _)| x.is_finite()) {
            assert!((y / x - 0.505).abs() < 1e-3 && (dx - 0.505).abs() < 1e-3, "f({x}) = {y}, slope {dx}");
        }
    }
}
