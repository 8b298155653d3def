//! CUDA devices, through cudarc's driver API, loaded at run time.
//!
//! A [`Cuda`] is one device: its context, one stream that everything runs on in order, the engine's [`Kernel`]s, the
//! memory behind the arena and the staging buffer. The PTX of all kernels is in the binary; each is loaded when it is first
//! launched (`modules.rs`), while the launches behind it wait (`queue.rs`).
//!
//! Without the feature `cuda` the same names exist, and no device is ever found.

mod clock;
#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(not(feature = "cudnn"))]
#[path = "cudnn_absent.rs"]
mod cudnn;
#[allow(dead_code)] // build.rs cuts
mod cut;
mod driver;
mod fetch;
mod graph;
mod kernel;
mod memory;
mod modules;
mod nccl;
#[allow(dead_code)] // build.rs encodes, the program decodes
mod ptx_codec;
mod queue;
mod staging;
mod uploads;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, is_culib_present};
use cudarc::driver::{CudaContext, CudaStream, PinnedHostSlice, result};

use super::device_info::{DeviceInfo, KernelInfo, LEAST_DRIVER, Observer};
use super::launch_config::{LaunchConfig, THREADS};
use super::target::{CudaTarget, Target};
use crate::error::{Error, Result};
use crate::tensor::DType;
use clock::Clock;
pub use cudnn::Cudnn;
pub use fetch::Fetch;
use fetch::Slot;
pub use graph::Graph;
pub use kernel::Kernel;
use memory::Range;
use modules::Modules;
use nccl::Watch;
pub use nccl::{Communicator, load_nccl, nccl_id};
use queue::{Queue, Task};
use staging::Staging;
pub use uploads::{Pinned, StreamEvent, Upload};

/// Bytes that travel to the device in a kernel's arguments, which needs no buffer on the host that must wait for them.
const SMALL: usize = 256;

/// One CUDA device.
pub struct Cuda {
    /// Before the stream, which it uses.
    cudnn: Option<Cudnn>,
    modules: Modules,
    /// Launches whose kernels are being loaded, and what is behind them.
    queue: Queue,
    staging: Mutex<Staging>,
    /// What fetches left behind.
    slots: Mutex<Vec<Slot>>,
    range: Mutex<Range>,
    watch: Arc<Watch>,
    stream: Arc<CudaStream>,
    /// What copies to the device that run beside its kernels go by.
    copies: Arc<CudaStream>,
    /// Page-locked memory that was used and is free.
    spare: Mutex<Vec<PinnedHostSlice<u8>>>,
    context: Arc<CudaContext>,
    target: CudaTarget,
    budget: u64,
    launches: Mutex<BTreeMap<&'static str, u64>>,
    clock: Clock,
    /// Wait after each launch, so that a failing kernel is named.
    wait: bool,
    capturing: AtomicBool,
    observer: Option<Box<dyn Observer>>,
}

impl Cuda {
    /// Device number `ordinal`, with `budget` bytes of address space for the arena (0: 0.9 × the memory that is free).
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: driver, device, compute capability, address space.
    pub(super) fn open(ordinal: usize, budget: u64, observer: Option<Box<dyn Observer>>) -> Result<Self> {
        check(ordinal)?;
        driver::check_version()?;
        let context = CudaContext::new(ordinal).map_err(|e| driver::failed(&format!("opening device {ordinal}"), e))?;
        let attribute =
            |which| context.attribute(which).map_err(|e| driver::failed("asking for a device's properties", e));
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32;
        if major < 8 {
            let problem =
                format!("CUDA device {ordinal} has compute capability {major}.{minor}; 8.0 or newer is needed");
            return Err(Error::Device(format!("{problem} (use --device cpu)")));
        }
        let shared_memory = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32;
        let budget = match budget {
            0 => default_budget(&context)?,
            given => given,
        };
        let new_stream = || context.new_stream().map_err(|e| driver::failed("making a stream", e));
        let (stream, copies) = (new_stream()?, new_stream()?);
        Ok(Self {
            cudnn: Cudnn::open(&stream)?,
            modules: Modules::new(context.clone(), (major, minor)),
            queue: Queue::default(),
            budget,
            staging: Mutex::default(),
            slots: Mutex::default(),
            watch: Arc::default(),
            range: Mutex::new(Range::reserve(&context, budget, observer.as_deref())?),
            stream,
            copies,
            spare: Mutex::default(),
            target: CudaTarget { capability: (major, minor), shared_memory },
            launches: Mutex::default(),
            clock: Clock::default(),
            wait: std::env::var_os("OSSNET_CUDA_WAIT").is_some(),
            capturing: AtomicBool::new(false),
            context,
            observer,
        })
    }

    /// What workspaces depend on.
    pub fn target(&self) -> CudaTarget {
        self.target
    }

    /// The budget in bytes that it was opened with.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that memory comes in.
    pub(super) fn granularity(&self) -> u64 {
        self.lock_range().granularity()
    }

    /// From now on `listener` hears how many kernels the driver has compiled, of how many that were asked for, where that
    /// takes longer than half a second; equal numbers are the last.
    pub fn on_compiling(&self, listener: impl Fn(usize, usize) + Send + 'static) {
        self.modules.listen(Box::new(listener));
    }

    /// Loads every kernel, which the driver compiles side by side; what it made of each.
    ///
    /// # Errors
    /// What the driver says of the device; of a kernel it is in the answer.
    pub fn load_all(&self) -> Result<Vec<KernelInfo>> {
        self.bind()?;
        self.modules.load_all()
    }

    /// cuDNN's convolutions, if they are built in and asked for.
    pub(crate) fn cudnn(&self) -> Option<&Cudnn> {
        self.cudnn.as_ref()
    }

    /// Kernels launched so far.
    pub fn launches(&self) -> u64 {
        self.lock_launches().values().sum()
    }

    /// The same by kernel.
    pub fn launches_by_kernel(&self) -> Vec<(&'static str, u64)> {
        self.lock_launches().iter().map(|(&name, &launches)| (name, launches)).collect()
    }

    /// The kernel of this name, to be given its arguments.
    pub(crate) fn kernel(&self, name: impl Into<Cow<'static, str>>) -> Kernel<'_> {
        Kernel::new(self, name)
    }

    /// The kernel of this name for tensors stored as `dtype`: for bf16 it is called `NAME_bf16`.
    pub(crate) fn kernel_of(&self, name: &'static str, dtype: DType) -> Kernel<'_> {
        match dtype {
            DType::Bf16 => Kernel::new(self, format!("{name}_bf16")),
            _ => self.kernel(name),
        }
    }

    /// Waits until everything launched so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] if a kernel failed.
    pub fn synchronize(&self) -> Result<()> {
        self.settle()?;
        let failed = |e| driver::failed("waiting for the device (OSSNET_CUDA_WAIT=1 names the kernel)", e);
        match self.watch.is_on() {
            true => self.wait_for(&self.stream.record_event(None).map_err(failed)?),
            false => self.stream.synchronize().map_err(failed),
        }
    }

    /// Device address of an offset in the arena.
    pub(super) fn address(&self, offset: u64) -> u64 {
        self.lock_range().address(offset)
    }

    /// Puts memory behind the first `bytes` of the arena. Returns how many can be had: fewer only if the device refuses.
    pub(super) fn back(&self, bytes: u64) -> Result<u64> {
        self.lock_range().back(&self.context, bytes, self.observer.as_deref())
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.context.ordinal()
    }

    /// A buffer comes to lie at `offset`.
    pub(super) fn allocated(&self, offset: u64, bytes: u64) -> Result<()> {
        let address = self.lock_range().come(&self.context, offset, bytes)?;
        self.observer.iter().for_each(|observer| observer.allocated(address, bytes));
        Ok(())
    }

    /// The buffer at `offset` goes.
    pub(super) fn freed(&self, offset: u64, bytes: u64) {
        let mut range = self.lock_range();
        let separate = range.is_separate();
        if self.observer.is_none() && !separate {
            return;
        }
        let address = range.go(offset);
        drop(range);
        self.observer.iter().for_each(|observer| observer.freed(address, bytes));
        if separate {
            // Nobody to tell of a failure: what fails here fails again in the next call.
            let _ = self.note(Task::Free { address });
        }
    }

    /// Copies `bytes` from the host to `address`: few in a kernel's arguments, more through page-locked memory.
    pub(super) fn upload(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() <= SMALL {
            let mut carried = [0u8; SMALL];
            carried[..bytes.len()].copy_from_slice(bytes);
            let kernel = self.kernel("write_bytes").value(carried).value(address).value(bytes.len() as u32);
            return kernel.launch(LaunchConfig::new(usize::from(!bytes.is_empty()), THREADS));
        }
        self.not_captured("a copy to the device")?;
        self.settle()?;
        self.bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        staging
            .upload(&self.context, &self.stream, address, bytes)
            .map_err(|e| driver::failed("copying to the device", e))
    }

    /// Copies from `address` to the host, when everything before is done.
    pub(super) fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.not_captured("a copy to the host")?;
        self.settle()?;
        self.bind()?;
        if self.watch.is_on() {
            self.synchronize()?;
        }
        let mut staging = self.staging.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        staging
            .download(&self.context, &self.stream, address, bytes)
            .map_err(|e| driver::failed("copying from the device", e))
    }

    /// Copies on the device.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        self.submit(Task::Copy { to, from, bytes })
    }

    /// Fills with zero bytes.
    pub(crate) fn zero(&self, address: u64, bytes: u64) -> Result<()> {
        self.submit(Task::Zero { address, bytes })
    }

    /// Makes the context the calling thread's.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| driver::failed("using the device's context", e))
    }

    fn lock_launches(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.launches.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn lock_range(&self) -> MutexGuard<'_, Range> {
        self.range.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // Nothing may use the memory any more when it goes; there is nobody left to tell of a failure.
        self.queue.clear();
        self.modules.stop();
        let _ = self.bind();
        let _ = self.copies.synchronize();
        let _ = self.stream.synchronize();
        self.spare.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        self.slots.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
        self.staging.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).release();
        self.range.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).release();
    }
}

/// Number of CUDA devices.
///
/// # Errors
/// [`Error::Device`] that says why there are none.
pub fn count() -> Result<usize> {
    thread_local!(static PRESENT: Cell<bool> = const { Cell::new(false) });
    // SAFETY: this only tries to load the library. Asked before any other call, which would panic without it.
    if !PRESENT.get() && !unsafe { is_culib_present() } {
        let remedy = format!("install NVIDIA's driver ({LEAST_DRIVER} or newer), or use --device cpu");
        return Err(Error::Device(format!("no CUDA driver on this machine (libcuda.so was not found); {remedy}")));
    }
    PRESENT.set(true);
    result::init().map_err(|e| driver::failed("starting the driver", e))?;
    match result::device::get_count().map_err(|e| driver::failed("counting the devices", e))? {
        0 => Err(Error::Device(
            "the CUDA driver sees no device (is CUDA_VISIBLE_DEVICES empty?); use --device cpu".into(),
        )),
        count => Ok(count as usize),
    }
}

/// Checks that there is a device of this number.
fn check(ordinal: usize) -> Result<()> {
    let count = count()?;
    if ordinal < count {
        return Ok(());
    }
    let there = if count == 1 { "is 1 CUDA device".into() } else { format!("are {count} CUDA devices") };
    Err(Error::Device(format!("no CUDA device {ordinal}: there {there}, numbered from 0; ossnet devices lists them")))
}

/// The CUDA devices of this machine.
///
/// # Errors
/// [`Error::Device`] that says why there are none.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    (0..count()?).map(describe).collect()
}

/// What needs no context is asked without one: making it takes a tenth of a second and more.
fn describe(ordinal: usize) -> Result<DeviceInfo> {
    let failed = |e| driver::failed("asking for a device's properties", e);
    let device = result::device::get(ordinal as i32).map_err(failed)?;
    // SAFETY: a device of the driver's.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(failed);
    let name = result::device::get_name(device).map_err(failed)?;
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(failed)?;
    let free = CudaContext::new(ordinal).and_then(|context| context.mem_get_info());
    Ok(DeviceInfo {
        ordinal,
        name,
        driver: driver::version()?,
        capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
        memory: memory as u64,
        free: free.map_err(|e| driver::failed(&format!("opening device {ordinal}"), e))?.0 as u64,
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32,
    })
}

/// Share of a device's free memory that the engine may use by default.
const DEFAULT_SHARE: f64 = 0.9;

/// The default budget in bytes.
fn default_budget(context: &CudaContext) -> Result<u64> {
    let (free, _) = context.mem_get_info().map_err(|e| driver::failed("asking for the free memory", e))?;
    Ok((free as f64 * DEFAULT_SHARE) as u64)
}

/// The target of a device, without its memory.
impl From<&Cuda> for Target {
    fn from(cuda: &Cuda) -> Self {
        Target::Cuda(cuda.target)
    }
}
