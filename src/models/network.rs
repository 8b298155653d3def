//! The configuration of the networks that the crate knows by name: what files and flags name, and checkpoints store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::{Architecture, Family, Network, OssNetConfig, Recompute, Supervision, UNetConfig, Unit};
use crate::nn::Parameters;
use crate::rng::Rng;

/// The configuration of a network that the crate knows, as stored in checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "architecture", rename_all = "snake_case")]
pub enum NetworkConfig {
    /// An occupancy network.
    OssNet(OssNetConfig),
    /// A residual U-Net.
    UNet(UNetConfig),
}

/// Names that [`NetworkConfig::official`] knows.
pub fn names() -> Vec<&'static str> {
    let mut names = crate::models::config::names();
    names.extend(["unet3d", "unet2d"]);
    names
}

impl NetworkConfig {
    /// What checkpoints call the kinds of networks.
    pub(crate) const ARCHITECTURES: [&str; 2] = ["oss_net", "u_net"];

    /// The network of a name: a published one at its published size, with `-small` behind it its small variant. Every command
    /// builds networks by this, then [adapts](NetworkConfig::adapted) them to the data. U-Nets take the channels of `family`.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the names.
    pub fn official(name: &str, family: Family) -> Result<Self> {
        let channels = if family == Family::Brats { 4 } else { 1 };
        match unet_dimensions(name) {
            Some(dimensions) => Ok(Self::UNet(UNetConfig::standard(dimensions, channels, 1))),
            None => Ok(Self::OssNet(OssNetConfig::official(name, family).map_err(|_| unknown(name))?)),
        }
    }

    /// The small variant (with or without `-small` behind the name) for volumes of `shape`. U-Nets have none: theirs is the
    /// published size.
    ///
    /// # Errors
    /// [`Error::Usage`] that lists the names.
    pub fn sample(name: &str, channels: usize, classes: usize, shape: [usize; 3]) -> Result<Self> {
        match unet_dimensions(name) {
            Some(dimensions) => Ok(Self::UNet(UNetConfig::standard(dimensions, channels, classes))),
            None => {
                let config = OssNetConfig::sample(name, channels, shape).map_err(|_| unknown(name))?;
                Ok(Self::OssNet(OssNetConfig { classes, ..config }))
            }
        }
    }

    /// The same network for volumes of `shape` with other channels and classes.
    pub fn adapted(self, channels: usize, classes: usize, shape: [usize; 3]) -> Self {
        match self {
            Self::UNet(config) => Self::UNet(UNetConfig { image_channels: channels, classes, ..config }),
            Self::OssNet(config) => Self::OssNet(config.adapted(channels, classes, shape)),
        }
    }

    /// The same network behaving as the official code where the two differ (U-Nets do not).
    pub fn into_reference(mut self) -> Self {
        if let Self::OssNet(config) = &mut self {
            config.reference = true;
        }
        self
    }

    /// The architecture that is configured.
    fn architecture(&self) -> &dyn Architecture {
        match self {
            Self::OssNet(config) => config,
            Self::UNet(config) => config,
        }
    }
}

impl Architecture for NetworkConfig {
    fn build(&self, parameters: &mut Parameters, rng: &mut Rng) -> Result<Box<dyn Network>> {
        self.architecture().build(parameters, rng)
    }

    fn title(&self) -> String {
        self.architecture().title()
    }

    fn slug(&self) -> String {
        self.architecture().slug()
    }

    fn image_channels(&self) -> usize {
        self.architecture().image_channels()
    }

    fn classes(&self) -> usize {
        self.architecture().classes()
    }

    fn for_data(&self, channels: usize, classes: usize, shape: [usize; 3]) -> Option<Arc<dyn Architecture>> {
        self.architecture().for_data(channels, classes, shape)
    }

    fn to_json(&self) -> serde_json::Result<String> {
        self.architecture().to_json()
    }

    fn supervision(&self) -> Supervision {
        self.architecture().supervision()
    }

    fn multiples(&self) -> [usize; 3] {
        self.architecture().multiples()
    }

    fn volume_shape(&self) -> Option<[usize; 3]> {
        self.architecture().volume_shape()
    }

    fn levels(&self) -> &'static [Recompute] {
        self.architecture().levels()
    }

    fn units(&self) -> Vec<Unit> {
        self.architecture().units()
    }

    fn dropout(&self) -> f32 {
        self.architecture().dropout()
    }

    fn is_reference(&self) -> bool {
        self.architecture().is_reference()
    }

    fn check(&self) -> Result<()> {
        self.architecture().check()
    }
}

fn unet_dimensions(name: &str) -> Option<usize> {
    match name.to_ascii_lowercase().as_str() {
        "unet3d" | "unet-3d" | "unet" => Some(3),
        "unet2d" | "unet-2d" => Some(2),
        _ => None,
    }
}

fn unknown(name: &str) -> Error {
    Error::Usage(format!(
        "unknown model '{name}'; {}",
        crate::suggest::remedy(name, names().iter().map(|known| &**known))
    ))
}
