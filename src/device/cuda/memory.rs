//! The memory behind the arena.
//!
//! As a rule one range of addresses, as long as the budget, backed as far as it is used: the driver's virtual memory
//! management keeps addresses and memory apart, so that the arena's offsets are the same on every device and growing never
//! moves a buffer. Reserved bytes are then the arena's high-water mark in whole granules.
//!
//! Where the driver has no such management (some vGPU profiles, some versions of WSL) the whole budget is one allocation,
//! made at once. `OSSNET_ARENA=one` asks for that, `OSSNET_ARENA=separate` for an allocation a buffer, which compute-sanitizer
//! needs to see where one ends.

use std::collections::HashMap;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, DriverError, sys};

use super::driver::failed;
use crate::device::device_info::Observer;
use crate::device::target::CUDA_GRANULE;
use crate::error::{Error, Result};

/// What lies behind the arena's offsets.
pub(super) enum Range {
    /// Addresses that memory is put behind.
    Mapped(Mapped),
    /// One allocation.
    One { base: u64, bytes: u64 },
    /// The addresses of buffers by their offset.
    Separate(HashMap<u64, u64>),
}

/// Addresses that memory is put behind, from the first on.
pub(super) struct Mapped {
    base: u64,
    reserved: u64,
    backed: u64,
    /// Bytes that memory comes in.
    granularity: u64,
    /// Handle and length of each piece of memory, in the order of addresses.
    pieces: Vec<(sys::CUmemGenericAllocationHandle, u64)>,
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

/// An allocation of its own. `None` if the device has no room.
fn allocate(bytes: u64) -> Result<Option<u64>> {
    let mut address = 0;
    // SAFETY: an out pointer.
    match unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1) as usize) }.result() {
        Ok(()) => Ok(Some(address)),
        Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
        Err(error) => Err(failed(&format!("allocating {bytes} bytes"), error)),
    }
}

impl Range {
    /// Room for `bytes`.
    pub(super) fn reserve(context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<Self> {
        match std::env::var("OSSNET_ARENA").as_deref() {
            Ok("separate") => return Ok(Self::Separate(HashMap::new())),
            Ok("one") => return Self::one(bytes, observer),
            Ok("mapped") => return Mapped::reserve(context, bytes, observer).map(Self::Mapped),
            Ok("") | Err(_) => {}
            Ok(other) => {
                let problem = format!("OSSNET_ARENA={other} is no kind of arena");
                return Err(Error::Usage(format!("{problem}; write mapped, one or separate, or unset it")));
            }
        }
        let managed = context
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED)
            .map_err(|e| failed("asking for virtual memory management", e))?;
        match managed {
            0 => Self::one(bytes, observer),
            // What says yes and then refuses is taken at its deeds.
            _ => match Mapped::reserve(context, bytes, observer) {
                Ok(mapped) => Ok(Self::Mapped(mapped)),
                Err(refused) => Self::one(bytes, observer).map_err(|_| refused),
            },
        }
    }

    fn one(bytes: u64, observer: Option<&dyn Observer>) -> Result<Self> {
        let bytes = bytes.max(1);
        let Some(base) = allocate(bytes)? else {
            let problem =
                format!("the driver has no virtual memory management here, and {bytes} bytes at once are refused");
            let remedy = "give --memory-budget what ossnet memory --plan-for prints as reserved";
            return Err(Error::Device(format!("{problem}; {remedy}")));
        };
        if let Some(observer) = observer {
            observer.backed(base, bytes);
        }
        Ok(Self::One { base, bytes })
    }

    /// Bytes that memory comes in.
    pub(super) fn granularity(&self) -> u64 {
        match self {
            Self::Mapped(mapped) => mapped.granularity,
            Self::One { .. } | Self::Separate(_) => CUDA_GRANULE,
        }
    }

    /// True if each buffer is an allocation.
    pub(super) fn is_separate(&self) -> bool {
        matches!(self, Self::Separate(_))
    }

    /// Where the buffer at this offset lies.
    pub(super) fn address(&self, offset: u64) -> u64 {
        match self {
            Self::Mapped(mapped) => mapped.base + offset,
            Self::One { base, .. } => base + offset,
            Self::Separate(buffers) => buffers.get(&offset).copied().unwrap_or(0),
        }
    }

    /// Puts memory behind the first `bytes`. Returns how many can be had: fewer only if the device refuses.
    pub(super) fn back(&mut self, context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<u64> {
        match self {
            Self::Mapped(mapped) => mapped.back(context, bytes, observer),
            Self::One { bytes: all, .. } => Ok(bytes.min(*all)),
            Self::Separate(_) => Ok(bytes),
        }
    }

    /// A buffer of `bytes` comes to lie at `offset`; its address.
    pub(super) fn come(&mut self, context: &CudaContext, offset: u64, bytes: u64) -> Result<u64> {
        if let Self::Separate(buffers) = self {
            context.bind_to_thread().map_err(|e| failed("using the device's context", e))?;
            let Some(address) = allocate(bytes)? else {
                let problem = format!("the device refuses a buffer of {bytes} bytes");
                return Err(Error::Device(format!("{problem}; unset OSSNET_ARENA, which makes each an allocation")));
            };
            buffers.insert(offset, address);
        }
        Ok(self.address(offset))
    }

    /// The buffer at `offset` goes; the address that it had. [`Range::free`] follows when nothing uses it any more.
    pub(super) fn go(&mut self, offset: u64) -> u64 {
        match self {
            Self::Separate(buffers) => buffers.remove(&offset).unwrap_or(0),
            Self::Mapped(_) | Self::One { .. } => self.address(offset),
        }
    }

    /// Gives back a buffer's own allocation, if it has one. The driver waits for the kernels that use it.
    pub(super) fn free(&mut self, address: u64) -> Result<()> {
        match self {
            // SAFETY: allocated in `come`, and no longer in the table.
            Self::Separate(_) if address != 0 => {
                unsafe { sys::cuMemFree_v2(address) }.result().map_err(|e| failed("freeing a buffer", e))
            }
            Self::Separate(_) | Self::Mapped(_) | Self::One { .. } => Ok(()),
        }
    }

    /// Gives everything back; nothing uses the device any more.
    pub(super) fn release(&mut self) {
        match self {
            Self::Mapped(mapped) => mapped.release(),
            // SAFETY: allocated in `one`.
            Self::One { base, .. } => _ = unsafe { sys::cuMemFree_v2(*base) },
            Self::Separate(buffers) => {
                // SAFETY: allocated in `come`, and not freed while in the table.
                buffers.drain().for_each(|(_, address)| _ = unsafe { sys::cuMemFree_v2(address) });
            }
        }
    }
}

impl Mapped {
    /// Reserves `bytes` of addresses.
    fn reserve(context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<Self> {
        let mut least = 0;
        let minimum = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        // SAFETY: an out pointer, and properties that outlive the call.
        unsafe { sys::cuMemGetAllocationGranularity(&mut least, &properties(context), minimum) }
            .result()
            .map_err(|e| failed("asking in what pieces memory comes", e))?;
        // Both are powers of two: memory comes in pieces of the plan's granule unless the driver's is larger.
        let granularity = CUDA_GRANULE.max(least as u64);
        let reserved = bytes.max(1).next_multiple_of(granularity);
        let mut base = 0;
        // SAFETY: an out pointer; no address is wished for.
        unsafe { sys::cuMemAddressReserve(&mut base, reserved as usize, 0, 0, 0) }
            .result()
            .map_err(|e| failed(&format!("reserving {reserved} bytes of addresses (lower --memory-budget)"), e))?;
        let mut range = Self { base, reserved, backed: 0, granularity, pieces: Vec::new() };
        // One granule at once, so that even an empty buffer has an address.
        match range.back(context, 1, observer) {
            Ok(_) => Ok(range),
            Err(error) => {
                range.release();
                Err(error)
            }
        }
    }

    fn back(&mut self, context: &CudaContext, bytes: u64, observer: Option<&dyn Observer>) -> Result<u64> {
        let granularity = self.granularity;
        let wanted = bytes.next_multiple_of(granularity).min(self.reserved);
        let Some(more) = wanted.checked_sub(self.backed).filter(|&more| more > 0) else { return Ok(bytes) };
        context.bind_to_thread().map_err(|e| failed("using the device's context", e))?;
        let properties = properties(context);
        let mut handle = 0;
        // SAFETY: an out pointer and properties that outlive the call.
        let created = unsafe { sys::cuMemCreate(&mut handle, more as usize, &properties, 0) }.result();
        match created {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, _) = context.mem_get_info().map_err(|e| failed("asking for the free memory", e))?;
                let room = self.backed + free as u64 / granularity * granularity;
                // Free memory in pieces is no more than what was refused.
                return Ok(room.min(wanted - granularity));
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

    fn release(&mut self) {
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
