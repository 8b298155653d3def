//! What a run will cost, asked of the planning device before anything is computed.
//!
//! A [`Workload`] is everything that a step's bytes depend on. [`Workload::rehearse`] takes it through the very code of
//! training and inference on a device, which may be a plan; [`forecast`] adds what lies beside the ledger. The other
//! questions are loops around that: how memory grows ([`sweep`]), what is the largest that fits ([`fit`]), what would help
//! when something does not ([`remedies`]).

pub mod adjust;
pub mod aside;
pub mod curves;
pub mod fit;
pub mod gpus;
mod issue;
pub mod reference;
pub mod remedies;
pub mod roofline;
pub mod slopes;
mod stages;
pub mod sweep;
pub mod timeline;
pub mod training;
mod workload;

pub use aside::Aside;
pub use workload::{Forecast, Workload, forecast, this_cpu};
