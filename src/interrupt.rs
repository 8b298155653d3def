//! Ctrl-C and termination: a flag that long work looks at between steps.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt sets the flag; a second one ends the process at once.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A handler that cannot be set leaves the system's own in place: an interrupt then ends the process at once.
        let _ = ctrlc::set_handler(|| {
            if INTERRUPTED.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        });
    });
}

/// An error once an interrupt has come; `progress` says what is done.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check(progress: impl FnOnce() -> String) -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Error::Interrupted(progress())) } else { Ok(()) }
}
