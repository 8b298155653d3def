//! The state of one warp, and what its block and launch share with it.

use crate::check::checker::{Checker, Findings, Place};
use crate::check::finding::FindingKind;
use crate::counters::Traffic;
use crate::decode::ir::Kernel;
use crate::footprint::Footprint;
use crate::memory::Memory;

/// An allocation remembered by one memory instruction.
#[derive(Clone, Copy)]
pub struct Cache {
    /// First address.
    pub base: u64,
    /// Bytes; zero where nothing is remembered.
    pub size: u64,
    /// Where it lies on the host.
    pub host: *mut u8,
    /// Its index in the table.
    pub index: usize,
}

/// What the warps of one worker share.
pub struct Env {
    /// The kernel.
    pub kernel: *const Kernel,
    /// The device's memory.
    pub memory: *mut Memory,
    /// One cache a memory instruction.
    pub caches: Vec<Cache>,
    /// The checkers, where they are on.
    pub checker: Option<Box<Checker>>,
    /// Sector and bank counts, where they are on.
    pub traffic: Option<Traffic>,
    /// What was loaded and stored, where that is counted.
    pub footprints: Option<[Footprint; 2]>,
    /// What was found.
    pub findings: Findings,
    /// Executions and lanes of every instruction.
    pub counts: Vec<(u64, u64)>,
    /// Branches, and branches whose lanes went both ways.
    pub branches: (u64, u64),
    /// The running block.
    pub block: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
}

/// An asynchronous copy under way.
pub struct Copy {
    /// Lane that started it.
    pub lane: u8,
    /// The lane's group it belongs to.
    pub group: u32,
    /// Where it goes in shared memory.
    pub to: u32,
    /// Its bytes and how many there are.
    pub bytes: ([u8; 16], u8),
}

/// Lanes at one place in the code.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Next instruction.
    pub pc: u32,
    /// The lanes.
    pub lanes: u32,
    /// Waiting there for other lanes.
    pub waiting: bool,
}

/// A barrier a warp waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The barrier's number.
    pub id: u32,
    /// Threads it waits for; zero for all.
    pub count: u32,
}

/// One warp.
pub struct Warp {
    /// The register file, 64-byte aligned.
    pub regs: *mut u8,
    /// Operand lists of the kernel.
    pub lists: *const u32,
    /// The argument block.
    pub params: *const u8,
    /// Its length.
    pub param_bytes: u32,
    /// The block's shared memory.
    pub shared: *mut u8,
    /// Its length.
    pub shared_bytes: u32,
    /// The warp's local memory, lane after lane.
    pub local: *mut u8,
    /// Bytes of one lane's.
    pub local_bytes: u32,
    /// What it shares with other warps.
    pub env: *mut Env,
    /// Whether any checker or traffic counter looks at memory accesses.
    pub watched: bool,
    /// The running instruction; kept up to date while `watched`, and set before a report.
    pub pc: u32,
    /// Index in the block.
    pub index: u32,
    /// The running group's lanes.
    pub active: u32,
    /// Groups elsewhere.
    pub parked: Vec<Group>,
    /// Lanes that have not exited.
    pub alive: u32,
    /// The barrier it waits at.
    pub barrier: Option<Waiting>,
    /// Result of a barrier with a reduction.
    pub barrier_result: u32,
    /// What it gave to the reduction: lanes taking part, and their predicates.
    pub barrier_votes: (u32, u32),
    /// Why it trapped, and which lane.
    pub fault: Option<(FindingKind, usize, String)>,
    /// Copies under way.
    pub copies: Vec<Copy>,
    /// Groups every lane has committed.
    pub committed: [u32; 32],
    /// Defined lanes of every register word, where registers are checked.
    pub defined: Vec<u32>,
}

impl Warp {
    /// The shared environment.
    #[inline(always)]
    pub fn env(&mut self) -> &mut Env {
        // SAFETY: `env` points to the worker's environment, which outlives the warp; a worker runs one warp at a time and
        // nothing else holds a reference while an instruction runs.
        unsafe { &mut *self.env }
    }

    /// The kernel.
    pub fn kernel<'k>(&self) -> &'k Kernel {
        // SAFETY: the launch keeps the kernel alive for longer than its warps.
        unsafe { &*(*self.env).kernel }
    }

    /// `count` slots of the kernel's lists from `at`.
    #[inline(always)]
    pub fn list<'k>(&self, at: i64, count: usize) -> &'k [u32] {
        // SAFETY: decoding stored `count` slots at `at` in the kernel's lists, which outlive the warp.
        unsafe { std::slice::from_raw_parts(self.lists.add(at as usize), count) }
    }

    /// Where it is, for reports.
    pub fn place(&mut self) -> Place {
        Place { pc: self.pc, warp: self.index, block: self.env().block }
    }

    /// Reports something at the running instruction; the kernel goes on.
    #[cold]
    pub fn report(&mut self, kind: FindingKind, lane: usize, detail: impl FnOnce() -> String) {
        let (place, kernel) = (self.place(), self.kernel());
        let note = &kernel.notes[place.pc as usize];
        self.env().findings.add(kind, &kernel.name, note, place, lane, detail);
    }

    /// Traps; always true.
    #[cold]
    pub fn trap(&mut self, kind: FindingKind, lane: usize, detail: String) -> bool {
        self.fault = Some((kind, lane, detail));
        true
    }
}
