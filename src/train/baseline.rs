//! What one gets without a network: the scores that a trained one must beat.
//!
//! Both are fitted on the training cases alone and scored densely, over all voxels of each validation case, foreground
//! being every class but 0.
//!
//! * *Mean mask*: a voxel is inside if at least half of the training masks have it (ties inside). The masks must have one
//!   shape; a case of another shape is laid on it centre to centre, as padding does. Nothing is registered.
//! * *Threshold*: a voxel is inside if the first channel, z-scored over its volume, is at or above (or, the other way, below)
//!   one value for all cases. Of [`LEVELS`] equally spaced values between the extremes of the training volumes, and both
//!   ways, the one with the highest mean Dice over the training cases; the lowest of equals.

use crate::data::volume::{Labels, Volume};
use crate::evaluate::metrics::{Confusion, ScoreRule};
use crate::{Error, Result};

/// Values tried by [`Threshold::fit`].
pub const LEVELS: usize = 4096;

/// Share of the training masks that hold each voxel.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanMask {
    shape: [usize; 3],
    /// Masks that hold the voxel.
    counts: Vec<u32>,
    /// Masks that know it.
    known: Vec<u32>,
}

impl MeanMask {
    /// The mean of the foregrounds of `training`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none, or their shapes differ.
    pub fn fit<'a>(training: impl IntoIterator<Item = &'a Labels>) -> Result<Self> {
        let mut mean: Option<MeanMask> = None;
        for labels in training {
            let shape = labels.shape;
            let mean =
                mean.get_or_insert_with(|| Self { shape, counts: vec![0; labels.len()], known: vec![0; labels.len()] });
            if shape != mean.shape {
                let problem =
                    format!("masks of {:?} and {shape:?} have no mean; resample the cases to one shape", mean.shape);
                return Err(Error::shape("mean_mask", problem));
            }
            let of_voxels = mean.counts.iter_mut().zip(&mut mean.known).zip(&labels.voxels);
            of_voxels.filter(|(_, class)| is_known(**class)).for_each(|((count, known), &class)| {
                *count += u32::from(class > 0);
                *known += 1;
            });
        }
        mean.ok_or_else(|| Error::shape("mean_mask", "no training masks given"))
    }

    /// How the mean mask meets labels, centre on centre; outside the mask is background.
    pub fn score(&self, labels: &Labels) -> Confusion {
        // As padding does it, the larger half goes first; labels may be larger than the mask as well.
        let offset = [0, 1, 2].map(|k| (self.shape[k] as i64 - labels.shape[k] as i64 + 1).div_euclid(2));
        let inside = |voxel: [usize; 3]| {
            let place = [0, 1, 2].map(|k| voxel[k] as i64 + offset[k]);
            let held = (0..3).all(|k| (0..self.shape[k] as i64).contains(&place[k]));
            let [x, y, z] = place.map(|index| index as usize);
            held && {
                let at = (x * self.shape[1] + y) * self.shape[2] + z;
                self.known[at] > 0 && 2 * self.counts[at] >= self.known[at]
            }
        };
        let [_, h, w] = labels.shape;
        let voxels = labels.voxels.iter().enumerate().filter(|(_, y)| is_known(**y));
        Confusion::count(voxels.map(|(i, &y)| (inside([i / (h * w), i / w % h, i % w]), y > 0)))
    }
}

/// One intensity that divides inside from outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Value of the first channel, z-scored over its volume.
    pub value: f32,
    /// Inside is at or above the value; otherwise below.
    pub above: bool,
    /// Mean Dice over the training cases.
    pub training_dice: f64,
}

impl Threshold {
    /// The best one for `training`; the volumes as stored, they are z-scored here.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are none, or an image and its labels differ in size.
    pub fn fit<'a>(training: impl IntoIterator<Item = (&'a Volume, &'a Labels)>) -> Result<Self> {
        let mut cases = Vec::new();
        for (image, labels) in training {
            check(image, labels)?;
            cases.push((z_scores(image), labels));
        }
        if cases.is_empty() {
            return Err(Error::shape("threshold", "no training cases given"));
        }
        let values = || cases.iter().flat_map(|(values, _)| values).copied();
        let (low, high) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
        let step = (high - low) / LEVELS as f32;
        let level = |i: usize| low + i as f32 * step;
        // For each case, the Dice of every threshold: from counts of voxels at or above each level.
        let mut scores = vec![[0.0f64; 2]; LEVELS];
        for (values, labels) in &cases {
            // histogram[i]: values that are at or above level i, but not level i + 1.
            let mut histogram = vec![[0u64; 2]; LEVELS];
            for (&value, &label) in values.iter().zip(&labels.voxels).filter(|(_, label)| is_known(**label)) {
                let mut bin = (((value - low) / step) as usize).min(LEVELS - 1);
                // The division may round across a level; the comparison decides.
                bin -= (bin > 0 && value < level(bin)) as usize;
                bin += (bin + 1 < LEVELS && value >= level(bin + 1)) as usize;
                histogram[bin][(label > 0) as usize] += 1;
            }
            let [outside, inside] = [0, 1].map(|k| histogram.iter().map(|bin| bin[k]).sum::<u64>());
            let mut above = [0u64; 2];
            for (bin, score) in histogram.iter().zip(&mut scores).rev() {
                (0..2).for_each(|k| above[k] += bin[k]);
                let below = [outside - above[0], inside - above[1]];
                for (score, found) in score.iter_mut().zip([below, above]) {
                    let counts = Confusion {
                        true_positive: found[1],
                        false_positive: found[0],
                        false_negative: inside - found[1],
                        true_negative: outside - found[0],
                    };
                    *score += counts.dice(&ScoreRule::DEFAULT) / cases.len() as f64;
                }
            }
        }
        let mut best = Threshold { value: low, above: true, training_dice: f64::NEG_INFINITY };
        for (i, score) in scores.iter().enumerate() {
            for above in [true, false] {
                let training_dice = score[above as usize];
                if training_dice > best.training_dice {
                    best = Threshold { value: level(i), above, training_dice };
                }
            }
        }
        Ok(best)
    }

    /// How the thresholded volume (as stored) meets its labels.
    ///
    /// # Errors
    /// [`Error::Shape`] if their sizes differ.
    pub fn score(&self, image: &Volume, labels: &Labels) -> Result<Confusion> {
        check(image, labels)?;
        let values = z_scores(image);
        let voxels = values.iter().zip(&labels.voxels).filter(|(_, y)| is_known(**y));
        Ok(Confusion::count(voxels.map(|(&v, &y)| ((v >= self.value) == self.above, y > 0))))
    }
}

/// False where nobody has looked.
fn is_known(class: u8) -> bool {
    class != Labels::IGNORED
}

/// The first channel, z-scored.
fn z_scores(image: &Volume) -> Vec<f32> {
    let stats = image.stats()[0];
    let spread = if stats.std > 0.0 { stats.std } else { 1.0 };
    image.voxels.iter().step_by(image.channels).map(|&v| ((v as f64 - stats.mean) / spread) as f32).collect()
}

fn check(image: &Volume, labels: &Labels) -> Result<()> {
    if image.shape == labels.shape {
        return Ok(());
    }
    Err(Error::shape("threshold", format!("image of {:?} and labels of {:?}", image.shape, labels.shape)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Axes, Padding, embedded};

    /// The scores that `SOURCE.md` of the embedded sample states, to the two digits that it gives.
    #[test]
    fn the_stated_scores_of_the_sample() {
        let heads = embedded::open("heads").unwrap();
        let read = |cases: &[crate::data::Case]| -> Vec<(Volume, Labels)> {
            let scans = cases.iter().map(|case| heads.read(case, Axes::Canonical).unwrap());
            scans.map(|scan| (scan.image, scan.labels.unwrap())).collect()
        };
        let (training, validation) = (read(&heads.training), read(&heads.validation));
        let mask = MeanMask::fit(training.iter().map(|(_, labels)| labels)).unwrap();
        let threshold = Threshold::fit(training.iter().map(|(image, labels)| (image, labels))).unwrap();
        assert!(threshold.above);
        for ((image, labels), stated) in validation.iter().zip([[0.81, 0.64], [0.77, 0.66]]) {
            let scores = [mask.score(labels), threshold.score(image, labels).unwrap()];
            for (score, stated) in scores.map(|counts| counts.dice(&ScoreRule::DEFAULT)).into_iter().zip(stated) {
                assert_eq!((score * 100.0).round() / 100.0, stated, "{score}");
            }
        }
    }

    #[test]
    fn ties_are_inside_the_mean_mask() {
        let masks = [Labels::new([1, 1, 3], vec![1, 1, 0]), Labels::new([1, 1, 3], vec![2, 0, 0])];
        let mean = MeanMask::fit(&masks).unwrap();
        let counts = mean.score(&Labels::new([1, 1, 3], vec![1, 1, 0]));
        assert_eq!((counts.true_positive, counts.true_negative), (2, 1));
        // A smaller case lies where padding would put it, a larger one reaches beyond the mask.
        let padding = Padding::to_shape([1, 1, 2], [1, 1, 3]).unwrap();
        assert_eq!(padding.before, [0, 0, 1]);
        let counts = mean.score(&Labels::new([1, 1, 2], vec![1, 1]));
        assert_eq!((counts.true_positive, counts.false_negative), (1, 1));
        let counts = mean.score(&Labels::new([1, 1, 5], vec![1, 1, 1, 1, 1]));
        assert_eq!((counts.true_positive, counts.false_negative), (2, 3));
        assert!(MeanMask::fit(&[]).is_err());
    }

    #[test]
    fn dark_objects_are_found_below() {
        let image = Volume::new([1, 1, 6], 1, vec![9.0, 8.0, 1.0, 2.0, 9.5, 7.0]);
        let labels = Labels::new([1, 1, 6], vec![0, 0, 1, 1, 0, 0]);
        let threshold = Threshold::fit([(&image, &labels)]).unwrap();
        assert!(!threshold.above);
        assert_eq!(threshold.training_dice, 1.0);
        assert_eq!(threshold.score(&image, &labels).unwrap().dice(&ScoreRule::DEFAULT), 1.0);
        let flat = Volume::new([1, 1, 6], 1, vec![3.0; 6]);
        assert!(Threshold::fit([(&flat, &labels)]).unwrap().training_dice > 0.0);
    }
}
