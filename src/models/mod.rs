//! The networks: OSS-Net with its official configurations, and the residual U-Nets it is compared with.

pub mod config;
pub mod network;
pub mod ossnet;
pub mod recompute;
pub mod unet;

pub use config::{Family, OssNetConfig};
pub use network::{Network, NetworkConfig};
pub use ossnet::{Encoding, OssNet};
pub use recompute::{Recompute, RecomputeChoice};
pub use unet::{UNet, UNetConfig};
