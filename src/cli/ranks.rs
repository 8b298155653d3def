//! Several processes of one command: what joins them, what each takes of its machine, and how they end.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::RunArgs;
use super::output::note_after;
use super::progress::Shown;
use crate::device::collective::{self, Launch};
use crate::error::{Error, Result};
use crate::memory::default_cpu_budget;
use crate::train::ranks::Ranks;

thread_local! {
    /// The processes that the command has joined.
    static JOINED: RefCell<Option<Ranks>> = const { RefCell::new(None) };
    /// Another process says the same.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Joins the processes of `launch`, which a launcher has started with this one; with `gpus` they compute on one each.
///
/// # Errors
/// [`Error::Usage`] if there are some and this program cannot talk to them, [`Error::Device`] if they do not meet.
pub fn join(launch: Option<&Launch>, gpus: bool) -> Result<Ranks> {
    let joined = collective::join(launch, gpus, |line| note_after("ossnet: ", line));
    let joined = joined.inspect_err(|error| match error {
        Error::Device(_) => {}
        _ => keep_silent(launch),
    });
    let ranks = Ranks::of(joined?);
    JOINED.set(Some(ranks.clone()));
    Ok(ranks)
}

/// What all processes find alike is said by the first.
fn keep_silent(launch: Option<&Launch>) {
    SILENT.set(launch.is_some_and(|launch| launch.rank > 0));
}

/// What this process takes of its machine, if it is told nothing else: its part of the threads and of the memory, or of that
/// of its GPU as much as one process would. Only the first speaks.
///
/// # Errors
/// What the transport says.
pub fn share_machine(run: &mut RunArgs, ranks: &Ranks, gpus: bool) -> Result<()> {
    if !ranks.are_several() {
        return Ok(());
    }
    let (host, cores) =
        (kernel_says("/proc/sys/kernel/hostname", ""), kernel_says("/proc/self/status", "Cpus_allowed_list:"));
    let own = format!("{host}\n{cores}");
    let told = ranks.texts(&own)?;
    let here = told.iter().filter(|other| other.split('\n').next() == Some(&*host)).count();
    // A launcher that binds gives each process cores of its own; one that does not gives all of them the same.
    let beside = told.iter().filter(|other| **other == own).count();
    if run.threads == 0 {
        run.threads = (std::thread::available_parallelism().map_or(1, usize::from) / beside.max(1)).max(1);
    }
    if !gpus {
        run.memory_budget = run.memory_budget.or(Some(default_cpu_budget() / here.max(1) as u64));
    }
    if !ranks.is_first() {
        (run.quiet, run.verbose, run.progress) = (true, false, Shown::Auto);
    }
    Ok(())
}

/// What stands behind `key` in a file of the kernel; nothing where there is none.
fn kernel_says(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_string()
}

/// How long the first process may take to speak for all of an error that all meet by themselves.
const GRACE: Duration = Duration::from_secs(1);

/// What this process says of the error that it ends with; nothing if another does.
pub fn last_word(error: &Error) -> Option<String> {
    let rank = JOINED.with_borrow(|ranks| {
        let ranks = ranks.as_ref().filter(|ranks| !ranks.is_first())?;
        Some((ranks.rank(), ranks.know_the_error()))
    });
    match rank {
        _ if SILENT.get() => None,
        Some((_, true)) => None,
        Some((rank, false)) => {
            // The first process may have met the same error (NCCL tells all of a lost one); then it ends this one meanwhile.
            std::thread::sleep(GRACE);
            Some(format!("rank {rank}: {error}"))
        }
        None => Some(error.to_string()),
    }
}

/// Ends this process's part with exit status `code`: together with the others, or for all of them if they do not know of it.
pub fn leave(code: u8) {
    let Some(ranks) = JOINED.take().filter(Ranks::are_several) else { return };
    if code > 0 && !ranks.know_the_error() {
        ranks.collective().abort(code);
    }
    // Nobody ends with an error before the first has said it: launchers end all when one does.
    if ranks.collective().barrier().is_ok() {
        ranks.collective().finish(code == 0);
    }
}
