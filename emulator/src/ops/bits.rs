//! Bitwise operations, shifts, bit fields, bit counts and byte permutations.

use super::{Decoded, binary, by_bits, only, operands, scalar, ternary, unary, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::lanes::active;
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

const WORK: Work = Work { class: Class::Integer, flops: 0, bytes: 0, store: false };

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    only(i, &["l", "r", "clamp", "wrap", "shiftamt"])?;
    let ty = scalar(i)?;
    if ty == Type::Pred {
        return predicates(b, i);
    }
    match i.family() {
        "and" => by_bits!(binary, b, i, ty, WORK, |x, y| x & y),
        "or" => by_bits!(binary, b, i, ty, WORK, |x, y| x | y),
        "xor" => by_bits!(binary, b, i, ty, WORK, |x, y| x ^ y),
        "not" => by_bits!(unary, b, i, ty, WORK, |x| !x),
        "cnot" => by_bits!(unary, b, i, ty, WORK, |x| if x == 0 { 1 } else { 0 }),
        "shl" | "shr" => shift(b, i, ty),
        "shf" => funnel(b, i),
        "popc" | "clz" | "bfind" => count(b, i, ty),
        "brev" if ty.bits() == 32 => unary!(b, i, WORK, u32, u32, |x| x.reverse_bits()),
        "brev" => unary!(b, i, WORK, u64, u64, |x| x.reverse_bits()),
        "bfe" => extract(b, i, ty),
        "bfi" => insert(b, i, ty),
        "prmt" if i.opcode.len() == 2 => ternary!(b, i, WORK, u32, u32, u32, u32, permute),
        "lop3" if i.opcode.len() == 2 => lop3(b, i),
        "dp4a" => dot_bytes(b, i),
        _ => unknown(i),
    }
}

/// `and`, `or`, `xor`, `not` on predicates.
fn predicates(b: &mut Builder, i: &Instruction) -> Decoded {
    let d = b.dst_pred(&i.operands[0])?;
    let (a, flip_a) = b.src_pred(i.operands.get(1).ok_or("a source is missing")?)?;
    let (bb, flip_b) = match i.operands.get(2) {
        Some(operand) => b.src_pred(operand)?,
        None => (a, 0),
    };
    let run = match i.family() {
        "and" => op!(|w, i, m| predicate(w, i, m, |x, y| x & y)),
        "or" => op!(|w, i, m| predicate(w, i, m, |x, y| x | y)),
        "xor" => op!(|w, i, m| predicate(w, i, m, |x, y| x ^ y)),
        "not" => op!(|w, i, m| predicate(w, i, m, |x, _| !x)),
        _ => return unknown(i),
    };
    Ok((Instr { d, a, b: bb, x: [flip_a, flip_b, 0, 0], ..Instr::new(run) }, WORK))
}

#[inline(always)]
fn predicate(w: &mut Warp, i: &Instr, m: u32, f: impl Fn(u32, u32) -> u32) -> bool {
    let value = f(w.pred(i.a) ^ i.x[0], w.pred(i.b) ^ i.x[1]);
    w.set_pred(i.d, m, value);
    false
}

/// Shifts: the amount is always 32 bits; amounts beyond the width shift everything out.
fn shift(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    match (i.family(), ty) {
        ("shl", Type::B(16)) => binary!(b, i, WORK, u32, u32, u32, |x, n| if n > 15 { 0 } else { (x << n) & 0xffff }),
        ("shl", Type::B(32)) => binary!(b, i, WORK, u32, u32, u32, |x, n| if n > 31 { 0 } else { x << n }),
        ("shl", Type::B(64)) => binary!(b, i, WORK, u64, u64, u32, |x, n| if n > 63 { 0 } else { x << n }),
        ("shr", Type::S(16)) => {
            binary!(b, i, WORK, u32, u32, u32, |x, n| u32::from((x as i16 >> n.min(15)) as u16))
        }
        ("shr", Type::U(16) | Type::B(16)) => {
            binary!(b, i, WORK, u32, u32, u32, |x, n| if n > 15 { 0 } else { (x & 0xffff) >> n })
        }
        ("shr", Type::S(32)) => binary!(b, i, WORK, i32, i32, u32, |x, n| x >> n.min(31)),
        ("shr", Type::U(32) | Type::B(32)) => {
            binary!(b, i, WORK, u32, u32, u32, |x, n| if n > 31 { 0 } else { x >> n })
        }
        ("shr", Type::S(64)) => binary!(b, i, WORK, i64, i64, u32, |x, n| x >> n.min(63)),
        ("shr", Type::U(64) | Type::B(64)) => {
            binary!(b, i, WORK, u64, u64, u32, |x, n| if n > 63 { 0 } else { x >> n })
        }
        _ => unknown(i),
    }
}

fn funnel(b: &mut Builder, i: &Instruction) -> Decoded {
    match (i.has("l"), i.has("wrap")) {
        (true, true) => {
            ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, n| ((joined_of(x, y) << (n & 31)) >> 32) as u32)
        }
        (true, false) => {
            ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, n| ((joined_of(x, y) << n.min(32)) >> 32) as u32)
        }
        (false, true) => ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, n| (joined_of(x, y) >> (n & 31)) as u32),
        (false, false) => {
            ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, n| (joined_of(x, y) >> n.min(32)) as u32)
        }
    }
}

#[inline(always)]
fn joined_of(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn count(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    match (i.family(), ty) {
        ("popc", Type::B(32)) => unary!(b, i, WORK, u32, u32, |x| x.count_ones()),
        ("popc", Type::B(64)) => unary!(b, i, WORK, u32, u64, |x| x.count_ones()),
        ("clz", Type::B(32)) => unary!(b, i, WORK, u32, u32, |x| x.leading_zeros()),
        ("clz", Type::B(64)) => unary!(b, i, WORK, u32, u64, |x| x.leading_zeros()),
        // The position of the highest bit that is not the sign; all ones where there is none.
        ("bfind", Type::U(32)) if !i.has("shiftamt") => {
            unary!(b, i, WORK, u32, u32, |x| 31u32.wrapping_sub(x.leading_zeros()))
        }
        ("bfind", Type::S(32)) if !i.has("shiftamt") => {
            unary!(b, i, WORK, u32, i32, |x| 31u32.wrapping_sub((if x < 0 { !x } else { x }).leading_zeros()))
        }
        ("bfind", Type::U(64)) if !i.has("shiftamt") => {
            unary!(b, i, WORK, u32, u64, |x| 63u32.wrapping_sub(x.leading_zeros()))
        }
        ("bfind", Type::U(32)) => unary!(b, i, WORK, u32, u32, |x| if x == 0 { !0 } else { x.leading_zeros() }),
        _ => unknown(i),
    }
}

/// The bit field of `len` bits at `pos`, `sign` extended from its last bit (or the word's, where the field overhangs).
#[inline(always)]
fn field(x: u64, pos: u32, len: u32, bits: u32, sign: bool) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let top = (pos + len - 1).min(bits - 1);
    let negative = sign && x >> top & 1 != 0;
    let shifted = if pos >= bits { 0 } else { x >> pos };
    let kept = bits.saturating_sub(pos).min(len);
    let mask = if kept >= 64 { !0 } else { (1u64 << kept) - 1 };
    (shifted & mask) | if negative { !mask } else { 0 }
}

fn extract(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    match ty {
        Type::U(32) => ternary!(b, i, WORK, u32, u32, u32, u32, |x, p, n| field(u64::from(x), p, n, 32, false) as u32),
        Type::S(32) => ternary!(b, i, WORK, u32, u32, u32, u32, |x, p, n| field(u64::from(x), p, n, 32, true) as u32),
        Type::U(64) => ternary!(b, i, WORK, u64, u64, u32, u32, |x, p, n| field(x, p, n, 64, false)),
        Type::S(64) => ternary!(b, i, WORK, u64, u64, u32, u32, |x, p, n| field(x, p, n, 64, true)),
        _ => unknown(i),
    }
}

fn insert(b: &mut Builder, i: &Instruction, ty: Type) -> Decoded {
    let [d, x, y, pos, len] = operands::<5>(i)?;
    let (c, n) = (b.src::<u32>(pos)?, b.src::<u32>(len)?);
    let (a, bb, d, run) = if ty.bits() == 64 {
        let run = op!(|w, i, m| {
            for k in active(m) {
                let (x, y) = (w.lanes::<u64>(i.a)[k], w.lanes::<u64>(i.b)[k]);
                w.lanes_mut::<u64>(i.d)[k] = inserted(x, y, w.lanes::<u32>(i.c)[k], w.lanes::<u32>(i.x[0])[k]);
            }
            false
        });
        (b.src::<u64>(x)?, b.src::<u64>(y)?, b.dst::<u64>(d)?, run)
    } else {
        let run = op!(|w, i, m| {
            for k in active(m) {
                let (x, y) = (w.lanes::<u32>(i.a)[k], w.lanes::<u32>(i.b)[k]);
                let out = inserted(x.into(), y.into(), w.lanes::<u32>(i.c)[k], w.lanes::<u32>(i.x[0])[k]);
                w.lanes_mut::<u32>(i.d)[k] = out as u32;
            }
            false
        });
        (b.src::<u32>(x)?, b.src::<u32>(y)?, b.dst::<u32>(d)?, run)
    };
    Ok((Instr { a, b: bb, c, d, x: [n, 0, 0, 0], ..Instr::new(run) }, WORK))
}

/// `into` with `len` bits at `pos` taken from the low bits of `value`.
#[inline(always)]
fn inserted(value: u64, into: u64, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos > 63 || len == 0 {
        return into;
    }
    let mask = if len > 63 { !0 } else { (1u64 << len) - 1 } << pos;
    (into & !mask) | (value << pos & mask)
}

/// `prmt`: every nibble of the selector picks one of eight bytes, or spreads its sign.
#[inline(always)]
fn permute(x: u32, y: u32, selector: u32) -> u32 {
    let bytes = joined_of(x, y);
    let mut out = 0;
    for k in 0..4 {
        let nibble = selector >> (4 * k) & 0xf;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 != 0 { (byte as i8 >> 7) as u8 } else { byte };
        out |= u32::from(byte) << (8 * k);
    }
    out
}

/// `lop3`: any function of three bits by its truth table.
fn lop3(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, x, y, z, table] = operands::<5>(i)?;
    let Operand::Int(table) = table else { return Err("the truth table must be a number".into()) };
    let (a, bb, c) = (b.src::<u32>(x)?, b.src::<u32>(y)?, b.src::<u32>(z)?);
    let run = op!(|w, i, m| {
        let table = i.imm as u32;
        crate::exec::lanes::map3::<u32, u32, u32, u32>(w, i, m, |x, y, z| {
            let mut out = 0;
            for case in 0..8 {
                let pick = |v: u32, bit: u32| if case & bit != 0 { v } else { !v };
                if table >> case & 1 != 0 {
                    out |= pick(x, 4) & pick(y, 2) & pick(z, 1);
                }
            }
            out
        })
    });
    Ok((Instr { d: b.dst::<u32>(d)?, a, b: bb, c, imm: *table as i64, ..Instr::new(run) }, WORK))
}

fn dot_bytes(b: &mut Builder, i: &Instruction) -> Decoded {
    let types: Vec<&str> = i.opcode[1..].iter().map(String::as_str).collect();
    match types[..] {
        ["s32", "s32"] => ternary!(b, i, WORK, i32, u32, u32, i32, |x, y, z| {
            let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
            (0..4).fold(z, |sum, k| sum.wrapping_add(i32::from(x[k] as i8) * i32::from(y[k] as i8)))
        }),
        ["u32", "u32"] => ternary!(b, i, WORK, u32, u32, u32, u32, |x, y, z| {
            let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
            (0..4).fold(z, |sum, k| sum.wrapping_add(u32::from(x[k]) * u32::from(y[k])))
        }),
        _ => unknown(i),
    }
}
