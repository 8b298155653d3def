//! `cvt`: the frequent conversions each have an op; all others share one that follows the rules at run time.

use super::float::{flags, input, output, rounding};
use super::minifloat::{BF16, F16, F32, Format, Round, TF32, int_odd, narrow, widen_bf16, widen_f16};
use super::{Decoded, only, operands, unary, unknown};
use crate::decode::builder::{Builder, Width};
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::lanes::{active, map2};
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

const WORK: Work = Work { class: Class::Convert, flops: 0, bytes: 0, store: false };

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "relu", "satfinite"])?;
    let types: Vec<Type> = i.opcode[1..].iter().filter_map(|p| Type::parse(p)).collect();
    let [to, from] = types[..] else { return unknown(i) };
    if i.has("relu") || i.has("satfinite") {
        return unknown(i);
    }
    if matches!(to, Type::F16x2 | Type::Bf16x2) {
        return pack(b, i, to);
    }
    let plain = !i.has("sat") && !i.has("ftz");
    if plain && exact_width(b, &i.operands, to, from) {
        let near = rounding(i) == Round::Nearest;
        match (to, from) {
            (Type::F(32), Type::S(32)) if near => return unary!(b, i, WORK, f32, i32, |x| x as f32),
            (Type::F(32), Type::U(32)) if near => return unary!(b, i, WORK, f32, u32, |x| x as f32),
            (Type::F(64), Type::S(32)) => return unary!(b, i, WORK, f64, i32, f64::from),
            (Type::F(64), Type::U(32)) => return unary!(b, i, WORK, f64, u32, f64::from),
            (Type::S(32), Type::F(32)) if i.has("rzi") => return unary!(b, i, WORK, i32, f32, |x| x as i32),
            (Type::U(32), Type::F(32)) if i.has("rzi") => return unary!(b, i, WORK, u32, f32, |x| x as u32),
            (Type::S(32), Type::F(32)) if i.has("rmi") => return unary!(b, i, WORK, i32, f32, |x| x.floor() as i32),
            (Type::F(32), Type::F(32)) if i.has("rmi") => return unary!(b, i, WORK, f32, f32, |x| x.floor()),
            (Type::F(32), Type::F(32)) if i.has("rzi") => return unary!(b, i, WORK, f32, f32, |x| x.trunc()),
            (Type::F(32), Type::F(32)) if i.has("rni") => return unary!(b, i, WORK, f32, f32, |x| x.round_ties_even()),
            (Type::F(64), Type::F(32)) => return unary!(b, i, WORK, f64, f32, f64::from),
            (Type::F(32), Type::F(64)) if near => return unary!(b, i, WORK, f32, f64, |x| x as f32),
            (Type::S(64) | Type::U(64), Type::S(32)) => return unary!(b, i, WORK, i64, i32, i64::from),
            (Type::S(64) | Type::U(64), Type::U(32)) => return unary!(b, i, WORK, u64, u32, u64::from),
            (Type::S(32) | Type::U(32), Type::S(64) | Type::U(64)) => {
                return unary!(b, i, WORK, u32, u64, |x| x as u32);
            }
            (Type::F(32), Type::F(16)) => return unary!(b, i, WORK, f32, u32, |x| widen_f16(x & 0xffff)),
            (Type::F(32), Type::Bf16) => return unary!(b, i, WORK, f32, u32, widen_bf16),
            (Type::Bf16, Type::F(32)) if near => return unary!(b, i, WORK, u32, f32, nearest_bf16),
            _ => {}
        }
    }
    general(b, i, to, from)
}

/// Whether the registers are as wide as the types, so that nothing is to be extended or cut.
fn exact_width(b: &mut Builder, operands: &[Operand], to: Type, from: Type) -> bool {
    let width = |ty: Type| match ty.bits() {
        8 | 16 => Width::W16,
        32 => Width::W32,
        _ => Width::W64,
    };
    let [d, a] = operands else { return false };
    b.any(d).is_ok_and(|r| r.width == width(to)) && b.any(a).is_ok_and(|r| r.width == width(from))
}

/// bf16 of a single, in a form that vectorises.
#[inline(always)]
fn nearest_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fff } else { rounded }
}

/// Two singles into a pair; the first source becomes the upper half.
fn pack(b: &mut Builder, i: &Instruction, to: Type) -> Decoded {
    let [d, high, low] = operands::<3>(i)?;
    let (a, bb, d) = (b.src::<f32>(high)?, b.src::<f32>(low)?, b.dst::<u32>(d)?);
    let run = if to == Type::Bf16x2 && rounding(i) == Round::Nearest {
        op!(|w, i, m| map2::<u32, f32, f32>(w, i, m, |x, y| nearest_bf16(x) << 16 | nearest_bf16(y)))
    } else {
        op!(|w, i, m| map2::<u32, f32, f32>(w, i, m, |x, y| {
            let (format, round) = (if i.flags == 0 { F16 } else { BF16 }, Round::from_code(i.n));
            narrow(x.into(), format, round) << 16 | narrow(y.into(), format, round)
        }))
    };
    let flags = u8::from(to == Type::Bf16x2);
    Ok((Instr { a, b: bb, d, flags, n: rounding(i) as u8, ..Instr::new(run) }, WORK))
}

/// Codes of the types in an instruction.
fn code(ty: Type) -> Option<u32> {
    Some(match ty {
        Type::U(8) | Type::B(8) => 0,
        Type::U(16) | Type::B(16) => 1,
        Type::U(32) | Type::B(32) => 2,
        Type::U(64) | Type::B(64) => 3,
        Type::S(8) => 4,
        Type::S(16) => 5,
        Type::S(32) => 6,
        Type::S(64) => 7,
        Type::F(16) => 8,
        Type::Bf16 => 9,
        Type::F(32) => 10,
        Type::F(64) => 11,
        Type::Tf32 => 12,
        _ => return None,
    })
}

const WIDE_SOURCE: u32 = 1;
const WIDE_TARGET: u32 = 2;

fn general(b: &mut Builder, i: &Instruction, to: Type, from: Type) -> Decoded {
    let [d, a] = operands::<2>(i)?;
    let (Some(to), Some(from)) = (code(to), code(from)) else { return unknown(i) };
    let source_wide = b.any(a).map_or(from == 3 || from == 7 || from == 11, |r| r.width == Width::W64);
    let target_wide = b.any(d)?.width == Width::W64;
    let a = if source_wide { b.src::<u64>(a)? } else { b.src::<u32>(a)? };
    let d = if target_wide { b.dst::<u64>(d)? } else { b.dst::<u32>(d)? };
    let narrow_target = !target_wide && matches!(b.any(&i.operands[0])?.width, Width::W16);
    let wide = (u32::from(source_wide) * WIDE_SOURCE) | (u32::from(target_wide) * WIDE_TARGET);
    let integral = i.opcode.iter().any(|p| p.ends_with('i') && Round::parse(p).is_some());
    let instr = Instr {
        a,
        d,
        b: to,
        c: from,
        x: [wide, u32::from(narrow_target), u32::from(integral), 0],
        flags: flags(i),
        n: rounding(i) as u8,
        ..Instr::new(convert_any)
    };
    Ok((instr, WORK))
}

/// A value between reading and writing.
#[derive(Clone, Copy)]
enum Value {
    Int(i128),
    Float(f64),
}

fn read(bits: u64, from: u32, flags: u8) -> Value {
    match from {
        0 => Value::Int(i128::from(bits as u8)),
        1 => Value::Int(i128::from(bits as u16)),
        2 => Value::Int(i128::from(bits as u32)),
        3 => Value::Int(i128::from(bits)),
        4 => Value::Int(i128::from(bits as i8)),
        5 => Value::Int(i128::from(bits as i16)),
        6 => Value::Int(i128::from(bits as i32)),
        7 => Value::Int(i128::from(bits as i64)),
        8 => Value::Float(widen_f16(bits as u32 & 0xffff).into()),
        9 => Value::Float(widen_bf16(bits as u32 & 0xffff).into()),
        10 | 12 => Value::Float(input(f32::from_bits(bits as u32), flags).into()),
        _ => Value::Float(f64::from_bits(bits)),
    }
}

fn write(value: Value, i: &Instr) -> u64 {
    let round = Round::from_code(i.n);
    if i.b < 8 {
        let bits = 8u32 << (i.b & 3);
        let (least, most) =
            if i.b < 4 { (0, (1i128 << bits) - 1) } else { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) };
        let whole = match value {
            Value::Int(v) if i.flags & super::float::SAT != 0 => v.clamp(least, most),
            Value::Int(v) => v,
            // From a float the result is always clamped; NaN becomes 0.
            Value::Float(x) => (round.integral(x) as i128).clamp(least, most),
        };
        return match i.b {
            0 => u64::from(whole as u8),
            1 => u64::from(whole as u16),
            2 => u64::from(whole as u32),
            3 | 7 => whole as u64,
            4 => whole as i8 as i64 as u64,
            5 => whole as i16 as i64 as u64,
            _ => whole as i32 as i64 as u64,
        };
    }
    let exact = match value {
        Value::Int(v) => int_odd(v),
        Value::Float(x) if i.x[2] != 0 => round.integral(x),
        Value::Float(x) => x,
    };
    let clamped = if i.flags & super::float::SAT == 0 {
        exact
    } else if exact > 0.0 {
        exact.min(1.0)
    } else {
        0.0
    };
    let format: Format = match i.b {
        8 => F16,
        9 => BF16,
        10 => F32,
        12 => TF32,
        // An integer of 64 bits was rounded to odd: round it to nearest here.
        _ => {
            return match value {
                Value::Int(v) => (v as f64).to_bits(),
                Value::Float(_) => clamped.to_bits(),
            };
        }
    };
    let bits = narrow(clamped, format, round);
    match i.b {
        10 => u64::from(output(f32::from_bits(bits), i.flags & super::float::FTZ).to_bits()),
        12 => u64::from(bits << 13),
        _ => u64::from(bits),
    }
}

fn convert_any(w: &mut Warp, i: &Instr, m: u32) -> bool {
    for k in active(m) {
        let bits = if i.x[0] & WIDE_SOURCE != 0 { w.lanes::<u64>(i.a)[k] } else { u64::from(w.lanes::<u32>(i.a)[k]) };
        let out = write(read(bits, i.c, i.flags), i);
        if i.x[0] & WIDE_TARGET != 0 {
            w.lanes_mut::<u64>(i.d)[k] = out;
        } else {
            w.lanes_mut::<u32>(i.d)[k] = if i.x[1] != 0 { out as u32 & 0xffff } else { out as u32 };
        }
    }
    false
}
