//! How a test loads, configures and reads the emulator.

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::calls::Call;
use crate::check::config::Config;
use crate::check::finding::Finding;
use crate::counters::{HostCounters, KernelCounters};

type Text = unsafe extern "C" fn(i32, *mut u8, usize, *mut usize) -> i32;

/// The loaded emulator. Findings and counters are those of the calling host thread unless a method says otherwise.
pub struct Emulator {
    configure: unsafe extern "C" fn(i32, *const Config) -> i32,
    config: unsafe extern "C" fn(*mut Config) -> i32,
    findings: Text,
    counters: Text,
    calls: Text,
    keep_calls: unsafe extern "C" fn(i32) -> i32,
    host: unsafe extern "C" fn(i32, *mut HostCounters) -> i32,
    reset: unsafe extern "C" fn(i32) -> i32,
    memory: unsafe extern "C" fn(i32, *mut u64, *mut u64) -> i32,
    reset_peak: unsafe extern "C" fn() -> i32,
    forbid: unsafe extern "C" fn(u64, u64, i32) -> i32,
    undefine: unsafe extern "C" fn(u64, u64) -> i32,
}

/// Loads the emulator so that `cudarc` finds it as `libcuda.so`, whatever driver is installed. Must come before the first
/// use of `cudarc` in the process; later calls give the same emulator.
///
/// The library is `$CUEMU_LIB`, or `libcuemu.so` where cargo puts it.
///
/// # Errors
/// One line that says what could not be loaded.
pub fn preload() -> Result<&'static Emulator, String> {
    static LOADED: OnceLock<Result<Emulator, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// True if the machine has a real driver with at least one device: then tests may run on that instead. `CUEMU_ALWAYS=1`
/// says no. Must not be asked after [`preload`].
///
/// # Panics
/// If `OSSNET_REQUIRE_GPU=1` says that tests are to run on a GPU, and there is none: where one was rented, a test that falls back
/// to the emulator shows nothing.
pub fn gpu_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    let required = std::env::var("OSSNET_REQUIRE_GPU").is_ok_and(|value| value == "1");
    let present = *PRESENT.get_or_init(|| std::env::var_os("CUEMU_ALWAYS").is_none() && real_devices() > 0);
    assert!(present || !required, "OSSNET_REQUIRE_GPU=1, and no GPU answers through libcuda.so.1");
    present
}

fn real_devices() -> i32 {
    // SAFETY: the driver's own library; its initialisation starts nothing.
    let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return 0;
    }
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: a loaded library and a name that ends with a zero.
        unsafe { libc::dlsym(library, name.as_ptr()) }
    };
    let (init, count) = (symbol(c"cuInit"), symbol(c"cuDeviceGetCount"));
    if init.is_null() || count.is_null() {
        return 0;
    }
    let mut devices = 0;
    // SAFETY: the signatures of the CUDA driver API.
    unsafe {
        let init: unsafe extern "C" fn(u32) -> i32 = std::mem::transmute(init);
        let count: unsafe extern "C" fn(*mut i32) -> i32 = std::mem::transmute(count);
        if init(0) != 0 || count(&mut devices) != 0 { 0 } else { devices }
    }
}

/// Beside the test executable, or a folder above (`target/debug/deps/test-…` and `target/debug/libcuemu.so`).
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("CUEMU_LIB") {
        return vec![path.into()];
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let mut paths: Vec<PathBuf> = executable
        .ancestors()
        .skip(1)
        .take(3)
        .flat_map(|f| [f.join("deps/libcuemu.so"), f.join("libcuemu.so")])
        .collect();
    paths.retain(|p| p.exists());
    paths.push("libcuemu.so".into());
    paths
}

/// The library's path, for programs that a test starts with `LD_PRELOAD`; `None` where cargo has not built it.
pub fn library() -> Option<PathBuf> {
    candidates().into_iter().find(|path| path.is_absolute() && path.exists())
}

fn load() -> Result<Emulator, String> {
    let mut library = std::ptr::null_mut();
    for path in candidates() {
        let name = CString::new(path.to_string_lossy().as_bytes()).map_err(|_| "a library path with a zero byte")?;
        // SAFETY: loading our own library, whose initialisation does nothing.
        library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if !library.is_null() {
            break;
        }
    }
    if library.is_null() {
        return Err(
            "libcuemu.so cannot be loaded; build the workspace member cuemu, or set CUEMU_LIB to its path".into()
        );
    }
    let symbol = |name: &str| -> Result<*mut c_void, String> {
        let text = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: a loaded library and a name that ends with a zero.
        let address = unsafe { libc::dlsym(library, text.as_ptr()) };
        if address.is_null() { Err(format!("libcuemu.so has no {name}: it is another version's")) } else { Ok(address) }
    };
    // SAFETY: the library exports these functions with exactly these signatures (`driver::exports`).
    unsafe {
        use std::mem::transmute;
        Ok(Emulator {
            configure: transmute::<*mut c_void, unsafe extern "C" fn(i32, *const Config) -> i32>(symbol(
                "cuemu_configure",
            )?),
            config: transmute::<*mut c_void, unsafe extern "C" fn(*mut Config) -> i32>(symbol("cuemu_config")?),
            findings: transmute::<*mut c_void, Text>(symbol("cuemu_findings")?),
            counters: transmute::<*mut c_void, Text>(symbol("cuemu_counters")?),
            calls: transmute::<*mut c_void, Text>(symbol("cuemu_calls")?),
            keep_calls: transmute::<*mut c_void, unsafe extern "C" fn(i32) -> i32>(symbol("cuemu_keep_calls")?),
            host: transmute::<*mut c_void, unsafe extern "C" fn(i32, *mut HostCounters) -> i32>(symbol(
                "cuemu_host_counters",
            )?),
            reset: transmute::<*mut c_void, unsafe extern "C" fn(i32) -> i32>(symbol("cuemu_reset")?),
            memory: transmute::<*mut c_void, unsafe extern "C" fn(i32, *mut u64, *mut u64) -> i32>(symbol(
                "cuemu_memory",
            )?),
            reset_peak: transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(symbol("cuemu_reset_peak")?),
            forbid: transmute::<*mut c_void, unsafe extern "C" fn(u64, u64, i32) -> i32>(symbol("cuemu_forbid")?),
            undefine: transmute::<*mut c_void, unsafe extern "C" fn(u64, u64) -> i32>(symbol("cuemu_undefine")?),
        })
    }
}

// The functions below are called with valid pointers of their exact types; that is all the safety they need.
impl Emulator {
    /// Sets the configuration for launches of the calling thread.
    pub fn configure(&self, config: Config) {
        // SAFETY: see above.
        unsafe { (self.configure)(0, &config) };
    }

    /// Sets the configuration for launches of all threads.
    pub fn configure_all(&self, config: Config) {
        // SAFETY: see above.
        unsafe { (self.configure)(1, &config) };
    }

    /// The configuration of the calling thread.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        // SAFETY: see above.
        unsafe { (self.config)(&mut config) };
        config
    }

    fn text(&self, function: Text, all: bool) -> String {
        let mut length = 0;
        // SAFETY: see above; a null buffer only asks for the length.
        unsafe { function(all.into(), std::ptr::null_mut(), 0, &mut length) };
        let mut buffer = vec![0; length];
        // SAFETY: see above.
        unsafe { function(all.into(), buffer.as_mut_ptr(), buffer.len(), &mut length) };
        buffer.truncate(length);
        String::from_utf8_lossy(&buffer).into_owned()
    }

    /// What was found in this thread's launches and calls since the last reset.
    pub fn findings(&self) -> Vec<Finding> {
        self.text(self.findings, false).lines().filter_map(Finding::parse).collect()
    }

    /// What was found in all threads.
    pub fn findings_of_all(&self) -> Vec<Finding> {
        self.text(self.findings, true).lines().filter_map(Finding::parse).collect()
    }

    /// Panics with every finding of this thread, if there is one: the last line of a checked test.
    ///
    /// # Panics
    /// If anything was found.
    pub fn assert_clean(&self) {
        let lines: Vec<String> = self.findings().iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "the emulator found:\n{}", lines.join("\n"));
    }

    /// Counters of this thread's launches, by kernel name.
    pub fn counters(&self) -> Vec<KernelCounters> {
        self.text(self.counters, false).lines().filter_map(KernelCounters::parse).collect()
    }

    /// Counters of the launches of all threads, by kernel name.
    pub fn counters_of_all(&self) -> Vec<KernelCounters> {
        self.text(self.counters, true).lines().filter_map(KernelCounters::parse).collect()
    }

    /// Counters of one kernel; zeros where it was not launched.
    pub fn counters_of(&self, kernel: &str) -> KernelCounters {
        self.counters().into_iter().find(|c| c.kernel == kernel).unwrap_or_default()
    }

    /// Counters of all kernels together.
    pub fn total(&self) -> KernelCounters {
        let mut total = KernelCounters::default();
        self.counters().iter().for_each(|c| total.add(c));
        total
    }

    /// From now on keeps this thread's calls; those kept before are forgotten.
    pub fn keep_calls(&self) {
        // SAFETY: see above.
        unsafe { (self.keep_calls)(1) };
    }

    /// This thread's calls since [`Emulator::keep_calls`], oldest first; none are kept any more.
    pub fn take_calls(&self) -> Vec<Call> {
        let calls = self.text(self.calls, false).lines().filter_map(Call::parse).collect();
        // SAFETY: see above.
        unsafe { (self.keep_calls)(0) };
        calls
    }

    /// What this thread asked of the driver: launches, synchronisations, bytes copied.
    pub fn host_counters(&self) -> HostCounters {
        let mut out = HostCounters::default();
        // SAFETY: see above.
        unsafe { (self.host)(0, &mut out) };
        out
    }

    /// Forgets this thread's findings and counters.
    pub fn reset(&self) {
        // SAFETY: see above.
        unsafe { (self.reset)(0) };
    }

    /// Forgets the findings and counters of all threads.
    pub fn reset_all(&self) {
        // SAFETY: see above.
        unsafe { (self.reset)(1) };
    }

    /// Bytes allocated on device `ordinal` now, and the most at once since the peak was reset.
    pub fn memory(&self, ordinal: i32) -> (u64, u64) {
        let (mut live, mut peak) = (0, 0);
        // SAFETY: see above.
        unsafe { (self.memory)(ordinal, &mut live, &mut peak) };
        (live, peak)
    }

    /// The peak of the current device begins anew.
    pub fn reset_peak(&self) {
        // SAFETY: see above.
        unsafe { (self.reset_peak)() };
    }

    /// Forbids checked kernels to touch a device range (or allows it again): red zones of an arena. False where the range
    /// lies in no allocation.
    pub fn forbid(&self, address: u64, bytes: u64, forbidden: bool) -> bool {
        // SAFETY: see above.
        unsafe { (self.forbid)(address, bytes, forbidden.into()) == 0 }
    }

    /// Makes a device range count as never written: memory an arena gives out again. False where the range lies in no
    /// allocation.
    pub fn undefine(&self, address: u64, bytes: u64) -> bool {
        // SAFETY: see above.
        unsafe { (self.undefine)(address, bytes) == 0 }
    }
}

/// The emulator for one test at a time: others that ask wait. For tests that need a device of their own, because they
/// make it fail or measure its memory.
pub struct Exclusive {
    /// The emulator.
    pub emulator: &'static Emulator,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Exclusive {
    type Target = Emulator;

    fn deref(&self) -> &Emulator {
        self.emulator
    }
}

impl Drop for Exclusive {
    /// The thread has the environment's configuration again.
    fn drop(&mut self) {
        // SAFETY: a null configuration is allowed.
        unsafe { (self.emulator.configure)(0, std::ptr::null()) };
    }
}

/// Waits for its turn, sets the configuration for this thread and forgets what was found and counted before.
///
/// # Errors
/// As [`preload`].
pub fn exclusive(config: Config) -> Result<Exclusive, String> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let emulator = preload()?;
    emulator.configure(config);
    emulator.reset();
    Ok(Exclusive { emulator, _turn: turn })
}
