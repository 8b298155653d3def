//! The kernels in the binary, and loading them: each when it is first asked for and alone, several at a time.
//!
//! The driver compiles PTX when it is loaded, a tenth of a second to seconds a kernel. A kernel that is asked for is loaded by
//! threads of their own while the caller goes on asking for others (`queue.rs` keeps launches back until their kernel is
//! there). Where the binary has machine code that the device runs, that is loaded, a file at once; if the driver refuses it
//! (an older one), the PTX serves.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cudarc::driver::result::function::{get_function_attribute, set_function_attribute};
use cudarc::driver::sys::{CUfunction, CUfunction_attribute_enum as Attribute, CUmodule};
use cudarc::driver::{CudaContext, result};
use lzma_rust2::LzmaReader;

use super::{driver, ptx_codec};
use crate::device::device_info::KernelInfo;
use crate::error::{Error, Result};

/// One kernel file.
pub struct File {
    /// Its name without the ending.
    pub name: &'static str,
    /// What stands before every kernel.
    pub head: &'static str,
    /// The kernels in it.
    pub kernels: &'static [Kernel],
    /// Machine code of the whole file.
    pub code: &'static [Code],
}

/// A kernel of a file.
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// Where its piece begins and ends in what [`PTX`] holds.
    pub place: (usize, usize),
}

/// Machine code for one architecture.
pub struct Code {
    /// Compute capability: it runs on devices of the same major and at least this minor number.
    pub capability: (u32, u32),
    /// The file's cubin, packed as LZMA.
    pub cubin: &'static [u8],
}

// `FILES`, and `PTX`: the kernels of all files one behind the other, each encoded as `ptx_codec.rs` says, packed as LZMA.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// [`PTX`] unpacked, when a kernel is first asked for: a tenth of a second, and memory that stays, for a kernel may be asked for
/// at any time (plans count it, `planner::host_overhead`). `None` if it is damaged.
static UNPACKED: LazyLock<Option<String>> = LazyLock::new(|| String::from_utf8(unpacked(PTX)?).ok());

/// What `build.rs` packed, with its length in front as LZMA's own files have it.
fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(packed.get(5..13)?.try_into().ok()?);
    let mut bytes = Vec::with_capacity(usize::try_from(length).ok()?);
    LzmaReader::new_mem_limit(packed, u32::MAX, None).ok()?.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Bytes of dynamic shared memory that need no permission.
const SHARED_BY_DEFAULT: u32 = 48 << 10;

/// Loading that takes no longer is not worth a word.
const QUIET: Duration = Duration::from_millis(500);

/// How often a caller that waits is told how far loading is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Hears how many kernels are loaded, of how many that were asked for so far. Equal numbers end what it has said.
pub(super) type Listener = Box<dyn Fn(usize, usize) + Send>;

impl File {
    fn damaged(&self) -> Error {
        Error::Device(format!("the kernels of {}.cu are damaged; build the program anew", self.name))
    }

    /// The PTX of one kernel, with a zero at the end.
    fn text(&self, kernel: &Kernel) -> Result<std::ffi::CString> {
        let (start, end) = kernel.place;
        let piece = UNPACKED.as_deref().and_then(|all| all.get(start..end)).ok_or_else(|| self.damaged())?;
        let text = self.head.to_owned() + &ptx_codec::decode(piece, kernel.name);
        std::ffi::CString::new(text).map_err(|_| self.damaged())
    }

    /// The machine code that runs on a device of this compute capability; the nearest below, if there are several.
    fn code_for(&self, (major, minor): (u32, u32)) -> Option<&Code> {
        let runs = |code: &&Code| code.capability.0 == major && code.capability.1 <= minor;
        self.code.iter().filter(runs).max_by_key(|code| code.capability.1)
    }
}

/// The kernel of this name and its file.
fn find(name: &str) -> Result<(&'static File, &'static Kernel)> {
    let known = |file: &'static File| Some((file, file.kernels.iter().find(|kernel| kernel.name == name)?));
    FILES.iter().find_map(known).ok_or_else(|| Error::Device(format!("there is no kernel {name}")))
}

/// The kernels of one device.
pub(super) struct Modules {
    shared: Arc<Shared>,
    listener: Mutex<Option<Listener>>,
}

/// What callers and loading threads share.
struct Shared {
    context: Arc<CudaContext>,
    capability: (u32, u32),
    table: Mutex<Table>,
    changed: Condvar,
    threads: usize,
}

#[derive(Default)]
struct Table {
    kernels: HashMap<&'static str, State>,
    /// Files whose machine code is loaded; `None` where the driver did not take it.
    code: HashMap<&'static str, Option<CUmodule>>,
    /// Modules of single kernels.
    modules: Vec<CUmodule>,
    /// Asked for and not begun.
    waiting: VecDeque<(&'static File, &'static Kernel)>,
    threads: Vec<JoinHandle<()>>,
    /// Of the threads, those that look for work.
    busy: usize,
    /// Kernels asked for, and those of them that are done with.
    asked: usize,
    done: usize,
    /// When loading began that has not ended.
    since: Option<Instant>,
    /// The listener has heard of it.
    told: bool,
}

enum State {
    Loading,
    Loaded { function: CUfunction, allowed: u32, seconds: f64 },
    Failed(String),
}

// SAFETY: handles of the driver may be used from any thread whose current context is theirs.
unsafe impl Send for Table {}

impl Modules {
    pub(super) fn new(context: Arc<CudaContext>, capability: (u32, u32)) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Shared { context, capability, table: Mutex::default(), changed: Condvar::new(), threads };
        Self { shared: Arc::new(shared), listener: Mutex::default() }
    }

    /// Who hears how far loading is where it takes longer than half a second.
    pub(super) fn listen(&self, listener: Listener) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    /// Starts loading the kernel of this name if nobody has; its name in the table.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such kernel.
    pub(super) fn ask(&self, name: &str) -> Result<&'static str> {
        let mut table = self.shared.lock();
        if let Some((&name, _)) = table.kernels.get_key_value(name) {
            return Ok(name);
        }
        let (file, kernel) = find(name)?;
        table.kernels.insert(kernel.name, State::Loading);
        table.waiting.push_back((file, kernel));
        table.asked += 1;
        table.since.get_or_insert_with(Instant::now);
        if table.busy < self.shared.threads {
            table.threads.retain(|thread| !thread.is_finished());
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("kernels".into()).spawn(move || shared.load_all());
            match thread {
                Ok(thread) => {
                    table.busy += 1;
                    table.threads.push(thread);
                }
                // No thread to be had: here, then.
                Err(_) if table.busy == 0 => {
                    table.busy += 1;
                    drop(table);
                    self.shared.load_all();
                }
                Err(_) => {}
            }
        }
        Ok(kernel.name)
    }

    /// True if a kernel that was asked for is no longer being loaded.
    pub(super) fn is_ready(&self, name: &'static str) -> bool {
        !matches!(self.shared.lock().kernels.get(name), Some(State::Loading))
    }

    /// The kernel of this name, allowed `shared` bytes of dynamic shared memory; waits until it is loaded.
    ///
    /// # Errors
    /// What the driver said when it was loaded.
    pub(super) fn function(&self, name: &'static str, shared: u32) -> Result<CUfunction> {
        let mut table = self.shared.lock();
        while matches!(table.kernels.get(name), Some(State::Loading)) {
            if table.since.is_some_and(|since| since.elapsed() >= QUIET) {
                table.told = true;
                self.tell(table.done, table.asked);
            }
            let waited = self.shared.changed.wait_timeout(table, TELL_EVERY);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if table.told && table.done == table.asked {
            table.told = false;
            self.tell(table.done, table.asked);
        }
        match table.kernels.get_mut(name) {
            Some(State::Loaded { function, allowed, .. }) => {
                if shared > *allowed {
                    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    // SAFETY: a function of a loaded module.
                    unsafe { set_function_attribute(*function, attribute, shared as i32) }.map_err(|e| {
                        driver::failed(&format!("giving kernel {name} {shared} bytes of shared memory"), e)
                    })?;
                    *allowed = shared;
                }
                Ok(*function)
            }
            Some(State::Failed(problem)) => Err(Error::Device(problem.clone())),
            _ => Err(Error::Device(format!("kernel {name} was not asked for; report this"))),
        }
    }

    /// Loads all kernels; what the driver made of each.
    pub(super) fn load_all(&self) -> Result<Vec<KernelInfo>> {
        let all = || FILES.iter().flat_map(|file| file.kernels.iter().map(move |kernel| (file.name, kernel.name)));
        all().try_for_each(|(_, name)| self.ask(name).map(drop))?;
        let of = |(file, kernel)| {
            let empty = KernelInfo { file, kernel, seconds: 0.0, registers: 0, shared: 0, local: 0, problem: None };
            let function = match self.function(kernel, 0) {
                Ok(function) => function,
                Err(error) => return KernelInfo { problem: Some(text_of(&error)), ..empty },
            };
            let seconds = match self.shared.lock().kernels.get(kernel) {
                Some(State::Loaded { seconds, .. }) => *seconds,
                _ => 0.0,
            };
            // SAFETY: a function of a loaded module.
            let attribute = |which| unsafe { get_function_attribute(function, which) }.map_or(0, |value| value as u32);
            KernelInfo {
                seconds,
                registers: attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS),
                shared: attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES),
                local: attribute(Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES),
                ..empty
            }
        };
        Ok(all().map(of).collect())
    }

    fn tell(&self, done: usize, asked: usize) {
        if let Some(listener) = &*self.listener.lock().unwrap_or_else(PoisonError::into_inner) {
            listener(done, asked);
        }
    }

    /// Loads nothing more, and waits for what is being loaded.
    pub(super) fn stop(&self) {
        let threads = {
            let mut table = self.shared.lock();
            table.waiting.clear();
            std::mem::take(&mut table.threads)
        };
        // A thread that panicked has left its kernel unloaded, which is all that is wanted here.
        threads.into_iter().for_each(|thread| _ = thread.join());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads until nothing waits.
    fn load_all(&self) {
        loop {
            let mut table = self.lock();
            let Some((file, kernel)) = table.waiting.pop_front() else {
                table.busy -= 1;
                return;
            };
            drop(table);
            let started = Instant::now();
            let loaded = self.load(file, kernel);
            let seconds = started.elapsed().as_secs_f64();
            let mut table = self.lock();
            let state = match loaded {
                Ok(function) => State::Loaded { function, allowed: SHARED_BY_DEFAULT, seconds },
                Err(error) => State::Failed(text_of(&error)),
            };
            table.kernels.insert(kernel.name, state);
            table.done += 1;
            if table.done == table.asked {
                table.since = None;
            }
            drop(table);
            self.changed.notify_all();
        }
    }

    fn load(&self, file: &'static File, kernel: &'static Kernel) -> Result<CUfunction> {
        self.context.bind_to_thread().map_err(|e| driver::failed("using the device's context", e))?;
        let module = match self.code(file)? {
            Some(module) => module,
            None => {
                let text = file.text(kernel)?;
                // SAFETY: PTX text that ends with a zero.
                let module = unsafe { result::module::load_data(text.as_ptr().cast()) }
                    .map_err(|e| driver::failed(&format!("loading kernel {} of {}.cu", kernel.name, file.name), e))?;
                self.lock().modules.push(module);
                module
            }
        };
        let name = std::ffi::CString::new(kernel.name)
            .map_err(|_| Error::Device(format!("{:?} is no kernel's name", kernel.name)))?;
        // SAFETY: a loaded module.
        unsafe { result::module::get_function(module, name) }
            .map_err(|e| driver::failed(&format!("finding kernel {}", kernel.name), e))
    }

    /// The file's machine code, loaded; `None` where there is none for this device, or the driver does not take it.
    fn code(&self, file: &'static File) -> Result<Option<CUmodule>> {
        let Some(code) = file.code_for(self.capability) else { return Ok(None) };
        if let Some(&known) = self.lock().code.get(file.name) {
            return Ok(known);
        }
        let cubin = unpacked(code.cubin).ok_or_else(|| file.damaged())?;
        // SAFETY: an ELF image, which says its own length.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) }.ok();
        let mut table = self.lock();
        match table.code.get(file.name).copied() {
            // Another thread was quicker: one of the two goes.
            Some(known) => {
                // SAFETY: loaded above, and used by nobody.
                module.into_iter().for_each(|module| _ = unsafe { result::module::unload(module) });
                Ok(known)
            }
            None => {
                table.code.insert(file.name, module);
                Ok(module)
            }
        }
    }
}

/// A device's error without what is put before every such error.
fn text_of(error: &Error) -> String {
    match error {
        Error::Device(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        self.stop();
        let _ = self.shared.context.bind_to_thread();
        let mut table = self.shared.lock();
        let modules = std::mem::take(&mut table.modules);
        let code = std::mem::take(&mut table.code).into_values().flatten();
        for module in modules.into_iter().chain(code) {
            // SAFETY: loaded above and not unloaded since; its kernels are done, for the device waited for its stream.
            let _ = unsafe { result::module::unload(module) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_alone_is_a_module() {
        let (file, kernel) = find("conv3d_pack").unwrap();
        let text = file.text(kernel).unwrap().into_string().unwrap();
        assert!(text.starts_with(".version 8.1\n.target sm_80\n.address_size 64\n"), "{}", &text[..80]);
        assert_eq!(text.matches(".visible .entry").count(), 1);
        assert!(text.contains(".visible .entry conv3d_pack(") && text.ends_with("}\n"));
        assert!(find("no_such_kernel").is_err());
        let bytes = UNPACKED.as_ref().unwrap().capacity() as u64;
        assert!(bytes <= crate::planner::host_overhead::KERNELS, "{bytes} bytes of kernels' text");
    }

    #[test]
    fn machine_code_runs_on_later_devices_of_its_generation() {
        const fn code(capability: (u32, u32)) -> Code {
            Code { capability, cubin: &[] }
        }
        static CODE: [Code; 3] = [code((8, 0)), code((8, 6)), code((9, 0))];
        let file = File { name: "x", head: "", kernels: &[], code: &CODE };
        let chosen = |capability| file.code_for(capability).map(|code| code.capability);
        assert_eq!(chosen((8, 9)), Some((8, 6)));
        assert_eq!(chosen((8, 0)), Some((8, 0)));
        assert_eq!(chosen((9, 0)), Some((9, 0)));
        assert_eq!((chosen((10, 0)), chosen((7, 5))), (None, None));
    }
}
