//! `ossnet`: memory-efficient segmentation of 3D medical images.

pub mod device;
pub mod error;
pub mod files;
pub mod memory;
pub mod ops;
#[cfg(feature = "report")]
pub mod report;

pub use error::{Error, Result};
