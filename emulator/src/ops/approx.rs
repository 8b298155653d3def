//! Roots, reciprocals and the functions the hardware approximates.
//!
//! `.rn` roots and reciprocals are exact. The approximations are computed in double precision and rounded once, so they
//! are closer to the truth than the hardware, and differ from it within the error it documents.

use super::float::{flags, input, output, rounding};
use super::minifloat::{F32, Round, div_odd, narrow, sqrt_odd, widen_f16};
use super::{Decoded, only, operands, scalar, unary, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::lanes::map1;
use crate::exec::simd::op;
use crate::ptx::ast::{Instruction, Type};

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["rn", "rz", "rm", "rp", "approx", "ftz"])?;
    let work = Work::new(Class::Special, 1);
    match scalar(i)? {
        Type::F(32) if rounding(i) != Round::Nearest => directed(b, i),
        Type::F(32) => single(b, i),
        Type::F(64) => {
            let work = Work::new(Class::F64, 1);
            match i.family() {
                "rcp" => unary!(b, i, work, f64, f64, |x| 1.0 / x),
                "sqrt" => unary!(b, i, work, f64, f64, |x| x.sqrt()),
                "rsqrt" => unary!(b, i, work, f64, f64, |x| 1.0 / x.sqrt()),
                _ => unknown(i),
            }
        }
        Type::F(16) if i.family() == "tanh" => {
            unary!(b, i, work, u32, u32, |x| super::half::to_f16(f64::from(widen_f16(x)).tanh()))
        }
        Type::F(16) if i.family() == "ex2" => {
            unary!(b, i, work, u32, u32, |x| super::half::to_f16(f64::from(widen_f16(x)).exp2()))
        }
        _ => unknown(i),
    }
}

fn single(b: &mut Builder, i: &Instruction) -> Decoded {
    let run = match i.family() {
        "rcp" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| output(1.0 / input(x, i.flags), i.flags))),
        "sqrt" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| output(input(x, i.flags).sqrt(), i.flags))),
        "rsqrt" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| {
            output((1.0 / f64::from(input(x, i.flags)).sqrt()) as f32, i.flags)
        })),
        "sin" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| through(x, i, f64::sin))),
        "cos" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| through(x, i, f64::cos))),
        "lg2" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| through(x, i, f64::log2))),
        "ex2" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| through(x, i, f64::exp2))),
        "tanh" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| through(x, i, f64::tanh))),
        _ => return unknown(i),
    };
    finish(b, i, run)
}

#[inline(always)]
fn through(x: f32, i: &Instr, f: impl Fn(f64) -> f64) -> f32 {
    output(f(f64::from(input(x, i.flags))) as f32, i.flags)
}

fn directed(b: &mut Builder, i: &Instruction) -> Decoded {
    let run = match i.family() {
        "rcp" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| {
            let exact = div_odd(1.0, f64::from(input(x, i.flags)));
            output(f32::from_bits(narrow(exact, F32, Round::from_code(i.n))), i.flags)
        })),
        "sqrt" => op!(|w, i, m| map1::<f32, f32>(w, i, m, |x| {
            let exact = sqrt_odd(f64::from(input(x, i.flags)));
            output(f32::from_bits(narrow(exact, F32, Round::from_code(i.n))), i.flags)
        })),
        _ => return unknown(i),
    };
    finish(b, i, run)
}

fn finish(b: &mut Builder, i: &Instruction, run: crate::decode::ir::Op) -> Decoded {
    let [d, a] = operands::<2>(i)?;
    let (a, d) = (b.src::<f32>(a)?, b.dst::<f32>(d)?);
    Ok((Instr { a, d, flags: flags(i), n: rounding(i) as u8, ..Instr::new(run) }, Work::new(Class::Special, 1)))
}
