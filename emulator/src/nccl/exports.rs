//! The exported functions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_void};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::Code;
use super::call::{Call, Kind, answered, size_of_type};
use super::hub::{self, ID};
use crate::check::finding::{Finding, FindingKind};
use crate::driver::graph::not_captured;
use crate::driver::memory::{host_range, is_defined};
use crate::driver::state::{current_ordinal, fresh, lock};
use crate::driver::stream::known;
use crate::driver::{fault, record};

/// `NCCL 2.27.3`, by the rule 10000 × major + 100 × minor + patch.
const VERSION: i32 = 22703;

const FLOAT32: i32 = 7;
const SUM: i32 = 0;

/// A live communicator.
struct Communicator {
    rank: i32,
    size: i32,
    ordinal: usize,
    hub: UnixStream,
    /// The stream that it was first used on.
    stream: Option<usize>,
}

fn communicators() -> MutexGuard<'static, HashMap<usize, Arc<Mutex<Communicator>>>> {
    static TABLE: OnceLock<Mutex<HashMap<usize, Arc<Mutex<Communicator>>>>> = OnceLock::new();
    lock(TABLE.get_or_init(Mutex::default))
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// A failure that the caller is to be told of, and a finding.
fn bad(code: Code, detail: String) -> Code {
    LAST.set(CString::new(detail.clone()).unwrap_or_default());
    record::found(Finding::host(FindingKind::BadCollective, detail));
    code
}

/// A failure for which nobody in the calling program can be blamed.
fn failed(code: Code, detail: String) -> Code {
    LAST.set(CString::new(detail).unwrap_or_default());
    code
}

type Outcome = Result<(), Code>;

/// What the function `name` answers.
fn run(name: &str, body: impl FnOnce() -> Outcome) -> i32 {
    if let Some(code) = fault::asked(name) {
        LAST.set(c"as asked for by CUEMU_FAIL".into());
        return code;
    }
    body().map_or_else(|code| code as i32, |()| 0)
}

fn give<T>(out: *mut T, value: T) -> Outcome {
    if out.is_null() {
        return Err(bad(Code::InvalidArgument, "a null pointer for a result".into()));
    }
    // SAFETY: a non-null out pointer of the caller, valid by the API's contract.
    unsafe { out.write(value) };
    Ok(())
}

fn find(handle: *mut c_void) -> Result<Arc<Mutex<Communicator>>, Code> {
    let found = communicators().get(&(handle as usize)).cloned();
    found.ok_or_else(|| bad(Code::InvalidArgument, "a communicator that is not alive".into()))
}

/// Waits as a GPU's kernel does whose peer is gone.
fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Device bytes as the host's: they must lie on the communicator's device, and have been written if they are `read`.
fn device_bytes(ordinal: usize, address: u64, bytes: usize, read: bool) -> Result<*mut u8, Code> {
    let what = if read { "a collective's input" } else { "a collective's output" };
    let host = host_range(what, address, bytes, !read).map_err(|_| failed(Code::UnhandledCuda, what.into()))?;
    if crate::driver::state::ordinal_of(address) != Some(ordinal) {
        return Err(bad(Code::InvalidArgument, format!("{what} lies on another device than {ordinal}")));
    }
    if read && record::config().checks && !is_defined(address, bytes) {
        let detail = format!("{what} of {bytes} bytes at {address:#x} was not all written");
        record::found(Finding::host(FindingKind::UninitialisedMemory, detail));
    }
    Ok(host)
}

/// Appends the call to `$CUEMU_COLLECTIVES/rank-R`, where that is asked for.
fn write_down(communicator: &Communicator, call: Call, stream: *mut c_void) {
    let Some(folder) = std::env::var_os("CUEMU_COLLECTIVES") else { return };
    let path = std::path::Path::new(&folder).join(format!("rank-{}", communicator.rank));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let own_stream = if stream as usize <= 2 { "the default stream" } else { "a stream" };
    let _ = file.and_then(|mut file| writeln!(file, "{call} on {own_stream}"));
}

/// Makes the call with all ranks: reads each rank's elements at `from`, writes what comes of it to `to`.
fn collective(handle: *mut c_void, call: Call, from: u64, to: u64, stream: *mut c_void) -> Outcome {
    let communicator = find(handle)?;
    let mut communicator = lock(&communicator);
    known(stream).map_err(|_| bad(Code::InvalidArgument, format!("{call} on a stream that is not alive")))?;
    not_captured(stream).map_err(|_| bad(Code::InvalidUsage, format!("{call} while its stream is captured")))?;
    if *communicator.stream.get_or_insert(stream as usize) != stream as usize {
        return Err(bad(Code::InvalidUsage, format!("{call} on another stream than the calls before")));
    }
    write_down(&communicator, call, stream);
    let all = match call.kind {
        Kind::AllGather => call.bytes() * communicator.size as usize,
        Kind::AllReduce | Kind::Leave => call.bytes(),
    };
    let from = device_bytes(communicator.ordinal, from, call.bytes(), true)?;
    // SAFETY: a checked range of the device's memory.
    let own = unsafe { std::slice::from_raw_parts(from, call.bytes()) }.to_vec();
    let to = device_bytes(communicator.ordinal, to, all, false)?;
    let told = call.send(&communicator.hub).and_then(|()| (&communicator.hub).write_all(&own));
    let Ok((status, content)) = told.and_then(|()| answered(&communicator.hub)) else { hang() };
    if status != 0 {
        return Err(bad(Code::InvalidUsage, String::from_utf8_lossy(&content).into_owned()));
    }
    // SAFETY: a checked range, as long as what all ranks have sent.
    unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), to, all.min(content.len())) };
    Ok(())
}

/// `ncclUniqueId`, which is passed by value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct UniqueId([u8; ID]);

/// The version.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(version: *mut i32) -> i32 {
    run("ncclGetVersion", || give(version, VERSION))
}

/// An id, which this process serves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> i32 {
    run("ncclGetUniqueId", || give(id, UniqueId(hub::open().map_err(|error| failed(Code::System, error.to_string()))?)))
}

/// Joins the current device to the ranks of an id; waits for all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRank(out: *mut *mut c_void, size: i32, id: UniqueId, rank: i32) -> i32 {
    run("ncclCommInitRank", || {
        if size < 1 || !(0..size).contains(&rank) {
            return Err(bad(Code::InvalidArgument, format!("rank {rank} of {size}")));
        }
        let ordinal =
            current_ordinal().map_err(|_| bad(Code::UnhandledCuda, "a communicator without a context".into()))?;
        let hub = hub::join(&id.0, size as u32, rank as u32, ordinal as u32)
            .map_err(|(code, detail)| if code == Code::System { failed(code, detail) } else { bad(code, detail) })?;
        let handle = fresh();
        let communicator = Communicator { rank, size, ordinal, hub, stream: None };
        communicators().insert(handle, Arc::new(Mutex::new(communicator)));
        give(out, handle as *mut c_void)
    })
}

/// Leaves, when all do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommDestroy(communicator: *mut c_void) -> i32 {
    run("ncclCommDestroy", || {
        let found = find(communicator)?;
        communicators().remove(&(communicator as usize));
        let found = lock(&found);
        let call = Call { kind: Kind::Leave, datatype: 0, count: 0 };
        let Ok((status, content)) = call.send(&found.hub).and_then(|()| answered(&found.hub)) else { hang() };
        match status {
            0 => Ok(()),
            _ => Err(bad(Code::InvalidUsage, String::from_utf8_lossy(&content).into_owned())),
        }
    })
}

/// What has gone wrong beside the calls: nothing, unless `CUEMU_FAIL` gives this function a code, which it then tells.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(communicator: *mut c_void, found: *mut i32) -> i32 {
    let told = fault::asked("ncclCommGetAsyncError").unwrap_or(0);
    find(communicator).and_then(|_| give(found, told)).map_or_else(|code| code as i32, |()| 0)
}

/// Ends this rank's part, whatever the others do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommAbort(communicator: *mut c_void) -> i32 {
    run("ncclCommAbort", || {
        find(communicator)?;
        communicators().remove(&(communicator as usize));
        Ok(())
    })
}

/// Sums of f32, the only type and operation that the emulator knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllReduce(
    from: u64,
    to: u64,
    count: usize,
    datatype: i32,
    operation: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    run("ncclAllReduce", || {
        if (datatype, operation) != (FLOAT32, SUM) {
            return Err(bad(Code::InvalidArgument, format!("operation {operation} of type {datatype}; sums of f32")));
        }
        let call = Call { kind: Kind::AllReduce, datatype: datatype as u32, count: count as u64 };
        collective(communicator, call, from, to, stream)
    })
}

/// What all ranks have, in their order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllGather(
    from: u64,
    to: u64,
    count: usize,
    datatype: i32,
    communicator: *mut c_void,
    stream: *mut c_void,
) -> i32 {
    run("ncclAllGather", || {
        if size_of_type(datatype as u32).is_none() {
            return Err(bad(Code::InvalidArgument, format!("type {datatype}")));
        }
        let call = Call { kind: Kind::AllGather, datatype: datatype as u32, count: count as u64 };
        collective(communicator, call, from, to, stream)
    })
}

/// The text of a code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetErrorString(code: i32) -> *const c_char {
    Code::describe(code).as_ptr()
}

/// What this thread's last failed call has to say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetLastError(_communicator: *mut c_void) -> *const c_char {
    LAST.with_borrow(|text| text.as_ptr())
}
