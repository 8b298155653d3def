//! Contexts: there is the primary one of every device.

use std::ffi::c_void;

use super::state::{current, current_state, device, lock, set_current};
use super::{Outcome, Status, api, give, record};
use crate::check::finding::{Finding, FindingKind};

/// One holder less; the last one ends the context, and what is still allocated has leaked.
pub fn release(dev: i32) -> Outcome {
    let mut state = lock(&device(dev)?.state);
    state.holders = state.holders.checked_sub(1).ok_or(Status::InvalidContext)?;
    if state.holders == 0 {
        let leaked: Vec<u64> = state.memory.allocations.iter().filter(|a| !a.module).map(|a| a.size).collect();
        if !leaked.is_empty() {
            let bytes: u64 = leaked.iter().sum();
            let detail = format!("{} allocations of {bytes} bytes were never freed (sizes {leaked:?})", leaked.len());
            record::found(Finding::host(FindingKind::Leak, detail));
        }
        state.end_context(dev as usize);
    }
    Ok(())
}

api! {
    /// The current context, or null.
    fn cuCtxGetCurrent(context: *mut *mut c_void) {
        give(context, current() as *mut c_void)
    }

    /// Makes a context current; null for none.
    fn cuCtxSetCurrent(context: *mut c_void) {
        set_current(context as usize)
    }

    /// The device of the current context.
    fn cuCtxGetDevice(dev: *mut i32) {
        give(dev, super::state::current_ordinal()? as i32)
    }

    /// Everything has happened already; gives the sticky error.
    fn cuCtxSynchronize() {
        record::with(|r| r.host.synchronisations += 1);
        current_state().map(|_| ())
    }

    /// Limits mean nothing here.
    fn cuCtxSetLimit(_limit: i32, _value: usize) {
        Ok(())
    }

    /// Zero.
    fn cuCtxGetLimit(value: *mut usize, _limit: i32) {
        give(value, 0)
    }

    /// Means nothing here.
    fn cuCtxSetCacheConfig(_config: i32) {
        Ok(())
    }

    /// No preference.
    fn cuCtxGetCacheConfig(config: *mut i32) {
        give(config, 0)
    }

    /// Means nothing here.
    fn cuCtxSetFlags(_flags: u32) {
        Ok(())
    }

    /// There is one priority.
    fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) {
        give(least, 0)?;
        give(greatest, 0)
    }

    /// Peers are always reachable.
    fn cuCtxEnablePeerAccess(_context: *mut c_void, _flags: u32) {
        Ok(())
    }
}
