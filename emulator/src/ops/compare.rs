//! Comparisons and selections.

use super::half::{to_bf16, to_f16};
use super::minifloat::{widen_bf16, widen_f16};
use super::{Decoded, operands, scalar, unknown};
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Op, TRUE, Work};
use crate::exec::lanes::{LANES, Lane, compare, map3};
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

const WORK: Work = Work { class: Class::Integer, flops: 0, bytes: 0, store: false };

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    match i.family() {
        "setp" => setp(b, i),
        "set" => set(b, i),
        "selp" => selp(b, i),
        "slct" => slct(b, i),
        "testp" => testp(b, i),
        _ => unknown(i),
    }
}

/// Stores the outcome of a `setp`: combined with the third predicate, and its complement likewise.
#[inline(always)]
fn store(w: &mut Warp, i: &Instr, m: u32, outcome: u32) -> bool {
    let third = w.pred(i.c) ^ i.x[0];
    let combine = |v: u32| match i.flags {
        1 => v & third,
        2 => v | third,
        3 => v ^ third,
        _ => v,
    };
    w.set_pred(i.d, m, combine(outcome));
    if i.x[1] != 0 {
        w.set_pred(i.x[1], m, combine(!outcome));
    }
    false
}

macro_rules! comparison {
    ($A:ty, $view:expr, $f:expr) => {
        op!(|w, i, m| {
            let outcome = compare::<$A>(w, i, |x, y| $f($view(x), $view(y)));
            store(w, i, m, outcome)
        })
    };
}

macro_rules! ordered {
    ($i:expr, $name:expr, $A:ty, $view:expr) => {
        match $name {
            "eq" => comparison!($A, $view, |x, y| x == y),
            "ne" => comparison!($A, $view, |x, y| x != y),
            "lt" | "lo" => comparison!($A, $view, |x, y| x < y),
            "le" | "ls" => comparison!($A, $view, |x, y| x <= y),
            "gt" | "hi" => comparison!($A, $view, |x, y| x > y),
            "ge" | "hs" => comparison!($A, $view, |x, y| x >= y),
            _ => return unknown($i),
        }
    };
}

macro_rules! floating {
    ($i:expr, $name:expr, $A:ty, $view:expr) => {
        match $name {
            // Ordered: false where either is NaN.
            "eq" => comparison!($A, $view, |x, y| x == y),
            "ne" => comparison!($A, $view, |x, y| x < y || x > y),
            "lt" => comparison!($A, $view, |x, y| x < y),
            "le" => comparison!($A, $view, |x, y| x <= y),
            "gt" => comparison!($A, $view, |x, y| x > y),
            "ge" => comparison!($A, $view, |x, y| x >= y),
            // Unordered: true where either is NaN.
            "equ" => comparison!($A, $view, |x, y| !(x < y || x > y)),
            "neu" => comparison!($A, $view, |x, y| x != y),
            "ltu" => comparison!($A, $view, |x, y| !(x >= y)),
            "leu" => comparison!($A, $view, |x, y| !(x > y)),
            "gtu" => comparison!($A, $view, |x, y| !(x <= y)),
            "geu" => comparison!($A, $view, |x, y| !(x < y)),
            "num" => comparison!($A, $view, |x, y| x == x && y == y),
            "nan" => comparison!($A, $view, |x, y| x != x || y != y),
            _ => return unknown($i),
        }
    };
}

/// The op comparing values of `ty`, its sources read as 64-bit lanes where `ty` is that wide.
// With NaN, `!(x < y || x > y)` is not `x == y`: the comparisons are meant as written.
#[allow(clippy::neg_cmp_op_on_partial_ord, clippy::eq_op, clippy::double_comparisons, clippy::nonminimal_bool)]
fn comparer(i: &Instruction, name: &str, ty: Type) -> Result<Op, String> {
    Ok(match ty {
        Type::U(16) | Type::B(16) => ordered!(i, name, u32, |x: u32| x as u16),
        Type::S(16) => ordered!(i, name, u32, |x: u32| x as i16),
        Type::U(32) | Type::B(32) => ordered!(i, name, u32, |x: u32| x),
        Type::S(32) => ordered!(i, name, i32, |x: i32| x),
        Type::U(64) | Type::B(64) => ordered!(i, name, u64, |x: u64| x),
        Type::S(64) => ordered!(i, name, i64, |x: i64| x),
        Type::F(32) if i.has("ftz") => floating!(i, name, f32, super::float::flush),
        Type::F(32) => floating!(i, name, f32, |x: f32| x),
        Type::F(64) => floating!(i, name, f64, |x: f64| x),
        Type::F(16) => floating!(i, name, u32, |x: u32| widen_f16(x & 0xffff)),
        Type::Bf16 => floating!(i, name, u32, |x: u32| widen_bf16(x & 0xffff)),
        _ => return unknown(i),
    })
}

fn sources(b: &mut Builder, ty: Type, x: &Operand, y: &Operand) -> Result<(u32, u32), String> {
    if ty.bits() == 64 { Ok((b.src::<u64>(x)?, b.src::<u64>(y)?)) } else { Ok((b.src::<u32>(x)?, b.src::<u32>(y)?)) }
}

fn setp(b: &mut Builder, i: &Instruction) -> Decoded {
    let ty = scalar(i)?;
    let run = comparer(i, &i.opcode[1], ty)?;
    let [d, x, y, rest @ ..] = i.operands.as_slice() else { return Err("operands are missing".into()) };
    let mut instr = Instr::new(run);
    (instr.a, instr.b) = sources(b, ty, x, y)?;
    instr.c = TRUE;
    if let [third] = rest {
        let (slot, flip) = b.src_pred(third)?;
        (instr.c, instr.x[0]) = (slot, flip);
        instr.flags = match i.opcode[2].as_str() {
            "and" => 1,
            "or" => 2,
            "xor" => 3,
            _ => return unknown(i),
        };
    }
    match d {
        Operand::Pair(p, q) => (instr.d, instr.x[1]) = (b.dst_pred_named(p)?, b.dst_pred_named(q)?),
        other => instr.d = b.dst_pred(other)?,
    }
    Ok((instr, WORK))
}

/// `set.cmp.dtype.stype`: all ones, or 1.0, where the comparison holds.
fn set(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, x, y] = operands::<3>(i)?;
    let name = i.opcode[1].as_str();
    let types: Vec<Type> = i.opcode[2..].iter().filter_map(|p| Type::parse(p)).collect();
    let [to, from] = types[..] else { return unknown(i) };
    if matches!(from, Type::F16x2 | Type::Bf16x2) && from == to {
        return set_pair(b, i, name, from);
    }
    // The comparison goes to a predicate of its own and is then spread over the lanes.
    let hidden = b.fresh(crate::decode::builder::Width::Pred);
    let compare = comparer(i, name, from)?;
    let (a, bb) = sources(b, from, x, y)?;
    let one = match to {
        Type::U(32) | Type::S(32) => !0,
        Type::F(32) => 1.0f32.to_bits(),
        _ => return unknown(i),
    };
    let inner = Instr { a, b: bb, c: TRUE, d: hidden, ..Instr::new(compare) };
    b.helpers.push(inner);
    let run: Op = op!(|w, i, m| {
        let inner = &w.kernel().helpers[i.imm as usize];
        // SAFETY: the helper was chosen for this CPU when the kernel was decoded.
        unsafe { (inner.run)(w, inner, m) };
        let outcome = w.pred(inner.d);
        let values: [u32; LANES] = std::array::from_fn(|k| if outcome >> k & 1 != 0 { i.x[0] } else { 0 });
        w.write(i.d, m, &values);
        false
    });
    Ok((Instr { d: b.dst::<u32>(d)?, x: [one, 0, 0, 0], imm: b.helpers.len() as i64 - 1, ..Instr::new(run) }, WORK))
}

/// `set` on pairs of halves: 1.0 where the comparison holds.
fn set_pair(b: &mut Builder, i: &Instruction, name: &str, ty: Type) -> Decoded {
    let [d, x, y] = operands::<3>(i)?;
    const NAMES: [&str; 12] = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu"];
    let Some(code) = NAMES.iter().position(|n| *n == name) else { return unknown(i) };
    let (a, bb) = (b.src::<u32>(x)?, b.src::<u32>(y)?);
    let run = op!(|w, i, m| map3::<u32, u32, u32, u32>(w, i, m, |x, y, _| {
        let half = i.n == 0;
        let view = |v: u32| if half { widen_f16(v & 0xffff) } else { widen_bf16(v & 0xffff) };
        let one = if half { to_f16(1.0) } else { to_bf16(1.0) };
        let holds = |p: f32, q: f32| match (i.flags, p.partial_cmp(&q)) {
            (flag, None) => flag >= 6,
            (0 | 6, Some(o)) => o.is_eq(),
            (1 | 7, Some(o)) => o.is_ne(),
            (2 | 8, Some(o)) => o.is_lt(),
            (3 | 9, Some(o)) => o.is_le(),
            (4 | 10, Some(o)) => o.is_gt(),
            (_, Some(o)) => o.is_ge(),
        };
        let low = if holds(view(x), view(y)) { one } else { 0 };
        let high = if holds(view(x >> 16), view(y >> 16)) { one } else { 0 };
        low | high << 16
    }));
    let n = u8::from(ty == Type::Bf16x2);
    Ok((Instr { a, b: bb, c: a, d: b.dst::<u32>(d)?, flags: code as u8, n, ..Instr::new(run) }, WORK))
}

#[inline(always)]
fn select<T: Lane>(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let choice = w.pred(i.c) ^ i.x[0];
    let (a, b) = (*w.lanes::<T>(i.a), *w.lanes::<T>(i.b));
    let mut out = [T::default(); LANES];
    for k in 0..LANES {
        out[k] = if choice >> k & 1 != 0 { a[k] } else { b[k] };
    }
    w.write(i.d, m, &out);
    false
}

fn selp(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, x, y, p] = operands::<4>(i)?;
    let ty = scalar(i)?;
    let (a, bb) = sources(b, ty, x, y)?;
    let (c, flip) = b.src_pred(p)?;
    let (d, run) = if ty.bits() == 64 {
        (b.dst::<u64>(d)?, op!(|w, i, m| select::<u64>(w, i, m)))
    } else {
        (b.dst::<u32>(d)?, op!(|w, i, m| select::<u32>(w, i, m)))
    };
    Ok((Instr { a, b: bb, c, d, x: [flip, 0, 0, 0], ..Instr::new(run) }, WORK))
}

/// `slct`: the first source where the third is not negative.
fn slct(b: &mut Builder, i: &Instruction) -> Decoded {
    match (i.opcode[i.opcode.len() - 2].as_str(), scalar(i)?) {
        ("b32" | "u32" | "s32" | "f32", Type::S(32)) => {
            super::ternary!(b, i, WORK, u32, u32, u32, i32, |x, y, z| if z >= 0 { x } else { y })
        }
        ("b32" | "u32" | "s32" | "f32", Type::F(32)) => {
            super::ternary!(b, i, WORK, u32, u32, u32, f32, |x, y, z| if z >= 0.0 { x } else { y })
        }
        _ => unknown(i),
    }
}

fn testp(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, x] = operands::<2>(i)?;
    if scalar(i)? != Type::F(32) {
        return unknown(i);
    }
    let a = b.src::<f32>(x)?;
    let run = match i.opcode[1].as_str() {
        "finite" => comparison!(f32, |x: f32| x, |x: f32, _| x.is_finite()),
        "infinite" => comparison!(f32, |x: f32| x, |x: f32, _| x.is_infinite()),
        "number" => comparison!(f32, |x: f32| x, |x: f32, _| !x.is_nan()),
        "notanumber" => comparison!(f32, |x: f32| x, |x: f32, _| x.is_nan()),
        "normal" => comparison!(f32, |x: f32| x, |x: f32, _| x.is_normal()),
        "subnormal" => comparison!(f32, |x: f32| x, |x: f32, _| x.is_subnormal()),
        _ => return unknown(i),
    };
    Ok((Instr { a, b: a, c: TRUE, d: b.dst_pred(d)?, ..Instr::new(run) }, WORK))
}
