//! Single and double precision arithmetic. Rounding to nearest is the CPU's own; the other directions go through
//! [`super::minifloat`].

use super::minifloat::{F32, Round, add_odd, div_odd, fma_odd, narrow};
use super::{Decoded, binary, only, scalar, ternary, unary, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::lanes::{map2, map3};
use crate::exec::simd::op;
use crate::ptx::ast::{Instruction, Type};

/// Flag: subnormal inputs and results become zero.
pub const FTZ: u8 = 1;
/// Flag: results are clamped to 0..1, NaN to 0.
pub const SAT: u8 = 2;

/// Zero for a subnormal, by sign.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 1 << 31) } else { x }
}

/// An input under the flags.
#[inline(always)]
pub fn input(x: f32, flags: u8) -> f32 {
    if flags & FTZ != 0 { flush(x) } else { x }
}

/// A result under the flags.
#[inline(always)]
pub fn output(x: f32, flags: u8) -> f32 {
    let x = if flags & FTZ != 0 { flush(x) } else { x };
    if flags & SAT == 0 {
        x
    } else if x > 0.0 {
        x.min(1.0)
    } else {
        0.0
    }
}

/// The flags an opcode asks for.
pub fn flags(i: &Instruction) -> u8 {
    (u8::from(i.has("ftz")) * FTZ) | (u8::from(i.has("sat")) * SAT)
}

/// The rounding an opcode asks for.
pub fn rounding(i: &Instruction) -> Round {
    i.opcode[1..].iter().find_map(|p| Round::parse(p)).unwrap_or(Round::Nearest)
}

macro_rules! extremum {
    ($name:ident, $t:ty, $wins:tt, $sign:expr) => {
        /// The smaller (larger) number; a NaN loses, and minus zero is below zero.
        #[inline(always)]
        pub fn $name(a: $t, b: $t) -> $t {
            let first = if a == b { a.is_sign_negative() == $sign } else { a $wins b };
            if a.is_nan() || (!b.is_nan() && !first) { b } else { a }
        }
    };
}
extremum!(min32, f32, <, true);
extremum!(min64, f64, <, true);
extremum!(max32, f32, >, false);
extremum!(max64, f64, >, false);

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["rn", "rz", "rm", "rp", "ftz", "sat", "approx", "full", "NaN"])?;
    match scalar(i)? {
        Type::F(32) => single(b, i),
        _ => double(b, i),
    }
}

fn single(b: &mut Builder, i: &Instruction) -> Decoded {
    let work = |flops| Work::new(Class::F32, flops);
    let plain = flags(i) == 0 && rounding(i) == Round::Nearest;
    match i.family() {
        "add" if plain => binary!(b, i, work(1), f32, f32, f32, |x, y| x + y),
        "sub" if plain => binary!(b, i, work(1), f32, f32, f32, |x, y| x - y),
        "mul" if plain => binary!(b, i, work(1), f32, f32, f32, |x, y| x * y),
        "fma" | "mad" if plain => ternary!(b, i, work(2), f32, f32, f32, f32, |x, y, z| x.mul_add(y, z)),
        "div" if plain && !i.has("approx") && !i.has("full") => {
            binary!(b, i, Work::new(Class::Special, 1), f32, f32, f32, |x, y| x / y)
        }
        "min" if plain && !i.has("NaN") => binary!(b, i, work(1), f32, f32, f32, min32),
        "max" if plain && !i.has("NaN") => binary!(b, i, work(1), f32, f32, f32, max32),
        "min" | "max" if i.has("NaN") => nan_extremum(b, i),
        "abs" if plain => unary!(b, i, work(0), f32, f32, |x| x.abs()),
        "neg" if plain => unary!(b, i, work(0), f32, f32, |x| -x),
        // The sign comes from the first operand.
        "copysign" => binary!(b, i, work(0), f32, f32, f32, |x, y| y.copysign(x)),
        _ => modified(b, i),
    }
}

/// Any f32 instruction with `.ftz`, `.sat`, a direction of rounding, or approximated division.
fn modified(b: &mut Builder, i: &Instruction) -> Decoded {
    let three = matches!(i.family(), "fma" | "mad");
    let class = if i.family() == "div" { Class::Special } else { Class::F32 };
    let work = Work::new(class, 1 + u32::from(three));
    if matches!(i.family(), "abs" | "neg") {
        return match i.family() {
            "abs" => unary!(b, i, work, f32, f32, |x| flush(x).abs()),
            _ => unary!(b, i, work, f32, f32, |x| -flush(x)),
        };
    }
    let run = match i.family() {
        "add" => op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, |x, y| x + y, add_odd))),
        "sub" => {
            op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, |x, y| x - y, |x, y| add_odd(x, -y))))
        }
        "mul" => op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, |x, y| x * y, |x, y| x * y))),
        "div" => op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, |x, y| x / y, div_odd))),
        "min" => op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, min32, min64))),
        "max" => op!(|w, i, m| map2::<f32, f32, f32>(w, i, m, |x, y| two(i, x, y, max32, max64))),
        "fma" | "mad" => op!(|w, i, m| map3::<f32, f32, f32, f32>(w, i, m, |x, y, z| {
            let (x, y, z) = (input(x, i.flags), input(y, i.flags), input(z, i.flags));
            let value = if i.n == 0 {
                x.mul_add(y, z)
            } else {
                let exact = fma_odd(x.into(), y.into(), z.into());
                directed(exact, x * y == 0.0 && z == 0.0, i.n)
            };
            output(value, i.flags)
        })),
        _ => return unknown(i),
    };
    let mut instr = Instr { flags: flags(i), n: rounding(i) as u8, ..Instr::new(run) };
    let sources = &i.operands[1..];
    if sources.len() != 2 + usize::from(three) {
        return Err("wrong number of operands".into());
    }
    (instr.a, instr.b) = (b.src::<f32>(&sources[0])?, b.src::<f32>(&sources[1])?);
    if three {
        instr.c = b.src::<f32>(&sources[2])?;
    }
    instr.d = b.dst::<f32>(&i.operands[0])?;
    Ok((instr, work))
}

/// Rounds in a direction. A sum that cancels exactly is minus zero only downwards.
#[inline(always)]
fn directed(exact: f64, zeros: bool, code: u8) -> f32 {
    let round = Round::from_code(code);
    if exact == 0.0 && !zeros && round == Round::Down {
        return -0.0;
    }
    f32::from_bits(narrow(exact, F32, round))
}

#[inline(always)]
fn two(i: &Instr, x: f32, y: f32, near: impl Fn(f32, f32) -> f32, exact: impl Fn(f64, f64) -> f64) -> f32 {
    let (x, y) = (input(x, i.flags), input(y, i.flags));
    let value = if i.n == 0 { near(x, y) } else { directed(exact(x.into(), y.into()), x == 0.0 || y == 0.0, i.n) };
    output(value, i.flags)
}

/// `min.NaN` and `max.NaN`: a NaN wins.
fn nan_extremum(b: &mut Builder, i: &Instruction) -> Decoded {
    let work = Work::new(Class::F32, 1);
    if flags(i) != 0 {
        return unknown(i);
    }
    match i.family() {
        "min" => {
            binary!(b, i, work, f32, f32, f32, |x, y| if x.is_nan() || y.is_nan() { f32::NAN } else { min32(x, y) })
        }
        _ => binary!(b, i, work, f32, f32, f32, |x, y| if x.is_nan() || y.is_nan() { f32::NAN } else { max32(x, y) }),
    }
}

fn double(b: &mut Builder, i: &Instruction) -> Decoded {
    let work = |flops| Work::new(Class::F64, flops);
    if flags(i) != 0 || rounding(i) != Round::Nearest || i.has("NaN") || i.has("approx") {
        return unknown(i);
    }
    match i.family() {
        "add" => binary!(b, i, work(1), f64, f64, f64, |x, y| x + y),
        "sub" => binary!(b, i, work(1), f64, f64, f64, |x, y| x - y),
        "mul" => binary!(b, i, work(1), f64, f64, f64, |x, y| x * y),
        "fma" | "mad" => ternary!(b, i, work(2), f64, f64, f64, f64, |x, y, z| x.mul_add(y, z)),
        "div" => binary!(b, i, work(1), f64, f64, f64, |x, y| x / y),
        "min" => binary!(b, i, work(1), f64, f64, f64, min64),
        "max" => binary!(b, i, work(1), f64, f64, f64, max64),
        "abs" => unary!(b, i, work(0), f64, f64, |x| x.abs()),
        "neg" => unary!(b, i, work(0), f64, f64, |x| -x),
        "copysign" => binary!(b, i, work(0), f64, f64, f64, |x, y| y.copysign(x)),
        _ => unknown(i),
    }
}
