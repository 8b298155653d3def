//! Parameters, layers, optimisers and losses.

pub mod layers;
#[cfg(feature = "train")]
pub mod optim;
mod parameters;
mod running;

pub use parameters::{BufferId, Kind, ParamId, Parameter, Parameters};
pub(crate) use running::RunningUpdate;
