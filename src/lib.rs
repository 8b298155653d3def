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
//! assert_eq!(labels.len(), labels.shape.iter().product());
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
//! A network of one's own implements [`models::Network`]; `examples/own_network.rs` does. A checkpoint and a scan become labels
//! through [`checkpoint::model::load`] and [`infer::Segmenter`]; labels become meshes
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
