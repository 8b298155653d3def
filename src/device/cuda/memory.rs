//! The memory behind the arena: one range of addresses, as long as the budget, backed as far as it is used.
//!
//! The driver's virtual memory management keeps addresses and memory apart, so that the arena's offsets are the same on
//! every device and growing never moves a buffer. Reserved bytes are the arena's high-water mark in whole granules.

use cudarc::driver::{CudaContext, DriverError, sys};

use super::driver::failed;
use crate::device::device_info::Observer;
use crate::device::target::{CudaTarget, Target};
use crate::error::Result;

/// A range of addresses.
pub(super) struct Range {
    base: u64,
    reserved: u64,
    backed: u64,
    /// Handle and length of each piece of memory, in the order of addresses.
    pieces: Vec<(sys::CUmemGenericAllocationHandle, u64)>,
}

/// Bytes that memory comes in.
fn granularity() -> u64 {
    Target::Cuda(CudaTarget { capability: (8, 0), shared_memory: 0 }).granularity()
}

/// Memory of this device, for this device.
fn properties(context: &CudaContext) -> sys::CUmemAllocationProp {
    let location =
        sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: context.cu_device() };
    // SAFETY: all bits zero is a valid value of this plain struct.
    let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = location;
    properties
}

impl Range {
    /// Reserves `bytes` of addresses.
    pub(super) fn reserve(context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<Self> {
        let reserved = bytes.max(1).next_multiple_of(granularity());
        let mut base = 0;
        // SAFETY: an out pointer; no address is wished for.
        unsafe { sys::cuMemAddressReserve(&mut base, reserved as usize, 0, 0, 0) }
            .result()
            .map_err(|e| failed(&format!("reserving {reserved} bytes of addresses (lower --memory-budget)"), e))?;
        let mut range = Self { base, reserved, backed: 0, pieces: Vec::new() };
        // One granule at once, so that even an empty buffer has an address.
        range.back(context, 1, observer)?;
        Ok(range)
    }

    pub(super) fn address(&self, offset: u64) -> u64 {
        self.base + offset
    }

    /// Puts memory behind the first `bytes`. Returns how many can be had: fewer only if the device refuses.
    pub(super) fn back(&mut self, context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<u64> {
        let wanted = bytes.next_multiple_of(granularity()).min(self.reserved);
        let Some(more) = wanted.checked_sub(self.backed).filter(|&more| more > 0) else { return Ok(bytes) };
        context.bind_to_thread().map_err(|e| failed("using the device's context", e))?;
        let properties = properties(context);
        let mut handle = 0;
        // SAFETY: an out pointer and properties that outlive the call.
        let created = unsafe { sys::cuMemCreate(&mut handle, more as usize, &properties, 0) }.result();
        match created {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, _) = context.mem_get_info().map_err(|e| failed("asking for the free memory", e))?;
                let room = self.backed + free as u64 / granularity() * granularity();
                // Free memory in pieces is no more than what was refused.
                return Ok(room.min(wanted - granularity()));
            }
            other => other.map_err(|e| failed("asking for device memory", e))?,
        }
        let address = self.base + self.backed;
        let access = sys::CUmemAccessDesc {
            location: properties.location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        // SAFETY: the range was reserved and nothing is mapped to it yet; the handle is as long as the range.
        let mapped = unsafe { sys::cuMemMap(address, more as usize, 0, handle, 0) }.result();
        if let Err(error) = mapped {
            // SAFETY: the handle was created above and is not mapped.
            let _ = unsafe { sys::cuMemRelease(handle) };
            return Err(failed("mapping device memory", error));
        }
        self.pieces.push((handle, more));
        self.backed += more;
        // SAFETY: the range was mapped above.
        unsafe { sys::cuMemSetAccess(address, more as usize, &access, 1) }
            .result()
            .map_err(|e| failed("opening device memory", e))?;
        if let Some(observer) = observer {
            observer.backed(address, more);
        }
        Ok(bytes)
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        let mut address = self.base;
        for (handle, bytes) in self.pieces.drain(..) {
            // SAFETY: mapped in `back`; nothing uses the device any more.
            unsafe {
                let _ = sys::cuMemUnmap(address, bytes as usize);
                let _ = sys::cuMemRelease(handle);
            }
            address += bytes;
        }
        // SAFETY: reserved in `reserve`, and nothing is mapped to it any more.
        let _ = unsafe { sys::cuMemAddressFree(self.base, self.reserved as usize) };
        self.backed = 0;
    }
}
