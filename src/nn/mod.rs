//! Parameters, layers, optimisers and losses.

mod chunked;
mod folding;
pub mod layers;
#[cfg(feature = "train")]
pub(crate) mod multi_tensor;
#[cfg(feature = "train")]
pub mod optim;

pub use chunked::blocks::{BlockLayers, chunked_block};
pub use chunked::slabs::conv_norm_act_pool;
pub use folding::folded_layer;

pub use crate::tape::{BufferId, ParamId, Parameter, ParameterKind, Parameters};
