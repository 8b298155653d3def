//! Kernel launches.

use std::ffi::c_void;

use super::graph::{captures, submit};
use super::state::{Function, current_ordinal, devices, handles, lock};
use super::{Outcome, Status, api, coverage, record};
use crate::check::finding::{Finding, FindingKind};
use crate::counters::KernelCounters;
use crate::decode::ir::Kernel;
use crate::exec::block::Geometry;
use crate::exec::launch::{launch, validate};
use std::sync::atomic::Ordering;

/// The error a launch ends with for what stopped it.
fn status(kind: FindingKind) -> Status {
    match kind {
        FindingKind::OutOfBounds => Status::IllegalAddress,
        FindingKind::Misaligned => Status::MisalignedAddress,
        FindingKind::Hang => Status::LaunchTimeout,
        FindingKind::Trap => Status::IllegalInstruction,
        _ => Status::LaunchFailed,
    }
}

fn bad_launch(kernel: &Kernel, reason: String, status: Status) -> Status {
    let mut finding = Finding::host(FindingKind::BadLaunch, reason);
    finding.kernel = kernel.name.clone();
    record::found(finding);
    status
}

/// The argument block, from an array of pointers to arguments or from a packed buffer.
unsafe fn arguments(kernel: &Kernel, pointers: *mut *mut c_void, extra: *mut *mut c_void) -> Result<Vec<u8>, String> {
    let mut block = vec![0u8; kernel.param_bytes as usize];
    if !pointers.is_null() {
        for (k, &(offset, size)) in kernel.params.iter().enumerate() {
            // SAFETY: by the API's contract the array has an entry for every parameter.
            let argument = unsafe { *pointers.add(k) };
            if argument.is_null() {
                return Err(format!("argument {k} is a null pointer"));
            }
            let target = &mut block[offset as usize..(offset + size) as usize];
            // SAFETY: and every entry points to as many bytes as its parameter has.
            unsafe { std::ptr::copy_nonoverlapping(argument.cast::<u8>(), target.as_mut_ptr(), size as usize) };
        }
        return Ok(block);
    }
    if extra.is_null() {
        return if kernel.params.is_empty() {
            Ok(block)
        } else {
            Err(format!("{} arguments are missing", kernel.params.len()))
        };
    }
    let (mut buffer, mut bytes) = (std::ptr::null::<u8>(), 0usize);
    let mut at = extra;
    loop {
        // SAFETY: the list consists of pairs of a key and a value and ends with a null key.
        let (key, value) = unsafe { ((*at) as usize, *at.add(1)) };
        match key {
            0 => break,
            1 => buffer = value.cast(),
            // SAFETY: the value of this key points to the size.
            2 => bytes = unsafe { *value.cast::<usize>() },
            _ => return Err(format!("unknown launch option {key}")),
        }
        // SAFETY: as above.
        at = unsafe { at.add(2) };
    }
    if bytes != block.len() || buffer.is_null() {
        return Err(format!("an argument buffer of {bytes} bytes; the kernel's arguments take {}", block.len()));
    }
    // SAFETY: the caller's buffer has this many bytes.
    unsafe { std::ptr::copy_nonoverlapping(buffer, block.as_mut_ptr(), bytes) };
    Ok(block)
}

fn run(function: &Function, geometry: &Geometry, stream: usize) -> Outcome {
    let kernel = function.kernel();
    if function.module.ordinal != current_ordinal()? {
        let reason = format!("the kernel was loaded on device {}", function.module.ordinal);
        return Err(bad_launch(kernel, reason, Status::InvalidHandle));
    }
    if stream > 2 && !handles().streams.contains_key(&stream) {
        return Err(bad_launch(kernel, "a stream that does not exist".into(), Status::InvalidHandle));
    }
    if let Err(reason) = validate(kernel, geometry, function.dynamic_limit.load(Ordering::Relaxed)) {
        let resources = reason.contains("threads") && geometry.block.iter().all(|&n| n <= 1024);
        let status = if resources { Status::LaunchOutOfResources } else { Status::InvalidValue };
        return Err(bad_launch(kernel, reason, status));
    }
    let config = record::config();
    let mut state = lock(&devices()[function.module.ordinal].state);
    if let Some(status) = state.fatal {
        return Err(status);
    }
    let fresh = || KernelCounters { kernel: kernel.name.clone(), ..KernelCounters::default() };
    if config.idle {
        let counted = KernelCounters { launches: 1, ..fresh() };
        record::with(|r| r.kernels.entry(kernel.name.clone()).or_insert_with(fresh).add(&counted));
        return Ok(());
    }
    let state = &mut *state;
    let outcome = launch(kernel, geometry, config, &mut state.memory, &mut state.numbers);
    let found = !outcome.findings.is_empty();
    outcome.findings.into_iter().for_each(record::found);
    record::with(|r| r.kernels.entry(kernel.name.clone()).or_insert_with(fresh).add(&outcome.counters));
    if outcome.fault.is_none() {
        coverage::ran(&kernel.name);
    }
    let failed = outcome.fault.map(status).or((found && config.strict).then_some(Status::LaunchFailed));
    state.fatal = failed;
    failed.map_or(Ok(()), Err)
}

api! {
    /// Launches and runs to the end.
    fn cuLaunchKernel(
        f: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: *mut c_void,
        params: *mut *mut c_void, extra: *mut *mut c_void,
    ) {
        let function = handles().functions.get(&(f as usize)).cloned().ok_or(Status::InvalidHandle)?;
        let kernel = function.kernel();
        // SAFETY: the caller's arguments.
        let params = unsafe { arguments(kernel, params, extra) }.map_err(|r| bad_launch(kernel, r, Status::InvalidValue))?;
        let geometry = Geometry { grid: [gx, gy, gz], block: [bx, by, bz], dynamic_shared: shared, params };
        if !captures(stream) {
            record::with(|r| r.host.launches += 1);
        }
        record::launched(&kernel.name, stream);
        let stream_handle = stream as usize;
        submit(stream, move || run(&function, &geometry, stream_handle))
    }

    /// Blocks run one after another here, so only a grid of one block can cooperate.
    fn cuLaunchCooperativeKernel(
        f: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: *mut c_void,
        params: *mut *mut c_void,
    ) {
        if u64::from(gx) * u64::from(gy) * u64::from(gz) != 1 {
            let reason = "a cooperative launch of several blocks is not emulated".to_string();
            record::found(Finding::host(FindingKind::BadLaunch, reason));
            return Err(Status::NotSupported);
        }
        // SAFETY: same contract.
        match unsafe { cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, params, std::ptr::null_mut()) } {
            0 => Ok(()),
            700 => Err(Status::IllegalAddress),
            _ => Err(Status::LaunchFailed),
        }
    }

    /// Calls a host function in the stream's order: now.
    fn cuLaunchHostFunc(_stream: *mut c_void, function: Option<unsafe extern "C" fn(*mut c_void)>, data: *mut c_void) {
        let function = function.ok_or(Status::InvalidValue)?;
        // SAFETY: the caller's function and data.
        unsafe { function(data) };
        Ok(())
    }
}
