//! The instructions, a family a file: each decodes its opcodes and holds what they do.
//!
//! A decoder matches the opcode's parts, takes slots from the builder and picks an [`Op`](crate::decode::ir::Op). It
//! refuses what it does not know with an error, so that nothing is ever executed approximately by mistake.

mod approx;
mod atomic;
mod bits;
mod compare;
mod control;
mod convert;
mod copy;
mod float;
mod half;
mod int;
mod matrix;
mod memory;
pub mod minifloat;
mod moves;
mod warp_level;

use crate::decode::builder::{Builder, Result};
use crate::decode::ir::{Instr, Work};
use crate::ptx::ast::{Instruction, Operand, Type};

/// A decoded instruction and its work.
pub type Decoded = Result<(Instr, Work)>;

/// Decodes one instruction.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    const BARE: [&str; 8] = ["ret", "exit", "trap", "brkpt", "membar", "fence", "griddepcontrol", "cp"];
    if i.operands.is_empty() && !BARE.contains(&i.family()) {
        return Err("operands are missing".into());
    }
    if i.opcode.len() < 3 && matches!(i.family(), "setp" | "set" | "testp" | "slct" | "redux") {
        return unknown(i);
    }
    match i.family() {
        "add" | "sub" | "mul" | "fma" | "mad" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "sad" | "mul24"
        | "addc" | "subc" => match scalar(i)? {
            Type::F(32) | Type::F(64) => float::decode(b, i),
            Type::F(16) | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => half::decode(b, i),
            _ => int::decode(b, i),
        },
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "ex2" | "tanh" => approx::decode(b, i),
        "copysign" => float::decode(b, i),
        "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "popc" | "clz" | "brev" | "bfind" | "bfe"
        | "bfi" | "prmt" | "lop3" | "fns" | "dp4a" => bits::decode(b, i),
        "setp" | "set" | "selp" | "slct" | "testp" => compare::decode(b, i),
        "cvt" => convert::decode(b, i),
        "mov" | "cvta" | "isspacep" => moves::decode(b, i),
        "ld" | "ldu" | "st" | "prefetch" | "prefetchu" | "discard" | "applypriority" => memory::decode(b, i),
        "atom" | "red" => atomic::decode(b, i),
        "cp" => copy::decode(b, i),
        "ldmatrix" | "stmatrix" | "mma" => matrix::decode(b, i),
        "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => warp_level::decode(b, i),
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "bar" | "barrier" | "membar" | "fence" | "nanosleep"
        | "griddepcontrol" => control::decode(b, i),
        _ => unknown(i),
    }
}

/// The refusal of an opcode.
fn unknown<T>(i: &Instruction) -> Result<T> {
    Err(format!("the emulator does not know {}", i.name()))
}

/// The type an opcode ends with.
fn scalar(i: &Instruction) -> Result<Type> {
    i.last_type().ok_or_else(|| format!("{} ends with no type", i.name()))
}

/// Refuses modifiers outside `known`; the family and a trailing type are not looked at.
fn only(i: &Instruction, known: &[&str]) -> Result<()> {
    match i.opcode[1..].iter().find(|p| !known.contains(&p.as_str()) && Type::parse(p).is_none()) {
        Some(part) => Err(format!("the emulator does not know .{part} in {}", i.name())),
        None => Ok(()),
    }
}

/// Exactly `N` operands.
fn operands<const N: usize>(i: &Instruction) -> Result<&[Operand; N]> {
    <&[Operand; N]>::try_from(i.operands.as_slice())
        .map_err(|_| format!("{} operands where {N} are due", i.operands.len()))
}

/// `unary!(b, i, work, D, A, |a| value)`: an op of one source, with lanes read as `A` and written as `D`.
macro_rules! unary {
    ($b:expr, $i:expr, $work:expr, $D:ty, $A:ty, $f:expr) => {{
        let [d, a] = $crate::ops::operands::<2>($i)?;
        let (a, d) = ($b.src::<$A>(a)?, $b.dst::<$D>(d)?);
        let run = $crate::exec::simd::op!(|w, i, m| $crate::exec::lanes::map1::<$D, $A>(w, i, m, $f));
        Ok(($crate::decode::ir::Instr { d, a, ..$crate::decode::ir::Instr::new(run) }, $work))
    }};
}
use unary;

/// As `unary!`, with two sources.
macro_rules! binary {
    ($b:expr, $i:expr, $work:expr, $D:ty, $A:ty, $B:ty, $f:expr) => {{
        let [d, x, y] = $crate::ops::operands::<3>($i)?;
        let (a, b) = ($b.src::<$A>(x)?, $b.src::<$B>(y)?);
        let d = $b.dst::<$D>(d)?;
        let run = $crate::exec::simd::op!(|w, i, m| $crate::exec::lanes::map2::<$D, $A, $B>(w, i, m, $f));
        Ok(($crate::decode::ir::Instr { d, a, b, ..$crate::decode::ir::Instr::new(run) }, $work))
    }};
}
use binary;

/// As `unary!`, with three sources.
macro_rules! ternary {
    ($b:expr, $i:expr, $work:expr, $D:ty, $A:ty, $B:ty, $C:ty, $f:expr) => {{
        let [d, x, y, z] = $crate::ops::operands::<4>($i)?;
        let (a, b, c) = ($b.src::<$A>(x)?, $b.src::<$B>(y)?, $b.src::<$C>(z)?);
        let d = $b.dst::<$D>(d)?;
        let run = $crate::exec::simd::op!(|w, i, m| $crate::exec::lanes::map3::<$D, $A, $B, $C>(w, i, m, $f));
        Ok(($crate::decode::ir::Instr { d, a, b, c, ..$crate::decode::ir::Instr::new(run) }, $work))
    }};
}
use ternary;

/// Writes one body for the unsigned types of 16, 32 and 64 bits; 16-bit lanes keep their upper half zero.
macro_rules! by_bits {
    ($mac:ident, $b:expr, $i:expr, $ty:expr, $work:expr, |$($x:ident),+| $e:expr) => {
        match $ty.bits() {
            16 => by_bits!(@ $mac, $b, $i, $work, u32, |$($x),+| { $(let $x = $x as u16;)+ u32::from($e as u16) }),
            32 => by_bits!(@ $mac, $b, $i, $work, u32, |$($x),+| $e),
            _ => by_bits!(@ $mac, $b, $i, $work, u64, |$($x),+| $e),
        }
    };
    (@ unary, $b:expr, $i:expr, $w:expr, $T:ty, $f:expr) => { unary!($b, $i, $w, $T, $T, $f) };
    (@ binary, $b:expr, $i:expr, $w:expr, $T:ty, $f:expr) => { binary!($b, $i, $w, $T, $T, $T, $f) };
    (@ ternary, $b:expr, $i:expr, $w:expr, $T:ty, $f:expr) => { ternary!($b, $i, $w, $T, $T, $T, $T, $f) };
}
use by_bits;

/// Writes one body for the signed and unsigned types of 16, 32 and 64 bits.
macro_rules! by_type {
    ($mac:ident, $b:expr, $i:expr, $ty:expr, $work:expr, |$($x:ident),+| $e:expr) => {
        match $ty {
            Type::S(16) => by_bits!(@ $mac, $b, $i, $work, u32, |$($x),+| { $(let $x = $x as i16;)+ u32::from($e as u16) }),
            Type::S(32) => by_bits!(@ $mac, $b, $i, $work, i32, |$($x),+| $e),
            Type::S(64) => by_bits!(@ $mac, $b, $i, $work, i64, |$($x),+| $e),
            Type::U(16) => by_bits!(@ $mac, $b, $i, $work, u32, |$($x),+| { $(let $x = $x as u16;)+ u32::from($e as u16) }),
            Type::U(32) => by_bits!(@ $mac, $b, $i, $work, u32, |$($x),+| $e),
            Type::U(64) => by_bits!(@ $mac, $b, $i, $work, u64, |$($x),+| $e),
            _ => unknown($i),
        }
    };
}
use by_type;
