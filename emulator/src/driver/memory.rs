//! Allocation, copies and fills.

use std::ffi::c_void;

use super::graph::{not_captured, submit};
use super::state::{current_state, device_of, fresh, handles, lock};
use super::{Outcome, Status, api, give, record};
use crate::calls::CallKind;
use crate::check::finding::{Finding, FindingKind};

fn allocate(out: *mut u64, bytes: usize) -> Outcome {
    let mut state = current_state()?;
    if bytes == 0 {
        return Err(Status::InvalidValue);
    }
    let address = state.memory.allocate(bytes as u64, record::config().checks, false).ok_or(Status::OutOfMemory)?;
    record::with(|r| r.host.allocations += 1);
    give(out, address)
}

fn free(address: u64) -> Outcome {
    if address == 0 {
        return Ok(());
    }
    let freed = device_of(address).map(|device| lock(&device.state).memory.free(address));
    if freed == Ok(true) {
        return Ok(());
    }
    let detail = format!("{address:#x} is not the start of a live allocation (freed twice, or never allocated)");
    record::found(Finding::host(FindingKind::BadFree, detail));
    Err(Status::InvalidValue)
}

fn bad_copy(what: &str, address: u64, bytes: usize) -> Status {
    let place = device_of(address).map_or("in no allocation".to_string(), |d| lock(&d.state).memory.describe(address));
    let detail = format!("{what} of {bytes} bytes at {address:#x}, {place}");
    record::found(Finding::host(FindingKind::BadCopy, detail));
    Status::InvalidValue
}

/// A device range as a host pointer, with its state marked as written or checked for reading.
fn range(what: &str, address: u64, bytes: usize, write: bool) -> Result<*mut u8, Status> {
    let mut state = lock(&device_of(address).map_err(|_| bad_copy(what, address, bytes))?.state);
    if let Some(status) = state.fatal {
        return Err(status);
    }
    let Some(host) = state.memory.host(address, bytes as u64) else {
        drop(state);
        return Err(bad_copy(what, address, bytes));
    };
    if write {
        state.memory.define(address, bytes as u64, true);
    }
    Ok(host)
}

/// The same for other libraries' sake.
pub fn host_range(what: &str, address: u64, bytes: usize, write: bool) -> Result<*mut u8, Status> {
    match bytes {
        0 => Ok(std::ptr::NonNull::dangling().as_ptr()),
        _ => range(what, address, bytes, write),
    }
}

/// True if all bytes of the range were written.
pub fn is_defined(address: u64, bytes: usize) -> bool {
    device_of(address).is_ok_and(|device| lock(&device.state).memory.undefined_in(address, bytes as u64).is_none())
}

fn to_device(to: u64, from: *const u8, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    let host = range("a copy to the device", to, bytes, true)?;
    record::with(|r| {
        r.host.copies += 1;
        r.host.bytes_to_device += bytes as u64;
    });
    // SAFETY: `range` checked the device side; the host side is the caller's.
    unsafe { std::ptr::copy_nonoverlapping(from, host, bytes) };
    Ok(())
}

fn to_host(to: *mut u8, from: u64, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    let host = range("a copy to the host", from, bytes, false)?;
    let undefined = lock(&device_of(from)?.state).memory.undefined_in(from, bytes as u64);
    if let (Some(byte), true) = (undefined, record::config().checks) {
        let detail =
            format!("a copy of {bytes} bytes to the host reads byte {byte} of its allocation, which was never written");
        record::found(Finding::host(FindingKind::UninitialisedMemory, detail));
    }
    record::with(|r| {
        r.host.copies += 1;
        r.host.bytes_to_host += bytes as u64;
    });
    // SAFETY: as in `to_device`.
    unsafe { std::ptr::copy_nonoverlapping(host, to, bytes) };
    Ok(())
}

fn on_device(to: u64, from: u64, bytes: usize) -> Outcome {
    if bytes == 0 {
        return Ok(());
    }
    let source = range("a copy from the device", from, bytes, false)?;
    let target = range("a copy to the device", to, bytes, true)?;
    // Bytes nobody wrote stay so when they are copied.
    if lock(&device_of(from)?.state).memory.undefined_in(from, bytes as u64).is_some() {
        for k in 0..bytes as u64 {
            let undefined = lock(&device_of(from)?.state).memory.undefined_in(from + k, 1).is_some();
            lock(&device_of(to)?.state).memory.define(to + k, 1, !undefined);
        }
    }
    record::with(|r| {
        r.host.copies += 1;
        r.host.bytes_on_device += bytes as u64;
    });
    // SAFETY: `range` checked both sides; they may overlap.
    unsafe { std::ptr::copy(source, target, bytes) };
    Ok(())
}

fn fill(to: u64, pattern: &[u8], count: usize) -> Outcome {
    if count == 0 {
        return Ok(());
    }
    if !to.is_multiple_of(pattern.len() as u64) {
        return Err(Status::InvalidValue);
    }
    let bytes = count * pattern.len();
    let host = range("a fill", to, bytes, true)?;
    record::with(|r| {
        r.host.copies += 1;
        r.host.bytes_on_device += bytes as u64;
    });
    // SAFETY: `range` checked the range.
    let target = unsafe { std::slice::from_raw_parts_mut(host, bytes) };
    target.chunks_exact_mut(pattern.len()).for_each(|c| c.copy_from_slice(pattern));
    Ok(())
}

fn synchronise() {
    record::with(|r| r.host.synchronisations += 1);
}

/// Bytes in which memory is put behind reserved addresses, as on today's devices.
const GRANULARITY: usize = 2 << 20;

fn is_granular(bytes: usize) -> Outcome {
    if !super::device::virtual_memory() {
        return Err(Status::NotSupported);
    }
    if bytes > 0 && bytes.is_multiple_of(GRANULARITY) { Ok(()) } else { Err(Status::InvalidValue) }
}

api! {
    /// The same for every kind of memory.
    fn cuMemGetAllocationGranularity(out: *mut usize, _properties: *const c_void, _option: i32) {
        give(out, GRANULARITY)
    }

    /// Reserves addresses; where they lie is the emulator's choice.
    fn cuMemAddressReserve(out: *mut u64, bytes: usize, _alignment: usize, _wish: u64, _flags: u64) {
        is_granular(bytes)?;
        let address = current_state()?.memory.reserve(bytes as u64).ok_or(Status::OutOfMemory)?;
        give(out, address)
    }

    /// Gives addresses back, and the memory behind them.
    fn cuMemAddressFree(address: u64, _bytes: usize) {
        free(address)
    }

    /// A handle of memory that takes its place when it is mapped.
    fn cuMemCreate(out: *mut u64, bytes: usize, _properties: *const c_void, _flags: u64) {
        is_granular(bytes)?;
        let state = current_state()?;
        if bytes as u64 > state.memory.capacity - state.memory.live {
            return Err(Status::OutOfMemory);
        }
        give(out, fresh() as u64)
    }

    /// Puts memory behind reserved addresses: here only right after what lies there already.
    fn cuMemMap(address: u64, bytes: usize, offset: usize, _handle: u64, _flags: u64) {
        is_granular(bytes)?;
        let mut state = current_state()?;
        if offset != 0 || !state.memory.extend(address, bytes as u64, record::config().checks) {
            return Err(Status::InvalidValue);
        }
        record::with(|r| r.host.allocations += 1);
        Ok(())
    }

    /// Memory may always be read and written.
    fn cuMemSetAccess(address: u64, bytes: usize, _access: *const c_void, _count: usize) {
        range("an access permission", address, bytes, false).map(|_| ())
    }

    /// The memory goes with its addresses.
    fn cuMemUnmap(address: u64, bytes: usize) {
        range("an unmapping", address, bytes, false).map(|_| ())
    }

    /// The memory lives on while it is mapped.
    fn cuMemRelease(_handle: u64) {
        Ok(())
    }

    /// Allocates.
    fn cuMemAlloc_v2(out: *mut u64, bytes: usize) {
        allocate(out, bytes)
    }

    /// Allocates; the stream's order is the program's.
    fn cuMemAllocAsync(out: *mut u64, bytes: usize, stream: *mut c_void) {
        not_captured(stream)?;
        allocate(out, bytes)
    }

    /// Allocates; every pool is the device's memory.
    fn cuMemAllocFromPoolAsync(out: *mut u64, bytes: usize, _pool: *mut c_void, stream: *mut c_void) {
        not_captured(stream)?;
        allocate(out, bytes)
    }

    /// Frees.
    fn cuMemFree_v2(address: u64) {
        free(address)
    }

    /// Frees.
    fn cuMemFreeAsync(address: u64, stream: *mut c_void) {
        not_captured(stream)?;
        free(address)
    }

    /// Copies to the device.
    fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) {
        synchronise();
        to_device(to, from, bytes)
    }

    /// Copies to the device.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: *mut c_void) {
        let from = from as usize;
        record::call(CallKind::ToDevice, stream, to, bytes as u64);
        submit(stream, move || to_device(to, from as *const u8, bytes))
    }

    /// Copies to the host.
    fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) {
        synchronise();
        to_host(to, from, bytes)
    }

    /// Copies to the host.
    fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: *mut c_void) {
        let to = to as usize;
        record::call(CallKind::ToHost, stream, from, bytes as u64);
        submit(stream, move || to_host(to as *mut u8, from, bytes))
    }

    /// Copies on the device.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        on_device(to, from, bytes)
    }

    /// Copies on the device.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *mut c_void) {
        submit(stream, move || on_device(to, from, bytes))
    }

    /// Copies between devices.
    fn cuMemcpyPeerAsync(to: u64, _there: *mut c_void, from: u64, _here: *mut c_void, bytes: usize, stream: *mut c_void) {
        submit(stream, move || on_device(to, from, bytes))
    }

    /// Fills with a byte.
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill(to, &[value], count)
    }

    /// Fills with a byte.
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: *mut c_void) {
        submit(stream, move || fill(to, &[value], count))
    }

    /// Fills with a 32-bit word.
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill(to, &value.to_le_bytes(), count)
    }

    /// Fills with a 32-bit word.
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: *mut c_void) {
        submit(stream, move || fill(to, &value.to_le_bytes(), count))
    }

    /// Page-locked host memory is host memory.
    fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, _flags: u32) {
        let words = vec![0u64; bytes.div_ceil(8).max(1)].into_boxed_slice();
        let length = words.len();
        let pointer = Box::into_raw(words).cast::<u64>();
        handles().pinned.insert(pointer as usize, length);
        give(out, pointer.cast())
    }

    /// Frees it.
    fn cuMemFreeHost(pointer: *mut c_void) {
        let length = handles().pinned.remove(&(pointer as usize)).ok_or(Status::InvalidValue)?;
        // SAFETY: the table says that this box of that length was given out and not yet freed.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(pointer.cast::<u64>(), length)) });
        Ok(())
    }

    /// Device address of page-locked memory: there is none here.
    fn cuMemHostGetDevicePointer_v2(_out: *mut u64, _pointer: *mut c_void, _flags: u32) {
        Err(Status::NotSupported)
    }

    /// Managed memory is not emulated.
    fn cuMemAllocManaged(_out: *mut u64, _bytes: usize, _flags: u32) {
        Err(Status::NotSupported)
    }

    /// Pools of one's own stand for the device's memory.
    fn cuMemPoolCreate(pool: *mut *mut c_void, _properties: *const c_void) {
        give(pool, fresh() as *mut c_void)
    }

    /// Nothing to destroy.
    fn cuMemPoolDestroy(_pool: *mut c_void) {
        Ok(())
    }
}
