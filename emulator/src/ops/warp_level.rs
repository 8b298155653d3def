//! Exchanges between the lanes of a warp: shuffles, votes, matches and reductions.
//!
//! The scheduler runs these only once all lanes named in the member mask have come, and apart for different masks: here
//! `m` is exactly the lanes that take part together.

use super::{Decoded, operands, scalar, unknown};
use crate::check::finding::FindingKind;
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Kind, Op, Work};
use crate::exec::lanes::{LANES, active};
use crate::exec::simd::op;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

const WORK: Work = Work { class: Class::Warp, flops: 0, bytes: 0, store: false };

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    if i.family() != "activemask" && !i.has("sync") {
        return unknown(i);
    }
    match i.family() {
        "shfl" => shfl(b, i),
        "vote" => vote(b, i),
        "match" => matches(b, i),
        "redux" => redux(b, i),
        "activemask" => {
            let run = op!(|w, i, m| {
                w.write(i.d, m, &[m; LANES]);
                false
            });
            Ok((Instr { d: b.dst::<u32>(&i.operands[0])?, ..Instr::new(run) }, WORK))
        }
        "elect" => {
            let [d, member] = operands::<2>(i)?;
            let Operand::Pair(d, p) = d else { return Err("elect writes a pair".into()) };
            let run = op!(|w, i, m| {
                let leader = m.trailing_zeros();
                w.write(i.d, m, &[leader; LANES]);
                w.set_pred(i.x[0], m, 1 << leader);
                false
            });
            let d = b.dst::<u32>(&Operand::Name(d.clone()).ignored())?;
            let p = b.dst_pred_named(p)?;
            let target = b.src::<u32>(member)?;
            Ok((Instr { kind: Kind::Converge, d, x: [p, 0, 0, 0], target, ..Instr::new(run) }, WORK))
        }
        _ => unknown(i),
    }
}

impl Operand {
    /// `_` by name is the ignored operand.
    fn ignored(self) -> Operand {
        if self == Operand::Name("_".into()) { Operand::Ignored } else { self }
    }
}

/// `shfl.sync.mode.b32 d|p, a, b, c, members`.
fn shfl(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a, lane, clamp, member] = operands::<5>(i)?;
    if scalar(i)? != Type::B(32) {
        return unknown(i);
    }
    let mut instr = Instr { kind: Kind::Converge, ..Instr::new(shuffle) };
    instr.n = match () {
        () if i.has("up") => 0,
        () if i.has("down") => 1,
        () if i.has("bfly") => 2,
        () if i.has("idx") => 3,
        () => return unknown(i),
    };
    (instr.a, instr.b, instr.c) = (b.src::<u32>(a)?, b.src::<u32>(lane)?, b.src::<u32>(clamp)?);
    instr.target = b.src::<u32>(member)?;
    match d {
        Operand::Pair(d, p) => {
            instr.d = b.dst::<u32>(&Operand::Name(d.clone()).ignored())?;
            instr.x[0] = b.dst_pred_named(p)?;
        }
        other => instr.d = b.dst::<u32>(other)?,
    }
    Ok((instr, WORK))
}

fn shuffle(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let (value, by, clamp) = (*w.lanes::<u32>(i.a), *w.lanes::<u32>(i.b), *w.lanes::<u32>(i.c));
    let (mut out, mut valid) = ([0; LANES], 0u32);
    for lane in active(m) {
        let (by, bound, segment) = (by[lane] & 31, clamp[lane] & 31, clamp[lane] >> 8 & 31);
        let (me, low) = (lane as u32, lane as u32 & segment);
        let high = low | (bound & !segment);
        // The source lane, and whether it lies inside the segment.
        let (source, inside) = match i.n {
            0 => (me.wrapping_sub(by), me as i32 - by as i32 >= high as i32),
            1 => (me + by, me + by <= high),
            2 => (me ^ by, (me ^ by) <= high),
            _ => (low | (by & !segment), (low | (by & !segment)) <= high),
        };
        let source = if inside { source as usize } else { lane };
        valid |= u32::from(inside) << lane;
        if w.watched && m >> source & 1 == 0 {
            w.report(FindingKind::WarpDivergence, lane, || {
                format!("the shuffle reads lane {source}, which takes no part")
            });
        }
        out[lane] = value[source];
    }
    w.write(i.d, m, &out);
    if i.x[0] != 0 {
        w.set_pred(i.x[0], m, valid);
    }
    false
}

/// `vote.sync.{ballot.b32, any.pred, all.pred, uni.pred} d, p, members`.
fn vote(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, p, member] = operands::<3>(i)?;
    let (a, flip) = b.src_pred(p)?;
    let target = b.src::<u32>(member)?;
    let (d, run): (u32, Op) = if i.has("ballot") {
        let run = op!(|w, i, m| {
            let ballot = (w.pred(i.a) ^ i.x[0]) & m;
            w.write(i.d, m, &[ballot; LANES]);
            false
        });
        (b.dst::<u32>(d)?, run)
    } else {
        let run = op!(|w, i, m| {
            let yes = (w.pred(i.a) ^ i.x[0]) & m;
            let outcome = match i.n {
                0 => yes != 0,
                1 => yes == m,
                _ => yes == 0 || yes == m,
            };
            w.set_pred(i.d, m, if outcome { !0 } else { 0 });
            false
        });
        (b.dst_pred(d)?, run)
    };
    let n = match () {
        () if i.has("ballot") || i.has("any") => 0,
        () if i.has("all") => 1,
        () if i.has("uni") => 2,
        () => return unknown(i),
    };
    Ok((Instr { kind: Kind::Converge, a, d, n, target, x: [flip, 0, 0, 0], ..Instr::new(run) }, WORK))
}

/// `match.any.sync.b32 d, a, members` and `match.all.sync.b32 d|p, a, members`.
fn matches(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a, member] = operands::<3>(i)?;
    let wide = scalar(i)?.bits() == 64;
    let mut instr = Instr { kind: Kind::Converge, ..Instr::new(match_lanes) };
    instr.flags = u8::from(wide);
    instr.a = if wide { b.src::<u64>(a)? } else { b.src::<u32>(a)? };
    instr.target = b.src::<u32>(member)?;
    instr.n = u8::from(i.has("all"));
    match d {
        Operand::Pair(d, p) => {
            instr.d = b.dst::<u32>(&Operand::Name(d.clone()).ignored())?;
            instr.x[0] = b.dst_pred_named(p)?;
        }
        other => instr.d = b.dst::<u32>(other)?,
    }
    Ok((instr, WORK))
}

fn match_lanes(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let values: [u64; LANES] = if i.flags != 0 { *w.lanes::<u64>(i.a) } else { w.lanes::<u32>(i.a).map(u64::from) };
    let mut out = [0; LANES];
    for lane in active(m) {
        out[lane] = active(m).filter(|&k| values[k] == values[lane]).fold(0, |bits, k| bits | 1 << k);
    }
    if i.n != 0 {
        let all = out[m.trailing_zeros() as usize] == m;
        out = [if all { m } else { 0 }; LANES];
        if i.x[0] != 0 {
            w.set_pred(i.x[0], m, if all { !0 } else { 0 });
        }
    }
    w.write(i.d, m, &out);
    false
}

/// `redux.sync.op.type d, a, members`.
fn redux(b: &mut Builder, i: &Instruction) -> Decoded {
    let [d, a, member] = operands::<3>(i)?;
    macro_rules! fold {
        ($f:expr) => {
            op!(|w, i, m| {
                let values = *w.lanes::<u32>(i.a);
                let first = m.trailing_zeros() as usize;
                let total = active(m).skip(1).fold(values[first], |sum, k| $f(sum, values[k]));
                w.write(i.d, m, &[total; LANES]);
                false
            })
        };
    }
    let name = i.opcode[2].as_str();
    let run = match (name, scalar(i)?) {
        ("add", Type::U(32) | Type::S(32)) => fold!(|x: u32, y: u32| x.wrapping_add(y)),
        ("min", Type::U(32)) => fold!(|x: u32, y: u32| x.min(y)),
        ("max", Type::U(32)) => fold!(|x: u32, y: u32| x.max(y)),
        ("min", Type::S(32)) => fold!(|x: u32, y: u32| (x as i32).min(y as i32) as u32),
        ("max", Type::S(32)) => fold!(|x: u32, y: u32| (x as i32).max(y as i32) as u32),
        ("and", Type::B(32)) => fold!(|x: u32, y: u32| x & y),
        ("or", Type::B(32)) => fold!(|x: u32, y: u32| x | y),
        ("xor", Type::B(32)) => fold!(|x: u32, y: u32| x ^ y),
        _ => return unknown(i),
    };
    let (a, d, target) = (b.src::<u32>(a)?, b.dst::<u32>(d)?, b.src::<u32>(member)?);
    Ok((Instr { kind: Kind::Converge, a, d, target, ..Instr::new(run) }, WORK))
}
