//! `ossnet`: memory-efficient segmentation of 3D medical images.

pub mod device;
pub mod error;
pub mod memory;
pub mod nn;
pub mod ops;
pub mod train;

pub use error::{Error, Result};
