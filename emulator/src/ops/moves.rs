//! Moves, packing and unpacking, and conversions between address spaces.

use super::{Decoded, operands, scalar, unary, unknown};
use crate::decode::builder::{Builder, Symbol, Width};
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::access::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::exec::lanes::{LANES, active, map1};
use crate::exec::simd::op;
use crate::ptx::ast::{Instruction, Operand, Type};

const WORK: Work = Work { class: Class::Integer, flops: 0, bytes: 0, store: false };

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    match i.family() {
        "mov" => mov(b, i),
        "cvta" => cvta(b, i),
        "isspacep" => isspacep(b, i),
        _ => unknown(i),
    }
}

fn mov(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a] = operands::<2>(i)?;
    let ty = scalar(i)?;
    match (d, a) {
        (_, Operand::Vector(parts)) => return pack(b, d, parts),
        (Operand::Vector(parts), _) => return unpack(b, parts, a),
        (_, Operand::Name(name)) if name == "%clock" || name == "%clock_hi" => return clock(b, d, false),
        (_, Operand::Name(name)) if name == "%clock64" || name == "%globaltimer" => return clock(b, d, true),
        _ => {}
    }
    if ty == Type::Pred {
        let (slot, flip) = b.src_pred(a)?;
        let run = op!(|w, i, m| {
            let value = w.pred(i.a) ^ i.x[0];
            w.set_pred(i.d, m, value);
            false
        });
        return Ok((Instr { d: b.dst_pred(d)?, a: slot, x: [flip, 0, 0, 0], ..Instr::new(run) }, WORK));
    }
    if ty.bits() == 64 {
        unary!(b, i, WORK, u64, u64, |x| x)
    } else if ty.bits() == 16 {
        unary!(b, i, WORK, u32, u32, |x| x & 0xffff)
    } else {
        unary!(b, i, WORK, u32, u32, |x| x)
    }
}

/// Time is counted in warp instructions, so that it is the same every run.
fn clock(b: &mut Builder, d: &Operand, wide: bool) -> Decoded {
    let (d, run) = if wide {
        (
            b.dst::<u64>(d)?,
            op!(|w, i, m| {
                let now: u64 = w.env().counts.iter().map(|c| c.0).sum();
                w.write(i.d, m, &[now; LANES]);
                false
            }),
        )
    } else {
        (
            b.dst::<u32>(d)?,
            op!(|w, i, m| {
                let now: u64 = w.env().counts.iter().map(|c| c.0).sum();
                w.write(i.d, m, &[now as u32; LANES]);
                false
            }),
        )
    };
    Ok((Instr { d, ..Instr::new(run) }, WORK))
}

/// Parts of a vector operand with their width: all of them the same.
fn part_width(b: &mut Builder, parts: &[Operand]) -> Result<Width, String> {
    parts.iter().find_map(|p| b.any(p).ok()).map(|r| r.width).ok_or_else(|| "a vector of no registers".into())
}

/// `mov.b64 d, {a, b}` and its kin: parts joined, the first lowest.
fn pack(b: &mut Builder, d: &Operand, parts: &[Operand]) -> Decoded {
    let wide = b.any(d)?.width == Width::W64;
    let bits = if wide { 64 } else { 32 } / parts.len() as u32;
    let mut x = [0; 4];
    for (slot, part) in x.iter_mut().zip(parts) {
        *slot = b.src::<u32>(part)?;
    }
    let run = match (wide, parts.len()) {
        (true, 2) => op!(|w, i, m| {
            let (low, high) = (*w.lanes::<u32>(i.x[0]), *w.lanes::<u32>(i.x[1]));
            let out: [u64; LANES] = std::array::from_fn(|k| u64::from(high[k]) << 32 | u64::from(low[k]));
            w.write(i.d, m, &out);
            false
        }),
        (true, 4) => op!(|w, i, m| {
            let parts: [[u32; LANES]; 4] = std::array::from_fn(|p| *w.lanes::<u32>(i.x[p]));
            let out: [u64; LANES] =
                std::array::from_fn(|k| (0..4).fold(0, |v, p| v | u64::from(parts[p][k] & 0xffff) << (16 * p)));
            w.write(i.d, m, &out);
            false
        }),
        (false, 2) => op!(|w, i, m| {
            let (low, high) = (*w.lanes::<u32>(i.x[0]), *w.lanes::<u32>(i.x[1]));
            let out: [u32; LANES] = std::array::from_fn(|k| high[k] << 16 | (low[k] & 0xffff));
            w.write(i.d, m, &out);
            false
        }),
        _ => return Err(format!("packing {} parts of {bits} bits is unknown here", parts.len())),
    };
    let d = if wide { b.dst::<u64>(d)? } else { b.dst::<u32>(d)? };
    Ok((Instr { d, x, ..Instr::new(run) }, WORK))
}

/// `mov.b64 {a, b}, s`: the inverse.
fn unpack(b: &mut Builder, parts: &[Operand], a: &Operand) -> Decoded {
    let width = part_width(b, parts)?;
    let total = parts.len() as u32 * if width == Width::W16 { 16 } else { 32 };
    let wide = total == 64;
    let source = if wide { b.src::<u64>(a)? } else { b.src::<u32>(a)? };
    let run = match (width, wide) {
        (Width::W32, true) => op!(|w, i, m| {
            let value = *w.lanes::<u64>(i.a);
            w.write(i.x[0], m, &value.map(|v| v as u32));
            w.write(i.x[1], m, &value.map(|v| (v >> 32) as u32));
            false
        }),
        (Width::W16, true) => op!(|w, i, m| {
            let value = *w.lanes::<u64>(i.a);
            for p in 0..4 {
                w.write(i.x[p], m, &value.map(|v| (v >> (16 * p)) as u32 & 0xffff));
            }
            false
        }),
        (Width::W16, false) if total == 32 => op!(|w, i, m| {
            let value = *w.lanes::<u32>(i.a);
            w.write(i.x[0], m, &value.map(|v| v & 0xffff));
            w.write(i.x[1], m, &value.map(|v| v >> 16));
            false
        }),
        _ => return Err(format!("unpacking {} parts is unknown here", parts.len())),
    };
    let mut x = [0; 4];
    for (slot, part) in x.iter_mut().zip(parts) {
        *slot = b.dst::<u32>(part)?;
    }
    Ok((Instr { a: source, x, ..Instr::new(run) }, WORK))
}

fn window(i: &Instruction) -> Option<u64> {
    match i
        .opcode
        .iter()
        .find(|p| ["global", "const", "shared", "shared::cta", "local", "param"].contains(&p.as_str()))?
        .as_str()
    {
        "shared" | "shared::cta" => Some(SHARED_WINDOW),
        "local" => Some(LOCAL_WINDOW),
        "param" => Some(PARAM_WINDOW),
        _ => Some(0),
    }
}

fn cvta(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a] = operands::<2>(i)?;
    let Some(base) = window(i) else { return unknown(i) };
    if scalar(i)?.bits() != 64 {
        return unknown(i);
    }
    let run = if base == 0 {
        op!(|w, i, m| map1::<u64, u64>(w, i, m, |x| x))
    } else {
        op!(|w, i, m| map1::<u64, u64>(w, i, m, |x| x.wrapping_add(i.imm as u64)))
    };
    let imm = if i.has("to") { (base as i64).wrapping_neg() } else { base as i64 };
    // A symbol is an address in its own space already.
    if let Operand::Name(name) = a
        && matches!(b.symbols.get(name), Some(Symbol::Param(_)))
        && base != PARAM_WINDOW
    {
        return unknown(i);
    }
    Ok((Instr { a: b.src::<u64>(a)?, d: b.dst::<u64>(d)?, imm, ..Instr::new(run) }, WORK))
}

fn isspacep(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a] = operands::<2>(i)?;
    let Some(base) = window(i) else { return unknown(i) };
    let run = op!(|w, i, m| {
        let address = *w.lanes::<u64>(i.a);
        let base = i.imm as u64;
        let inside = |x: u64, base: u64| x.wrapping_sub(base) < WINDOW;
        let mut out = 0;
        for k in active(m) {
            let x = address[k];
            let special = inside(x, SHARED_WINDOW) || inside(x, LOCAL_WINDOW) || inside(x, PARAM_WINDOW);
            out |= u32::from(if base == 0 { !special } else { inside(x, base) }) << k;
        }
        w.set_pred(i.d, m, out);
        false
    });
    Ok((Instr { a: b.src::<u64>(a)?, d: b.dst_pred(d)?, imm: base as i64, ..Instr::new(run) }, WORK))
}
