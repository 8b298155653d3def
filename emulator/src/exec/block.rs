//! Runs one block: its warps in turn, from barrier to barrier.

use super::lanes::LANES;
use super::run::{Stop, run_fast, run_watched};
use super::warp::{Cache, Env, Waiting, Warp};
use crate::check::checker::{Checker, Findings, Place};
use crate::check::config::Config;
use crate::check::finding::FindingKind;
use crate::counters::Traffic;
use crate::decode::ir::{Kernel, LaneMask, Special};
use crate::memory::Memory;

/// Geometry and arguments of a launch.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads along each axis.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// The argument block.
    pub params: Vec<u8>,
}

/// A trap: what happened, where.
pub type Fault = (FindingKind, Place, usize, String);

/// Memory aligned to 64 bytes.
struct Aligned(Vec<[u64; 8]>);

impl Aligned {
    fn new(bytes: usize) -> Aligned {
        Aligned(vec![[0; 8]; bytes.div_ceil(64)])
    }

    fn pointer(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// Everything one worker needs to run blocks of a launch, one after another.
pub struct Runner<'l> {
    kernel: &'l Kernel,
    geometry: &'l Geometry,
    config: Config,
    env: Box<Env>,
    warps: Vec<Warp>,
    shared: Aligned,
    /// Register files and local memory of the warps; the warps point into them.
    _files: Vec<Aligned>,
    special_ctaid: Vec<(u32, u8)>,
    shuffle: u64,
}

impl<'l> Runner<'l> {
    /// A worker for `kernel`; `checker` where the launch is checked.
    pub fn new(
        kernel: &'l Kernel,
        geometry: &'l Geometry,
        config: Config,
        memory: *mut Memory,
        checker: Option<Box<Checker>>,
    ) -> Runner<'l> {
        let threads: u32 = geometry.block.iter().product();
        let count = threads.div_ceil(LANES as u32) as usize;
        let shared_bytes = kernel.shared + geometry.dynamic_shared;
        let mut shared = Aligned::new(shared_bytes as usize + 64);
        let empty = Cache { base: 0, size: 0, host: std::ptr::null_mut(), index: 0 };
        let watched = checker.is_some() || config.traffic || config.footprint;
        let mut env = Box::new(Env {
            kernel,
            memory,
            caches: vec![empty; kernel.caches as usize],
            checker,
            traffic: config.traffic.then(Traffic::default),
            footprints: config.footprint.then(Default::default),
            findings: Findings::default(),
            counts: vec![(0, 0); kernel.code.len()],
            branches: (0, 0),
            block: [0; 3],
            threads,
        });
        let (mut files, mut warps) = (Vec::new(), Vec::new());
        for index in 0..count as u32 {
            let mut regs = Aligned::new(kernel.register_bytes as usize);
            let mut local = Aligned::new(kernel.local as usize * LANES);
            let mut warp = Warp {
                regs: regs.pointer(),
                lists: kernel.lists.as_ptr(),
                params: geometry.params.as_ptr(),
                param_bytes: geometry.params.len() as u32,
                shared: shared.pointer(),
                shared_bytes,
                local: local.pointer(),
                local_bytes: kernel.local,
                env: &mut *env,
                watched,
                pc: 0,
                index,
                active: 0,
                parked: Vec::new(),
                alive: 0,
                barrier: None,
                barrier_result: 0,
                barrier_votes: (0, 0),
                fault: None,
                copies: Vec::new(),
                committed: [0; LANES],
                defined: Vec::new(),
            };
            files.extend([regs, local]);
            fill_constants(&mut warp, kernel, geometry, count as u32);
            warps.push(warp);
        }
        let special_ctaid = kernel
            .specials
            .iter()
            .filter_map(|(slot, special)| if let Special::Ctaid(axis) = special { Some((*slot, *axis)) } else { None })
            .collect();
        Runner { kernel, geometry, config, env, warps, shared, _files: files, special_ctaid, shuffle: config.seed }
    }

    /// Runs the block with this linear index.
    pub fn run(&mut self, index: u64) -> Result<(), Box<Fault>> {
        let [gx, gy, _] = self.geometry.grid.map(u64::from);
        let block = [(index % gx) as u32, (index / gx % gy) as u32, (index / gx / gy) as u32];
        self.env.block = block;
        let checked = self.env.checker.is_some();
        if let Some(checker) = &mut self.env.checker {
            checker.begin_block(self.kernel.local);
        }
        // Fresh shared memory is all ones bits: a NaN, and minus one.
        self.shared.0.fill([u64::MAX; 8]);
        let threads = self.env.threads;
        for warp in &mut self.warps {
            let lanes = (threads - warp.index * LANES as u32).min(LANES as u32);
            warp.alive = (u64::MAX >> (64 - lanes)) as u32;
            (warp.active, warp.pc, warp.barrier) = (warp.alive, 0, None);
            warp.parked.clear();
            warp.copies.clear();
            warp.committed = [0; LANES];
            for &(slot, axis) in &self.special_ctaid {
                *warp.lanes_mut::<u32>(slot) = [block[axis as usize]; LANES];
            }
            if checked {
                warp.defined.clear();
                warp.defined.resize(self.kernel.register_bytes as usize / 4, 0);
            }
        }
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        let mut running: Vec<bool> = vec![true; order.len()];
        let mut resume: Vec<u32> = vec![0; order.len()];
        loop {
            if self.config.seed != 0 {
                shuffle(&mut order, &mut self.shuffle);
            }
            let mut progress = false;
            for &k in &order {
                let warp = &mut self.warps[k];
                if !running[k] || warp.barrier.is_some() {
                    continue;
                }
                progress = true;
                let run = if warp.watched { run_watched } else { run_fast };
                match run(warp, resume[k], self.config.patience) {
                    Stop::Done => running[k] = false,
                    Stop::Barrier => resume[k] = warp.pc + 1,
                    Stop::Trap => {
                        let place = warp.place();
                        let (kind, lane, detail) = warp.fault.take().expect("a trap leaves its reason");
                        return Err(Box::new((kind, place, lane, detail)));
                    }
                }
            }
            if !running.contains(&true) {
                return Ok(());
            }
            let released = self.release(&running);
            if !progress && !released {
                let k = running.iter().position(|r| *r).unwrap_or(0);
                let warp = &mut self.warps[k];
                let id = warp.barrier.map_or(0, |b| b.id);
                let lane = warp.active.trailing_zeros() as usize;
                let detail = format!("warps wait at barrier {id} for warps that never come");
                return Err(Box::new((FindingKind::BarrierDivergence, warp.place(), lane, detail)));
            }
        }
    }

    /// Opens every barrier all of whose threads have come; whether there was one.
    fn release(&mut self, running: &[bool]) -> bool {
        let mut any = false;
        let mut waiting: Vec<Waiting> = self.warps.iter().filter_map(|w| w.barrier).collect();
        waiting.dedup();
        for barrier in waiting {
            let members: Vec<usize> =
                (0..self.warps.len()).filter(|&k| self.warps[k].barrier == Some(barrier)).collect();
            let Some(&first) = members.first() else { continue };
            let others = (0..running.len()).filter(|k| running[*k] && !members.contains(k)).count();
            let complete = if barrier.count == 0 { others == 0 } else { members.len() as u32 * 32 >= barrier.count };
            if !complete {
                continue;
            }
            any = true;
            if barrier.count == 0 && self.env.checker.is_some() {
                self.report_missing(first);
            }
            let mask = members.iter().fold(0, |m, k| m | 1 << k);
            if let Some(checker) = &mut self.env.checker {
                checker.order.barrier(mask);
            }
            let votes: u32 = members
                .iter()
                .map(|&k| (self.warps[k].barrier_votes.0 & self.warps[k].barrier_votes.1).count_ones())
                .sum();
            let voters: u32 = members.iter().map(|&k| self.warps[k].barrier_votes.0.count_ones()).sum();
            for k in members {
                let warp = &mut self.warps[k];
                let i = &self.kernel.code[warp.pc as usize];
                warp.barrier = None;
                warp.barrier_result = match i.n {
                    2 => votes,
                    3 => u32::from(votes == voters),
                    _ => u32::from(votes > 0),
                };
                // SAFETY: the op was chosen for this CPU when the kernel was decoded. A barrier's op cannot trap.
                unsafe { (i.run)(warp, i, warp.active) };
            }
        }
        any
    }

    /// Reports threads of the block that ended before a barrier of all threads.
    fn report_missing(&mut self, first: usize) {
        let threads = self.env.threads;
        let missing = self.warps.iter().find_map(|w| {
            let lanes = (threads - w.index * LANES as u32).min(LANES as u32);
            let gone = (u64::MAX >> (64 - lanes)) as u32 & !w.alive;
            (gone != 0).then_some((w.index, gone))
        });
        if let Some((warp, lanes)) = missing {
            let lane = lanes.trailing_zeros() as usize;
            let detail = move || format!("lanes {lanes:#010x} of warp {warp} ended without reaching this barrier");
            self.warps[first].report(FindingKind::BarrierDivergence, lane, detail);
        }
    }

    /// What the worker counted and found.
    pub fn finish(self) -> Box<Env> {
        self.env
    }
}

fn fill_constants(warp: &mut Warp, kernel: &Kernel, geometry: &Geometry, warps: u32) {
    warp.set_pred(crate::decode::ir::TRUE, !0, !0);
    for &(slot, value) in &kernel.constants32 {
        *warp.lanes_mut::<u32>(slot) = [value; LANES];
    }
    for &(slot, value) in &kernel.constants64 {
        *warp.lanes_mut::<u64>(slot) = [value; LANES];
    }
    let ([bx, by, _], index) = (geometry.block, warp.index);
    for &(slot, special) in &kernel.specials {
        *warp.lanes_mut::<u32>(slot) = std::array::from_fn(|lane| {
            let thread = index * LANES as u32 + lane as u32;
            match special {
                Special::Tid(0) => thread % bx,
                Special::Tid(1) => thread / bx % by,
                Special::Tid(_) => thread / (bx * by),
                Special::Ntid(axis) => geometry.block[axis as usize],
                Special::Nctaid(axis) => geometry.grid[axis as usize],
                Special::Ctaid(_) | Special::Zero => 0,
                Special::LaneId => lane as u32,
                Special::WarpId => index,
                Special::NWarpId => warps,
                Special::LaneMask(LaneMask::Eq) => 1 << lane,
                Special::LaneMask(LaneMask::Lt) => (1 << lane) - 1,
                Special::LaneMask(LaneMask::Le) => u32::MAX >> (31 - lane),
                Special::LaneMask(LaneMask::Gt) => !(u32::MAX >> (31 - lane)),
                Special::LaneMask(LaneMask::Ge) => !((1 << lane) - 1),
                Special::DynamicShared => geometry.dynamic_shared,
                Special::TotalShared => kernel.shared + geometry.dynamic_shared,
            }
        });
    }
}

/// Fisher–Yates with a splitmix64 generator.
pub fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for k in (1..items.len()).rev() {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(k, ((z ^ z >> 31) % (k as u64 + 1)) as usize);
    }
}
