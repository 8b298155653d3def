//! Devices and their attributes, and error texts.

use std::ffi::{c_char, c_void};

use super::state::{device, devices, lock};
use super::{Status, api, give};
use crate::exec::launch::{SHARED_LIMIT, SHARED_OPT_IN};

/// The name every device has: nobody shall take it for a GPU.
pub const NAME: &str = "cuemu (emulated CUDA device)";

/// Attributes by their number in `CUdevice_attribute`; those not listed are zero.
fn attribute(number: i32) -> i32 {
    match number {
        1..=3 => 1024,                     // threads of a block; x; y
        4 => 64,                           // z
        5 => i32::MAX,                     // grid x
        6 | 7 => 65535,                    // grid y, z
        8 => SHARED_LIMIT as i32,          // shared memory of a block
        9 => 65536,                        // constant memory
        10 => 32,                          // warp
        11 => i32::MAX,                    // pitch
        12 | 82 => 65536,                  // registers of a block, of a multiprocessor
        13 | 36 => 1,                      // clock rates in kHz: this is no hardware
        16 => 1,                           // multiprocessors
        31 | 41 | 78 | 79 | 90 | 115 => 1, // concurrent kernels, unified addresses, priorities, L1, preemption, pools
        37 => 1,                           // bus width
        38 => 1 << 20,                     // L2
        39 => 2048,                        // threads of a multiprocessor
        40 => 1,                           // copy engines
        75 => 8,                           // compute capability, major
        76 => 0,                           // minor
        81 => (SHARED_OPT_IN + 1024) as i32,
        97 => SHARED_OPT_IN as i32,
        102 => i32::from(virtual_memory()), // virtual memory management
        106 => 32,                          // blocks of a multiprocessor
        111 => 1024,                        // shared memory the system keeps of every block
        _ => 0,
    }
}

/// 1000 × major + 10 × minor of the CUDA version that the driver supports: 12.8, or what `CUEMU_DRIVER` says in that form.
pub fn driver_version() -> i32 {
    static VERSION: std::sync::OnceLock<i32> = std::sync::OnceLock::new();
    *VERSION.get_or_init(|| std::env::var("CUEMU_DRIVER").ok().and_then(|v| v.parse().ok()).unwrap_or(12080))
}

/// False if `CUEMU_VMM=0` says that this driver has no virtual memory management.
pub fn virtual_memory() -> bool {
    static MANAGED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *MANAGED.get_or_init(|| std::env::var("CUEMU_VMM").as_deref() != Ok("0"))
}

api! {
    /// Does nothing; flags must be zero.
    fn cuInit(flags: u32) {
        if flags == 0 { Ok(()) } else { Err(Status::InvalidValue) }
    }

    /// 12.8, or `CUEMU_DRIVER`.
    fn cuDriverGetVersion(version: *mut i32) {
        give(version, driver_version())
    }

    /// One, or `CUEMU_DEVICES`.
    fn cuDeviceGetCount(count: *mut i32) {
        give(count, devices().len() as i32)
    }

    /// The handle of a device is its number.
    fn cuDeviceGet(out: *mut i32, ordinal: i32) {
        device(ordinal)?;
        give(out, ordinal)
    }

    /// The name.
    fn cuDeviceGetName(name: *mut c_char, length: i32, dev: i32) {
        device(dev)?;
        if name.is_null() || length <= 0 {
            return Err(Status::InvalidValue);
        }
        let kept = NAME.len().min(length as usize - 1);
        // SAFETY: the caller's buffer has `length` bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(NAME.as_ptr().cast(), name, kept);
            name.add(kept).write(0);
        }
        Ok(())
    }

    /// Sixteen bytes: zeros and the number.
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], dev: i32) {
        device(dev)?;
        let mut bytes = *b"cuemu-emulated-0";
        bytes[15] = dev as u8;
        give(uuid, bytes)
    }

    /// As the second version.
    fn cuDeviceGetUuid(uuid: *mut [u8; 16], dev: i32) {
        // SAFETY: same contract.
        if unsafe { cuDeviceGetUuid_v2(uuid, dev) } == 0 { Ok(()) } else { Err(Status::InvalidDevice) }
    }

    /// Bytes of memory.
    fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: i32) {
        give(bytes, lock(&device(dev)?.state).memory.capacity as usize)
    }

    /// An attribute.
    fn cuDeviceGetAttribute(value: *mut i32, number: i32, dev: i32) {
        device(dev)?;
        give(value, attribute(number))
    }

    /// Every device reaches every other.
    fn cuDeviceCanAccessPeer(can: *mut i32, dev: i32, peer: i32) {
        device(dev)?;
        device(peer)?;
        give(can, i32::from(dev != peer))
    }

    /// The pool handle stands for the device's memory.
    fn cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, dev: i32) {
        device(dev)?;
        give(pool, (0x9001 + dev as usize) as *mut c_void)
    }

    /// The default pool.
    fn cuDeviceGetMemPool(pool: *mut *mut c_void, dev: i32) {
        device(dev)?;
        give(pool, (0x9001 + dev as usize) as *mut c_void)
    }

    /// Thresholds mean nothing here.
    fn cuMemPoolSetAttribute(_pool: *mut c_void, _attribute: i32, _value: *mut c_void) {
        Ok(())
    }

    /// Freed memory goes back at once.
    fn cuMemPoolTrimTo(_pool: *mut c_void, _keep: usize) {
        Ok(())
    }

    /// Free and total bytes of the current device.
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let state = super::state::current_state()?;
        give(free, (state.memory.capacity - state.memory.live) as usize)?;
        give(total, state.memory.capacity as usize)
    }

    /// The constant's name.
    fn cuGetErrorName(code: i32, text: *mut *const c_char) {
        give(text, Status::describe(code).0.as_ptr())
    }

    /// What it means.
    fn cuGetErrorString(code: i32, text: *mut *const c_char) {
        give(text, Status::describe(code).1.as_ptr())
    }

    /// Takes hold of the primary context.
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, dev: i32) {
        lock(&device(dev)?.state).holders += 1;
        give(context, super::state::context_of(dev as usize) as *mut c_void)
    }

    /// Lets go of it; the last to go ends it.
    fn cuDevicePrimaryCtxRelease_v2(dev: i32) {
        super::context::release(dev)
    }
}
