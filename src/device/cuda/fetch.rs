//! A few bytes that travel to the host while the device works on: whoever wants them waits for what came before, not for what
//! was launched since.

use cudarc::driver::{CudaEvent, DriverError, PinnedHostSlice, result};

use super::{Cuda, driver};
use crate::error::{Error, Result};

/// The most bytes at once.
const MOST: usize = 256;

/// Page-locked memory that is used again and again, and the event of the last copy into it.
pub(super) struct Slot {
    memory: PinnedHostSlice<u8>,
    copied: CudaEvent,
}

/// Bytes on their way. The buffer that they come from may go meanwhile: the stream orders what takes its place behind them.
pub struct Fetch {
    /// `None` once it was handed back.
    slot: Option<Slot>,
    bytes: usize,
}

impl Cuda {
    /// Starts to copy `bytes` bytes from `address`, behind everything launched so far.
    ///
    /// # Errors
    /// [`Error::Device`] for more than 256 bytes, while a graph is captured, or what the driver says.
    pub(in crate::device) fn fetch(&self, address: u64, bytes: usize) -> Result<Fetch> {
        self.not_captured("a copy to the host")?;
        if bytes > MOST {
            return Err(Error::Device(format!(
                "{bytes} bytes are fetched at once, and {MOST} are the most; report this"
            )));
        }
        self.settle()?;
        self.bind()?;
        let failed = |e| driver::failed("copying from the device", e);
        let free = self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        let mut slot = match free {
            Some(slot) => slot,
            None => self.slot().map_err(failed)?,
        };
        let target = &mut slot.memory.as_mut_slice().map_err(failed)?[..bytes];
        // SAFETY: the source lies in a live buffer, which the stream frees behind this; the target lives until the event has
        // happened, for `Fetch` waits before it lets go of it.
        unsafe { result::memcpy_dtoh_async(target, address, self.stream.cu_stream()) }.map_err(failed)?;
        slot.copied.record(&self.stream).map_err(failed)?;
        Ok(Fetch { slot: Some(slot), bytes })
    }

    /// Waits for the bytes of `fetch`, which this device began.
    ///
    /// # Errors
    /// What the driver says, of this copy or of a kernel before it.
    pub(in crate::device) fn arrived(&self, mut fetch: Fetch) -> Result<Vec<u8>> {
        let failed = |e| driver::failed("copying from the device", e);
        let Some(slot) = fetch.slot.take() else { return Ok(Vec::new()) };
        let arrived = self.wait_for(&slot.copied).and_then(|()| {
            let memory = slot.memory.as_slice().map_err(failed)?;
            Ok(memory[..fetch.bytes].to_vec())
        });
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(slot);
        arrived
    }

    fn slot(&self) -> Result<Slot, DriverError> {
        // SAFETY: bytes are read only after a copy has written them.
        let memory = unsafe { self.context.alloc_pinned_with_flags(MOST, 0) }?;
        Ok(Slot { memory, copied: self.context.new_event(None)? })
    }
}

impl Drop for Fetch {
    /// Nobody waited: the memory must not go before the copy is done.
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            let _ = slot.copied.synchronize();
        }
    }
}
