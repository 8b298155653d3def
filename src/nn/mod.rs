//! Parameters, layers, optimisers and losses.

mod parameters;

pub use parameters::{BufferId, Kind, ParamId, Parameter, Parameters};
