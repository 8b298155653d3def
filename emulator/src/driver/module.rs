//! Modules, their kernels and variables.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::state::{Function, Loaded, current_ordinal, current_state, devices, fresh, handles, lock};
use super::{Outcome, Status, api, coverage, give, record};
use crate::check::finding::{Finding, FindingKind};
use crate::decode::module::decode;
use crate::exec::launch::{SHARED_LIMIT, SHARED_OPT_IN};
use crate::ptx;
use crate::ptx::ast::Variable;

fn load(out: *mut *mut c_void, text: &str) -> Outcome {
    let ordinal = current_ordinal()?;
    // Parsing is the longest part, and needs no device.
    let tree = ptx::parse(text).inspect(coverage::loaded);
    let mut state = current_state()?;
    let place = |variable: &Variable| {
        let size = u64::from(variable.size.max(1));
        let address =
            state.memory.allocate(size, false, true).ok_or_else(|| format!("no memory for {}", variable.name))?;
        let host = state.memory.host(address, size).ok_or("a fresh allocation has no memory")?;
        // SAFETY: the allocation has `size` bytes, zero filled; initialisers are no longer than their variable.
        unsafe { std::ptr::copy_nonoverlapping(variable.init.as_ptr(), host, variable.init.len().min(size as usize)) };
        Ok(address)
    };
    let decoded = tree.and_then(|tree| decode(&tree, place));
    // The tables of handles are never asked for while a device is locked.
    drop(state);
    match decoded {
        Ok(module) => {
            let handle = fresh();
            handles().modules.insert(handle, Arc::new(Loaded { module, ordinal }));
            give(out, handle as *mut c_void)
        }
        Err(reason) => {
            record::found(Finding::host(FindingKind::BadModule, reason));
            Err(Status::InvalidPtx)
        }
    }
}

unsafe fn load_image(out: *mut *mut c_void, image: *const c_char) -> Outcome {
    if image.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: an image begins with text that ends with a zero, or with the magic number of an ELF or fatbin file.
    let head = unsafe { image.cast::<[u8; 4]>().read_unaligned() };
    if head == *b"\x7fELF" || head == 0xBA55_ED50u32.to_le_bytes() {
        // No finding: a program that has PTX as well goes on with that, as with a driver older than its machine code.
        return Err(Status::NoBinaryForGpu);
    }
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(image) };
    load(out, &text.to_string_lossy())
}

unsafe fn name<'a>(text: *const c_char) -> Result<&'a str, Status> {
    if text.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a name of the caller's, ending with a zero.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Status::NotFound)
}

fn function(handle: *mut c_void) -> Result<Function, Status> {
    handles().functions.get(&(handle as usize)).cloned().ok_or(Status::InvalidHandle)
}

api! {
    /// Loads PTX text.
    fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_char) {
        // SAFETY: the caller's image.
        unsafe { load_image(module, image) }
    }

    /// Loads PTX text; options are for a compiler that is not there.
    fn cuModuleLoadDataEx(module: *mut *mut c_void, image: *const c_char, _n: u32, _options: *mut i32, _values: *mut *mut c_void) {
        // SAFETY: the caller's image.
        unsafe { load_image(module, image) }
    }

    /// Loads a file of PTX text.
    fn cuModuleLoad(module: *mut *mut c_void, path: *const c_char) {
        // SAFETY: the caller's name.
        let path = unsafe { name(path) }?;
        load(module, &std::fs::read_to_string(path).map_err(|_| Status::FileNotFound)?)
    }

    /// Unloads: its variables are freed and its kernels' handles die.
    fn cuModuleUnload(module: *mut c_void) {
        let mut handles = handles();
        let loaded = handles.modules.remove(&(module as usize)).ok_or(Status::InvalidHandle)?;
        handles.functions.retain(|_, f| f.owner != module as usize);
        drop(handles);
        let mut state = lock(&devices()[loaded.ordinal].state);
        loaded.module.globals.values().for_each(|(address, _)| _ = state.memory.free(*address));
        Ok(())
    }

    /// A kernel by name.
    fn cuModuleGetFunction(out: *mut *mut c_void, module: *mut c_void, text: *const c_char) {
        // SAFETY: the caller's name.
        let wanted = unsafe { name(text) }?;
        let mut handles = handles();
        let loaded = handles.modules.get(&(module as usize)).cloned().ok_or(Status::InvalidHandle)?;
        let index = loaded.module.kernels.iter().position(|k| k.name == wanted).ok_or(Status::NotFound)?;
        let limit = SHARED_LIMIT.saturating_sub(loaded.module.kernels[index].shared);
        let handle = fresh();
        let dynamic_limit = Arc::new(AtomicU32::new(limit));
        handles.functions.insert(handle, Function { module: loaded, owner: module as usize, index, dynamic_limit });
        give(out, handle as *mut c_void)
    }

    /// A variable by name.
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: *mut c_void, text: *const c_char) {
        // SAFETY: the caller's name.
        let wanted = unsafe { name(text) }?;
        let loaded = handles().modules.get(&(module as usize)).cloned().ok_or(Status::InvalidHandle)?;
        let (at, size) = *loaded.module.globals.get(wanted).ok_or(Status::NotFound)?;
        if !address.is_null() {
            give(address, at)?;
        }
        if bytes.is_null() { Ok(()) } else { give(bytes, size as usize) }
    }

    /// Static facts; registers are those of the PTX, not what a compiler would allocate.
    fn cuFuncGetAttribute(value: *mut i32, attribute: i32, handle: *mut c_void) {
        let function = function(handle)?;
        let kernel = function.kernel();
        give(value, match attribute {
            0 => kernel.max_threads as i32,
            1 => kernel.shared as i32,
            3 => kernel.local as i32,
            4 => kernel.register_words.min(255) as i32,
            5 | 6 => 80,
            8 => function.dynamic_limit.load(Ordering::Relaxed) as i32,
            _ => 0,
        })
    }

    /// Opting in to more dynamic shared memory; other attributes mean nothing here.
    fn cuFuncSetAttribute(handle: *mut c_void, attribute: i32, value: i32) {
        let function = function(handle)?;
        if attribute == 8 {
            let value = u32::try_from(value).map_err(|_| Status::InvalidValue)?;
            if value + function.kernel().shared > SHARED_OPT_IN {
                return Err(Status::InvalidValue);
            }
            function.dynamic_limit.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Means nothing here.
    fn cuFuncSetCacheConfig(handle: *mut c_void, _config: i32) {
        function(handle).map(|_| ())
    }

    /// Blocks of this size on one multiprocessor, by threads and shared memory alone.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut i32, handle: *mut c_void, threads: i32, dynamic: usize) {
        let function = function(handle)?;
        let shared = function.kernel().shared as usize + dynamic + 1024;
        let threads = usize::try_from(threads).ok().filter(|t| *t > 0).ok_or(Status::InvalidValue)?;
        give(blocks, (2048 / threads.next_multiple_of(32)).min((SHARED_OPT_IN as usize + 1024) / shared).min(32) as i32)
    }

    /// As without flags.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut i32, handle: *mut c_void, threads: i32, dynamic: usize, _flags: u32) {
        // SAFETY: same contract.
        match unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, handle, threads, dynamic) } {
            0 => Ok(()),
            _ => Err(Status::InvalidValue),
        }
    }
}
