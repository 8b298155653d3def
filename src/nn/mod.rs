//! Parameters, layers, optimisers and losses.

pub mod layers;
#[cfg(feature = "train")]
pub mod optim;
mod parameters;

pub use parameters::{BufferId, Kind, ParamId, Parameter, Parameters};
