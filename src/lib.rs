//! `ossnet`: memory-efficient segmentation of 3D medical images, every byte accounted for.
//!
//! What a training step costs, asked of the engine's own allocator and op code without computing:
//!
//! ```
//! # #[cfg(feature = "train")]
//! # fn main() -> ossnet::Result<()> {
//! use ossnet::{planner::{self, Workload}, train::dry_run::StepSizes};
//! let step = Workload::official("oss-net-c", StepSizes::new([256, 256, 160], 1, 16_384))?;
//! let forecast = planner::forecast(&step, planner::this_cpu(0))?;
//! println!("{} bytes at the peak, in {}", forecast.profile.peak.by_role.total(), forecast.profile.peak.op);
//! println!("{} bytes reserved", forecast.profile.reserved);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "train"))]
//! # fn main() {}
//! ```
//!
//! A checkpoint and a scan become labels through [`checkpoint::model::load`] and [`infer::Segmenter`]; labels become meshes
//! through [`mesh::of_labels`]. The engine itself begins at [`device::Device`], [`tensor`] and [`tape`], its layers at [`nn`], its
//! networks at [`models`]; [`planner`] asks what a run will cost. Files of images are [`data`]'s business, those of weights
//! [`checkpoint`]'s.
//!
//! Features: `cuda` (the driver is found at run time), `infer`, `train`, `report`, all on by default, and `cudnn`. Before version 1.0
//! any part may change; what the command prints as JSON has a schema version.

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
/// What the tables of a report are made of; scoring itself belongs to the feature `train`.
#[cfg(not(feature = "train"))]
pub mod evaluate {
    pub mod statistics;
    pub mod wilcoxon;
}
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
pub mod plan;
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
