//! Devices: where buffers live and ops run.
//!
//! A [`Device`] is a budget, an arena, a ledger and a [`Backend`]. The planning backend goes through the same allocator,
//! tape and op code as the others but owns no memory and runs no arithmetic; what it predicts is what they measure.

mod buffer;
pub mod collective;
pub mod cpu;
#[cfg(feature = "criterion")]
pub mod criterion;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda_absent.rs"]
pub mod cuda;
pub(crate) mod cudnn_desc;
mod device_info;
mod launch_config;
mod profile;
mod step_layout;
mod target;

use std::sync::{Arc, Mutex, MutexGuard};

use memmap2::{MmapOptions, MmapRaw};

pub use buffer::{Buffer, Later};
use cpu::{Pool, SimdLevel};
pub use cuda::{Cuda, Graph};
pub use device_info::{DeviceInfo, KernelInfo, LEAST_CUDA, LEAST_DRIVER, Observer};
pub use launch_config::{LaunchConfig, MANY_BLOCKS, THREADS};
pub use profile::{MOST_PASSES, Pass, Profile, ProfileRow};
pub use step_layout::Foreseen;
use step_layout::{Layouts, Placing};
use target::TICKET_BYTES;
pub(crate) use target::TICKETS;
pub use target::{CudaTarget, Target};

use crate::error::{Error, Result};
use crate::memory::{Arena, Ledger, OpCost, OpCostLog, OutOfMemory, Phase, Role, RoleBytes};

/// Address range of a plan that nothing is meant to exhaust: 1 PiB.
pub const UNLIMITED: u64 = 1 << 50;

/// How a device computes.
pub enum Backend {
    /// On the CPU's threads, in an address range of the budget's size whose pages are touched only when used.
    Cpu {
        /// Threads and instruction set.
        pool: Pool,
        /// The arena's memory.
        memory: MmapRaw,
    },
    /// On a CUDA device.
    Cuda(Box<Cuda>),
    /// Not at all: a plan of what a device with these properties would do.
    Plan {
        /// The planned device, as far as workspaces depend on it.
        target: Target,
    },
}

struct Inner {
    backend: Backend,
    state: Mutex<State>,
}

/// Budget, arena, ledger and the record of work, under one lock.
struct State {
    /// In bytes.
    budget: u64,
    /// The budget that was given, where the device has refused to fill it.
    promised: Option<u64>,
    arena: Arena,
    placing: Placing,
    layouts: Layouts,
    ledger: Ledger,
    work: OpCostLog,
    profile: Option<profile::Recording>,
}

/// A handle of a device; cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

impl Device {
    /// The CPU with `threads` threads (0: one for each core) and a budget in bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] if the threads cannot be started or the address range cannot be reserved.
    pub fn cpu(threads: usize, budget: u64) -> Result<Self> {
        Self::cpu_with_pool(Pool::start(threads)?, budget)
    }

    /// The CPU with a given pool.
    ///
    /// # Errors
    /// [`Error::Usage`] if the address range cannot be reserved.
    pub fn cpu_with_pool(pool: Pool, budget: u64) -> Result<Self> {
        let length = usize::try_from(budget).unwrap_or(usize::MAX).max(1);
        let mut options = MmapOptions::new();
        options.len(length);
        // Miri, which has no swap either, does not know the flag.
        #[cfg(not(miri))]
        options.no_reserve_swap();
        let memory = options.map_anon().map_err(|error| {
            Error::Usage(format!("cannot reserve {budget} bytes of address space ({error}); lower --memory-budget"))
        })?;
        Ok(Self::with_backend(Backend::Cpu { pool, memory: memory.into() }, budget))
    }

    /// CUDA device number `ordinal` with a budget in bytes (0: 0.9 × the memory that is free).
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing.
    pub fn cuda(ordinal: usize, budget: u64) -> Result<Self> {
        Self::open_cuda(ordinal, budget, None)
    }

    /// The same, with somebody who is told of every buffer.
    ///
    /// # Errors
    /// As [`Device::cuda`].
    pub fn cuda_observed(ordinal: usize, budget: u64, observer: Box<dyn Observer>) -> Result<Self> {
        Self::open_cuda(ordinal, budget, Some(observer))
    }

    fn open_cuda(ordinal: usize, budget: u64, observer: Option<Box<dyn Observer>>) -> Result<Self> {
        if (1..TICKET_BYTES).contains(&budget) {
            let problem = format!("a budget of {budget} bytes holds no network on CUDA");
            return Err(Error::Usage(format!("{problem}; raise --memory-budget")));
        }
        let cuda = Cuda::open(ordinal, budget, observer)?;
        let budget = cuda.budget();
        let device = Self::with_backend(Backend::Cuda(Box::new(cuda)), budget);
        if let Backend::Cuda(cuda) = device.backend() {
            cuda.allocated(0, TICKET_BYTES)?;
            cuda.zero(cuda.address(0), TICKET_BYTES)?;
        }
        Ok(device)
    }

    /// A plan for a CPU with `threads` threads and the instruction set `simd`.
    pub fn plan(threads: usize, simd: SimdLevel, budget: u64) -> Self {
        Self::plan_for(Target::Cpu { threads: threads.max(1), simd }, budget)
    }

    /// A plan for any target.
    pub fn plan_for(target: Target, budget: u64) -> Self {
        Self::with_backend(Backend::Plan { target }, budget)
    }

    /// A plan of what this device would do, within the same budget.
    pub fn planned(&self) -> Self {
        Self::plan_for(self.target(), self.budget())
    }

    fn with_backend(backend: Backend, budget: u64) -> Self {
        let mut state = State {
            budget,
            promised: None,
            arena: Arena::new(budget),
            placing: Placing::BestFit,
            layouts: Layouts::default(),
            ledger: Ledger::default(),
            work: OpCostLog::default(),
            profile: None,
        };
        let on_cuda = matches!(backend, Backend::Cuda(_) | Backend::Plan { target: Target::Cuda(_) });
        if let Some(block) = on_cuda.then(|| state.arena.allocate(TICKET_BYTES)).flatten() {
            let former = state.ledger.set_op("tickets");
            state.ledger.allocate(Role::Workspace, TICKET_BYTES, block);
            state.ledger.set_op(former);
        }
        Self(Arc::new(Inner { backend, state: Mutex::new(state) }))
    }

    /// How the device computes.
    pub fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// The CPU's pool; `None` elsewhere.
    pub fn pool(&self) -> Option<&Pool> {
        match self.backend() {
            Backend::Cpu { pool, .. } => Some(pool),
            Backend::Cuda(_) | Backend::Plan { .. } => None,
        }
    }

    /// Name in reports.
    pub fn name(&self) -> &'static str {
        match self.backend() {
            Backend::Plan { .. } => "plan",
            _ => self.target().name(),
        }
    }

    /// True if nothing is computed.
    pub fn is_plan(&self) -> bool {
        matches!(self.backend(), Backend::Plan { .. })
    }

    /// What workspaces depend on: equal for a device and for its plan.
    pub fn target(&self) -> Target {
        match self.backend() {
            Backend::Cpu { pool, .. } => Target::Cpu { threads: pool.threads(), simd: pool.simd() },
            Backend::Cuda(cuda) => Target::Cuda(cuda.target()),
            Backend::Plan { target } => *target,
        }
    }

    /// Threads of a CPU whose scratch a workspace must hold; 1 on CUDA.
    pub fn threads(&self) -> usize {
        match self.target() {
            Target::Cpu { threads, .. } => threads,
            Target::Cuda(_) => 1,
        }
    }

    /// Instruction set of a CPU's kernels; the portable one on CUDA.
    pub fn simd(&self) -> SimdLevel {
        match self.target() {
            Target::Cpu { simd, .. } => simd,
            Target::Cuda(_) => SimdLevel::Portable,
        }
    }

    /// Kernels launched so far; 0 elsewhere than on CUDA.
    pub fn launches(&self) -> u64 {
        match self.backend() {
            Backend::Cuda(cuda) => cuda.launches(),
            Backend::Cpu { .. } | Backend::Plan { .. } => 0,
        }
    }

    /// The same by kernel, in the order of their names.
    pub fn launches_by_kernel(&self) -> Vec<(&'static str, u64)> {
        match self.backend() {
            Backend::Cuda(cuda) => cuda.launches_by_kernel(),
            Backend::Cpu { .. } | Backend::Plan { .. } => Vec::new(),
        }
    }

    /// Waits for everything launched so far.
    ///
    /// # Errors
    /// [`Error::Device`] if a kernel failed.
    pub fn synchronize(&self) -> Result<()> {
        match self.backend() {
            Backend::Cuda(cuda) => cuda.synchronize(),
            Backend::Cpu { .. } | Backend::Plan { .. } => Ok(()),
        }
    }

    /// The budget in bytes: what it was given, or what it turned out to have when its driver refused memory.
    pub fn budget(&self) -> u64 {
        self.state().budget
    }

    /// True if both handles name one device.
    pub fn same(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Allocates `bytes` for `role`; the contents are unspecified.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the device stays usable.
    pub fn allocate(&self, bytes: u64, role: Role) -> Result<Buffer> {
        let mut state = self.state();
        let fits = Arena::granted(bytes)
            .and_then(|granted| state.ledger.live().total().checked_add(granted))
            .is_some_and(|total| total <= state.budget);
        let reserved = state.arena.reserved();
        let mut block = if fits { state.block(bytes) } else { None };
        if let (Backend::Cuda(cuda), Some(granted)) = (self.backend(), block) {
            let (wanted, room) = (state.arena.reserved(), cuda.back(state.arena.reserved())?);
            if room < wanted {
                state.arena.refuse(granted, reserved, room);
                state.promised = state.promised.or(Some(state.budget));
                state.budget = room;
                block = None;
            }
        }
        let Some(block) = block else {
            return Err(Error::from(OutOfMemory {
                op: state.ledger.op(),
                layer: state.ledger.layer(),
                phase: state.ledger.phase(),
                requested: bytes,
                budget: state.budget,
                promised: state.promised,
                largest_hole: state.arena.largest_hole(),
                live: state.ledger.live(),
                remedies: Vec::new(),
                needs: None,
            }));
        };
        let entry = state.enter(role, bytes, block);
        drop(state);
        let buffer = Buffer::new(self.clone(), entry, block, bytes);
        if let Backend::Cuda(cuda) = self.backend() {
            cuda.allocated(block.offset, bytes)?;
        }
        Ok(buffer)
    }

    /// Reads or changes the ledger.
    pub fn ledger<T>(&self, access: impl FnOnce(&mut Ledger) -> T) -> T {
        access(&mut self.state().ledger)
    }

    /// Reads or changes the record of what ops do.
    pub fn cost_log<T>(&self, access: impl FnOnce(&mut OpCostLog) -> T) -> T {
        access(&mut self.state().work)
    }

    /// Notes what the running layer's `op` has done, if that is recorded or profiled: floating-point operations and bytes.
    pub fn record_cost(&self, op: &'static str, cost: impl FnOnce() -> [u64; 2]) {
        let (recorded, profiled) = {
            let state = self.state();
            (state.work.is_on(), state.profile.is_some())
        };
        if recorded || profiled {
            let [flops, bytes] = cost();
            let (layer, phase) = self.ledger(|ledger| (ledger.layer(), ledger.phase()));
            let cost = OpCost { op, layer, phase, flops, bytes };
            if recorded {
                self.cost_log(|log| log.note(cost.clone()));
            }
            if profiled {
                self.profile_cost(cost);
            }
            if let Backend::Cuda(cuda) = self.backend() {
                cuda.mark();
            }
        }
    }

    /// From now on takes the time of each pass that is noted, on CUDA by events of its stream.
    pub fn start_clock(&self) {
        if let Backend::Cuda(cuda) = self.backend() {
            cuda.start_clock();
        }
    }

    /// Stops that: seconds of each pass noted since, and of what came after the last. Empty elsewhere than on CUDA.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stop_clock(&self) -> Result<Vec<f64>> {
        match self.backend() {
            Backend::Cuda(cuda) => cuda.stop_clock(),
            Backend::Cpu { .. } | Backend::Plan { .. } => Ok(Vec::new()),
        }
    }

    /// Live bytes by role.
    pub fn live(&self) -> RoleBytes {
        self.ledger(|ledger| ledger.live())
    }

    /// Bytes that the arena had to reserve so far, fragmentation included. On CUDA memory comes in granules, the first of
    /// them at once.
    pub fn reserved(&self) -> u64 {
        let used = self.state().arena.reserved();
        let granularity = match (self.backend(), self.target()) {
            (_, Target::Cpu { .. }) => return used,
            (Backend::Cuda(cuda), _) => cuda.granularity(),
            (_, target) => target.granularity(),
        };
        used.max(1).next_multiple_of(granularity)
    }

    /// A fingerprint of where the arena has room: with the same one, the same requests are given the same places.
    pub fn layout(&self) -> u64 {
        self.state().fingerprint()
    }

    /// True of a plan whose logs nobody reads, and whose steps nobody follows.
    pub(crate) fn is_unread(&self) -> bool {
        let state = self.state();
        self.is_plan() && !state.ledger.is_recording() && !state.layouts.are_followed()
    }

    /// Of a plan whose logs nobody reads: what it holds, and where it has room. Work that begins with the same and asks for
    /// the same bytes ends alike, and need not be gone through again. `None` where it must be.
    pub(crate) fn unread_state(&self) -> Option<(RoleBytes, u64)> {
        let unread = self.is_unread();
        let state = self.state();
        unread.then(|| (state.ledger.live(), state.arena.fingerprint()))
    }

    /// Runs `work` in a phase.
    pub fn in_phase<T>(&self, phase: Phase, work: impl FnOnce() -> T) -> T {
        self.note_rest();
        let former = self.ledger(|ledger| ledger.set_phase(phase));
        let result = work();
        self.note_rest();
        self.ledger(|ledger| ledger.set_phase(former));
        result
    }

    /// Runs `work` with new entries belonging to `op`.
    pub fn in_op<T>(&self, op: &'static str, work: impl FnOnce() -> T) -> T {
        let former = self.ledger(|ledger| ledger.set_op(op));
        let result = work();
        self.ledger(|ledger| ledger.set_op(former));
        result
    }

    /// Runs `work` with new entries belonging to `layer`, a path below the current one.
    pub fn in_layer<T>(&self, layer: &str, work: impl FnOnce() -> T) -> T {
        let former = self.ledger(|ledger| {
            let path = ledger.layer();
            let path: Arc<str> = if path.is_empty() { layer.into() } else { format!("{path}.{layer}").into() };
            ledger.set_layer(path)
        });
        let result = work();
        self.ledger(|ledger| ledger.set_layer(former));
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_leaves_the_device_usable() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let held = device.allocate(600 << 10, Role::Data).unwrap();
        let error = device.in_op("linear", || device.allocate(600 << 10, Role::Transient)).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("linear") && message.contains("data 600.0 KiB"), "{message}");
        drop(held);
        assert_eq!(device.live().total(), 0);
        device.allocate(600 << 10, Role::Transient).unwrap();
    }

    #[test]
    fn a_plan_places_buffers_as_the_cpu_does() {
        let cpu = Device::cpu(1, 1 << 20).unwrap();
        let plan = Device::plan(1, cpu.simd(), 1 << 20);
        let trace = |device: &Device| {
            device.ledger(|ledger| ledger.record(true));
            let a = device.allocate(1000, Role::Parameter).unwrap();
            let b = device.in_layer("encoder", || device.allocate(5000, Role::Transient).unwrap());
            drop(a);
            let _c = device.allocate(700, Role::Saved).unwrap();
            drop(b);
            device.ledger(|ledger| ledger.take_events())
        };
        assert_eq!(trace(&cpu), trace(&plan));
        assert_eq!(cpu.reserved(), plan.reserved());
    }
}
