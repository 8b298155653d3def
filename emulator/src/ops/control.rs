//! Branches, barriers, fences and ends.

use super::{Decoded, unknown};
use crate::check::finding::FindingKind;
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Kind, Work};
use crate::exec::lanes::LANES;
use crate::exec::simd::{nothing, op};
use crate::ptx::ast::{Instruction, Operand};

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    let work = Work::new(Class::Control, 0);
    let plain = |kind| Ok((Instr { kind, ..Instr::new(nothing) }, work));
    match i.family() {
        "bra" if i.operands.len() == 1 => plain(Kind::Branch),
        "brx" if i.has("idx") && i.operands.len() == 2 => {
            let a = b.src::<u32>(&i.operands[0])?;
            Ok((Instr { kind: Kind::IndexedBranch, a, ..Instr::new(nothing) }, work))
        }
        "ret" | "exit" => plain(Kind::Exit),
        "trap" | "brkpt" => {
            let run =
                op!(|w, _i, m| w.trap(FindingKind::Trap, m.trailing_zeros() as usize, "the kernel gave up".into()));
            Ok((Instr::new(run), work))
        }
        "bar" if i.has("warp") => {
            let member = b.src::<u32>(i.operands.first().ok_or("the member mask is missing")?)?;
            let run = op!(|w, _i, _m| {
                let index = w.index;
                if let Some(checker) = &mut w.env().checker {
                    checker.order.warp_sync(index);
                }
                false
            });
            Ok((Instr { kind: Kind::Converge, target: member, ..Instr::new(run) }, work))
        }
        "bar" | "barrier" => barrier(b, i, work),
        "membar" | "fence" => {
            // A fence of the block alone releases nothing to other blocks.
            if i.has("cta") {
                return plain(Kind::Plain);
            }
            if i.has("proxy") || i.has("mbarrier_init") {
                return unknown(i);
            }
            let run = op!(|w, _i, _m| {
                if let Some(checker) = &mut w.env().checker {
                    checker.order.fence();
                }
                false
            });
            Ok((Instr::new(run), work))
        }
        "nanosleep" | "griddepcontrol" => plain(Kind::Plain),
        _ => unknown(i),
    }
}

/// `bar.sync a {, b}` and `bar.red.op`.
fn barrier(b: &mut Builder, i: &Instruction, work: Work) -> Decoded {
    let parts: Vec<&str> =
        i.opcode[1..].iter().map(String::as_str).filter(|p| *p != "cta" && *p != "aligned").collect();
    let mut instr = Instr { kind: Kind::Barrier, ..Instr::new(nothing) };
    let operands: &[Operand] = match parts[..] {
        ["sync"] => &i.operands,
        ["red", kind, ty] => {
            let [d, rest @ .., p] = i.operands.as_slice() else { return Err("operands are missing".into()) };
            (instr.c, instr.x[0]) = b.src_pred(p)?;
            match (kind, ty) {
                ("popc", "u32") => {
                    instr.d = b.dst::<u32>(d)?;
                    instr.n = 2;
                    instr.run = op!(|w, i, m| {
                        let count = w.barrier_result;
                        w.write(i.d, m, &[count; LANES]);
                        false
                    });
                }
                ("and" | "or", "pred") => {
                    instr.d = b.dst_pred(d)?;
                    instr.n = if kind == "and" { 3 } else { 4 };
                    instr.run = op!(|w, i, m| {
                        let all = if w.barrier_result != 0 { !0 } else { 0 };
                        w.set_pred(i.d, m, all);
                        false
                    });
                }
                _ => return unknown(i),
            }
            rest
        }
        _ => return unknown(i),
    };
    instr.a = b.src::<u32>(operands.first().ok_or("the barrier's number is missing")?)?;
    if let Some(count) = operands.get(1) {
        instr.b = b.src::<u32>(count)?;
    }
    Ok((instr, work))
}
