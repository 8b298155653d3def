//! Weights that do not say what they are: official `.pt` files and MONAI's, named by flags.

use std::path::Path;

use clap::Args;

use crate::checkpoint::convert::unet_of;
use crate::checkpoint::model::{self, Model};
use crate::checkpoint::prefix::fitting;
use crate::checkpoint::{self};
use crate::data::{Axes, Dataset, Preprocessing};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Architecture, Family, NetworkConfig};
use crate::task::Task;

/// What an official `.pt` is.
#[derive(Args, Clone, Debug)]
pub struct OfficialArgs {
    /// Network of an official or MONAI .pt, which does not say so itself: oss-net-c, full, A, … or unet3d, unet2d
    #[arg(short, long, alias = "network-config", value_name = "NAME")]
    model: Option<String>,
    /// Data set that an official .pt belongs to: BraTS or LITS
    #[arg(long, value_name = "NAME", default_value = "BraTS", requires = "model")]
    dataset: String,
}

impl OfficialArgs {
    /// True if the flags name a network.
    pub fn is_given(&self) -> bool {
        self.model.is_some()
    }

    /// The family of the official configurations.
    ///
    /// # Errors
    /// [`Error::Usage`] for another name.
    pub fn family(&self) -> Result<Family> {
        match self.dataset.to_lowercase().as_str() {
            "brats" => Ok(Family::Brats),
            "lits" => Ok(Family::Lits),
            _ => Err(Error::Usage(format!("unknown --dataset '{}'; use BraTS or LITS", self.dataset))),
        }
    }
}

/// A network from `path`: as the checkpoint describes itself, or as the flags do. `dataset` gives the task of a MONAI network.
///
/// # Errors
/// An unreadable file, one of another network, or no memory.
pub fn load(device: &Device, path: &Path, args: &OfficialArgs, dataset: Option<&Dataset>) -> Result<Model> {
    let Some(name) = &args.model else {
        return model::load(device, path);
    };
    let family = args.family()?;
    let config = NetworkConfig::official(name, family)?;
    let config = match config {
        NetworkConfig::OssNet(_) => config.into_reference(),
        NetworkConfig::UNet(_) => {
            let state = fitting(checkpoint::load(path)?.state, |state| unet_of(state).is_some());
            NetworkConfig::UNet(unet_of(&state).ok_or_else(|| {
                Error::data(path, "is no MONAI U-Net with two residual units a level", "name the network that it holds")
            })?)
        }
    };
    let task = task(&config, family, dataset);
    model::load_official(device, path, config, task)
}

/// What weights of that kind were trained for, as far as it is known.
fn task(config: &NetworkConfig, family: Family, dataset: Option<&Dataset>) -> Task {
    let official = Task::official_brats();
    match (config, family, dataset) {
        (NetworkConfig::OssNet(_), Family::Brats, _) => official,
        (NetworkConfig::OssNet(_), Family::Lits, _) => Task {
            name: "LiTS".into(),
            preprocessing: Preprocessing {
                channels: vec!["CT".into()],
                resize: Some(family.volume_shape()),
                ..official.preprocessing
            },
            class_names: vec!["background".into(), "liver".into()],
        },
        (NetworkConfig::UNet(_), _, Some(dataset)) => {
            let task = Task::of(dataset, config.multiples());
            if task.outputs() == config.classes() { task } else { task.merged() }
        }
        (NetworkConfig::UNet(unet), _, None) => Task {
            name: "unknown".into(),
            preprocessing: Preprocessing {
                channels: (0..unet.image_channels).map(|channel| format!("channel {channel}")).collect(),
                classes: (0..=255).take(unet.classes.max(2)).collect(),
                axes: Axes::Canonical,
                merge: false,
                multiple: config.multiples(),
                ..official.preprocessing
            },
            class_names: (0..unet.classes.max(2)).map(|class| format!("class {class}")).collect(),
        },
    }
}
