//! What a run will cost, asked of the planning device before anything is computed.
//!
//! A [`Workload`] is everything that a step's bytes depend on. [`Workload::dry_run`] takes it through the very code of
//! training and inference on a device, which may be a plan; [`forecast`] adds what lies beside the ledger. The other
//! questions are loops around that: how memory grows ([`sweep`]), what is the largest that fits ([`fit`]), what would help
//! when something does not ([`remedies`]).

pub mod adjust;
pub mod all_reduce;
mod cost;
pub mod curves;
pub mod fit;
pub mod gpus;
pub mod host_overhead;
mod inference_step;
mod issue;
pub mod json;
pub mod layers;
pub mod peaks;
pub mod pytorch_baseline;
pub mod remedies;
pub mod roofline;
pub mod schedules;
pub mod slopes;
pub mod sweep;
pub mod timeline;
pub mod training;
mod workload;

pub use cost::{StepCost, median};
pub use host_overhead::HostOverhead;
pub use workload::{Forecast, Workload, forecast, this_cpu};
