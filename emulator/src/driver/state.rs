//! Devices, contexts and handles.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::Status;
use super::graph::{Capture, Node};
use crate::decode::ir::Kernel;
use crate::decode::module::Module;
use crate::exec::launch::BlockNumbers;
use crate::memory::Memory;

/// Bits of an address below its device's number.
const DEVICE_SHIFT: u32 = 44;
/// Memory a device pretends to have unless `CUEMU_MEMORY` says otherwise, in bytes.
const DEVICE_MEMORY: u64 = 64 << 30;

/// One emulated device.
pub struct Device {
    /// What changes.
    pub state: Mutex<DeviceState>,
}

/// What changes in a device.
pub struct DeviceState {
    /// Its memory.
    pub memory: Memory,
    /// Blocks run.
    pub numbers: BlockNumbers,
    /// Holders of its primary context.
    pub holders: u32,
    /// The sticky error of its context.
    pub fatal: Option<Status>,
}

impl DeviceState {
    fn new(ordinal: usize) -> DeviceState {
        let start = (ordinal as u64 + 1) << DEVICE_SHIFT;
        let capacity = std::env::var("CUEMU_MEMORY").ok().and_then(|v| v.parse().ok()).unwrap_or(DEVICE_MEMORY);
        DeviceState { memory: Memory::new(start, capacity), numbers: BlockNumbers(1), holders: 0, fatal: None }
    }

    /// The context ends: what was allocated is gone, and the error with it.
    pub fn end_context(&mut self, ordinal: usize) {
        // Addresses of the old context stay dead.
        let blocks = self.numbers.0;
        let next = self.memory.next_address();
        *self = DeviceState::new(ordinal);
        self.numbers = BlockNumbers(blocks);
        self.memory.skip_to(next);
    }
}

/// Locks, whatever a panicking thread left behind: the tables are consistent between calls.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The devices: one, or as many as `CUEMU_DEVICES` says.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let count = std::env::var("CUEMU_DEVICES").ok().and_then(|v| v.parse().ok()).unwrap_or(1usize).clamp(1, 64);
        (0..count).map(|ordinal| Device { state: Mutex::new(DeviceState::new(ordinal)) }).collect()
    })
}

/// The device with this number.
pub fn device(ordinal: i32) -> Result<&'static Device, Status> {
    usize::try_from(ordinal).ok().and_then(|k| devices().get(k)).ok_or(Status::InvalidDevice)
}

/// The number of the device an address belongs to.
pub fn ordinal_of(address: u64) -> Option<usize> {
    (address >> DEVICE_SHIFT)
        .checked_sub(1)
        .map(|ordinal| ordinal as usize)
        .filter(|&ordinal| ordinal < devices().len())
}

/// The device an address belongs to.
pub fn device_of(address: u64) -> Result<&'static Device, Status> {
    ordinal_of(address).map(|ordinal| &devices()[ordinal]).ok_or(Status::InvalidValue)
}

const CONTEXT: usize = 0xC0DE_0001;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Handle of a device's primary context.
pub fn context_of(ordinal: usize) -> usize {
    CONTEXT + ordinal
}

/// The current context's handle; zero for none.
pub fn current() -> usize {
    CURRENT.get()
}

/// Sets the current context; zero for none.
pub fn set_current(context: usize) -> Result<(), Status> {
    if context != 0 && context.checked_sub(CONTEXT).is_none_or(|k| k >= devices().len()) {
        return Err(Status::InvalidContext);
    }
    CURRENT.set(context);
    Ok(())
}

/// The number of the current context's device.
pub fn current_ordinal() -> Result<usize, Status> {
    current().checked_sub(CONTEXT).filter(|&k| k < devices().len()).ok_or(Status::InvalidContext)
}

/// The current context's device, locked, if its context has no sticky error.
pub fn current_state() -> Result<MutexGuard<'static, DeviceState>, Status> {
    let state = lock(&devices()[current_ordinal()?].state);
    match state.fatal {
        Some(status) => Err(status),
        None => Ok(state),
    }
}

/// A loaded module and its device.
pub struct Loaded {
    /// The kernels and variables.
    pub module: Arc<Module>,
    /// The device it is loaded on.
    pub ordinal: usize,
}

/// A kernel's handle.
#[derive(Clone)]
pub struct Function {
    /// Its module.
    pub module: Arc<Loaded>,
    /// Handle of the module.
    pub owner: usize,
    /// Index in the module.
    pub index: usize,
    /// Largest dynamic shared memory it may be launched with.
    pub dynamic_limit: Arc<AtomicU32>,
}

impl Function {
    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.module.module.kernels[self.index]
    }
}

/// An event.
#[derive(Clone, Copy, Default)]
pub struct Event {
    /// When it was last recorded.
    pub recorded: Option<Instant>,
}

/// Live handles.
#[derive(Default)]
pub struct Handles {
    /// Modules.
    pub modules: HashMap<usize, Arc<Loaded>>,
    /// Kernels.
    pub functions: HashMap<usize, Function>,
    /// Streams, with their priority.
    pub streams: HashMap<usize, i32>,
    /// Events.
    pub events: HashMap<usize, Event>,
    /// Page-locked host memory: size in bytes.
    pub pinned: HashMap<usize, usize>,
    /// Streams that are being captured.
    pub captures: HashMap<usize, Capture>,
    /// Graphs.
    pub graphs: HashMap<usize, Arc<[Node]>>,
    /// Executable graphs.
    pub executables: HashMap<usize, Arc<[Node]>>,
}

/// The handle tables.
pub fn handles() -> MutexGuard<'static, Handles> {
    static HANDLES: OnceLock<Mutex<Handles>> = OnceLock::new();
    lock(HANDLES.get_or_init(Mutex::default))
}

/// A handle never given before.
pub fn fresh() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    0x1000_0000 + 16 * NEXT.fetch_add(1, Ordering::Relaxed)
}
