//! `cp.async`: copies from global to shared memory that arrive only when they are awaited.
//!
//! The bytes are read when the copy starts and written when its group is awaited, the latest moment allowed; what is
//! never awaited never arrives.

use super::{Decoded, unknown};
use crate::check::checker::Touch;
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::access::{Space, Target, WIDE_ADDRESS};
use crate::exec::lanes::active;
use crate::exec::warp::{Copy, Warp};
use crate::ptx::ast::{Instruction, Operand};

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    let control = Work::new(Class::Control, 0);
    if !i.has("async") || i.has("bulk") || i.has("mbarrier") {
        return unknown(i);
    }
    if i.has("commit_group") {
        return Ok((Instr::new(commit), control));
    }
    if i.has("wait_all") {
        return Ok((Instr { imm: -1, ..Instr::new(wait) }, control));
    }
    if i.has("wait_group") {
        let Some(Operand::Int(pending)) = i.operands.first() else {
            return Err("the number of groups is missing".into());
        };
        return Ok((Instr { imm: *pending as i64, ..Instr::new(wait) }, control));
    }
    let known = |p: &String| {
        ["async", "ca", "cg", "shared", "shared::cta", "global"].contains(&p.as_str()) || p.starts_with("L2::")
    };
    if let Some(part) = i.opcode[1..].iter().find(|p| !known(p)) {
        return Err(format!("the emulator does not know .{part} in {}", i.name()));
    }
    let [Operand::Address(to, to_offset), Operand::Address(from, from_offset), Operand::Int(bytes), rest @ ..] =
        i.operands.as_slice()
    else {
        return Err("two addresses and a size are due".into());
    };
    if ![4, 8, 16].contains(bytes) {
        return Err(format!("a copy of {bytes} bytes"));
    }
    let mut instr =
        Instr { n: *bytes as u8, imm: *from_offset, flags: WIDE_ADDRESS, target: b.cache(), ..Instr::new(start) };
    let narrow = match to.as_ref() {
        Operand::Name(name) => b.register(name).is_none_or(|r| r.width != crate::decode::builder::Width::W64),
        _ => return Err("a register or a name is due".into()),
    };
    instr.b = if narrow { b.src::<u32>(to)? } else { b.src::<u64>(to)? };
    instr.x = [u32::from(narrow), *to_offset as u32, 0, 0];
    instr.a = b.src::<u64>(from)?;
    instr.c = match rest {
        [] => b.constant::<u32>(*bytes),
        [size] => b.src::<u32>(size)?,
        _ => return unknown(i),
    };
    Ok((instr, Work { class: Class::Copy, flops: 0, bytes: *bytes as u32, store: false }))
}

/// Starts copies: reads the source, remembers where it goes. Bytes beyond the source size are zero.
fn start(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let (from, bytes) = (w.addresses(i), u64::from(i.n));
    let to: [u64; 32] = std::array::from_fn(|k| {
        let base = if i.x[0] != 0 { u64::from(w.lanes::<u32>(i.b)[k]) } else { w.lanes::<u64>(i.b)[k] };
        base.wrapping_add(i.x[1] as i32 as i64 as u64) & 0xffff_ffff
    });
    if w.watched {
        w.count_traffic(Space::Global, &from, m, bytes, false);
        w.count_traffic(Space::Shared, &to, m, bytes, true);
    }
    for lane in active(m) {
        let size = u64::from(w.lanes::<u32>(i.c)[lane]).min(bytes);
        let mut data = [0; 16];
        if size > 0 {
            let Some(source) = w.resolve(i, Space::Global, from[lane], size, lane) else { return true };
            if w.watched {
                w.observe(&source, size, lane, Touch::Read);
            }
            // SAFETY: `resolve` checked the range.
            unsafe { std::ptr::copy_nonoverlapping(source.host, data.as_mut_ptr(), size as usize) };
        }
        let Some(target) = w.resolve(i, Space::Shared, to[lane], bytes, lane) else { return true };
        if w.watched {
            w.observe(&target, bytes, lane, Touch::Write(true));
            if let Some(checker) = &mut w.env().checker {
                checker.shared.set_forbidden(target.at, bytes, true);
            }
        }
        let group = w.committed[lane];
        w.copies.push(Copy { lane: lane as u8, group, to: target.at as u32, bytes: (data, i.n) });
    }
    false
}

fn commit(w: &mut Warp, _: &Instr, m: u32) -> bool {
    active(m).for_each(|lane| w.committed[lane] += 1);
    false
}

/// Lets arrive what all but the last `imm` groups of a lane hold; everything, committed or not, for -1.
fn wait(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let mut copies = std::mem::take(&mut w.copies);
    copies.retain(|copy| {
        let lane = usize::from(copy.lane);
        let due = i.imm < 0 || i64::from(copy.group) < i64::from(w.committed[lane]) - i.imm;
        let arrives = m >> lane & 1 != 0 && due;
        if arrives {
            arrive(w, copy);
        }
        !arrives
    });
    w.copies = copies;
    false
}

fn arrive(w: &mut Warp, copy: &Copy) {
    let (data, bytes) = copy.bytes;
    // SAFETY: the range was checked when the copy started.
    let host = unsafe { w.shared.add(copy.to as usize) };
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), host, bytes.into()) };
    if let Some(checker) = &mut w.env().checker {
        checker.shared.set_forbidden(copy.to.into(), bytes.into(), false);
        let target = Target { host, space: Space::Shared, at: copy.to.into(), index: 0 };
        w.observe(&target, bytes.into(), copy.lane.into(), Touch::Write(true));
    }
}
