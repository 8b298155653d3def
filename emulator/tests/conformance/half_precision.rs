//! Half and bfloat16 arithmetic against the `half` crate: results of f64, rounded once.

use super::Class::{Bf16, Bf16x2, F16, F16x2, P};
use super::{Case, Class, check, exact, float};
use half::{bf16, f16};

fn widen(class: Class, x: u64) -> f64 {
    if class == F16 { f16::from_bits(x as u16).to_f64() } else { bf16::from_bits(x as u16).to_f64() }
}

/// The crate's conversion from f64 drops the lower 32 bits, and with them what decides a near tie; so it is given a single
/// that keeps a trace of them in its last bit.
fn round(class: Class, x: f64) -> u64 {
    let near = x as f32;
    let inward =
        if f64::from(near).abs() > x.abs() && near.is_finite() { f32::from_bits(near.to_bits() - 1) } else { near };
    let inexact = f64::from(near) != x && near.is_finite();
    let single = f32::from_bits(inward.to_bits() | u32::from(inexact));
    if class == F16 { f16::from_f32(single).to_bits().into() } else { bf16::from_f32(single).to_bits().into() }
}

/// `a * b + c`, moved a hair towards the exact value where f64 cannot hold it: a tie of the narrow format that the exact
/// value only nearly is must not be rounded as one.
fn sum_of_product(a: f64, b: f64, c: f64) -> f64 {
    let (product, sum) = (a * b, a * b + c);
    let (large, small) = if product.abs() > c.abs() { (product, c) } else { (c, product) };
    let lost = small - (sum - large);
    match () {
        () if !sum.is_finite() || lost == 0.0 => sum,
        () if lost > 0.0 => sum.next_up(),
        () => sum.next_down(),
    }
}

/// The case for one number and for pairs.
fn both(out: &mut Vec<Case>, name: &str, sources: usize, g: impl Fn(f64, f64, f64) -> f64 + Copy + 'static) {
    for (one, pair, suffix) in [(F16, F16x2, "f16"), (Bf16, Bf16x2, "bf16")] {
        let host = move |v: &[u64], shift: u32| {
            let at = |k: usize| widen(one, v.get(k).copied().unwrap_or(0) >> shift & 0xffff);
            round(one, g(at(0), at(1), at(2)))
        };
        out.push(float(&format!("{name}.{suffix}"), one, &vec![one; sources], move |v| host(v, 0)));
        out.push(float(&format!("{name}.{suffix}x2"), pair, &vec![pair; sources], move |v| {
            host(v, 0) | host(v, 16) << 16
        }));
    }
}

#[test]
fn arithmetic() {
    let mut cases = Vec::new();
    both(&mut cases, "add.rn", 2, |a, b, _| a + b);
    both(&mut cases, "sub.rn", 2, |a, b, _| a - b);
    both(&mut cases, "mul.rn", 2, |a, b, _| a * b);
    both(&mut cases, "fma.rn", 3, sum_of_product);
    both(&mut cases, "abs", 1, |a, _, _| a.abs());
    both(&mut cases, "neg", 1, |a, _, _| -a);
    let least =
        |x: f64, y: f64| if x.is_nan() || (!y.is_nan() && (y < x || (x == y && y.is_sign_negative()))) { y } else { x };
    both(&mut cases, "min", 2, move |a, b, _| least(a, b));
    both(&mut cases, "max", 2, move |a, b, _| -least(-a, -b));
    both(&mut cases, "fma.rn.relu", 3, |a, b, c| {
        let x = sum_of_product(a, b, c);
        if x <= 0.0 { 0.0 } else { x }
    });
    check(cases);
}

#[test]
fn comparisons() {
    let wide = |x: u64| f16::from_bits(x as u16).to_f32();
    let bwide = |x: u64| bf16::from_bits(x as u16).to_f32();
    check(vec![
        exact("setp.lt.f16", P, &[F16, F16], move |v| (wide(v[0]) < wide(v[1])).into()),
        exact("setp.neu.f16", P, &[F16, F16], move |v| (wide(v[0]) != wide(v[1])).into()),
        exact("setp.ge.bf16", P, &[Bf16, Bf16], move |v| (bwide(v[0]) >= bwide(v[1])).into()),
        exact("set.gt.f16x2.f16x2", F16x2, &[F16x2, F16x2], move |v| {
            let one = |s: u32| if wide(v[0] >> s) > wide(v[1] >> s) { 0x3c00u64 } else { 0 };
            one(0) | one(16) << 16
        }),
        exact("set.leu.bf16x2.bf16x2", Bf16x2, &[Bf16x2, Bf16x2], move |v| {
            let one = |s: u32| {
                let (x, y) = (bwide(v[0] >> s), bwide(v[1] >> s));
                if x <= y || x.is_nan() || y.is_nan() { 0x3f80u64 } else { 0 }
            };
            one(0) | one(16) << 16
        }),
    ]);
}
