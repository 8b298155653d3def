//! Parameters, layers, optimisers and losses.

mod folding;
pub mod layers;
#[cfg(feature = "train")]
pub mod optim;
mod parameters;
mod piecewise;
mod running;
#[cfg(feature = "train")]
pub(crate) mod together;

pub use folding::folded_layer;
pub use parameters::{BufferId, Kind, ParamId, Parameter, Parameters};
pub use piecewise::blocks::{Layers, chunked_block};
pub use piecewise::slabs::conv_norm_act_pool;
pub(crate) use running::RunningUpdate;
