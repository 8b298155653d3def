//! Streams and events. All work is done when it is submitted, so waiting is checking for errors.

use std::ffi::c_void;
use std::time::Instant;

use super::graph::not_captured;
use super::state::{Event, current_state, fresh, handles};
use super::{Outcome, Status, api, give, record};
use crate::calls::CallKind;

/// Whether there is such a stream: handles 0 to 2 are the default streams.
pub fn known(stream: *mut c_void) -> Outcome {
    if stream as usize <= 2 || handles().streams.contains_key(&(stream as usize)) {
        Ok(())
    } else {
        Err(Status::InvalidHandle)
    }
}

fn create(out: *mut *mut c_void, priority: i32) -> Outcome {
    drop(current_state()?);
    let handle = fresh();
    handles().streams.insert(handle, priority);
    give(out, handle as *mut c_void)
}

fn event(handle: *mut c_void) -> Result<Event, Status> {
    handles().events.get(&(handle as usize)).copied().ok_or(Status::InvalidHandle)
}

fn synchronise(kind: CallKind, of: *mut c_void) -> Outcome {
    match kind {
        CallKind::HostWaitsForEvent => record::call(kind, std::ptr::null_mut(), of as u64, 0),
        _ => record::call(kind, of, 0, 0),
    }
    record::with(|r| r.host.synchronisations += 1);
    current_state().map(|_| ())
}

api! {
    /// A new stream.
    fn cuStreamCreate(stream: *mut *mut c_void, _flags: u32) {
        create(stream, 0)
    }

    /// A new stream.
    fn cuStreamCreateWithPriority(stream: *mut *mut c_void, _flags: u32, priority: i32) {
        create(stream, priority)
    }

    /// The stream's end.
    fn cuStreamDestroy_v2(stream: *mut c_void) {
        let mut handles = handles();
        handles.captures.remove(&(stream as usize));
        handles.streams.remove(&(stream as usize)).map(|_| ()).ok_or(Status::InvalidHandle)
    }

    /// Nothing to wait for; gives the sticky error.
    fn cuStreamSynchronize(stream: *mut c_void) {
        known(stream)?;
        not_captured(stream)?;
        synchronise(CallKind::HostWaitsForStream, stream)
    }

    /// Done.
    fn cuStreamQuery(stream: *mut c_void) {
        known(stream)?;
        not_captured(stream)?;
        current_state().map(|_| ())
    }

    /// The event has happened.
    fn cuStreamWaitEvent(stream: *mut c_void, handle: *mut c_void, _flags: u32) {
        known(stream)?;
        not_captured(stream)?;
        event(handle)?;
        record::call(CallKind::StreamWaits, stream, handle as u64, 0);
        Ok(())
    }

    /// Means nothing here.
    fn cuStreamAttachMemAsync(stream: *mut c_void, _address: u64, _length: usize, _flags: u32) {
        known(stream)
    }

    /// A new event.
    fn cuEventCreate(out: *mut *mut c_void, _flags: u32) {
        let handle = fresh();
        handles().events.insert(handle, Event::default());
        give(out, handle as *mut c_void)
    }

    /// The event's end.
    fn cuEventDestroy_v2(handle: *mut c_void) {
        handles().events.remove(&(handle as usize)).map(|_| ()).ok_or(Status::InvalidHandle)
    }

    /// Happens now.
    fn cuEventRecord(handle: *mut c_void, stream: *mut c_void) {
        known(stream)?;
        not_captured(stream)?;
        record::call(CallKind::Record, stream, handle as u64, 0);
        let mut handles = handles();
        let event = handles.events.get_mut(&(handle as usize)).ok_or(Status::InvalidHandle)?;
        event.recorded = Some(Instant::now());
        Ok(())
    }

    /// It has happened.
    fn cuEventQuery(handle: *mut c_void) {
        event(handle).map(|_| ())
    }

    /// It has happened.
    fn cuEventSynchronize(handle: *mut c_void) {
        event(handle)?;
        synchronise(CallKind::HostWaitsForEvent, handle)
    }

    /// Milliseconds the emulator took between two events: nothing about a GPU.
    fn cuEventElapsedTime(milliseconds: *mut f32, from: *mut c_void, to: *mut c_void) {
        match (event(from)?.recorded, event(to)?.recorded) {
            (Some(from), Some(to)) => give(milliseconds, to.saturating_duration_since(from).as_secs_f32() * 1e3),
            _ => Err(Status::InvalidHandle),
        }
    }

    /// As the first version.
    fn cuEventElapsedTime_v2(milliseconds: *mut f32, from: *mut c_void, to: *mut c_void) {
        // SAFETY: same contract.
        if unsafe { cuEventElapsedTime(milliseconds, from, to) } == 0 { Ok(()) } else { Err(Status::InvalidHandle) }
    }

    /// There is no profiler.
    fn cuProfilerStart() {
        Ok(())
    }

    /// There is no profiler.
    fn cuProfilerStop() {
        Ok(())
    }
}
