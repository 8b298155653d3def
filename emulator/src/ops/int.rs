//! Integer arithmetic.

use super::{Decoded, binary, by_bits, by_type, only, operands, scalar, ternary, unary, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Type};

const WORK: Work = Work { class: Class::Integer, flops: 0, bytes: 0, store: false };

/// Division as the hardware does it: by zero gives all ones, and the smallest number by minus one itself.
trait Divide: Copy {
    fn quotient(self, by: Self) -> Self;
    fn remainder(self, by: Self) -> Self;
    fn high(self, by: Self) -> Self;
    fn absolute(self) -> Self;
    fn distance(self, to: Self) -> Self;
}

macro_rules! divide {
    ($($t:ty, $wide:ty);*) => {$(
        impl Divide for $t {
            #[inline(always)]
            fn quotient(self, by: Self) -> Self { if by == 0 { !0 } else { self.wrapping_div(by) } }
            #[inline(always)]
            fn remainder(self, by: Self) -> Self { if by == 0 { self } else { self.wrapping_rem(by) } }
            #[inline(always)]
            fn high(self, by: Self) -> Self { ((self as $wide * by as $wide) >> <$t>::BITS) as $t }
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn absolute(self) -> Self { if self < 0 { (0 as $t).wrapping_sub(self) } else { self } }
            #[inline(always)]
            fn distance(self, to: Self) -> Self { if self < to { to.wrapping_sub(self) } else { self.wrapping_sub(to) } }
        }
    )*};
}
divide!(i16, i32; u16, u32; i32, i64; u32, u64; i64, i128; u64, u128);

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["lo", "hi", "wide", "cc"])?;
    let ty = scalar(i)?;
    if i.has("cc") || i.family().ends_with('c') || (i.family() == "mad" && i.has("cc")) {
        return carrying(b, i, ty);
    }
    match i.family() {
        "add" => by_bits!(binary, b, i, ty, WORK, |x, y| x.wrapping_add(y)),
        "sub" => by_bits!(binary, b, i, ty, WORK, |x, y| x.wrapping_sub(y)),
        "mul" if i.has("wide") => wide_product(b, i, ty),
        "mul" if i.has("hi") => by_type!(binary, b, i, ty, WORK, |x, y| x.high(y)),
        "mul" => by_bits!(binary, b, i, ty, WORK, |x, y| x.wrapping_mul(y)),
        "mad" if i.has("wide") => wide_product_sum(b, i, ty),
        "mad" if i.has("hi") => by_type!(ternary, b, i, ty, WORK, |x, y, z| x.high(y).wrapping_add(z)),
        "mad" => by_bits!(ternary, b, i, ty, WORK, |x, y, z| x.wrapping_mul(y).wrapping_add(z)),
        "mul24" if i.has("lo") && ty == Type::U(32) => {
            binary!(b, i, WORK, u32, u32, u32, |x, y| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff))
        }
        "div" => by_type!(binary, b, i, ty, WORK, |x, y| x.quotient(y)),
        "rem" => by_type!(binary, b, i, ty, WORK, |x, y| x.remainder(y)),
        "min" => by_type!(binary, b, i, ty, WORK, |x, y| x.min(y)),
        "max" => by_type!(binary, b, i, ty, WORK, |x, y| x.max(y)),
        "abs" => by_type!(unary, b, i, ty, WORK, |x| x.absolute()),
        "neg" => by_bits!(unary, b, i, ty, WORK, |x| x.wrapping_neg()),
        "sad" => by_type!(ternary, b, i, ty, WORK, |x, y, z| x.distance(y).wrapping_add(z)),
        _ => unknown(i),
    }
}

fn wide_product(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    match ty {
        Type::S(16) => binary!(b, i, WORK, i32, u32, u32, |x, y| i32::from(x as i16) * i32::from(y as i16)),
        Type::U(16) => binary!(b, i, WORK, u32, u32, u32, |x, y| u32::from(x as u16) * u32::from(y as u16)),
        Type::S(32) => binary!(b, i, WORK, i64, i32, i32, |x, y| i64::from(x) * i64::from(y)),
        Type::U(32) => binary!(b, i, WORK, u64, u32, u32, |x, y| u64::from(x) * u64::from(y)),
        _ => unknown(i),
    }
}

fn wide_product_sum(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    match ty {
        Type::S(16) => ternary!(b, i, WORK, i32, u32, u32, i32, |x, y, z| {
            (i32::from(x as i16) * i32::from(y as i16)).wrapping_add(z)
        }),
        Type::U(16) => ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, z| {
            (u32::from(x as u16) * u32::from(y as u16)).wrapping_add(z)
        }),
        Type::S(32) => {
            ternary!(b, i, WORK, i64, i32, i32, i64, |x, y, z| (i64::from(x) * i64::from(y)).wrapping_add(z))
        }
        Type::U(32) => {
            ternary!(b, i, WORK, u64, u32, u32, u64, |x, y, z| (u64::from(x) * u64::from(y)).wrapping_add(z))
        }
        _ => unknown(i),
    }
}

/// Flags of an instruction with carry.
const CARRY_IN: u8 = 1;
const CARRY_OUT: u8 = 2;

/// `add.cc`, `addc`, `sub.cc`, `subc` on 32 and 64 bits. The carry of a subtraction is stored as a borrow.
fn carrying(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    let [d, x, y] = operands::<3>(i)?;
    let carry_in = i.family().ends_with('c');
    let flags = (u8::from(carry_in) * CARRY_IN) | (u8::from(i.has("cc")) * CARRY_OUT);
    let carry = b.carry();
    let wide = ty.bits() == 64;
    let (a, bb, d) = if wide {
        (b.src::<u64>(x)?, b.src::<u64>(y)?, b.dst::<u64>(d)?)
    } else {
        (b.src::<u32>(x)?, b.src::<u32>(y)?, b.dst::<u32>(d)?)
    };
    let run = match (&i.family()[..3], wide) {
        ("add", false) => op!(|w, i, m| with_carry(
            w,
            i,
            m,
            u32::overflowing_add,
            |w, d, k, v| w.lanes_mut::<u32>(d)[k] = v,
            |w, s, k| w.lanes::<u32>(s)[k],
            u32::from
        )),
        ("sub", false) => op!(|w, i, m| with_carry(
            w,
            i,
            m,
            u32::overflowing_sub,
            |w, d, k, v| w.lanes_mut::<u32>(d)[k] = v,
            |w, s, k| w.lanes::<u32>(s)[k],
            u32::from
        )),
        ("add", true) => op!(|w, i, m| with_carry(
            w,
            i,
            m,
            u64::overflowing_add,
            |w, d, k, v| w.lanes_mut::<u64>(d)[k] = v,
            |w, s, k| w.lanes::<u64>(s)[k],
            u64::from
        )),
        ("sub", true) => op!(|w, i, m| with_carry(
            w,
            i,
            m,
            u64::overflowing_sub,
            |w, d, k, v| w.lanes_mut::<u64>(d)[k] = v,
            |w, s, k| w.lanes::<u64>(s)[k],
            u64::from
        )),
        _ => return unknown(i),
    };
    Ok((Instr { a, b: bb, d, c: carry, flags, ..Instr::new(run) }, WORK))
}

#[inline(always)]
fn with_carry<T: Copy>(
    w: &mut Warp,
    i: &Instr,
    m: u32,
    f: impl Fn(T, T) -> (T, bool),
    set: impl Fn(&mut Warp, u32, usize, T),
    get: impl Fn(&Warp, u32, usize) -> T,
    one: impl Fn(bool) -> T,
) -> bool {
    let carry = w.pred(i.c);
    let mut out = 0;
    for k in crate::exec::lanes::active(m) {
        let (sum, first) = f(get(w, i.a, k), get(w, i.b, k));
        let (sum, second) = f(sum, one(i.flags & CARRY_IN != 0 && carry >> k & 1 != 0));
        set(w, i.d, k, sum);
        out |= u32::from(first | second) << k;
    }
    if i.flags & CARRY_OUT != 0 {
        w.set_pred(i.c, m, out);
    }
    false
}
