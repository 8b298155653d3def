//! `ossnet`: memory-efficient segmentation of 3D medical images.

#![warn(missing_docs)]

// Tests share helpers with the integration tests, to which the crate has its public name.
#[cfg(test)]
extern crate self as ossnet;

pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
#[cfg(feature = "train")]
pub mod evaluate;
pub mod files;
#[cfg(feature = "infer")]
pub mod infer;
pub mod interrupt;
pub mod label_table;
pub mod memory;
pub mod mesh;
pub mod models;
pub mod nn;
pub mod ops;
#[cfg(feature = "train")]
pub mod planner;
mod protobuf;
pub mod quantities;
pub mod report;
pub mod rng;
mod suggest;
pub mod tape;
pub mod task;
pub mod tensor;
pub mod text;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
