//! Runs one warp until it ends, waits at a barrier or traps.
//!
//! Divergence: lanes are kept in groups at one instruction each. The group furthest behind runs (the smallest program
//! counter), so groups meet again where their paths do. A group at an instruction that needs other lanes waits there.

use super::simd::dispatched;
use super::warp::{Group, Waiting, Warp};
use crate::check::finding::FindingKind;
use crate::decode::ir::{Instr, Kind, TRUE};

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All lanes exited.
    Done,
    /// It waits at a barrier.
    Barrier,
    /// It trapped; the reason is in [`Warp::fault`].
    Trap,
}

dispatched! {
    /// Runs a warp whose memory accesses and registers nobody watches.
    pub fn run_fast(w: &mut Warp, pc: u32, patience: u64) -> Stop {
        run::<false>(w, pc, patience)
    }
}

dispatched! {
    /// Runs a warp under the checkers.
    pub fn run_watched(w: &mut Warp, pc: u32, patience: u64) -> Stop {
        run::<true>(w, pc, patience)
    }
}

/// The smallest program counter of a parked group beyond `pc`: where the running group must stop to meet it.
#[inline(always)]
fn horizon(w: &Warp, pc: u32) -> u32 {
    w.parked.iter().map(|g| g.pc).filter(|&p| p > pc).min().unwrap_or(u32::MAX)
}

/// Parks the running group at `pc` and takes the group that runs next; none where every group waits or none is left.
#[cold]
fn switch(w: &mut Warp, pc: u32, waiting: bool) -> Option<u32> {
    if w.active != 0 {
        match w.parked.iter_mut().find(|g| g.pc == pc) {
            Some(g) => *g = Group { pc, lanes: g.lanes | w.active, waiting: false },
            None => w.parked.push(Group { pc, lanes: w.active, waiting }),
        }
        w.active = 0;
    }
    let next = w.parked.iter().enumerate().filter(|(_, g)| !g.waiting).min_by_key(|(_, g)| g.pc).map(|(k, _)| k)?;
    let group = w.parked.swap_remove(next);
    w.active = group.lanes;
    Some(group.pc)
}

/// No group can run although lanes are alive: names who waits where, and for whom.
#[cold]
fn stuck(w: &mut Warp) -> Stop {
    let first = *w.parked.iter().min_by_key(|g| g.pc).expect("a stuck warp has groups");
    let others: Vec<String> =
        w.parked.iter().filter(|g| g.pc != first.pc).map(|g| format!("{:#010x} at pc {}", g.lanes, g.pc)).collect();
    let barrier = w.kernel().code[first.pc as usize].kind == Kind::Barrier;
    let kind = if barrier { FindingKind::BarrierDivergence } else { FindingKind::WarpDivergence };
    let elsewhere =
        if others.is_empty() { "no other lane can come".into() } else { format!("lanes {} wait", others.join(", ")) };
    let detail = format!("lanes {:#010x} wait here for lanes that never come; {elsewhere}", first.lanes);
    w.pc = first.pc;
    w.trap(kind, first.lanes.trailing_zeros() as usize, detail);
    Stop::Trap
}

#[inline(always)]
fn run<const WATCHED: bool>(w: &mut Warp, start: u32, mut patience: u64) -> Stop {
    let code: &[Instr] = &w.kernel().code;
    let all_counts = w.env().counts.as_mut_ptr();
    let mut pc = start;
    let mut limit = horizon(w, pc);
    let mut lanes = u64::from(w.active.count_ones());
    macro_rules! resume {
        (waiting, $counts:ident, $count:ident) => {{
            // It will be executed, and counted, when the others have come.
            $counts.0 -= 1;
            $counts.1 -= $count;
            resume!(true);
        }};
        ($waiting:expr) => {{
            match switch(w, pc, $waiting) {
                Some(next) => {
                    pc = next;
                    limit = horizon(w, pc);
                    lanes = u64::from(w.active.count_ones());
                    continue;
                }
                None if w.parked.is_empty() => return Stop::Done,
                None => return stuck(w),
            }
        }};
    }
    if w.active == 0 {
        match switch(w, pc, false) {
            Some(next) => {
                pc = next;
                limit = horizon(w, pc);
                lanes = u64::from(w.active.count_ones());
            }
            None => return Stop::Done,
        }
    }
    loop {
        if pc >= limit {
            resume!(false);
        }
        // SAFETY: the program counter starts at zero, branches go to labels inside the code, and the last instruction is
        // an exit, so it never runs past the end.
        let i = unsafe { code.get_unchecked(pc as usize) };
        let (mask, count) = if i.guard == TRUE {
            (w.active, lanes)
        } else {
            let mask = w.active & (w.pred(i.guard) ^ i.flip);
            (mask, u64::from(mask.count_ones()))
        };
        // SAFETY: there is one counter an instruction, and the list does not move while a warp runs.
        let counts = unsafe { &mut *all_counts.add(pc as usize) };
        counts.0 += 1;
        counts.1 += count;
        if WATCHED {
            w.pc = pc;
            watch_registers(w, i, mask);
        }
        match i.kind {
            Kind::Plain => {
                // SAFETY: the op was chosen for this CPU when the kernel was decoded.
                if mask != 0 && unsafe { (i.run)(w, i, mask) } {
                    w.pc = pc;
                    return Stop::Trap;
                }
                pc += 1;
            }
            Kind::Branch => {
                w.env().branches.0 += 1;
                let taken = i.target;
                if mask == w.active {
                    if taken <= pc {
                        patience = patience.saturating_sub(1);
                        if patience == 0 {
                            w.pc = pc;
                            w.trap(FindingKind::Hang, mask.trailing_zeros() as usize, "too many backward jumps".into());
                            return Stop::Trap;
                        }
                        pc = taken;
                        if !w.parked.is_empty() {
                            resume!(false);
                        }
                    }
                    pc = taken;
                } else if mask == 0 {
                    pc += 1;
                } else {
                    w.env().branches.1 += 1;
                    patience = patience.saturating_sub(1);
                    if patience == 0 {
                        w.pc = pc;
                        w.trap(FindingKind::Hang, mask.trailing_zeros() as usize, "too many divergent jumps".into());
                        return Stop::Trap;
                    }
                    w.active &= !mask;
                    match w.parked.iter_mut().find(|g| g.pc == taken) {
                        Some(g) => *g = Group { pc: taken, lanes: g.lanes | mask, waiting: false },
                        None => w.parked.push(Group { pc: taken, lanes: mask, waiting: false }),
                    }
                    pc += 1;
                    resume!(false);
                }
            }
            Kind::IndexedBranch => {
                w.env().branches.0 += 1;
                w.active &= !mask;
                if !scatter(w, i, mask) {
                    w.pc = pc;
                    return Stop::Trap;
                }
                pc += 1;
                resume!(false);
            }
            Kind::Exit => {
                w.alive &= !mask;
                w.active &= !mask;
                // Whoever waits for these lanes must look again.
                w.parked.iter_mut().for_each(|g| g.waiting = false);
                lanes = u64::from(w.active.count_ones());
                pc += 1;
                if w.active == 0 {
                    resume!(false);
                }
            }
            Kind::Converge => {
                if mask == 0 {
                    pc += 1;
                    continue;
                }
                w.pc = pc;
                match converged(w, i, mask) {
                    Convergence::Wait => resume!(waiting, counts, count),
                    Convergence::Trap => return Stop::Trap,
                    Convergence::Ready => {
                        let mut rest = mask;
                        while rest != 0 {
                            let together = rest & members(w, i, rest);
                            // SAFETY: as for plain instructions.
                            if unsafe { (i.run)(w, i, together) } {
                                return Stop::Trap;
                            }
                            rest &= !together;
                        }
                        pc += 1;
                    }
                }
            }
            Kind::Barrier => {
                if mask == 0 {
                    pc += 1;
                    continue;
                }
                w.pc = pc;
                if w.active != w.alive || mask != w.active {
                    if mask != w.active {
                        let detail = format!("lanes {:#010x} of {:#010x} skip the barrier", w.active & !mask, w.active);
                        w.trap(FindingKind::BarrierDivergence, mask.trailing_zeros() as usize, detail);
                        return Stop::Trap;
                    }
                    resume!(waiting, counts, count);
                }
                let id = w.lanes::<u32>(i.a)[mask.trailing_zeros() as usize];
                let count = if i.b == 0 { 0 } else { w.lanes::<u32>(i.b)[mask.trailing_zeros() as usize] };
                w.barrier = Some(Waiting { id, count });
                w.barrier_votes = (mask, if i.n > 1 { w.pred(i.c) ^ i.x[0] } else { 0 });
                return Stop::Barrier;
            }
        }
    }
}

enum Convergence {
    Ready,
    Wait,
    Trap,
}

/// The lanes that take part with the first lane of `mask`: all of `mask`, or those its member mask names.
#[inline(always)]
fn members(w: &Warp, i: &Instr, mask: u32) -> u32 {
    if i.target == 0 {
        return !0;
    }
    let named = w.lanes::<u32>(i.target);
    let mine = named[mask.trailing_zeros() as usize];
    // Lanes that name other members are served in a round of their own.
    (0..32).filter(|&k| named[k] == mine).fold(0, |m, k| m | 1 << k)
}

/// Whether all the lanes that the lanes of `mask` name are here.
#[inline(always)]
fn converged(w: &mut Warp, i: &Instr, mask: u32) -> Convergence {
    if i.target == 0 {
        return if mask == w.alive { Convergence::Ready } else { wait_or_trap(w, mask, w.alive & !mask) };
    }
    let named = *w.lanes::<u32>(i.target);
    if named == [!0; 32] && mask == w.alive {
        return Convergence::Ready;
    }
    let mut missing = 0;
    for lane in super::lanes::active(mask) {
        if named[lane] >> lane & 1 == 0 {
            w.trap(
                FindingKind::WarpDivergence,
                lane,
                format!("the lane is not in its own member mask {:#010x}", named[lane]),
            );
            return Convergence::Trap;
        }
        missing |= named[lane] & w.alive & !mask;
    }
    if missing == 0 { Convergence::Ready } else { wait_or_trap(w, mask, missing) }
}

/// Lanes that stand at this instruction but are switched off by its guard will never take part.
fn wait_or_trap(w: &mut Warp, mask: u32, missing: u32) -> Convergence {
    if w.active & missing == 0 {
        return Convergence::Wait;
    }
    let detail = format!("lanes {:#010x} named in the mask skip the instruction", w.active & missing);
    w.trap(FindingKind::WarpDivergence, mask.trailing_zeros() as usize, detail);
    Convergence::Trap
}

/// Parks every lane of `mask` at the target its index selects; false where an index is outside the table.
fn scatter(w: &mut Warp, i: &Instr, mask: u32) -> bool {
    let targets = w.list(i.imm, i.x[0] as usize);
    let index = *w.lanes::<u32>(i.a);
    for lane in super::lanes::active(mask) {
        let Some(&pc) = targets.get(index[lane] as usize) else {
            return !w.trap(
                FindingKind::OutOfBounds,
                lane,
                format!("jump table of {} has no entry {}", targets.len(), index[lane]),
            );
        };
        match w.parked.iter_mut().find(|g| g.pc == pc) {
            Some(g) => *g = Group { pc, lanes: g.lanes | 1 << lane, waiting: false },
            None => w.parked.push(Group { pc, lanes: 1 << lane, waiting: false }),
        }
    }
    true
}

/// Reports reads of undefined registers and keeps track of definitions. Moves pass undefinedness on.
fn watch_registers(w: &mut Warp, i: &Instr, mask: u32) {
    if w.defined.is_empty() {
        return;
    }
    if i.guard != TRUE && w.active & !w.defined[i.guard as usize / 4] != 0 {
        let lane = (w.active & !w.defined[i.guard as usize / 4]).trailing_zeros() as usize;
        w.report(FindingKind::UninitialisedRegister, lane, || "the guard predicate was never written".into());
    }
    let note = &w.kernel().notes[w.pc as usize];
    let defined = note.reads.iter().fold(!0, |all, &slot| all & w.defined[slot as usize / 4]);
    let undefined = mask & !defined;
    if undefined != 0 && !note.moves {
        let lane = undefined.trailing_zeros() as usize;
        let detail = || format!("a source register was never written in lanes {undefined:#010x}");
        w.report(FindingKind::UninitialisedRegister, lane, detail);
    }
    for &slot in &note.writes {
        let word = &mut w.defined[slot as usize / 4];
        *word = if note.moves { (*word & !mask) | (defined & mask) } else { *word | mask };
    }
}
