//! The checkers' state during one launch.

use std::collections::HashMap;

use super::finding::{Finding, FindingKind};
use super::race::{Access, Cell, Order};
use crate::decode::ir::Note;
use crate::memory::Memory;
use crate::memory::shadow::{Bits, Shadow};

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A load.
    Read,
    /// A store; whether it changes what was there.
    Write(bool),
    /// A read-modify-write.
    Atomic,
}

/// Where an instruction runs, for reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Index of the instruction.
    pub pc: u32,
    /// Warp in the block.
    pub warp: u32,
    /// The block.
    pub block: [u32; 3],
}

/// Collects findings, each once an instruction.
#[derive(Default)]
pub struct Findings {
    list: Vec<Finding>,
    seen: HashMap<(FindingKind, u32), usize>,
}

impl Findings {
    /// Adds a finding of `kernel` at `place`, or counts it where its like was seen.
    pub fn add(&mut self, kind: FindingKind, kernel: &str, note: &Note, at: Place, lane: usize, detail: impl FnOnce() -> String) {
        if let Some(&k) = self.seen.get(&(kind, at.pc)) {
            self.list[k].count += 1;
            return;
        }
        self.seen.insert((kind, at.pc), self.list.len());
        self.list.push(Finding {
            kind,
            kernel: kernel.to_string(),
            pc: at.pc,
            instruction: note.text.clone(),
            line: note.line,
            lane: lane as u32,
            warp: at.warp,
            block: at.block,
            count: 1,
            detail: detail(),
        });
    }

    /// All of them.
    pub fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

/// A problem a memory access shows: its kind and particulars.
pub type Problem = (FindingKind, String);

/// State of the memory checkers.
#[derive(Default)]
pub struct Checker {
    /// Who is ordered before whom.
    pub order: Order,
    shared: Vec<Cell>,
    shared_defined: Bits,
    /// Shared bytes with a copy under way.
    pub in_flight: Bits,
    local_defined: Vec<Bits>,
}

/// The byte mask of an access within word `word`.
fn byte_mask(at: u64, bytes: u64, word: u64) -> u8 {
    let (from, to) = (at.max(word * 4) - word * 4, (at + bytes).min(word * 4 + 4) - word * 4);
    ((1u16 << to) - (1u16 << from)) as u8
}

fn versus(old: Access, order: &Order, thread: u32) -> String {
    let what = if old.atomic { "atomic of" } else { "access by" };
    if old.block == order.block {
        format!("thread {thread} and an {what} thread {} with no barrier between them", old.thread)
    } else {
        format!("thread {thread} and an {what} thread {} of another block with nothing that orders them", old.thread)
    }
}

impl Checker {
    /// Prepares for blocks of `warps` warps with these bytes of shared memory, and of local memory a thread.
    pub fn begin_launch(&mut self, first_block: u32, shared: u32, local: u32, warps: usize) {
        self.order.begin_launch(first_block);
        self.shared = vec![Cell::default(); shared as usize / 4 + 1];
        self.shared_defined = Bits::new(u64::from(shared));
        self.in_flight = Bits::new(u64::from(shared));
        let local = if local == 0 { 0 } else { warps };
        self.local_defined = (0..local * 32).map(|_| Bits::default()).collect();
    }

    /// A block begins.
    pub fn begin_block(&mut self, local: u32) {
        self.order.begin_block();
        self.shared.fill(Cell::default());
        self.shared_defined.clear();
        self.in_flight.clear();
        self.local_defined.iter_mut().for_each(|bits| *bits = Bits::new(u64::from(local)));
    }

    fn remember(order: &Order, cell: &mut Cell, thread: u32, bytes: u8, touch: Touch) -> Option<Access> {
        match touch {
            Touch::Read => order.read(cell, order.stamp(thread, bytes, false)),
            Touch::Write(changes) => order.write(cell, order.stamp(thread, bytes, false), changes),
            Touch::Atomic => order.write(cell, order.stamp(thread, bytes, true), true),
        }
    }

    /// Looks at an access to shared memory.
    pub fn shared(&mut self, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Problem> {
        if let Some(byte) = self.in_flight.first(at, bytes, true) {
            return Some((FindingKind::CopyNotAwaited, format!("shared byte {byte} is the target of a copy nobody awaited")));
        }
        let mut problem = None;
        if !matches!(touch, Touch::Write(_)) {
            if let Some(byte) = self.shared_defined.first(at, bytes, false) {
                problem = Some((FindingKind::UninitialisedMemory, format!("shared byte {byte} was never written")));
            }
        }
        if touch != Touch::Read {
            self.shared_defined.set(at, bytes, true);
        }
        for word in at / 4..(at + bytes).div_ceil(4) {
            let mask = byte_mask(at, bytes, word);
            if let Some(old) = Self::remember(&self.order, &mut self.shared[word as usize], thread, mask, touch) {
                let detail = || format!("shared word at {:#x}: {}", word * 4, versus(old, &self.order, thread));
                problem = problem.or_else(|| Some((FindingKind::SharedRace, detail())));
            }
        }
        problem
    }

    /// Looks at an access to global memory, which is known to lie in allocation `index`.
    pub fn global(&mut self, memory: &mut Memory, index: usize, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Problem> {
        let allocation = &mut memory.allocations[index];
        let offset = at - allocation.base;
        let shadow = allocation.shadow.get_or_insert_with(|| Box::new(Shadow::defined(allocation.size)));
        if let Some(byte) = shadow.first_forbidden(offset, bytes) {
            return Some((FindingKind::OutOfBounds, format!("byte {byte} of the allocation is marked as forbidden")));
        }
        let mut problem = None;
        if !matches!(touch, Touch::Write(_)) {
            if let Some(byte) = shadow.first_undefined(offset, bytes) {
                let detail = format!("byte {byte} of an allocation of {} bytes was never written", allocation.size);
                problem = Some((FindingKind::UninitialisedMemory, detail));
            }
        }
        if touch != Touch::Read {
            shadow.set_defined(offset, bytes, true);
        }
        for word in offset / 4..(offset + bytes).div_ceil(4) {
            let mask = byte_mask(offset, bytes, word);
            if let Some(old) = Self::remember(&self.order, shadow.cell(word), thread, mask, touch) {
                let detail = || format!("global word at byte {} of its allocation: {}", word * 4, versus(old, &self.order, thread));
                problem = problem.or_else(|| Some((FindingKind::GlobalRace, detail())));
            }
        }
        if touch == Touch::Atomic {
            self.order.atomic(at);
        }
        problem
    }

    /// Looks at an access to local memory.
    pub fn local(&mut self, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Problem> {
        let defined = &mut self.local_defined[thread as usize];
        if touch != Touch::Read {
            defined.set(at, bytes, true);
            return None;
        }
        let byte = defined.first(at, bytes, false)?;
        Some((FindingKind::UninitialisedMemory, format!("local byte {byte} was never written")))
    }
}
