//! The checkers' state during one launch.

use std::collections::HashMap;

use super::finding::{Finding, FindingKind};
use super::race::{Access, Order};
use crate::decode::ir::Note;
use crate::exec::lanes::{LANES, active};
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
    pub fn add(
        &mut self,
        kind: FindingKind,
        kernel: &str,
        note: &Note,
        at: Place,
        lane: usize,
        detail: impl FnOnce() -> String,
    ) {
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
pub struct Checker {
    /// Who is ordered before whom.
    pub order: Order,
    /// The block's shared memory; its forbidden bytes are the targets of copies under way.
    pub shared: Shadow,
    shared_bytes: u32,
    local_defined: Vec<Bits>,
}

/// What is wrong with an access.
enum Issue {
    Forbidden(u64),
    Undefined(u64),
    Race(u64, Access),
}

/// The accesses of a warp's lanes: offsets in their allocation, in bounds and aligned.
pub struct Lanes<'a> {
    /// The offset of every lane.
    pub offsets: &'a [u64; LANES],
    /// The active lanes.
    pub mask: u32,
    /// Bytes a lane.
    pub bytes: u64,
    /// Lane `k` is `k` times `bytes` after lane 0, and all are active.
    pub consecutive: bool,
    /// All lanes are at one place.
    pub uniform: bool,
    /// The warp's first thread.
    pub thread: u32,
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

/// Remembers an access in its words; the first race.
#[inline(always)]
fn remember(order: &Order, shadow: &mut Shadow, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Issue> {
    let mut issue = None;
    for word in at / 4..(at + bytes).div_ceil(4) {
        let mask = if bytes.is_multiple_of(4) && at.is_multiple_of(4) { 15 } else { byte_mask(at, bytes, word) };
        let cell = shadow.cell(word);
        let race = match touch {
            Touch::Read => order.read(cell, order.stamp(thread, mask, false)),
            Touch::Write(changes) => order.write(cell, order.stamp(thread, mask, false), changes),
            Touch::Atomic => order.write(cell, order.stamp(thread, mask, true), true),
        };
        if let (Some(old), None) = (race, &issue) {
            issue = Some(Issue::Race(word * 4, old));
        }
    }
    issue
}

/// Looks at one lane's access.
fn look(order: &Order, shadow: &mut Shadow, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Issue> {
    if let Some(byte) = shadow.first_forbidden(at, bytes) {
        return Some(Issue::Forbidden(byte));
    }
    let reads = !matches!(touch, Touch::Write(_));
    let undefined = if reads { shadow.first_undefined(at, bytes).map(Issue::Undefined) } else { None };
    if touch != Touch::Read {
        shadow.set_defined(at, bytes, true);
    }
    undefined.or(remember(order, shadow, at, bytes, thread, touch))
}

/// Looks at a warp's access as a whole. False, with nothing remembered, where lanes must be looked at one by one because
/// something is wrong or might be.
fn look_at_warp(order: &Order, shadow: &mut Shadow, lanes: &Lanes<'_>, write: Option<u32>) -> bool {
    let one = if lanes.uniform { 1 << lanes.mask.trailing_zeros() } else { lanes.mask };
    let clean = |at: u64, bytes: u64| {
        shadow.first_forbidden(at, bytes).is_none() && (write.is_some() || shadow.first_undefined(at, bytes).is_none())
    };
    let fine = if lanes.consecutive {
        clean(lanes.offsets[0], lanes.bytes * LANES as u64)
    } else {
        active(one).all(|k| clean(lanes.offsets[k], lanes.bytes))
    };
    if !fine {
        return false;
    }
    let Some(changes) = write else {
        // Of lanes that read one place, the first and the last tell whether two threads did. A read that is remembered
        // twice, here and lane by lane, is remembered once.
        let looked = if lanes.uniform { one | 1 << (31 - lanes.mask.leading_zeros()) } else { lanes.mask };
        return active(looked).all(|k| {
            remember(order, shadow, lanes.offsets[k], lanes.bytes, lanes.thread + k as u32, Touch::Read).is_none()
        });
    };
    if !lanes.consecutive && crowded(lanes) {
        return false;
    }
    // A write that races must not be remembered before it is reported.
    let races = active(lanes.mask).any(|k| {
        let (at, thread, changes) = (lanes.offsets[k], lanes.thread + k as u32, changes >> k & 1 != 0);
        (at / 4..(at + lanes.bytes).div_ceil(4)).any(|word| {
            let now = order.stamp(thread, byte_mask(at, lanes.bytes, word), false);
            shadow.peek(word).is_some_and(|cell| changes && order.races_with_write(cell, &now))
        })
    });
    if races {
        return false;
    }
    if lanes.consecutive {
        shadow.set_defined(lanes.offsets[0], lanes.bytes * LANES as u64, true);
    }
    for k in active(lanes.mask) {
        let (at, thread) = (lanes.offsets[k], lanes.thread + k as u32);
        if !lanes.consecutive {
            shadow.set_defined(at, lanes.bytes, true);
        }
        remember(order, shadow, at, lanes.bytes, thread, Touch::Write(changes >> k & 1 != 0));
    }
    true
}

/// Whether two lanes may touch the same word: offsets that do not ascend word by word.
fn crowded(lanes: &Lanes<'_>) -> bool {
    let mut last = None;
    active(lanes.mask).any(|k| {
        let word = lanes.offsets[k] / 4;
        let crowd = last.is_some_and(|l| word <= l);
        last = Some((lanes.offsets[k] + lanes.bytes - 1) / 4);
        crowd
    })
}

impl Checker {
    /// For a launch of blocks of `warps` warps with these bytes of shared memory, and of local memory a thread; the blocks
    /// are numbered from `first_block`.
    pub fn new(first_block: u32, shared: u32, local: u32, warps: usize) -> Checker {
        let mut order = Order::default();
        order.begin_launch(first_block);
        let threads = if local == 0 { 0 } else { warps * LANES };
        let local_defined = (0..threads).map(|_| Bits::default()).collect();
        Checker { order, shared: Shadow::undefined(shared.into()), shared_bytes: shared, local_defined }
    }

    /// A block begins.
    pub fn begin_block(&mut self, local: u32) {
        self.order.begin_block();
        self.shared = Shadow::undefined(self.shared_bytes.into());
        self.local_defined.iter_mut().for_each(|bits| *bits = Bits::new(u64::from(local)));
    }

    /// Looks at an access to shared memory.
    pub fn shared(&mut self, at: u64, bytes: u64, thread: u32, touch: Touch) -> Option<Problem> {
        Some(match look(&self.order, &mut self.shared, at, bytes, thread, touch)? {
            Issue::Forbidden(byte) => {
                (FindingKind::CopyNotAwaited, format!("shared byte {byte} is the target of a copy nobody awaited"))
            }
            Issue::Undefined(byte) => {
                (FindingKind::UninitialisedMemory, format!("shared byte {byte} was never written"))
            }
            Issue::Race(word, old) => {
                (FindingKind::SharedRace, format!("shared word at {word:#x}: {}", versus(old, &self.order, thread)))
            }
        })
    }

    /// Looks at an access to global memory, which is known to lie in allocation `index`.
    pub fn global(
        &mut self,
        memory: &mut Memory,
        index: usize,
        at: u64,
        bytes: u64,
        thread: u32,
        touch: Touch,
    ) -> Option<Problem> {
        let allocation = &mut memory.allocations[index];
        let (offset, size) = (at - allocation.base, allocation.size);
        let issue = look(&self.order, allocation.shadow_mut(), offset, bytes, thread, touch);
        if touch == Touch::Atomic {
            self.order.atomic(at);
        }
        Some(match issue? {
            Issue::Forbidden(byte) => (
                FindingKind::OutOfBounds,
                format!("byte {byte} of an allocation of {size} bytes is marked as forbidden"),
            ),
            Issue::Undefined(byte) => (
                FindingKind::UninitialisedMemory,
                format!("byte {byte} of an allocation of {size} bytes was never written"),
            ),
            Issue::Race(word, old) => {
                let detail =
                    format!("global word at byte {word} of its allocation: {}", versus(old, &self.order, thread));
                (FindingKind::GlobalRace, detail)
            }
        })
    }

    /// Looks at a load (`write` none) or store of a whole warp in shared memory; `write` has the lanes whose store changes
    /// something. False where lanes must be looked at one by one.
    pub fn shared_warp(&mut self, lanes: &Lanes<'_>, write: Option<u32>) -> bool {
        look_at_warp(&self.order, &mut self.shared, lanes, write)
    }

    /// As [`Checker::shared_warp`], in allocation `index` of global memory.
    pub fn global_warp(&mut self, memory: &mut Memory, index: usize, lanes: &Lanes<'_>, write: Option<u32>) -> bool {
        look_at_warp(&self.order, memory.allocations[index].shadow_mut(), lanes, write)
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
