//! `ossnet`: memory-efficient segmentation of 3D medical images.

pub mod data;
pub mod device;
pub mod error;
pub mod memory;
pub mod ops;
pub mod rng;
pub mod train;

pub use error::{Error, Result};
