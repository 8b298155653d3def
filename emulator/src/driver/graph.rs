//! Graphs: what a stream was told while it was captured, done again in that order as often as the graph is launched.
//!
//! A capture takes one stream. Launches, copies, fills and the shading of memory are captured; what a capture may not hold
//! (waiting for the stream, events, allocations in its order) is refused and spoils it, as on a real device.

use std::ffi::c_void;
use std::sync::Arc;

use super::state::{current_state, fresh, handles};
use super::{Outcome, Status, api, give, record};
use crate::calls::CallKind;

/// One thing to do.
pub type Node = Box<dyn Fn() -> Outcome + Send + Sync>;

/// A stream's capture in progress.
pub struct Capture {
    /// The thread that began it.
    thread: u64,
    nodes: Vec<Node>,
    /// Something was asked of the stream that no graph can hold.
    spoilt: bool,
}

/// Does `work` now; or, if `stream` is being captured, whenever the graph is launched.
pub fn submit(stream: *mut c_void, work: impl Fn() -> Outcome + Send + Sync + 'static) -> Outcome {
    let mut handles = handles();
    match handles.captures.get_mut(&(stream as usize)) {
        Some(capture) => capture.nodes.push(Box::new(work)),
        None => {
            drop(handles);
            work()?;
        }
    }
    Ok(())
}

/// The same for what has no stream: it belongs to the capture that this thread began, if there is one.
pub fn submit_of_thread(work: impl Fn() -> Outcome + Send + Sync + 'static) -> Outcome {
    let mut handles = handles();
    let thread = record::thread();
    match handles.captures.values_mut().find(|capture| capture.thread == thread) {
        Some(capture) => capture.nodes.push(Box::new(work)),
        None => {
            drop(handles);
            work()?;
        }
    }
    Ok(())
}

/// True if `stream` is being captured.
pub fn captures(stream: *mut c_void) -> bool {
    handles().captures.contains_key(&(stream as usize))
}

/// Fails, and spoils the capture, if `stream` is being captured.
pub fn not_captured(stream: *mut c_void) -> Outcome {
    match handles().captures.get_mut(&(stream as usize)) {
        Some(capture) => {
            capture.spoilt = true;
            Err(Status::CaptureUnsupported)
        }
        None => Ok(()),
    }
}

api! {
    /// From now on the stream's work is written down.
    fn cuStreamBeginCapture_v2(stream: *mut c_void, _mode: i32) {
        drop(current_state()?);
        let mut handles = handles();
        let stream = stream as usize;
        // The default streams cannot be captured.
        if !handles.streams.contains_key(&stream) || handles.captures.contains_key(&stream) {
            return Err(Status::InvalidValue);
        }
        handles.captures.insert(stream, Capture { thread: record::thread(), nodes: Vec::new(), spoilt: false });
        Ok(())
    }

    /// The graph of what was written down.
    fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) {
        give(graph, std::ptr::null_mut())?;
        let capture = handles().captures.remove(&(stream as usize)).ok_or(Status::InvalidValue)?;
        if capture.spoilt {
            return Err(Status::CaptureInvalidated);
        }
        let handle = fresh();
        handles().graphs.insert(handle, capture.nodes.into());
        give(graph, handle as *mut c_void)
    }

    /// Whether the stream is being captured: no, yes, yes but spoilt.
    fn cuStreamIsCapturing(stream: *mut c_void, status: *mut i32) {
        let spoilt = handles().captures.get(&(stream as usize)).map(|capture| capture.spoilt);
        give(status, spoilt.map_or(0, |spoilt| 1 + i32::from(spoilt)))
    }

    /// An executable graph is the graph.
    fn cuGraphInstantiateWithFlags(executable: *mut *mut c_void, graph: *mut c_void, _flags: u64) {
        let nodes = handles().graphs.get(&(graph as usize)).map(Arc::clone).ok_or(Status::InvalidHandle)?;
        let handle = fresh();
        handles().executables.insert(handle, nodes);
        give(executable, handle as *mut c_void)
    }

    /// Does all of it.
    fn cuGraphLaunch(executable: *mut c_void, stream: *mut c_void) {
        not_captured(stream)?;
        let nodes = handles().executables.get(&(executable as usize)).map(Arc::clone).ok_or(Status::InvalidHandle)?;
        record::with(|r| r.host.launches += 1);
        record::call(CallKind::Graph, stream, 0, 0);
        nodes.iter().try_for_each(|node| node())
    }

    /// Nothing to prepare.
    fn cuGraphUpload(executable: *mut c_void, _stream: *mut c_void) {
        if handles().executables.contains_key(&(executable as usize)) { Ok(()) } else { Err(Status::InvalidHandle) }
    }

    /// The graph's end; executables of it live on.
    fn cuGraphDestroy(graph: *mut c_void) {
        handles().graphs.remove(&(graph as usize)).map(|_| ()).ok_or(Status::InvalidHandle)
    }

    /// The executable's end.
    fn cuGraphExecDestroy(executable: *mut c_void) {
        handles().executables.remove(&(executable as usize)).map(|_| ()).ok_or(Status::InvalidHandle)
    }
}
