//! Runs a grid: validates the launch, orders the blocks, collects counters and findings.

use super::block::{Fault, Geometry, Runner, shuffle};
use super::lanes::LANES;
use super::warp::Env;
use crate::check::checker::Checker;
use crate::check::config::Config;
use crate::check::finding::{Finding, FindingKind};
use crate::counters::KernelCounters;
use crate::decode::ir::Kernel;
use crate::footprint::Footprint;
use crate::memory::Memory;

/// Most dynamic and static shared memory of a block without opting in, in bytes.
pub const SHARED_LIMIT: u32 = 48 << 10;
/// Most with opting in.
pub const SHARED_OPT_IN: u32 = 227 << 10;

/// What a launch left behind.
pub struct Outcome {
    /// What it did.
    pub counters: KernelCounters,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Why it stopped early.
    pub fault: Option<FindingKind>,
}

/// What is wrong with a launch, before anything runs. `opted_in` is the kernel's largest allowed dynamic shared memory.
pub fn validate(kernel: &Kernel, g: &Geometry, opted_in: u32) -> Result<(), String> {
    let threads: u64 = g.block.iter().map(|&n| u64::from(n)).product();
    let shared = u64::from(kernel.shared) + u64::from(g.dynamic_shared);
    if g.grid.contains(&0) || g.block.contains(&0) {
        return Err(format!("grid {:?} and block {:?}: every axis needs at least 1", g.grid, g.block));
    }
    if g.grid[1] > 65535 || g.grid[2] > 65535 || g.grid[0] > i32::MAX as u32 {
        return Err(format!("grid {:?} is larger than 2147483647 x 65535 x 65535", g.grid));
    }
    if g.block[0] > 1024 || g.block[1] > 1024 || g.block[2] > 64 || threads > u64::from(kernel.max_threads.min(1024)) {
        return Err(format!("block {:?} has more threads than {}", g.block, kernel.max_threads.min(1024)));
    }
    if kernel.required_block.is_some_and(|block| block != g.block) {
        return Err(format!(
            "block {:?}, but the kernel requires {:?}",
            g.block,
            kernel.required_block.unwrap_or_default()
        ));
    }
    if g.dynamic_shared > opted_in {
        return Err(format!("{} bytes of dynamic shared memory; the kernel's limit is {opted_in}", g.dynamic_shared));
    }
    let limit = if opted_in + kernel.shared > SHARED_LIMIT { SHARED_OPT_IN } else { SHARED_LIMIT };
    if shared > u64::from(limit) {
        return Err(format!("{shared} bytes of shared memory in all; the limit is {limit}"));
    }
    Ok(())
}

/// Numbers of blocks ever run, so that records of who touched what need no clearing.
pub struct BlockNumbers(pub u32);

/// Runs a launch that [`validate`] accepted.
pub fn launch(
    kernel: &Kernel,
    g: &Geometry,
    config: Config,
    memory: &mut Memory,
    numbers: &mut BlockNumbers,
) -> Outcome {
    let blocks: u64 = g.grid.iter().map(|&n| u64::from(n)).product();
    let warps = g.block.iter().product::<u32>().div_ceil(LANES as u32) as usize;
    let checker =
        config.checks.then(|| Box::new(Checker::new(numbers.0, kernel.shared + g.dynamic_shared, kernel.local, warps)));
    numbers.0 = numbers.0.wrapping_add(blocks as u32).max(1);
    if checker.is_none() {
        memory.forget_shadows();
    }
    let workers = if checker.is_none() && kernel.independent && blocks >= 8 { config.threads.max(1) } else { 1 };
    let mut order: Vec<u64> = if config.seed == 0 { Vec::new() } else { (0..blocks).collect() };
    let mut state = config.seed;
    shuffle(&mut order, &mut state);
    let nth = |k: u64| if order.is_empty() { k } else { order[k as usize] };
    let memory: *mut Memory = memory;
    let done = if workers == 1 {
        vec![run_blocks(Runner::new(kernel, g, config, memory, checker), (0..blocks).map(nth))]
    } else {
        let shared = Shared(memory);
        let share = blocks.div_ceil(u64::from(workers));
        std::thread::scope(|scope| {
            let handles: Vec<_> = (0..u64::from(workers))
                .map(|k| {
                    let (shared, nth) = (&shared, &nth);
                    scope.spawn(move || {
                        let range = (k * share).min(blocks)..((k + 1) * share).min(blocks);
                        Done(run_blocks(Runner::new(kernel, g, config, shared.pointer(), None), range.map(nth)))
                    })
                })
                .collect();
            handles.into_iter().map(|h| h.join().unwrap_or_else(|e| std::panic::resume_unwind(e)).0).collect()
        })
    };
    collect(kernel, blocks, done)
}

/// The memory, handed to workers: they only read the table.
struct Shared(*mut Memory);
// SAFETY: workers of an unchecked launch look allocations up and never change the table; what the blocks write into the
// allocations they write as blocks of a grid do.
unsafe impl Sync for Shared {}

impl Shared {
    fn pointer(&self) -> *mut Memory {
        self.0
    }
}

/// A finished worker's results, on their way back.
struct Done((Box<Env>, Option<Box<Fault>>));
// SAFETY: the pointers inside belong to the launch, which waits for its workers and uses no pointer of theirs.
unsafe impl Send for Done {}

fn run_blocks(mut runner: Runner<'_>, blocks: impl Iterator<Item = u64>) -> (Box<Env>, Option<Box<Fault>>) {
    let mut fault = None;
    for block in blocks {
        if let Err(f) = runner.run(block) {
            fault = Some(f);
            break;
        }
    }
    (runner.finish(), fault)
}

fn collect(kernel: &Kernel, blocks: u64, done: Vec<(Box<Env>, Option<Box<Fault>>)>) -> Outcome {
    let mut counters = KernelCounters { kernel: kernel.name.clone(), launches: 1, blocks, ..KernelCounters::default() };
    let (mut findings, mut trapped) = (Vec::new(), None);
    let mut footprints: [Footprint; 2] = Default::default();
    for (mut env, fault) in done {
        counters.add_counts(kernel, &env.counts);
        counters.branches += env.branches.0;
        counters.divergent_branches += env.branches.1;
        let part = KernelCounters { traffic: env.traffic.unwrap_or_default(), ..KernelCounters::default() };
        counters.add(&part);
        for (all, own) in footprints.iter_mut().zip(env.footprints.iter().flatten()) {
            all.join(own);
        }
        if let Some(fault) = fault {
            let (kind, place, lane, detail) = *fault;
            trapped = trapped.or(Some(kind));
            env.findings.add(kind, &kernel.name, &kernel.notes[place.pc as usize], place, lane, || detail);
        }
        findings.append(&mut std::mem::take(&mut env.findings).into_list());
    }
    [counters.traffic.loaded, counters.traffic.stored] = footprints.map(|footprint| footprint.bytes());
    Outcome { counters, findings, fault: trapped }
}
