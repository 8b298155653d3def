//! The emulator's own functions, through which [`crate::control`] configures and reads it.
//!
//! They exist because a test links this crate as an rlib and loads it as a shared library: the two have separate statics,
//! and only those of the library are at work.

use super::graph::submit_of_thread;
use super::state::{current_ordinal, device_of, devices, lock};
use super::{Outcome, Status, api, give, record};
use crate::check::config::Config;
use crate::memory::shadow::Shadow;

/// Copies `text` to the caller's buffer as far as it reaches; gives its whole length.
fn hand_over(text: &str, buffer: *mut u8, capacity: usize, length: *mut usize) -> Outcome {
    if !buffer.is_null() {
        // SAFETY: the caller's buffer has `capacity` bytes.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len().min(capacity)) };
    }
    give(length, text.len())
}

/// Changes the shadow of a device range.
fn shade(address: u64, bytes: u64, change: impl FnOnce(&mut Shadow, u64)) -> Outcome {
    let mut state = lock(&device_of(address)?.state);
    let at = state.memory.find(address, bytes).ok_or(Status::InvalidValue)?;
    let allocation = &mut state.memory.allocations[at];
    let offset = address - allocation.base;
    change(allocation.shadow_mut(), offset);
    Ok(())
}

api! {
    /// Sets the configuration of this thread (`all` zero) or of all; null means the environment's again.
    fn cuemu_configure(all: i32, config: *const Config) {
        // SAFETY: null, or the caller's configuration.
        record::configure(all != 0, unsafe { config.as_ref() }.copied());
        Ok(())
    }

    /// The configuration of this thread.
    fn cuemu_config(config: *mut Config) {
        give(config, record::config())
    }

    /// Findings, one a line.
    fn cuemu_findings(all: i32, buffer: *mut u8, capacity: usize, length: *mut usize) {
        let lines: Vec<String> = record::collect(all != 0).findings.iter().map(|f| f.to_line()).collect();
        hand_over(&lines.join("\n"), buffer, capacity, length)
    }

    /// Counters, a kernel a line.
    fn cuemu_counters(all: i32, buffer: *mut u8, capacity: usize, length: *mut usize) {
        let lines: Vec<String> = record::collect(all != 0).kernels.values().map(|c| c.to_line()).collect();
        hand_over(&lines.join("\n"), buffer, capacity, length)
    }

    /// Host counters.
    fn cuemu_host_counters(all: i32, out: *mut crate::counters::HostCounters) {
        give(out, record::collect(all != 0).host)
    }

    /// From now on keeps this thread's calls, or no more (`keep` zero); those kept before are forgotten.
    fn cuemu_keep_calls(keep: i32) {
        record::with(|r| r.calls = (keep != 0).then(Vec::new));
        Ok(())
    }

    /// This thread's calls, one a line.
    fn cuemu_calls(_all: i32, buffer: *mut u8, capacity: usize, length: *mut usize) {
        let lines = record::with(|r| r.calls.iter().flatten().map(|call| call.to_line()).collect::<Vec<_>>().join("\n"));
        hand_over(&lines, buffer, capacity, length)
    }

    /// Forgets findings and counters.
    fn cuemu_reset(all: i32) {
        record::reset(all != 0);
        Ok(())
    }

    /// Bytes allocated on a device now, and the most at once since [`cuemu_reset_peak`].
    fn cuemu_memory(ordinal: i32, live: *mut u64, peak: *mut u64) {
        let state = lock(&super::state::device(ordinal)?.state);
        give(live, state.memory.live)?;
        give(peak, state.memory.peak)
    }

    /// The peak of the current device begins anew.
    fn cuemu_reset_peak() {
        let mut state = lock(&devices()[current_ordinal()?].state);
        state.memory.peak = state.memory.live;
        Ok(())
    }

    /// Forbids (or allows) kernels to touch a range: red zones of an arena.
    fn cuemu_forbid(address: u64, bytes: u64, forbidden: i32) {
        submit_of_thread(move || shade(address, bytes, |shadow, at| shadow.set_forbidden(at, bytes, forbidden != 0)))
    }

    /// Makes a range count as never written: memory an arena gives out again.
    fn cuemu_undefine(address: u64, bytes: u64) {
        submit_of_thread(move || shade(address, bytes, |shadow, at| shadow.set_defined(at, bytes, false)))
    }
}
