//! f16 and bf16 arithmetic, alone and in pairs: exact in f64 (rounded to odd), then rounded once.

use super::float::{max32, min32};
use super::minifloat::{BF16, F16, Round, add_odd, fma_odd, narrow, widen_bf16, widen_f16};
use super::{Decoded, only, scalar, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Op, Work};
use crate::exec::lanes::map3;
use crate::exec::simd::op;
use crate::ptx::ast::{Instruction, Type};

/// A double as a half.
#[inline(always)]
pub fn to_f16(x: f64) -> u32 {
    narrow(x, F16, Round::Nearest)
}

/// A double as a bfloat16.
#[inline(always)]
pub fn to_bf16(x: f64) -> u32 {
    narrow(x, BF16, Round::Nearest)
}

const SAT: u8 = 1;
const RELU: u8 = 2;

#[inline(always)]
fn clamp(x: f64, flags: u8) -> f64 {
    let x = if flags & SAT != 0 { if x > 0.0 { x.min(1.0) } else { 0.0 } } else { x };
    if flags & RELU != 0 && x <= 0.0 { 0.0 } else { x }
}

/// Ops of a function of three doubles, for f16, bf16 and their pairs.
macro_rules! halves {
    ($ty:expr, $f:expr) => {
        match $ty {
            Type::F(16) => op!(|w, i, m| map3::<u32, u32, u32, u32>(w, i, m, |x, y, z| {
                to_f16(clamp($f(widen_f16(x & 0xffff), widen_f16(y & 0xffff), widen_f16(z & 0xffff)), i.flags))
            })),
            Type::Bf16 => op!(|w, i, m| map3::<u32, u32, u32, u32>(w, i, m, |x, y, z| {
                to_bf16(clamp($f(widen_bf16(x & 0xffff), widen_bf16(y & 0xffff), widen_bf16(z & 0xffff)), i.flags))
            })),
            Type::F16x2 => op!(|w, i, m| map3::<u32, u32, u32, u32>(w, i, m, |x, y, z| {
                let low = clamp($f(widen_f16(x & 0xffff), widen_f16(y & 0xffff), widen_f16(z & 0xffff)), i.flags);
                let high = clamp($f(widen_f16(x >> 16), widen_f16(y >> 16), widen_f16(z >> 16)), i.flags);
                to_f16(low) | to_f16(high) << 16
            })),
            _ => op!(|w, i, m| map3::<u32, u32, u32, u32>(w, i, m, |x, y, z| {
                let low = clamp($f(widen_bf16(x & 0xffff), widen_bf16(y & 0xffff), widen_bf16(z & 0xffff)), i.flags);
                let high = clamp($f(widen_bf16(x >> 16), widen_bf16(y >> 16), widen_bf16(z >> 16)), i.flags);
                to_bf16(low) | to_bf16(high) << 16
            })),
        }
    };
}

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["rn", "sat", "relu"])?;
    let ty = scalar(i)?;
    let run: Op = match i.family() {
        "add" => halves!(ty, |x: f32, y: f32, _: f32| add_odd(x.into(), y.into())),
        "sub" => halves!(ty, |x: f32, y: f32, _: f32| add_odd(x.into(), -f64::from(y))),
        "mul" => halves!(ty, |x: f32, y: f32, _: f32| f64::from(x) * f64::from(y)),
        "fma" => halves!(ty, |x: f32, y: f32, z: f32| fma_odd(x.into(), y.into(), z.into())),
        "min" => halves!(ty, |x: f32, y: f32, _: f32| f64::from(min32(x, y))),
        "max" => halves!(ty, |x: f32, y: f32, _: f32| f64::from(max32(x, y))),
        "abs" => halves!(ty, |x: f32, _: f32, _: f32| f64::from(x.abs())),
        "neg" => halves!(ty, |x: f32, _: f32, _: f32| f64::from(-x)),
        _ => return unknown(i),
    };
    let sources = match i.family() {
        "abs" | "neg" => 1,
        "fma" => 3,
        _ => 2,
    };
    if i.operands.len() != sources + 1 {
        return Err(format!("{} operands where {} are due", i.operands.len(), sources + 1));
    }
    let slots = i.operands[1..].iter().map(|o| b.src::<u32>(o)).collect::<Result<Vec<u32>, String>>()?;
    let at = |k: usize| slots.get(k).copied().unwrap_or(slots[0]);
    let d = b.dst::<u32>(&i.operands[0])?;
    let pairs = if matches!(ty, Type::F16x2 | Type::Bf16x2) { 2 } else { 1 };
    let flops = match i.family() {
        "fma" => 2,
        "abs" | "neg" => 0,
        _ => 1,
    };
    let flags = (u8::from(i.has("sat")) * SAT) | (u8::from(i.has("relu")) * RELU);
    let instr = Instr { d, a: at(0), b: at(1), c: at(2), flags, ..Instr::new(run) };
    Ok((instr, Work::new(Class::Half, flops * pairs)))
}
