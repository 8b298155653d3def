//! What was found and counted, by the host thread that launched it; and the configuration.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use super::state::lock;
use crate::calls::{Call, CallKind};
use crate::check::config::Config;
use crate::check::finding::Finding;
use crate::counters::{HostCounters, KernelCounters};

/// What one host thread caused.
#[derive(Clone, Default)]
pub struct Record {
    /// Findings, oldest first.
    pub findings: Vec<Finding>,
    /// Counters by kernel name.
    pub kernels: BTreeMap<String, KernelCounters>,
    /// What the thread asked of the driver.
    pub host: HostCounters,
    /// Its calls, oldest first, while they are kept.
    pub calls: Option<Vec<Call>>,
}

/// Findings kept a thread; more are of no use to anyone.
const KEPT: usize = 1000;

thread_local! {
    static THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Number of the calling thread, from 1.
pub fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if THREAD.get() == 0 {
        THREAD.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    THREAD.get()
}

fn records() -> &'static Mutex<HashMap<u64, Record>> {
    static RECORDS: OnceLock<Mutex<HashMap<u64, Record>>> = OnceLock::new();
    RECORDS.get_or_init(Mutex::default)
}

/// Changes the calling thread's record.
pub fn with<T>(change: impl FnOnce(&mut Record) -> T) -> T {
    change(lock(records()).entry(thread()).or_default())
}

/// Keeps a call of the calling thread, if its calls are kept.
pub fn call(kind: CallKind, stream: *mut c_void, of: u64, bytes: u64) {
    keep(|| Call::new(kind, stream as u64, of, bytes));
}

/// The same for a launch.
pub fn launched(kernel: &str, stream: *mut c_void) {
    keep(|| Call { kernel: kernel.into(), ..Call::new(CallKind::Launch, stream as u64, 0, 0) });
}

fn keep(call: impl FnOnce() -> Call) {
    with(|r| {
        if let Some(calls) = &mut r.calls {
            calls.push(call());
        }
    });
}

/// The records of the calling thread, or of all together.
pub fn collect(all: bool) -> Record {
    let records = lock(records());
    let mut out = Record::default();
    for (_, record) in records.iter().filter(|(k, _)| all || **k == thread()) {
        out.findings.extend(record.findings.iter().cloned());
        for (name, counters) in &record.kernels {
            let fresh = || KernelCounters { kernel: name.clone(), ..KernelCounters::default() };
            out.kernels.entry(name.clone()).or_insert_with(fresh).add(counters);
        }
        out.host.add(&record.host);
    }
    out
}

/// Forgets the records of the calling thread, or of all.
pub fn reset(all: bool) {
    let mut records = lock(records());
    if all { records.clear() } else { _ = records.remove(&thread()) }
}

/// Adds a finding to the calling thread's record, and prints it where `CUEMU_LOG` is set.
pub fn found(finding: Finding) {
    static LOG: OnceLock<bool> = OnceLock::new();
    if *LOG.get_or_init(|| std::env::var_os("CUEMU_LOG").is_some()) {
        eprintln!("cuemu: {finding}");
    }
    with(|r| {
        if r.findings.len() < KEPT {
            r.findings.push(finding);
        }
    });
}

fn configs() -> &'static Mutex<(Config, HashMap<u64, Config>)> {
    static CONFIGS: OnceLock<Mutex<(Config, HashMap<u64, Config>)>> = OnceLock::new();
    CONFIGS.get_or_init(|| Mutex::new((Config::from_environment(), HashMap::new())))
}

/// The configuration of the calling thread.
pub fn config() -> Config {
    let configs = lock(configs());
    configs.1.get(&thread()).copied().unwrap_or(configs.0)
}

/// Sets the configuration of the calling thread, or of all threads; none means the environment's again.
pub fn configure(all: bool, config: Option<Config>) {
    let mut configs = lock(configs());
    match (all, config) {
        (true, config) => *configs = (config.unwrap_or_else(Config::from_environment), HashMap::new()),
        (false, Some(config)) => _ = configs.1.insert(thread(), config),
        (false, None) => _ = configs.1.remove(&thread()),
    }
}
