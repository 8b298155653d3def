//! The networks: OSS-Net with its official configurations, and the residual U-Nets it is compared with.
//!
//! Your own network implements [`Architecture`], which describes and builds it, and [`Network`]: training, inference
//! and plans know nothing else of it. `examples/own_network.rs` is one.

mod architecture;
pub mod config;
pub mod loss;
pub mod network;
pub mod ossnet;
pub mod recompute;
pub mod schedule;
pub mod unet;

pub use architecture::{Architecture, Network, Supervision};
pub use config::{Family, OssNetConfig};
pub use network::NetworkConfig;
pub use ossnet::{Encoding, OssNet};
pub use recompute::{Recompute, RecomputeChoice};
pub use schedule::{Schedule, Unit, UnitChoice};
pub use unet::{UNet, UNetConfig};
