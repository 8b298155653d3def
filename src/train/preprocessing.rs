//! From a scan to what a network takes, stored in every checkpoint so that inference repeats it.

use serde::{Deserialize, Serialize};

use crate::data::{Axes, BorderPoints, Geometry, Labels, Padding, Scan, Volume};
use crate::error::{Error, Result};

/// What happens to a scan before a network sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Name of each image channel, in order.
    pub channels: Vec<String>,
    /// Values are clipped to this range before normalisation.
    #[serde(default)]
    pub clip: Option<[f32; 2]>,
    /// Axes run to the right, anterior, superior (else as stored: the official rule).
    pub canonical: bool,
    /// Sides are padded by 0 (the mean, after normalisation) to a multiple of these.
    pub multiples: [usize; 3],
    /// Sides are padded at least to this shape, if given.
    #[serde(default)]
    pub shape: Option<[usize; 3]>,
    /// The stored label value of each class, background first.
    pub label_values: Vec<u8>,
    /// Name of each class.
    pub class_names: Vec<String>,
    /// One foreground class that holds every value but the first; else one class a value.
    pub binary: bool,
}

/// A scan as a network takes it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Name of the case.
    pub name: String,
    /// Normalised and padded.
    pub volume: Volume,
    /// Class indices, padded by background, if the case is labelled.
    pub labels: Option<Labels>,
    /// Voxels near a class border, if labelled.
    pub border: Option<BorderPoints>,
    /// How to crop back.
    pub padding: Padding,
    /// Shape before padding.
    pub shape: [usize; 3],
    /// Geometry before padding.
    pub geometry: Geometry,
}

impl Preprocessing {
    /// Which way axes run.
    pub fn axes(&self) -> Axes {
        if self.canonical { Axes::Canonical } else { Axes::Stored }
    }

    /// Outputs a network needs: 1 for binary, else one a class.
    pub fn outputs(&self) -> usize {
        if self.binary { 1 } else { self.label_values.len() }
    }

    /// The padded shape of a scan of `shape`.
    pub fn padded(&self, shape: [usize; 3]) -> [usize; 3] {
        let shape = match self.shape {
            Some(least) => [0, 1, 2].map(|axis| shape[axis].max(least[axis])),
            None => shape,
        };
        [0, 1, 2].map(|axis| shape[axis].next_multiple_of(self.multiples[axis].max(1)))
    }

    /// Clips, normalises (z-score over all voxels) and pads a scan; labels become class indices.
    ///
    /// # Errors
    /// [`Error::Model`] if the scan has another number of channels.
    pub fn prepare(&self, scan: Scan) -> Result<Prepared> {
        let Scan { name, mut image, labels, .. } = scan;
        if image.channels != self.channels.len() {
            return Err(Error::Model(format!(
                "case {name} has {} channels but the network takes {} ({})",
                image.channels,
                self.channels.len(),
                self.channels.join(", ")
            )));
        }
        if let Some([low, high]) = self.clip {
            image.clip(low, high);
        }
        image.normalise();
        let (shape, geometry) = (image.shape, image.geometry.clone());
        let padding = Padding::to_shape(shape, self.padded(shape))?;
        let volume = image.pad(&padding, 0.0);
        let labels = labels.map(|mut labels| {
            labels.voxels.iter_mut().for_each(|value| *value = self.class_of(*value));
            labels.pad(&padding)
        });
        let border = labels.as_ref().map(BorderPoints::of);
        Ok(Prepared { name, volume, labels, border, padding, shape, geometry })
    }

    /// The class index of a stored value; values that were not declared are background.
    fn class_of(&self, value: u8) -> u8 {
        let class = self.label_values.iter().position(|&known| known == value).unwrap_or(0);
        if self.binary { u8::from(class > 0) } else { class as u8 }
    }

    /// The stored label value of a class index.
    pub fn value_of(&self, class: usize) -> u8 {
        self.label_values.get(class).copied().unwrap_or(class as u8)
    }

    /// Class indices of `probabilities` `[voxels, outputs]`: above one half if binary, else the largest (lowest of
    /// equals).
    pub fn classify(&self, probabilities: &[f32]) -> Vec<u8> {
        if self.binary {
            return probabilities.iter().map(|&p| u8::from(p > 0.5)).collect();
        }
        probabilities
            .chunks_exact(self.outputs())
            .map(|row| (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best }) as u8)
            .collect()
    }
}
