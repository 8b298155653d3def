//! CUDA devices, through cudarc's driver API, loaded at run time.
//!
//! A [`Cuda`] is one device: its context, one stream that everything runs on in order, the engine's [`Kernel`]s, the
//! memory behind the arena and the staging buffer. The PTX of all kernels is in the binary and is loaded a module at a
//! time, when the first of its kernels is launched.
//!
//! Without the feature `cuda` the same names exist, and no device is ever found.

mod clock;
#[cfg(feature = "cudnn")]
mod cudnn;
#[cfg(not(feature = "cudnn"))]
#[path = "cudnn_absent.rs"]
mod cudnn;
mod driver;
mod graph;
mod kernel;
mod memory;
mod modules;
#[allow(dead_code)] // build.rs encodes, the program decodes
mod ptx_codec;
mod staging;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::sys::{CUdevice_attribute_enum as Attribute, is_culib_present};
use cudarc::driver::{CudaContext, CudaStream, result};

use super::device_info::{DeviceInfo, Observer};
use super::launch_config::{LaunchConfig, THREADS};
use super::target::{CudaTarget, Target};
use crate::error::{Error, Result};
use crate::tensor::DType;
use clock::Clock;
pub use cudnn::Cudnn;
pub use graph::Graph;
pub use kernel::Kernel;
use memory::Range;
use modules::Modules;
use staging::Staging;

/// Bytes that travel to the device in a kernel's arguments, which needs no buffer on the host that must wait for them.
const SMALL: usize = 256;

/// One CUDA device.
pub struct Cuda {
    /// Before the stream, which it uses.
    cudnn: Option<Cudnn>,
    modules: Modules,
    staging: Mutex<Staging>,
    range: Mutex<Range>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    target: CudaTarget,
    launches: Mutex<BTreeMap<&'static str, u64>>,
    clock: Clock,
    /// Wait after each launch, so that a failing kernel is named.
    wait: bool,
    observer: Option<Box<dyn Observer>>,
}

impl Cuda {
    /// Device number `ordinal`, with `budget` bytes of address space for the arena.
    ///
    /// # Errors
    /// [`Error::Device`] that says what is missing: driver, device, compute capability, address space.
    pub(super) fn open(ordinal: usize, budget: u64, observer: Option<Box<dyn Observer>>) -> Result<Self> {
        check(ordinal)?;
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
        let stream = context.new_stream().map_err(|e| driver::failed("making a stream", e))?;
        Ok(Self {
            cudnn: Cudnn::open(&stream)?,
            modules: Modules::new(context.clone()),
            staging: Mutex::default(),
            range: Mutex::new(Range::reserve(&context, budget, observer.as_deref())?),
            stream,
            target: CudaTarget { capability: (major, minor), shared_memory },
            launches: Mutex::default(),
            clock: Clock::default(),
            wait: std::env::var_os("OSSNET_CUDA_WAIT").is_some(),
            context,
            observer,
        })
    }

    /// What workspaces depend on.
    pub fn target(&self) -> CudaTarget {
        self.target
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
    pub fn kernel(&self, name: impl Into<Cow<'static, str>>) -> Kernel<'_> {
        Kernel::new(self, name)
    }

    /// The kernel of this name for tensors stored as `dtype`: for bf16 it is called `NAME_bf16`.
    pub fn kernel_of(&self, name: &'static str, dtype: DType) -> Kernel<'_> {
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
        self.stream
            .synchronize()
            .map_err(|e| driver::failed("waiting for the device (OSSNET_CUDA_WAIT=1 names the kernel)", e))
    }

    /// Device address of an offset in the arena.
    pub(super) fn address(&self, offset: u64) -> u64 {
        self.lock_range().address(offset)
    }

    /// Puts memory behind the first `bytes` of the arena. Returns how many can be had: fewer only if the device refuses.
    pub(super) fn back(&self, bytes: u64) -> Result<u64> {
        self.lock_range().back(&self.context, bytes, self.observer.as_deref())
    }

    /// Tells the observer of a buffer that comes.
    pub(super) fn allocated(&self, offset: u64, bytes: u64) {
        if let Some(observer) = &self.observer {
            observer.allocated(self.address(offset), bytes);
        }
    }

    /// Tells the observer of a buffer that goes.
    pub(super) fn freed(&self, offset: u64, bytes: u64) {
        if let Some(observer) = &self.observer {
            observer.freed(self.address(offset), bytes);
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
        self.bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        staging
            .upload(&self.context, &self.stream, address, bytes)
            .map_err(|e| driver::failed("copying to the device", e))
    }

    /// Copies from `address` to the host, when everything before is done.
    pub(super) fn download(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        staging
            .download(&self.context, &self.stream, address, bytes)
            .map_err(|e| driver::failed("copying from the device", e))
    }

    /// Copies on the device.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<()> {
        self.bind()?;
        // SAFETY: both ranges lie in live buffers of the arena: the callers have compared the lengths.
        unsafe { result::memcpy_dtod_async(to, from, bytes as usize, self.stream.cu_stream()) }
            .map_err(|e| driver::failed("copying on the device", e))
    }

    /// Fills with zero bytes.
    pub(crate) fn zero(&self, address: u64, bytes: u64) -> Result<()> {
        self.bind()?;
        // SAFETY: the range is a live buffer of the arena.
        unsafe { result::memset_d8_async(address, 0, bytes as usize, self.stream.cu_stream()) }
            .map_err(|e| driver::failed("filling memory", e))
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
        let _ = self.bind();
        let _ = self.stream.synchronize();
        self.staging.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).release();
        self.range.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner()).release();
    }
}

/// Number of CUDA devices.
///
/// # Errors
/// [`Error::Device`] that says why there are none.
fn count() -> Result<usize> {
    thread_local!(static PRESENT: Cell<bool> = const { Cell::new(false) });
    // SAFETY: this only tries to load the library. Asked before any other call, which would panic without it.
    if !PRESENT.get() && !unsafe { is_culib_present() } {
        let remedy = "install NVIDIA's driver (r580 or newer), or use --device cpu";
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

fn describe(ordinal: usize) -> Result<DeviceInfo> {
    let context = CudaContext::new(ordinal).map_err(|e| driver::failed(&format!("opening device {ordinal}"), e))?;
    let failed = |e| driver::failed("asking for a device's properties", e);
    let (major, minor) = context.compute_capability().map_err(failed)?;
    let (free, total) = context.mem_get_info().map_err(failed)?;
    let multiprocessors = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).map_err(failed)?;
    let shared = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).map_err(failed)?;
    Ok(DeviceInfo {
        ordinal,
        name: context.name().map_err(failed)?,
        driver: driver::version()?,
        capability: (major as u32, minor as u32),
        multiprocessors: multiprocessors as u32,
        memory: total as u64,
        free: free as u64,
        shared_memory: shared as u32,
    })
}

/// Share of a device's free memory that the engine may use by default.
const DEFAULT_SHARE: f64 = 0.9;

/// The default budget of a device in bytes: 0.9 × its free memory.
///
/// # Errors
/// [`Error::Device`] if there is no such device.
pub fn default_budget(ordinal: usize) -> Result<u64> {
    check(ordinal)?;
    let info = describe(ordinal)?;
    Ok((info.free as f64 * DEFAULT_SHARE) as u64)
}

/// The target of a device, without its memory.
impl From<&Cuda> for Target {
    fn from(cuda: &Cuda) -> Self {
        Target::Cuda(cuda.target)
    }
}
