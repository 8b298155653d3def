//! Which mutant is on: the one whose number the variable OSSNET_MUTANT holds. With OSSNET_MUTANT_COVER, a folder, none is, and
//! the numbers that were asked for are written there when the process ends.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

const COVERING: usize = usize::MAX;

static ACTIVE: LazyLock<usize> = LazyLock::new(|| {
    if std::env::var_os("OSSNET_MUTANT_COVER").is_some() {
        // SAFETY: `dump` may run after main has ended: it needs the environment and files alone.
        unsafe { libc::atexit(dump) };
        return COVERING;
    }
    std::env::var("OSSNET_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
});

static ASKED: [AtomicBool; 1 << 15] = [const { AtomicBool::new(false) }; 1 << 15];

extern "C" fn dump() {
    let asked = ASKED.iter().enumerate().filter(|(_, asked)| asked.load(Ordering::Relaxed));
    let text: String = asked.map(|(number, _)| format!("{number}\n")).collect();
    if let Some(folder) = std::env::var_os("OSSNET_MUTANT_COVER") {
        let _ = std::fs::write(std::path::Path::new(&folder).join(std::process::id().to_string()), text);
    }
}

/// True in the branch of a mutant that is on.
#[inline]
pub fn on(number: usize) -> bool {
    if *ACTIVE == COVERING {
        ASKED[number].store(true, Ordering::Relaxed);
    }
    *ACTIVE == number
}
