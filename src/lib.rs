//! `ossnet`: memory-efficient segmentation of 3D medical images.

#![warn(missing_docs)]

pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod infer;
pub mod memory;
pub mod models;
pub mod nn;
pub mod ops;
pub mod planner;
pub mod report;
pub mod rng;
pub mod tape;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
