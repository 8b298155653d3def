//! Ctrl-C and termination: a flag that long work looks at between steps.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// True once an interrupt has come.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
