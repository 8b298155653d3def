//! Ctrl-C, termination and a scheduler's warning: a level that long work looks at between steps.
//!
//! SIGTERM and SIGUSR1 (`sbatch --signal=B:USR1@600`) ask for an end at the next good place, a scan's end for instance; Ctrl-C,
//! and any of them for the second time, for an end as soon as possible. A second Ctrl-C ends the process at once.

use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Error, Result};

/// [`SOON`] or [`NOW`] once a signal has come.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// End at the next good place.
const SOON: u8 = 1;

/// End as soon as possible.
const NOW: u8 = 2;

/// From now on signals set the level.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A handler that cannot be set leaves the system's own in place: an interrupt then ends the process at once.
        let _ = ctrlc::set_handler(|| {
            if LEVEL.swap(NOW, Ordering::SeqCst) == NOW {
                std::process::exit(130);
            }
        });
        #[cfg(unix)]
        listen_to_schedulers();
    });
}

/// Takes SIGTERM over from the handler for Ctrl-C, and SIGUSR1 from the system, which would end the process.
#[cfg(unix)]
fn listen_to_schedulers() {
    extern "C" fn heard(_: libc::c_int) {
        if LEVEL.compare_exchange(0, SOON, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            LEVEL.store(NOW, Ordering::SeqCst);
        }
    }
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        // SAFETY: all zeros is a valid `sigaction`; the handler does nothing but atomic operations, which are safe in it.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = heard as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// How urgently an end is asked for: 0 not at all, 1 at the next good place, 2 as soon as possible.
pub fn level() -> u8 {
    LEVEL.load(Ordering::SeqCst)
}

/// True once any signal has come.
pub fn is_asked_for() -> bool {
    level() >= SOON
}

/// An error once any signal has come; `progress` says what is done.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check(progress: impl FnOnce() -> String) -> Result<()> {
    check_level(SOON, progress)
}

/// The same for work whose end is a better place to stop: an error only after Ctrl-C or a second signal.
///
/// # Errors
/// As there.
pub fn check_now(progress: impl FnOnce() -> String) -> Result<()> {
    check_level(NOW, progress)
}

fn check_level(least: u8, progress: impl FnOnce() -> String) -> Result<()> {
    if level() >= least { Err(Error::Interrupted(progress())) } else { Ok(()) }
}
