//! What stands beside the ledger, counted by the allocator. It counts by process and not by test, so these tests have a process
//! of their own and take turns in it.

mod allocator;
mod host_memory;
mod scratch;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nothing else is allocated while this is held.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
