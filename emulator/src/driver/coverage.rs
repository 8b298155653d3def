//! What a whole test run executed, for a proof that nothing was left out.
//!
//! `CUEMU_COVERAGE=FOLDER` makes every process of the run append one line for each thing it meets for the first time to the file
//! in that folder that is called as its program: `opcode NAME` when a module that holds the instruction is loaded, `kernel NAME`
//! when a launch of the kernel ends without a fault.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::ptx::ast::{Module, Statement};

struct Log {
    file: File,
    seen: HashSet<String>,
}

/// `None` if nobody asked.
fn log() -> Option<&'static Mutex<Log>> {
    static LOG: OnceLock<Option<Mutex<Log>>> = OnceLock::new();
    let open = || {
        let folder = PathBuf::from(std::env::var_os("CUEMU_COVERAGE")?);
        let program = std::env::current_exe().ok()?;
        let path = folder.join(program.file_name()?);
        let open = || OpenOptions::new().create(true).append(true).open(path);
        let file = std::fs::create_dir_all(folder).and_then(|()| open());
        let file = file.inspect_err(|error| eprintln!("cuemu: CUEMU_COVERAGE: {error}")).ok()?;
        Some(Mutex::new(Log { file, seen: HashSet::new() }))
    };
    LOG.get_or_init(open).as_ref()
}

fn note(lines: impl Iterator<Item = String>) {
    let Some(log) = log() else { return };
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let fresh: String = lines.filter(|line| log.seen.insert(line.clone())).map(|line| line + "\n").collect();
    // One write a call, appended: lines of processes that run side by side do not mix.
    if let Err(error) = log.file.write_all(fresh.as_bytes()) {
        eprintln!("cuemu: CUEMU_COVERAGE: {error}");
    }
}

/// A module is loaded.
pub fn loaded(module: &Module) {
    note(module.entries.iter().flat_map(|kernel| &kernel.body).filter_map(|statement| match statement {
        Statement::Instruction(instruction) => Some(format!("opcode {}", instruction.name())),
        _ => None,
    }));
}

/// A launch of `kernel` ended without a fault.
pub fn ran(kernel: &str) {
    note(std::iter::once(format!("kernel {kernel}")));
}
