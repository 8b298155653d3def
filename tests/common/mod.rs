//! What the integration tests share: the golden files of the official code, a CUDA device, and a loss.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod cuda;
pub mod dot;
pub mod fixture;
pub mod network;
pub mod npz;
