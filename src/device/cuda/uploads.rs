//! Uploads that overlap with kernels: from page-locked (pinned) memory, on a stream of their own.
//!
//! Events keep two orders, and the host waits for neither: a copy begins when the kernels that read its target before are done
//! [`Cuda::record_event`], and kernels that are launched behind [`Cuda::wait_in_stream`] begin when the copy is done.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::{Cuda, driver};
use crate::error::Result;

/// Page-locked memory that holds what is to be uploaded.
pub struct Pinned {
    memory: PinnedHostSlice<u8>,
    bytes: usize,
}

/// A point of the stream that kernels run on.
#[derive(Clone)]
pub struct StreamEvent(Arc<CudaEvent>);

/// A copy to the device that was begun.
pub struct Upload {
    /// `None` once the memory was handed back.
    pinned: Option<Pinned>,
    arrived: CudaEvent,
}

fn failed(error: DriverError) -> crate::Error {
    driver::failed("copying to the device beside its kernels", error)
}

impl Cuda {
    /// Page-locked memory of `bytes` bytes, which `fill` fills. Any thread may ask.
    ///
    /// # Errors
    /// The host has no memory to lock.
    pub fn pin(&self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<Pinned> {
        let locking = |e| driver::failed(&format!("locking {bytes} bytes of the host's memory (lower --prefetch)"), e);
        self.bind()?;
        let mut memory = match self.spare(bytes) {
            Some(memory) => memory,
            // SAFETY: it is filled before it is read.
            None => unsafe { self.context.alloc_pinned_with_flags(bytes.max(1), 0) }.map_err(locking)?,
        };
        fill(&mut memory.as_mut_slice().map_err(locking)?[..bytes]);
        Ok(Pinned { memory, bytes })
    }

    /// Memory that went back, of this length: batches of a run are of one.
    fn spare(&self, bytes: usize) -> Option<PinnedHostSlice<u8>> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = spare.iter().position(|memory| memory.len() == bytes.max(1));
        if fitting.is_none() {
            spare.clear();
        }
        fitting.map(|place| spare.swap_remove(place))
    }

    /// Marks what the device was told so far.
    ///
    /// # Errors
    /// What the driver says.
    pub fn record_event(&self) -> Result<StreamEvent> {
        self.not_captured("a mark for copies")?;
        self.settle()?;
        self.stream.record_event(Some(CU_EVENT_DEFAULT)).map(|event| StreamEvent(Arc::new(event))).map_err(failed)
    }

    /// Begins to copy ranges of `pinned` to addresses, when all before `after` is done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn begin_upload(&self, pinned: Pinned, parts: &[(u64, Range<usize>)], after: &StreamEvent) -> Result<Upload> {
        self.bind()?;
        let start = || -> Result<CudaEvent, DriverError> {
            self.copies.wait(&after.0)?;
            let bytes = &pinned.memory.as_slice()?[..pinned.bytes];
            for (to, part) in parts {
                // SAFETY: the target is a live buffer, which nobody reads before `wait_in_stream`; the source stays as it is until
                // the event says that it was copied.
                unsafe { result::memcpy_htod_async(*to, &bytes[part.clone()], self.copies.cu_stream()) }?;
            }
            self.copies.record_event(Some(CU_EVENT_DEFAULT))
        };
        let arrived = start();
        if arrived.is_err() {
            // Whatever was begun: the memory must not go before.
            let _ = self.copies.synchronize();
        }
        Ok(Upload { arrived: arrived.map_err(failed)?, pinned: Some(pinned) })
    }

    /// What is launched from now on finds `sent` in its place.
    ///
    /// # Errors
    /// [`crate::Error::Device`] while a graph is captured, or what the driver says.
    pub fn wait_in_stream(&self, sent: &Upload) -> Result<()> {
        self.not_captured("a copy to the device")?;
        self.settle()?;
        self.stream.wait(&sent.arrived).map_err(failed)
    }

    /// Waits until `sent` has arrived, and keeps its page-locked memory for what travels next.
    ///
    /// # Errors
    /// What the driver says.
    pub fn reclaim(&self, sent: &mut Upload) -> Result<()> {
        let Some(pinned) = sent.pinned.take() else { return Ok(()) };
        sent.arrived.synchronize().map_err(failed)?;
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(pinned.memory);
        Ok(())
    }

    /// Seconds from when the device was done with all before `passed` until `sent` was there: how long it waited. Waits for both.
    ///
    /// # Errors
    /// What the driver says.
    pub fn stall(&self, passed: &StreamEvent, sent: &Upload) -> Result<f64> {
        Ok((f64::from(passed.0.elapsed_ms(&sent.arrived).map_err(failed)?) / 1e3).max(0.0))
    }
}

impl Drop for Upload {
    /// Neither the memory nor its target may go before the copy is done.
    fn drop(&mut self) {
        if self.pinned.is_some() {
            let _ = self.arrived.synchronize();
        }
    }
}
