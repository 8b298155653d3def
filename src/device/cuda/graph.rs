//! Work that is captured once and then launched again and again, as one CUDA graph.
//!
//! A graph repeats the same kernels with the same arguments at the same addresses: whoever launches one again answers for the
//! buffers being where they were. The host is out of it: nothing may be copied to it, and what comes from it must be small
//! enough to travel in a kernel's arguments.

use std::sync::atomic::Ordering;

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode};

use super::{Cuda, driver};
use crate::error::{Error, Result};

/// Captured work.
pub struct Graph(CudaGraph);

impl Cuda {
    /// Writes down what `work` would have launched, instead of doing it.
    ///
    /// # Errors
    /// Those of `work`, or [`Error::Device`] if the driver cannot capture something in it.
    pub fn capture<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Graph)> {
        let failed = |e| driver::failed("capturing a CUDA graph (train without --graph)", e);
        self.settle()?;
        self.bind()?;
        // Relaxed: the arena may put memory behind its addresses meanwhile.
        self.stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(failed)?;
        self.capturing.store(true, Ordering::SeqCst);
        let result = work();
        self.capturing.store(false, Ordering::SeqCst);
        // The capture ends whatever became of the work.
        let graph = self.stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        let value = result?;
        match graph.map_err(failed)? {
            Some(graph) => Ok((value, Graph(graph))),
            None => Err(Error::Device("the driver gave no graph for what was captured; train without --graph".into())),
        }
    }

    /// True while work is captured.
    pub(super) fn is_capturing(&self) -> bool {
        self.capturing.load(Ordering::SeqCst)
    }

    /// Refuses what a graph would do again with whatever the host's memory then holds.
    pub(super) fn not_captured(&self, what: &str) -> Result<()> {
        match self.is_capturing() {
            false => Ok(()),
            true => Err(Error::Device(format!("{what} while a CUDA graph is captured; train without --graph"))),
        }
    }

    /// True if every launch is to be waited for, which a capture does not allow.
    pub fn waits(&self) -> bool {
        self.wait
    }
}

impl Graph {
    /// Does all of it.
    ///
    /// # Safety
    /// Every buffer that the captured work reads or writes must still be where it was.
    ///
    /// # Errors
    /// What the driver says.
    pub unsafe fn launch(&self) -> Result<()> {
        self.0.launch().map_err(|e| driver::failed("launching a CUDA graph", e))
    }
}
