//! `cuemu`: an emulated CUDA driver.
//!
//! The shared library exports the driver functions that `cudarc` calls, and executes the PTX given to it on the CPU. Tests
//! load it with [`preload`] before they touch `cudarc`; from then on every kernel launch is executed, checked and counted
//! here. See the README for what it is and what it is not: above all, it is no measure of a GPU's speed.
//!
//! - [`ptx`]: text to syntax tree;
//! - [`decode`]: syntax tree to executable form; [`ops`]: the instructions;
//! - [`exec`]: warps, blocks, launches; [`memory`]: device memory;
//! - [`check`]: the checkers; [`counters`]: what kernels did; [`calls`]: what streams were asked for;
//! - [`driver`]: the exported functions; [`nccl`]: those of NCCL; [`control`]: how a test configures and reads the emulator.

// Loops over lanes index several arrays by the same lane; that is what they mean.
#![allow(clippy::needless_range_loop)]

pub mod calls;
pub mod check;
pub mod control;
pub mod counters;
pub mod decode;
// The unit tests do without: what it exports, and so nearly everything, would be compiled for them once more.
#[cfg(not(test))]
pub mod driver;
pub mod exec;
pub mod footprint;
pub mod memory;
#[cfg(not(test))]
pub mod nccl;
pub mod ops;
pub mod ptx;

pub use calls::{Call, CallKind};
pub use check::config::Config;
pub use check::finding::{Finding, FindingKind};
pub use control::{Emulator, Exclusive, exclusive, gpu_present, library, preload};
pub use counters::{HostCounters, KernelCounters};
pub use decode::ir::Class;
