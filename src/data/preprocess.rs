//! What happens to a scan before a network sees it, and how the answer finds back onto the scan's own grid.
//!
//! A checkpoint carries its [`Preprocessing`], so that inference repeats what training did. In order: clip, z-score of each
//! channel over all voxels, resampling to a spacing, zero padding to the network's multiple. Zero is then each channel's
//! mean, as with the official code.

use serde::{Deserialize, Serialize};

use super::geometry::Geometry;
use super::nifti::{MAX_CHANNELS, MAX_ELEMENTS};
use super::padding::Padding;
use super::resample::{CornerAlignment, Nearest};
use super::volume::{Axes, Labels, Volume};
use crate::memory::size;
use crate::{Error, Result};

/// The most voxels along one axis after resampling; three of them and a channel count fit u64.
const LONGEST: f64 = 65_536.0;

/// How scans are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Name of each image channel, in order.
    pub channels: Vec<String>,
    /// The value that label files give to each class the network knows, in the network's order; background first.
    pub classes: Vec<u8>,
    /// Which way the axes run in memory.
    pub axes: Axes,
    /// Limits of the stored values, if any (Hounsfield units for CT).
    pub clip: Option<[f32; 2]>,
    /// Spacing to resample to, in mm along the axes in memory; `None` keeps each scan's own.
    pub spacing: Option<[f64; 3]>,
    /// Shape in voxels to resample to, whatever the spacing (the official LiTS rule).
    #[serde(default)]
    pub resize: Option<[usize; 3]>,
    /// Every label value but background is class 1 (the official rule for BraTS and LiTS).
    #[serde(default)]
    pub merge: bool,
    /// Shapes are padded to multiples of this.
    pub multiple: [usize; 3],
    /// Median spacing of the training scans as the network saw them, in mm along the axes in memory; `None` if it is not
    /// known (official weights, checkpoints of earlier versions).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_spacing: Option<[f64; 3]>,
    /// Shape in voxels of the padded volumes, or of the patches, that the network was trained on. A U-Net is asked in this
    /// shape too: its instance norms would see other statistics in another. `None` if it is not known (checkpoints of
    /// earlier versions, converted weights).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_shape: Option<[usize; 3]>,
}

/// A scan whose spacing differs from the training data's by more than this factor is warned of.
const UNUSUAL: f64 = 1.5;

/// The way back from the network's grid to a scan's.
#[derive(Debug, Clone, PartialEq)]
pub struct GridTransform {
    /// The scan's shape.
    pub shape: [usize; 3],
    /// The scan's grid and its file's.
    pub geometry: Geometry,
    /// Shape after resampling.
    pub resampled: [usize; 3],
    /// Padding after that.
    pub padding: Padding,
}

impl Preprocessing {
    /// Prepares an image as read.
    ///
    /// # Errors
    /// [`Error::Shape`] if the channels are not as many as expected; [`Error::Usage`] if the clip limits or the spacing
    /// cannot be applied.
    pub fn image(&self, volume: Volume) -> Result<(Volume, GridTransform)> {
        if self.multiple.contains(&0) {
            return Err(Error::Usage(format!("padding to multiples of {:?} voxels: none may be 0", self.multiple)));
        }
        self.image_padded(volume, |shape| Ok(Padding::to_multiple(shape, self.multiple)))
    }

    /// As [`Preprocessing::image`], with the padding that `padding` wants for the shape after resampling.
    ///
    /// # Errors
    /// As there, and what `padding` reports.
    pub fn image_padded(
        &self,
        mut volume: Volume,
        padding: impl FnOnce([usize; 3]) -> Result<Padding>,
    ) -> Result<(Volume, GridTransform)> {
        if volume.channels != self.channels.len() {
            let problem = format!(
                "the image has {} channels, the network takes {} ({})",
                volume.channels,
                self.channels.len(),
                self.channels.join(", ")
            );
            return Err(Error::shape("preprocess", problem));
        }
        if let Some([low, high]) = self.clip {
            if low.is_nan() || high.is_nan() || low >= high {
                return Err(Error::Usage(format!("clip limits {low} and {high}: give the lower one first")));
            }
            volume.clip(low, high);
        }
        volume.normalise();
        let (shape, geometry) = (volume.shape, volume.geometry);
        let resampled = self.resampled(shape, &geometry)?;
        if resampled != shape {
            let remedy = "choose another spacing or shape";
            afford("resampling", [shape, resampled], volume.channels, remedy)?;
            volume = volume.resample(resampled, CornerAlignment::Faces)?;
        }
        let padding = padding(resampled)?;
        if padding != Padding::default() {
            let remedy = "crop the scan, or choose another network";
            afford("padding", [resampled, padding.outer(resampled)], volume.channels, remedy)?;
            volume = volume.pad(&padding, 0.0);
        }
        Ok((volume, GridTransform { shape, geometry, resampled, padding }))
    }

    /// Prepares the labels of the image that `way` leads back to: class numbers in the network's order. Values that are no
    /// class of the network become background, but for `ignore`, which becomes [`Labels::IGNORED`].
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not on the image's grid.
    pub fn labels(&self, labels: &Labels, ignore: Option<u8>, way: &GridTransform) -> Result<Labels> {
        let mut table = [0; 256];
        self.classes.iter().zip(0..=255).for_each(|(&value, class)| table[value as usize] = class);
        if self.merge {
            table[1..].fill(1);
        }
        if let Some(ignore) = ignore {
            table[usize::from(ignore)] = Labels::IGNORED;
        }
        way.prepare(labels.mapped(&table))
    }

    /// Predicted class numbers on the network's grid as labels of the scan: its grid, its original values.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not on the network's grid.
    pub fn restore_labels(&self, predicted: &Labels, way: &GridTransform) -> Result<Labels> {
        let mut table = [0; 256];
        self.classes.iter().zip(&mut table).for_each(|(&value, entry)| *entry = value);
        let mut out = predicted.crop(&way.padding)?.mapped(&table);
        way.check(out.shape)?;
        if way.resampled != way.shape {
            out = out.resample(way.shape, Nearest::Centre)?;
        }
        Ok(Labels { geometry: way.geometry, ..out })
    }

    /// Shape of a scan on the network's grid: resampled, and padded to the multiple.
    ///
    /// # Errors
    /// [`Error::Usage`] if the spacing cannot be applied.
    pub fn shape(&self, shape: [usize; 3], geometry: &Geometry) -> Result<[usize; 3]> {
        let resampled = self.resampled(shape, geometry)?;
        Ok([0, 1, 2].map(|k| resampled[k].checked_next_multiple_of(self.multiple[k].max(1)).unwrap_or(usize::MAX)))
    }

    /// Spacing in mm, along the axes in memory, of a scan as the network sees it.
    ///
    /// # Errors
    /// [`Error::Usage`] if the spacing cannot be applied.
    pub fn seen_spacing(&self, shape: [usize; 3], geometry: &Geometry) -> Result<[f64; 3]> {
        let (resampled, own) = (self.resampled(shape, geometry)?, geometry.spacing());
        Ok([0, 1, 2].map(|k| own[k] * shape[k] as f64 / resampled[k] as f64))
    }

    /// What is to be said of a scan whose voxels have another size than those the network was trained on.
    ///
    /// # Errors
    /// [`Error::Usage`] if the spacing cannot be applied.
    pub fn unusual_spacing(&self, shape: [usize; 3], geometry: &Geometry) -> Result<Option<String>> {
        let Some(trained) = self.trained_spacing else { return Ok(None) };
        let seen = self.seen_spacing(shape, geometry)?;
        if (0..3).all(|k| seen[k] <= UNUSUAL * trained[k] && trained[k] <= UNUSUAL * seen[k]) {
            return Ok(None);
        }
        let mm = |[x, y, z]: [f64; 3]| format!("{x:.2}×{y:.2}×{z:.2} mm");
        Ok(Some(format!(
            "the network sees voxels of {}, and was trained on voxels of {}: structures have another size than those it \
             knows, so check the answer, or resample the scan first",
            mm(seen),
            mm(trained)
        )))
    }

    /// Checks that every setting can be applied to some scan: what a configuration or a checkpoint says is not to be
    /// believed.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the setting.
    pub fn check(&self) -> Result<()> {
        let positive = |values: &[f64]| values.iter().all(|value| *value > 0.0 && value.is_finite());
        let sides = |values: &[usize]| values.iter().all(|&value| value > 0 && value as f64 <= LONGEST);
        let rules = [
            ("channels", (1..=MAX_CHANNELS).contains(&self.channels.len()), "1 name or more"),
            ("classes", distinct(&self.classes), "1 value or more, each once"),
            ("clip", self.clip.is_none_or(|[low, high]| low < high), "the lower limit and the higher one"),
            ("spacing", self.spacing.is_none_or(|mm| positive(&mm)), "three lengths in mm above 0"),
            ("resize", self.resize.is_none_or(|shape| sides(&shape)), "three sides of 1 to 65536 voxels"),
            ("multiple", sides(&self.multiple), "three numbers of 1 to 65536 voxels"),
            ("trained_shape", self.trained_shape.is_none_or(|shape| sides(&shape)), "three sides of 1 to 65536 voxels"),
            ("trained_spacing", self.trained_spacing.is_none_or(|mm| positive(&mm)), "three lengths in mm above 0"),
        ];
        match rules.iter().find(|(_, holds, _)| !holds) {
            None => Ok(()),
            Some((key, _, rule)) => Err(Error::Usage(format!("the preprocessing's {key} must be {rule}"))),
        }
    }

    /// Shape of a scan after resampling.
    ///
    /// # Errors
    /// [`Error::Usage`] if the spacing cannot be applied.
    pub(crate) fn resampled(&self, shape: [usize; 3], geometry: &Geometry) -> Result<[usize; 3]> {
        if let Some(shape) = self.resize {
            return match shape.iter().all(|&side| side > 0 && side as f64 <= LONGEST) {
                true => Ok(shape),
                false => Err(Error::Usage(format!(
                    "a scan cannot be resampled to {shape:?} voxels; sides are 1 to {LONGEST}"
                ))),
            };
        }
        let Some(target) = self.spacing else { return Ok(shape) };
        let spacing = geometry.spacing();
        let mut resampled = [0; 3];
        for k in 0..3 {
            let length = (shape[k] as f64 * spacing[k] / target[k]).round();
            // Also refuses a spacing that is no number. A single slice may be thinner than the spacing, a volume may not.
            if !(target[k] > 0.0 && length <= LONGEST && (length >= 1.0 || shape[k] == 1)) {
                let problem =
                    format!("a spacing of {target:?} mm makes {length:.2e} voxels of {} along axis {k}", shape[k]);
                return Err(Error::Usage(format!("{problem}; choose a spacing near the scan's own, {spacing:?}")));
            }
            resampled[k] = length.max(1.0) as usize;
        }
        let [x, y, z] = resampled;
        if size::within(&[x, y, z, self.channels.len()], MAX_ELEMENTS).is_err() {
            let problem =
                format!("a spacing of {target:?} mm makes {resampled:?} voxels, more than {MAX_ELEMENTS} in all");
            return Err(Error::Usage(format!("{problem}; choose a spacing near the scan's own, {spacing:?}")));
        }
        Ok(resampled)
    }
}

/// Checks that the voxels of an image before and after a change fit the memory together.
pub(crate) fn afford(change: &str, shapes: [[usize; 3]; 2], channels: usize, remedy: &str) -> Result<()> {
    let bytes =
        shapes.map(|[x, y, z]| size::within(&[x, y, z, channels, size_of::<f32>()], u64::MAX).unwrap_or(u64::MAX));
    let both = usize::try_from(bytes[0].saturating_add(bytes[1])).unwrap_or(usize::MAX);
    let told = size::within_host_budget(&[both]).err();
    let [from, to] = shapes;
    told.map_or(Ok(()), |told| {
        let problem = format!("{change} a scan of {from:?} voxels to {to:?} {told}");
        Err(Error::Model(format!("{problem}; {remedy}, or raise --memory-budget")))
    })
}

/// Whether there are values, each of them once.
fn distinct(values: &[u8]) -> bool {
    let mut seen = [false; 256];
    !values.is_empty() && values.iter().all(|&value| !std::mem::replace(&mut seen[usize::from(value)], true))
}

impl GridTransform {
    /// Labels, or a map of 0 and 1, of the scan's grid on the network's.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not on the scan's grid.
    pub fn prepare(&self, mut labels: Labels) -> Result<Labels> {
        if labels.shape != self.shape {
            let problem = format!("labels of {:?} for an image of {:?}", labels.shape, self.shape);
            return Err(Error::shape("preprocess", problem));
        }
        if self.resampled != self.shape {
            labels = labels.resample(self.resampled, Nearest::Centre)?;
        }
        Ok(labels.pad(&self.padding))
    }

    /// Values on the network's grid (probabilities, say) on the scan's.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not on the network's grid.
    pub fn restore(&self, volume: &Volume) -> Result<Volume> {
        let mut out = volume.crop(&self.padding)?;
        self.check(out.shape)?;
        if self.resampled != self.shape {
            out = out.resample(self.shape, CornerAlignment::Faces)?;
        }
        Ok(Volume { geometry: self.geometry, ..out })
    }

    fn check(&self, cropped: [usize; 3]) -> Result<()> {
        if cropped == self.resampled {
            return Ok(());
        }
        let (got, wanted) = (self.padding.outer(cropped), self.padding.outer(self.resampled));
        Err(Error::shape("restore", format!("{got:?} voxels are not on the network's grid of {wanted:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::geometry::{Affine, StoredGrid};

    fn preprocessing() -> Preprocessing {
        Preprocessing {
            channels: vec!["CT".into()],
            classes: vec![0, 4, 2],
            axes: Axes::Canonical,
            clip: Some([-100.0, 200.0]),
            spacing: None,
            resize: None,
            merge: false,
            multiple: [8; 3],
            trained_spacing: None,
            trained_shape: None,
        }
    }

    /// A scan of 5 × 6 × 7 voxels of 2 mm, stored from left to right reversed.
    fn scan() -> (Volume, Labels) {
        let mut affine = Affine::from_spacing([2.0; 3]);
        affine.0[0] = [-2.0, 0.0, 0.0, 8.0];
        let geometry = Geometry::new(StoredGrid::from_affine(affine, [5, 6, 7]), true);
        let values = (0..210).map(|i| i as f32 * 10.0 - 500.0).collect();
        let labels = (0..210).map(|i| [0, 4, 2, 9][i % 4]).collect();
        let (mut volume, mut labels) = (Volume::new([5, 6, 7], 1, values), Labels::new([5, 6, 7], labels));
        (volume.geometry, labels.geometry) = (geometry, geometry);
        (volume, labels)
    }

    #[test]
    fn labels_come_back_on_the_scans_grid_with_their_values() {
        let (volume, labels) = scan();
        for spacing in [None, Some([1.0; 3])] {
            let preprocessing = Preprocessing { spacing, ..preprocessing() };
            let (image, way) = preprocessing.image(volume.clone()).unwrap();
            let prepared = preprocessing.labels(&labels, None, &way).unwrap();
            assert_eq!(image.shape, if spacing.is_some() { [16; 3] } else { [8; 3] });
            assert_eq!(prepared.shape, image.shape);
            assert!(prepared.voxels.iter().all(|&v| v < 3));
            let back = preprocessing.restore_labels(&prepared, &way).unwrap();
            let mut expected = labels.clone();
            expected.voxels.iter_mut().filter(|v| **v == 9).for_each(|v| *v = 0);
            assert_eq!(back, expected);
            let restored = way.restore(&image).unwrap();
            assert_eq!((restored.shape, restored.geometry), (volume.shape, volume.geometry));
        }
    }

    #[test]
    fn the_order_is_clip_then_score_then_pad() {
        let (volume, _) = scan();
        let (image, way) = preprocessing().image(volume).unwrap();
        let inside = way.restore(&image).unwrap();
        let stats = inside.stats()[0];
        // Rounded to f32, values up to 2: the mean of 210 is good to 1e-7.
        assert!(stats.mean.abs() < 1e-6 && (stats.std - 1.0).abs() < 1e-6);
        let lowest = inside.voxels[0];
        assert_eq!(inside.voxels.iter().filter(|&&v| v == lowest).count(), 41, "−500 to −100 are one value");
        assert_eq!(image.voxels.iter().filter(|&&v| v == 0.0).count(), 512 - 210);
    }

    #[test]
    fn settings_that_cannot_be_applied() {
        let (volume, _) = scan();
        let error = |change: &dyn Fn(&mut Preprocessing)| {
            let mut preprocessing = preprocessing();
            change(&mut preprocessing);
            preprocessing.image(volume.clone()).unwrap_err().to_string()
        };
        assert!(error(&|p| p.channels.push("MR".into())).contains("1 channels, the network takes 2 (CT, MR)"));
        assert!(error(&|p| p.clip = Some([5.0, -5.0])).contains("lower one first"));
        assert!(error(&|p| p.spacing = Some([1e-9; 3])).contains("[2.0, 2.0, 2.0]"));
        assert!(error(&|p| p.spacing = Some([0.001; 3])).contains("more than"));
        assert!(error(&|p| p.multiple = [8, 0, 8]).contains("[8, 0, 8]"));
        assert!(error(&|p| p.spacing = Some([1.0, 0.0, 1.0])).contains("axis 1"));
        assert!(error(&|p| p.spacing = Some([f64::NAN; 3])).contains("NaN"));
    }

    #[test]
    fn it_survives_a_checkpoint() {
        let old = Preprocessing { spacing: Some([1.5, 1.5, 3.0]), ..preprocessing() };
        let text = serde_json::to_string(&old).unwrap();
        // As earlier versions wrote it.
        assert!(!text.contains("trained_spacing"));
        assert_eq!(serde_json::from_str::<Preprocessing>(&text).unwrap(), old);
        let new = Preprocessing { trained_spacing: Some([1.0, 1.0, 2.5]), ..old };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<Preprocessing>(&text).unwrap(), new);
    }

    #[test]
    fn voxels_of_another_size_are_told_of() {
        let (volume, _) = scan();
        let say = |trained: Option<[f64; 3]>, spacing: Option<[f64; 3]>| {
            let preprocessing = Preprocessing { trained_spacing: trained, spacing, ..preprocessing() };
            preprocessing.unusual_spacing(volume.shape, &volume.geometry).unwrap()
        };
        assert_eq!(say(None, None), None);
        assert_eq!(say(Some([2.0, 2.9, 1.4]), None), None);
        for trained in [[2.0, 3.1, 2.0], [2.0, 2.0, 1.3], [0.0, 2.0, 2.0]] {
            let said = say(Some(trained), None).unwrap();
            assert!(said.contains("2.00×2.00×2.00 mm") && said.contains(&format!("{:.2}×", trained[0])), "{said}");
        }
        // Resampled as in training, whatever the scan's own.
        assert_eq!(say(Some([1.0; 3]), Some([1.0; 3])), None);
    }
}
