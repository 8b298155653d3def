//! One type for every network, and its serialisable configuration.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::{Family, OssNet, OssNetConfig, Recompute, UNet, UNetConfig};
use crate::nn::Parameters;
use crate::rng::Rng;
use crate::tape::Precision;

/// The configuration of any network, as stored in checkpoints.
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
    /// Share of the values that the network drops at random in training.
    pub fn dropout(&self) -> f32 {
        match self {
            Self::OssNet(config) => config.dropout,
            Self::UNet(_) => 0.0,
        }
    }

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

    /// True if the network behaves as the official code where the two differ.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::OssNet(config) if config.reference)
    }

    /// The same network behaving as the official code where the two differ (U-Nets do not).
    pub fn into_reference(mut self) -> Self {
        if let Self::OssNet(config) = &mut self {
            config.reference = true;
        }
        self
    }

    /// The name people know the network by, with the sizes that differ from those the name stands for.
    pub fn title(&self) -> String {
        match self {
            Self::UNet(config) => config.title(),
            Self::OssNet(config) => config.title(),
        }
    }

    /// The name for files and flags.
    pub fn slug(&self) -> String {
        match self {
            Self::UNet(config) => format!("unet{}d", config.dimensions),
            Self::OssNet(config) => config.slug(),
        }
    }

    /// Channels of the volume.
    pub fn image_channels(&self) -> usize {
        match self {
            Self::UNet(config) => config.image_channels,
            Self::OssNet(config) => config.image_channels,
        }
    }

    /// Outputs: 1 for inside against outside, else one a class.
    pub fn classes(&self) -> usize {
        match self {
            Self::UNet(config) => config.classes,
            Self::OssNet(config) => config.classes,
        }
    }

    /// Checks that the network can be built, and admits the volumes it is meant for.
    ///
    /// # Errors
    /// [`Error::Model`] that says what is missing.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::UNet(config) => config.check(),
            Self::OssNet(config) => config.check(),
        }
    }

    /// Voxels that each side of a volume must be a multiple of.
    pub fn multiples(&self) -> [usize; 3] {
        match self {
            Self::UNet(config) if config.dimensions == 2 => {
                let mut multiples = [config.multiple(); 3];
                multiples[config.slice_axis] = 1;
                multiples
            }
            Self::UNet(config) => [config.multiple(); 3],
            Self::OssNet(_) => [2; 3],
        }
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

/// A network. Its weights live in a [`Parameters`].
pub enum Network {
    /// An occupancy network.
    OssNet(Box<OssNet>),
    /// A residual U-Net.
    UNet(Box<UNet>),
}

impl Network {
    /// A network with fresh weights, added to `parameters`.
    ///
    /// # Errors
    /// An impossible configuration, or no memory.
    pub fn new(config: &NetworkConfig, parameters: &mut Parameters, rng: &mut Rng) -> Result<Self> {
        let device = parameters.device().clone();
        device.in_op("initial weights", || {
            Ok(match config {
                NetworkConfig::OssNet(config) => Self::OssNet(Box::new(OssNet::new(config.clone(), parameters, rng)?)),
                NetworkConfig::UNet(config) => Self::UNet(Box::new(UNet::new(config.clone(), parameters, rng)?)),
            })
        })
    }

    /// From now on recomputes so much in its backward passes; a new network is at level 0.
    pub fn set_recompute(&mut self, level: Recompute) {
        match self {
            Self::OssNet(network) => network.set_recompute(level),
            Self::UNet(network) => network.set_recompute(level),
        }
    }

    /// From now on computes in this precision; a new network computes in f32.
    pub fn set_precision(&mut self, precision: Precision) {
        match self {
            Self::OssNet(network) => network.set_precision(precision),
            Self::UNet(network) => network.set_precision(precision),
        }
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        match self {
            Self::OssNet(network) => network.precision(),
            Self::UNet(network) => network.precision(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Self::OssNet(network) => NetworkConfig::OssNet(network.config().clone()),
            Self::UNet(network) => NetworkConfig::UNet(network.config().clone()),
        }
    }
}
