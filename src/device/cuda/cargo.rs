//! Data that travel to the device while it computes: out of page-locked memory, on a stream of their own.
//!
//! Events keep two orders, and the host waits for neither: a copy begins when the kernels that read its target before are done
//! ([`Cuda::passed`]), and kernels that are launched behind [`Cuda::receive`] begin when the copy is done.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::{Cuda, driver};
use crate::error::Result;

/// Page-locked memory, full of what is to travel.
pub struct Cargo {
    memory: PinnedHostSlice<u8>,
    bytes: usize,
}

/// A point of the stream that kernels run on.
#[derive(Clone)]
pub struct Passed(Arc<CudaEvent>);

/// A copy on its way.
pub struct Sent {
    /// `None` once the memory was handed back.
    cargo: Option<Cargo>,
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
    pub fn pack(&self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<Cargo> {
        let locking = |e| driver::failed(&format!("locking {bytes} bytes of the host's memory (lower --prefetch)"), e);
        self.bind()?;
        let mut memory = match self.spare(bytes) {
            Some(memory) => memory,
            // SAFETY: it is filled before it is read.
            None => unsafe { self.context.alloc_pinned_with_flags(bytes.max(1), 0) }.map_err(locking)?,
        };
        fill(&mut memory.as_mut_slice().map_err(locking)?[..bytes]);
        Ok(Cargo { memory, bytes })
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
    pub fn passed(&self) -> Result<Passed> {
        self.not_captured("a mark for copies")?;
        self.settle()?;
        self.stream.record_event(Some(CU_EVENT_DEFAULT)).map(|event| Passed(Arc::new(event))).map_err(failed)
    }

    /// Begins to copy ranges of `cargo` to addresses, when all before `after` is done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn send(&self, cargo: Cargo, parts: &[(u64, Range<usize>)], after: &Passed) -> Result<Sent> {
        self.bind()?;
        let start = || -> Result<CudaEvent, DriverError> {
            self.copies.wait(&after.0)?;
            let bytes = &cargo.memory.as_slice()?[..cargo.bytes];
            for (to, part) in parts {
                // SAFETY: the target is a live buffer, which nobody reads before `receive`; the source stays as it is until
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
        Ok(Sent { arrived: arrived.map_err(failed)?, cargo: Some(cargo) })
    }

    /// What is launched from now on finds `sent` in its place.
    ///
    /// # Errors
    /// [`crate::Error::Device`] while a graph is captured, or what the driver says.
    pub fn receive(&self, sent: &Sent) -> Result<()> {
        self.not_captured("a copy to the device")?;
        self.settle()?;
        self.stream.wait(&sent.arrived).map_err(failed)
    }

    /// Waits until `sent` has arrived, and keeps its page-locked memory for what travels next.
    ///
    /// # Errors
    /// What the driver says.
    pub fn unload(&self, sent: &mut Sent) -> Result<()> {
        let Some(cargo) = sent.cargo.take() else { return Ok(()) };
        sent.arrived.synchronize().map_err(failed)?;
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(cargo.memory);
        Ok(())
    }

    /// Seconds from when the device was done with all before `passed` until `sent` was there: how long it waited. Waits for both.
    ///
    /// # Errors
    /// What the driver says.
    pub fn waited(&self, passed: &Passed, sent: &Sent) -> Result<f64> {
        Ok((f64::from(passed.0.elapsed_ms(&sent.arrived).map_err(failed)?) / 1e3).max(0.0))
    }
}

impl Drop for Sent {
    /// Neither the memory nor its target may go before the copy is done.
    fn drop(&mut self) {
        if self.cargo.is_some() {
            let _ = self.arrived.synchronize();
        }
    }
}
