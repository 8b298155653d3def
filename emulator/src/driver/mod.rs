//! The CUDA driver API, as far as `cudarc` calls it: the same names, arguments and error codes.
//!
//! Everything happens when it is asked for: streams keep their order trivially, and an asynchronous call has finished when
//! it returns. Errors of kernels are sticky, as on a real device, until the context is released by its last holder.

// SAFETY of every function in these modules: pointers and handles are the caller's, under the contract of the CUDA driver
// API; handles are looked up in tables, and device addresses in the allocation table, before anything is touched.
#![allow(clippy::missing_safety_doc)]

pub mod context;
pub mod coverage;
pub mod device;
pub mod exports;
pub mod fault;
pub mod graph;
pub mod launch;
pub mod memory;
pub mod module;
pub mod record;
pub mod state;
pub mod stream;

/// `CUresult` values other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Status {
    InvalidValue = 1,
    OutOfMemory = 2,
    InvalidDevice = 101,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    InvalidPtx = 218,
    FileNotFound = 301,
    InvalidHandle = 400,
    NotFound = 500,
    IllegalAddress = 700,
    LaunchOutOfResources = 701,
    LaunchTimeout = 702,
    IllegalInstruction = 715,
    MisalignedAddress = 716,
    LaunchFailed = 719,
    NotSupported = 801,
    CaptureUnsupported = 900,
    CaptureInvalidated = 901,
}

impl Status {
    /// Name and text of a code.
    pub fn describe(code: i32) -> (&'static std::ffi::CStr, &'static std::ffi::CStr) {
        match code {
            0 => (c"CUDA_SUCCESS", c"no error"),
            1 => (c"CUDA_ERROR_INVALID_VALUE", c"cuemu: invalid argument (see the findings)"),
            2 => (c"CUDA_ERROR_OUT_OF_MEMORY", c"cuemu: out of memory"),
            34 => (c"CUDA_ERROR_STUB_LIBRARY", c"cuemu: as asked for by CUEMU_FAIL"),
            46 => (c"CUDA_ERROR_DEVICE_UNAVAILABLE", c"cuemu: as asked for by CUEMU_FAIL"),
            101 => (c"CUDA_ERROR_INVALID_DEVICE", c"cuemu: no such device"),
            201 => (c"CUDA_ERROR_INVALID_CONTEXT", c"cuemu: no current context"),
            209 => (c"CUDA_ERROR_NO_BINARY_FOR_GPU", c"cuemu: only PTX text can be loaded, no cubin and no fatbin"),
            218 => (c"CUDA_ERROR_INVALID_PTX", c"cuemu: PTX that the emulator does not know (see the findings)"),
            221 => (c"CUDA_ERROR_JIT_COMPILER_NOT_FOUND", c"cuemu: as asked for by CUEMU_FAIL"),
            222 => (c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", c"cuemu: PTX newer than the driver (see CUEMU_DRIVER)"),
            301 => (c"CUDA_ERROR_FILE_NOT_FOUND", c"cuemu: file not found"),
            400 => (c"CUDA_ERROR_INVALID_HANDLE", c"cuemu: a handle that is not alive"),
            500 => (c"CUDA_ERROR_NOT_FOUND", c"cuemu: no such name in the module"),
            700 => (c"CUDA_ERROR_ILLEGAL_ADDRESS", c"cuemu: a kernel touched memory out of bounds (see the findings)"),
            701 => (c"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", c"cuemu: too many resources (see the findings)"),
            702 => (c"CUDA_ERROR_LAUNCH_TIMEOUT", c"cuemu: a kernel seems to hang (see the findings)"),
            715 => (c"CUDA_ERROR_ILLEGAL_INSTRUCTION", c"cuemu: a kernel trapped (see the findings)"),
            716 => (c"CUDA_ERROR_MISALIGNED_ADDRESS", c"cuemu: a kernel used a misaligned address (see the findings)"),
            719 => (c"CUDA_ERROR_LAUNCH_FAILED", c"cuemu: a kernel failed (see the findings)"),
            801 => (c"CUDA_ERROR_NOT_SUPPORTED", c"cuemu: not emulated"),
            803 => (c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", c"cuemu: as asked for by CUEMU_FAIL"),
            804 => (c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", c"cuemu: as asked for by CUEMU_FAIL"),
            900 => (c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"cuemu: not allowed while the stream is captured"),
            901 => (c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"cuemu: the capture holds what no graph can"),
            _ => (c"CUDA_ERROR_UNKNOWN", c"cuemu: unknown error"),
        }
    }
}

/// What an API function gives back.
pub type Outcome = Result<(), Status>;

/// Declares exported functions: `fn cuName(arguments) { body }`, with a body that is an [`Outcome`].
macro_rules! api {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::similar_names, clippy::used_underscore_binding, clippy::too_many_arguments)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> i32 {
            if let Some(code) = $crate::driver::fault::asked(stringify!($name)) {
                return code;
            }
            let body = || -> $crate::driver::Outcome { $body };
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => 0,
                Ok(Err(status)) => status as i32,
                Err(_) => $crate::driver::Status::LaunchFailed as i32,
            }
        }
    )*};
}
pub(crate) use api;

/// Writes through an out pointer of the caller; null is refused.
pub(crate) fn give<T>(out: *mut T, value: T) -> Outcome {
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    // SAFETY: a non-null out pointer of the caller, valid by the API's contract.
    unsafe { out.write(value) };
    Ok(())
}
