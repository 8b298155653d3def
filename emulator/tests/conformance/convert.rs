//! Conversions between all types.

use super::Class::{Bf16, Bf16x2, F16, F16x2, F32, F64, I16, I32, I64, Short32};
use super::{Case, Class, check, exact, float};
use half::{bf16, f16};

fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

#[test]
fn integers() {
    let mut cases = Vec::new();
    let classes = [(8u32, I16), (16, I16), (32, I32), (64, I64)];
    let value = |x: u64, bits: u32, signed: bool| {
        let x = if bits == 64 { x } else { x & ((1 << bits) - 1) };
        if signed { i128::from((x << (64 - bits)) as i64 >> (64 - bits)) } else { i128::from(x) }
    };
    for (from_bits, from) in classes {
        for (to_bits, to) in classes {
            for (from_signed, to_signed) in [(false, false), (true, false), (false, true), (true, true)] {
                let letter = |s: bool| if s { 's' } else { 'u' };
                let name = format!("{}{to_bits}.{}{from_bits}", letter(to_signed), letter(from_signed));
                // Results are extended to the register: 8-bit ones to 16 bits.
                let register = if to_bits == 8 { 16 } else { to_bits };
                let cut = move |v: i128| if register == 64 { v as u64 } else { v as u64 & ((1 << register) - 1) };
                cases.push(exact(&format!("cvt.{name}"), to, &[from], move |v| {
                    cut(value(value(v[0], from_bits, from_signed) as u64, to_bits, to_signed))
                }));
                let (least, most) = if to_signed {
                    (-(1i128 << (to_bits - 1)), (1i128 << (to_bits - 1)) - 1)
                } else {
                    (0, (1i128 << to_bits) - 1)
                };
                cases.push(exact(&format!("cvt.sat.{name}"), to, &[from], move |v| {
                    cut(value(v[0], from_bits, from_signed).clamp(least, most))
                }));
            }
        }
    }
    check(cases);
}

#[test]
fn integers_and_floats() {
    let mut cases = vec![
        exact("cvt.rn.f32.s32", F32, &[I32], |v| (v[0] as i32 as f32).to_bits().into()),
        exact("cvt.rn.f32.u32", F32, &[I32], |v| (v[0] as u32 as f32).to_bits().into()),
        exact("cvt.rn.f32.s64", F32, &[I64], |v| (v[0] as i64 as f32).to_bits().into()),
        exact("cvt.rn.f32.u64", F32, &[I64], |v| (v[0] as f32).to_bits().into()),
        exact("cvt.rn.f32.s16", F32, &[I16], |v| (v[0] as i16 as f32).to_bits().into()),
        exact("cvt.rn.f32.u16", F32, &[I16], |v| (v[0] as u16 as f32).to_bits().into()),
        exact("cvt.rn.f32.u8", F32, &[I16], |v| (v[0] as u8 as f32).to_bits().into()),
        exact("cvt.rn.f64.s32", F64, &[I32], |v| f64::from(v[0] as i32).to_bits()),
        exact("cvt.rn.f64.u32", F64, &[I32], |v| f64::from(v[0] as u32).to_bits()),
        exact("cvt.rn.f64.s64", F64, &[I64], |v| (v[0] as i64 as f64).to_bits()),
        exact("cvt.rn.f64.u64", F64, &[I64], |v| (v[0] as f64).to_bits()),
        // Towards zero: what a cut of the integer's lower bits gives.
        exact("cvt.rz.f32.u32", F32, &[I32], |v| {
            let x = v[0] as u32;
            let spare = 8u32.saturating_sub(x.leading_zeros());
            ((x >> spare << spare) as f32).to_bits().into()
        }),
        exact("cvt.rn.f16.s32", F16, &[I32], |v| f16::from_f64(f64::from(v[0] as i32)).to_bits().into()),
        exact("cvt.rn.bf16.f32", Bf16, &[Short32], |v| bf16::from_f32(f(v[0])).to_bits().into()),
    ];
    for (mode, g) in
        [("rni", f64::round_ties_even as fn(f64) -> f64), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)]
    {
        // Rust's casts clamp and turn NaN to zero, as PTX does.
        cases.push(exact(&format!("cvt.{mode}.s32.f32"), I32, &[F32], move |v| g(f(v[0]).into()) as i32 as u32 as u64));
        cases.push(exact(&format!("cvt.{mode}.u32.f32"), I32, &[F32], move |v| g(f(v[0]).into()) as u32 as u64));
        cases.push(exact(&format!("cvt.{mode}.u32.f64"), I32, &[F64], move |v| g(f64::from_bits(v[0])) as u32 as u64));
        cases.push(exact(&format!("cvt.{mode}.s64.f64"), I64, &[F64], move |v| g(f64::from_bits(v[0])) as i64 as u64));
        cases.push(exact(&format!("cvt.{mode}.u64.f32"), I64, &[F32], move |v| g(f(v[0]).into()) as u64));
        cases.push(exact(&format!("cvt.{mode}.s16.f32"), I16, &[F32], move |v| g(f(v[0]).into()) as i16 as u16 as u64));
        cases.push(exact(&format!("cvt.{mode}.u8.f32"), I16, &[F32], move |v| g(f(v[0]).into()) as u8 as u64));
        cases.push(float(&format!("cvt.{mode}.f32.f32"), F32, &[F32], move |v| {
            (g(f(v[0]).into()) as f32).to_bits().into()
        }));
        cases.push(float(&format!("cvt.{mode}.f64.f64"), F64, &[F64], move |v| g(f64::from_bits(v[0])).to_bits()));
        cases.push(exact(&format!("cvt.{mode}.s32.f16"), I32, &[F16], move |v| {
            g(f16::from_bits(v[0] as u16).to_f64()) as i32 as u32 as u64
        }));
    }
    check(cases);
}

#[test]
fn floats() {
    let directed = |exact: f64, up: bool| {
        let near = exact as f32;
        let wrong = if up { f64::from(near) < exact } else { f64::from(near) > exact };
        (if !wrong {
            near
        } else if up {
            near.next_up()
        } else {
            near.next_down()
        })
        .to_bits()
        .into()
    };
    let sat = |x: f32| if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) };
    let pack = |class: Class, x: u64| {
        if class == F16 { u64::from(f16::from_f32(f(x)).to_bits()) } else { u64::from(bf16::from_f32(f(x)).to_bits()) }
    };
    let cases: Vec<Case> = vec![
        float("cvt.f64.f32", F64, &[F32], |v| f64::from(f(v[0])).to_bits()),
        float("cvt.rn.f32.f64", F32, &[F64], |v| (f64::from_bits(v[0]) as f32).to_bits().into()),
        float("cvt.rp.f32.f64", F32, &[F64], move |v| directed(f64::from_bits(v[0]), true)),
        float("cvt.rm.f32.f64", F32, &[F64], move |v| directed(f64::from_bits(v[0]), false)),
        float("cvt.f32.f16", F32, &[F16], |v| f16::from_bits(v[0] as u16).to_f32().to_bits().into()),
        float("cvt.f32.bf16", F32, &[Bf16], |v| bf16::from_bits(v[0] as u16).to_f32().to_bits().into()),
        float("cvt.f64.f16", F64, &[F16], |v| f16::from_bits(v[0] as u16).to_f64().to_bits()),
        float("cvt.rn.f16.f32", F16, &[F32], |v| f16::from_f32(f(v[0])).to_bits().into()),
        float("cvt.rn.f16.f64", F16, &[F64], |v| f16::from_f64(f64::from_bits(v[0])).to_bits().into()),
        float("cvt.rn.bf16.f32", Bf16, &[F32], |v| bf16::from_f32(f(v[0])).to_bits().into()),
        float("cvt.rz.bf16.f32", Bf16, &[F32], |v| v[0] >> 16),
        float("cvt.rn.f16x2.f32", F16x2, &[F32, F32], move |v| pack(F16, v[0]) << 16 | pack(F16, v[1])),
        float("cvt.rn.bf16x2.f32", Bf16x2, &[F32, F32], move |v| pack(Bf16, v[0]) << 16 | pack(Bf16, v[1])),
        float("cvt.rna.tf32.f32", F32, &[Short32], |v| (v[0] + 0x1000) & 0xffff_e000),
        exact("cvt.sat.f32.f32", F32, &[F32], move |v| sat(f(v[0])).to_bits().into()),
        float("cvt.ftz.f32.f32", F32, &[F32], |v| if f(v[0]).is_subnormal() { v[0] & 0x8000_0000 } else { v[0] }),
        float("cvt.ftz.f64.f32", F64, &[F32], |v| {
            f64::from(if f(v[0]).is_subnormal() { f32::from_bits(v[0] as u32 & 1 << 31) } else { f(v[0]) }).to_bits()
        }),
        exact("cvt.rzi.sat.s32.f32", I32, &[F32], |v| f(v[0]) as i32 as u32 as u64),
    ];
    check(cases);
}

#[test]
fn packing() {
    let cut = 0xffff_ffffu64;
    check(vec![
        exact("mov.b64 %dx, {%ra, %rb};\n//", I64, &[I32, I32], |v| v[1] << 32 | v[0]),
        exact("mov.b32 %rx, {%ha, %hb};\n//", I32, &[I16, I16], |v| v[1] << 16 | v[0]),
        exact("mov.b64 %dx, {%ha, %hb, %hc, %ha};\n//", I64, &[I16, I16, I16], |v| {
            v[0] | v[1] << 16 | v[2] << 32 | v[0] << 48
        }),
        exact("mov.b64 {%rx, %rt}, %da;\n//", I32, &[I64], move |v| v[0] & cut),
        exact("mov.b64 {_, %rx}, %da;\n//", I32, &[I64], move |v| v[0] >> 32),
        exact("mov.b32 {_, %hx}, %ra;\n//", I16, &[I32], |v| v[0] >> 16),
        exact("mov.b64 {%hb, %hc, %hx, _}, %da;\n//", I16, &[I64], |v| v[0] >> 32 & 0xffff),
    ]);
}
