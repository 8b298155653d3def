//! NCCL: sums and gathers between GPUs, on the engine's stream; looked for at run time, as the driver is.
//!
//! cudarc's own loader asks for `libnccl.so` only, which neither Debian's libnccl2 nor PyTorch's nvidia-nccl has: theirs is
//! called `libnccl.so.2`. So its nine functions are looked up here.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use cudarc::driver::CudaEvent;
use libloading::Library;

use super::{Cuda, driver};
use crate::device::device_info::NCCL_ID;
use crate::error::{Error, Result};

/// Where the library may be found, in the words of the dynamic linker.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// `ncclUint8`, `ncclFloat32` and `ncclSum`.
const BYTES: c_int = 1;
const FLOATS: c_int = 7;
const SUM: c_int = 0;

/// `ncclInProgress`: no failure.
const IN_PROGRESS: c_int = 7;

/// Between two looks at an event that is waited for.
const PAUSE: Duration = Duration::from_micros(20);

/// `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UniqueId([u8; NCCL_ID]);

type Handle = *mut c_void;
type Stream = *mut c_void;

/// Its functions: signatures of `nccl.h`, the same since NCCL 2.4.
struct Nccl {
    unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int) -> c_int,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
    all_reduce: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, Handle, Stream) -> c_int,
    all_gather: unsafe extern "C" fn(u64, u64, usize, c_int, Handle, Stream) -> c_int,
    async_error: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    abort: unsafe extern "C" fn(Handle) -> c_int,
    text: unsafe extern "C" fn(c_int) -> *const c_char,
    /// Since NCCL 2.13.
    last_error: Option<unsafe extern "C" fn(Handle) -> *const c_char>,
}

impl Nccl {
    /// The library, which stays loaded.
    fn load() -> Result<&'static Self> {
        static LOADED: OnceLock<Option<Nccl>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| {
            // SAFETY: NCCL's initialisation starts nothing; the symbols have these signatures, and the library is never unloaded.
            unsafe {
                let library = NAMES.into_iter().find_map(|name| Library::new(name).ok())?;
                let library = Box::leak(Box::new(library));
                Some(Self {
                    unique_id: *library.get(b"ncclGetUniqueId").ok()?,
                    init: *library.get(b"ncclCommInitRank").ok()?,
                    destroy: *library.get(b"ncclCommDestroy").ok()?,
                    all_reduce: *library.get(b"ncclAllReduce").ok()?,
                    all_gather: *library.get(b"ncclAllGather").ok()?,
                    async_error: *library.get(b"ncclCommGetAsyncError").ok()?,
                    abort: *library.get(b"ncclCommAbort").ok()?,
                    text: *library.get(b"ncclGetErrorString").ok()?,
                    last_error: library.get(b"ncclGetLastError").ok().map(|symbol| *symbol),
                })
            }
        });
        loaded.as_ref().ok_or_else(|| {
            let remedy = "install it (Debian: libnccl2; pip: nvidia-nccl-cu12) or name its folder in LD_LIBRARY_PATH";
            Error::Device(format!(
                "no NCCL on this machine ({} was not found); {remedy}, or train on one device",
                NAMES[0]
            ))
        })
    }

    /// What NCCL says of a call that has failed.
    fn check(&self, what: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: texts of the library, which lives on; any code is allowed, and no communicator need be named.
        let texts = unsafe {
            [(self.text)(code), self.last_error.map_or(std::ptr::null(), |last| last(std::ptr::null_mut()))]
                .map(|text| if text.is_null() { "".into() } else { CStr::from_ptr(text).to_string_lossy() })
        };
        let [text, last] = texts.each_ref().map(|text| text.trim());
        let more = if last.is_empty() { String::new() } else { format!(": {last}") };
        let remedy = match code {
            5 => "each process needs a device of its own: see docs/distributed.md",
            _ => "NCCL_DEBUG=WARN tells more",
        };
        Err(Error::Device(format!("{what}: NCCL says {text} ({code}){more}; {remedy}")))
    }
}

/// Finds the library.
///
/// # Errors
/// [`Error::Device`] that says what to install.
pub fn load_nccl() -> Result<()> {
    Nccl::load().map(drop)
}

/// An id for a new communicator, which other ranks reach through this process.
///
/// # Errors
/// As [`load_nccl`], or what NCCL says.
pub fn nccl_id() -> Result<[u8; NCCL_ID]> {
    let nccl = Nccl::load()?;
    let mut id = UniqueId([0; NCCL_ID]);
    // SAFETY: an out pointer.
    nccl.check("making a communicator's id", unsafe { (nccl.unique_id)(&mut id) })?;
    Ok(id.0)
}

/// This device among those of other ranks.
pub struct Communicator {
    nccl: &'static Nccl,
    handle: Handle,
    watch: Arc<Watch>,
}

/// The communicator whose work a wait may be for, while it is alive: the library and the handle.
#[derive(Default)]
pub(super) struct Watch(Mutex<Option<(&'static Nccl, usize)>>);

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Option<(&'static Nccl, usize)>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// True if there is one.
    pub(super) fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Ends a communicator that has failed beside its calls: kernels of it would wait for ever.
    fn check(&self) -> Result<()> {
        let mut watched = self.lock();
        let Some((nccl, handle)) = *watched else { return Ok(()) };
        let mut found = 0;
        // SAFETY: a live communicator, and an out pointer.
        let code = unsafe { (nccl.async_error)(handle as Handle, &mut found) };
        let code = if code == 0 { found } else { code };
        if code == 0 || code == IN_PROGRESS {
            return Ok(());
        }
        let told = nccl.check("exchanging with the other GPUs", code);
        *watched = None;
        // SAFETY: a live communicator, which nobody uses from here on. What has failed already may fail in this too.
        let _ = unsafe { (nccl.abort)(handle as Handle) };
        told
    }
}

impl Communicator {
    /// Leaves it, as all ranks do. Whoever ends in another way just goes.
    pub(in crate::device) fn leave(self) {
        if self.watch.lock().take().is_none() {
            return;
        }
        // SAFETY: a live communicator, which nobody has any more. There is nobody left to tell of a failure.
        let _ = unsafe { (self.nccl.destroy)(self.handle) };
    }
}

impl Cuda {
    /// Joins the `size` ranks of `id` as number `rank`; waits for all.
    pub(in crate::device) fn communicator(&self, id: [u8; NCCL_ID], rank: usize, size: usize) -> Result<Communicator> {
        let nccl = Nccl::load()?;
        self.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: an out pointer, and a current context.
        let code = unsafe { (nccl.init)(&mut handle, size as c_int, UniqueId(id), rank as c_int) };
        nccl.check("joining the other GPUs", code)?;
        *self.watch.lock() = Some((nccl, handle as usize));
        Ok(Communicator { nccl, handle, watch: self.watch.clone() })
    }

    /// Waits until `event` has happened. What waits for a communicator that fails ends with what NCCL says.
    pub(super) fn wait_for(&self, event: &CudaEvent) -> Result<()> {
        let failed = |e| driver::failed("waiting for the device (OSSNET_CUDA_WAIT=1 names the kernel)", e);
        if self.watch.is_on() {
            while !event.try_is_complete().map_err(failed)? {
                self.watch.check()?;
                std::thread::sleep(PAUSE);
            }
            self.watch.check()?;
        }
        event.synchronize().map_err(failed)
    }

    /// Replaces `count` f32 at `address` by their sums over all ranks.
    pub(in crate::device) fn all_reduce(&self, ranks: &Communicator, address: u64, count: u64) -> Result<()> {
        let stream = self.for_nccl("a sum over GPUs")?;
        let (nccl, count) = (ranks.nccl, count as usize);
        // SAFETY: a live buffer of the arena, behind all that was launched for it; sums in place are allowed.
        let code = unsafe { (nccl.all_reduce)(address, address, count, FLOATS, SUM, ranks.handle, stream) };
        nccl.check("summing gradients", code)
    }

    /// Puts the `bytes` bytes at `from` of every rank behind each other at `to`.
    pub(in crate::device) fn all_gather(&self, ranks: &Communicator, from: u64, to: u64, bytes: u64) -> Result<()> {
        let stream = self.for_nccl("a gather over GPUs")?;
        let nccl = ranks.nccl;
        // SAFETY: live buffers of the arena that do not overlap, behind all that was launched for them.
        let code = unsafe { (nccl.all_gather)(from, to, bytes as usize, BYTES, ranks.handle, stream) };
        nccl.check("gathering gradients", code)
    }

    /// The stream, with all that waits for a kernel on it.
    fn for_nccl(&self, what: &str) -> Result<Stream> {
        self.not_captured(what)?;
        if !self.watch.is_on() {
            return Err(Error::Device(format!("{what}: the communicator has ended")));
        }
        self.settle()?;
        self.bind()?;
        Ok(self.stream.cu_stream().cast())
    }
}
