//! Page-locked host memory that copies go through: two halves, one filled while the other is copied.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice, result};

use crate::device::target::STAGING_HALF;

/// Both halves, made at the first copy.
#[derive(Default)]
pub(super) struct Staging(Option<[Half; 2]>);

struct Half {
    memory: PinnedHostSlice<u8>,
    /// Recorded after the last copy out of the memory.
    copied: CudaEvent,
}

impl Half {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        // SAFETY: bytes are written before they are read.
        let memory = unsafe { context.alloc_pinned_with_flags(STAGING_HALF, 0) }?;
        Ok(Self { memory, copied: context.new_event(None)? })
    }
}

impl Staging {
    fn halves(&mut self, context: &Arc<CudaContext>) -> Result<&mut [Half; 2], DriverError> {
        if self.0.is_none() {
            self.0 = Some([Half::new(context)?, Half::new(context)?]);
        }
        Ok(self.0.as_mut().expect("made above"))
    }

    pub(super) fn upload(
        &mut self,
        context: &Arc<CudaContext>,
        stream: &CudaStream,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        let halves = self.halves(context)?;
        for (i, piece) in bytes.chunks(STAGING_HALF).enumerate() {
            let half = &mut halves[i % 2];
            half.copied.synchronize()?;
            let staged = &mut half.memory.as_mut_slice()?[..piece.len()];
            staged.copy_from_slice(piece);
            // SAFETY: the target lies in a live buffer; the source stays untouched until the event says it was copied.
            unsafe { result::memcpy_htod_async(address + (i * STAGING_HALF) as u64, staged, stream.cu_stream()) }?;
            half.copied.record(stream)?;
        }
        Ok(())
    }

    pub(super) fn download(
        &mut self,
        context: &Arc<CudaContext>,
        stream: &CudaStream,
        address: u64,
        bytes: &mut [u8],
    ) -> Result<(), DriverError> {
        let half = &mut self.halves(context)?[0];
        half.copied.synchronize()?;
        for (i, piece) in bytes.chunks_mut(STAGING_HALF).enumerate() {
            let staged = &mut half.memory.as_mut_slice()?[..piece.len()];
            // SAFETY: the source lies in a live buffer; the stream is waited for before the target is read.
            unsafe { result::memcpy_dtoh_async(staged, address + (i * STAGING_HALF) as u64, stream.cu_stream()) }?;
            stream.synchronize()?;
            piece.copy_from_slice(staged);
        }
        Ok(())
    }

    /// Frees both halves.
    pub(super) fn release(&mut self) {
        self.0 = None;
    }
}
