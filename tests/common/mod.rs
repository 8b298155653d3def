//! What the integration tests share: the golden files of the official code, a CUDA device, a loss, and what is
//! asserted of meshes.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code)]

pub mod cuda;
pub mod dot;
pub mod fixture;
pub mod network;
pub mod npz;
pub mod surface;
