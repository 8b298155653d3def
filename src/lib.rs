//! `ossnet`: memory-efficient segmentation of 3D medical images, every byte accounted for.
//!
//! From labelled scans to the labels of another scan:
//!
//! ```
//! # #[cfg(feature = "train")]
//! # fn main() -> ossnet::Result<()> {
//! use ossnet::{data::embedded, device::Device, infer::{Segmenter, SegmenterOptions}};
//! use ossnet::{models::{Architecture, NetworkConfig}, task::{PadTo, Task}, train::{presets, trainer::Trainer}};
//! let device = Device::cpu(0, 2 << 30)?;
//! let data = embedded::open("heads")?; // a folder: data::Dataset::open
//! let network = NetworkConfig::sample("o-net", 1, 1, [64, 80, 64])?;
//! let task = Task::of(&data, network.multiples());
//! let read = |case| task.prepare(data.read(case, task.preprocessing.axes)?, PadTo::of(&network).shape());
//! let cases = data.training.iter().map(read).collect::<ossnet::Result<Vec<_>>>()?;
//! let mut trainer = Trainer::new(&device, &network, presets::sample(&network, 1, 0))?; // more epochs learn more
//! trainer.train(&cases, |_| Ok(()))?;
//! let segmenter = Segmenter::new(trainer.network(), trainer.parameters(), &task, SegmenterOptions::of(&network))?;
//! let scan = data.read(&data.validation[0], task.preprocessing.axes)?.image;
//! let labels = segmenter.segment("scan", scan, &mut || Ok(()))?.labels;
//! assert_eq!(labels.len(), labels.shape.iter().product::<usize>());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "train"))]
//! # fn main() {}
//! ```
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
//! | for | begin at |
//! |---|---|
//! | scans, data sets, preprocessing | [`data`], [`task::Task`] |
//! | labels of a scan from a checkpoint | [`checkpoint::model::load`], [`infer::Segmenter`]; meshes: [`mesh::of_labels`] |
//! | training | [`train::trainer::Trainer`], settings by purpose in [`train::presets`] |
//! | what a run will cost | [`planner`] |
//! | the networks, and one of your own | [`models::NetworkConfig`]; [`models::Architecture`] and [`models::Network`] (`examples/own_network.rs`) |
//! | layers, optimisers | [`nn`] |
//! | ops, and one of your own | [`ops`], [`tape`] (`examples/custom_op.rs`) |
//! | memory: where tensors lie, who owns each byte | [`device::Device`], [`tensor`], [`memory`] |
//!
//! Features: `cuda` (the driver is found at run time), `infer`, `train`, `report`, all on by default, and `cudnn`. Before version 1.0
//! any part may change, and a minor version says so; the traits of [`models`] and the entries of the table change last. What the command
//! prints as JSON has a schema version. The command line itself is no part of the library.

#![warn(missing_docs)]

// The Rust of README is compiled and run from README itself.
#[cfg(all(doctest, feature = "train"))]
#[doc = include_str!("../README.md")]
mod readme {}

// Tests share helpers with the integration tests, to which the crate has its public name.
#[cfg(test)]
extern crate self as ossnet;

pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
#[cfg(feature = "train")]
pub mod evaluate;
/// What the tables of a report are made of; scoring itself belongs to the feature `train`.
#[cfg(not(feature = "train"))]
pub mod evaluate {
    pub mod case_score;
    pub mod statistics;
    pub mod wilcoxon;
}
// A build without commands leaves some of it unused.
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) mod files;
#[cfg(feature = "infer")]
pub mod infer;
#[cfg_attr(not(feature = "train"), allow(dead_code))]
pub(crate) mod interrupt;
pub mod label_table;
pub mod memory;
pub mod mesh;
pub mod models;
pub mod nn;
pub mod ops;
mod order;
mod packed;
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
