//! NCCL, as far as the engine calls it: the same names, arguments and error codes, moving real data between the ranks of a
//! communicator, which are threads or processes of this machine.
//!
//! `libcuemu.so` exports it too: a folder with a link `libnccl.so.2` to it, named in `LD_LIBRARY_PATH`, makes a program find it as
//! NCCL. A loader answers with the library that is loaded already, so that device memory is the emulated driver's.
//!
//! The hub ([`hub`]) is a thread of the process that made the unique id. It compares what the ranks call and computes; sums
//! run from the last rank to the first, an order that nobody may rely on. A rank that dies leaves the others waiting, as
//! a GPU's kernel would.

// SAFETY of every function in these modules: as in `driver`.
#![allow(clippy::missing_safety_doc)]

pub mod call;
pub mod exports;
pub mod hub;

/// `ncclResult_t` values other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Code {
    UnhandledCuda = 1,
    System = 2,
    InvalidArgument = 4,
    InvalidUsage = 5,
}

impl Code {
    /// NCCL's text of a code.
    pub fn describe(code: i32) -> &'static std::ffi::CStr {
        match code {
            0 => c"no error",
            1 => c"unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
            2 => c"unhandled system error (run with NCCL_DEBUG=INFO for details)",
            3 => c"internal error",
            4 => c"invalid argument (run with NCCL_DEBUG=WARN for details)",
            5 => c"invalid usage (run with NCCL_DEBUG=WARN for details)",
            6 => c"remote process exited or there was a network error",
            _ => c"unknown result code",
        }
    }
}
