//! Random changes to a training case, so that a network learns from more than was scanned: flips and mirrored axes, shifts,
//! turns, scaling, elastic deformation; brightness, contrast, noise, gamma, bias field, low resolution. Labels and border
//! points follow the geometric ones.
//!
//! [`Augmentation`] says what may happen, [`Augmentation::draw`] decides for one case, and the [`Change`] it gives is applied
//! to image, labels and border. A change is a function of the generator's state alone: the same on any thread.

mod change;
mod intensity;
mod warp;

use serde::{Deserialize, Serialize};

pub use change::Change;
pub use warp::{Elastic, Spatial};

use crate::rng::Rng;
use crate::{Error, Result};

/// Which changes are made, and how strong. Probabilities are a change's own, independent of the others. In a configuration,
/// what is not named does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Probability of a flip along a random non-empty subset of [`Augmentation::flip_axes`].
    pub flip: f32,
    /// Axes that may be flipped.
    pub flip_axes: [bool; 3],
    /// Probability that each axis is mirrored, by itself, after the flip.
    pub mirror: [f32; 3],
    /// Probability of a shift by whole voxels, zeros moving in.
    pub shift: f32,
    /// The longest shift along each axis, in voxels, in either direction.
    pub max_shift: [usize; 3],
    /// Probability of a turn.
    pub rotation: f32,
    /// The largest angle about each axis, in degrees, in either direction.
    pub rotation_degrees: [f32; 3],
    /// Probability of scaling.
    pub scaling: f32,
    /// The least and the greatest factor by which the content grows.
    pub scaling_range: [f32; 2],
    /// Probability of an elastic deformation.
    pub elastic: f32,
    /// Intervals between control points along each axis.
    pub elastic_intervals: [usize; 3],
    /// The largest displacement of a control point along each axis, in mm; limited so that nothing folds.
    pub elastic_millimetres: f32,
    /// Probability of adding one number to the volume: uniform within ±[`Augmentation::brightness_scale`] × its maximum.
    pub brightness: f32,
    /// See [`Augmentation::brightness`].
    pub brightness_scale: f32,
    /// Probability of multiplying the volume by one number within 1 ± [`Augmentation::contrast_scale`].
    pub contrast: f32,
    /// See [`Augmentation::contrast`].
    pub contrast_scale: f32,
    /// Probability of adding normal noise to each value.
    pub noise: f32,
    /// Standard deviation of the noise.
    pub noise_sigma: f32,
    /// Probability of a power of the values (as shares of their range, mean and spread kept).
    pub gamma: f32,
    /// The least and the greatest power.
    pub gamma_range: [f32; 2],
    /// Probability of a multiplicative field that varies smoothly in space.
    pub bias_field: f32,
    /// The largest coefficient of the polynomial of which the field is the exponential.
    pub bias_field_strength: f32,
    /// Probability of a loss of resolution.
    pub low_resolution: f32,
    /// The least and the greatest factor by which voxels grow.
    pub low_resolution_range: [f32; 2],
}

impl Default for Augmentation {
    fn default() -> Self {
        Self::NONE
    }
}

impl Augmentation {
    /// No change. What would be done, had it a probability, has usual strengths.
    pub const NONE: Augmentation = Augmentation {
        flip: 0.0,
        flip_axes: [true, true, true],
        mirror: [0.0; 3],
        shift: 0.0,
        max_shift: [5; 3],
        rotation: 0.0,
        rotation_degrees: [30.0; 3],
        scaling: 0.0,
        scaling_range: [0.7, 1.4],
        elastic: 0.0,
        elastic_intervals: [6; 3],
        elastic_millimetres: 7.5,
        brightness: 0.0,
        brightness_scale: 0.15,
        contrast: 0.0,
        contrast_scale: 0.25,
        noise: 0.0,
        noise_sigma: 0.15,
        gamma: 0.0,
        gamma_range: [0.7, 1.5],
        bias_field: 0.0,
        bias_field_strength: 0.3,
        low_resolution: 0.0,
        low_resolution_range: [1.0, 2.0],
    };

    /// The official code's three: flips along the first two axes, brightness, noise; each with probability one half.
    pub const REFERENCE: Augmentation = Augmentation {
        flip: 0.5,
        flip_axes: [true, true, false],
        brightness: 0.5,
        brightness_scale: 0.15,
        noise: 0.5,
        noise_sigma: 0.15,
        ..Augmentation::NONE
    };

    /// For the embedded heads: left-right flips, shifts, brightness, contrast, noise.
    pub const SAMPLE: Augmentation = Augmentation {
        flip: 0.5,
        flip_axes: [true, false, false],
        brightness: 0.5,
        brightness_scale: 0.1,
        contrast: 0.5,
        contrast_scale: 0.25,
        noise: 0.3,
        noise_sigma: 0.1,
        shift: 0.8,
        max_shift: [5, 5, 5],
        ..Augmentation::NONE
    };

    /// Everything that nnU-Net does by default, with its probabilities, and a bias field and elastic deformation besides.
    pub const STRONG: Augmentation = Augmentation {
        mirror: [0.5; 3],
        rotation: 0.2,
        scaling: 0.2,
        elastic: 0.2,
        brightness: 0.15,
        contrast: 0.15,
        noise: 0.1,
        noise_sigma: 0.3,
        gamma: 0.3,
        bias_field: 0.15,
        low_resolution: 0.25,
        ..Augmentation::NONE
    };

    /// The presets by name.
    pub const PRESETS: [(&str, Augmentation); 4] =
        [("none", Self::NONE), ("reference", Self::REFERENCE), ("sample", Self::SAMPLE), ("strong", Self::STRONG)];

    /// Checks what a user wrote.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the field: a probability outside 0 to 1, a range whose ends are swapped or that holds no
    /// possible factor, a strength that is negative or no number.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &str, wanted: &str| Err(Error::Usage(format!("augmentation: {field} must be {wanted}")));
        let probabilities = [
            ("flip", self.flip),
            ("mirror", self.mirror[0]),
            ("mirror", self.mirror[1]),
            ("mirror", self.mirror[2]),
            ("shift", self.shift),
            ("rotation", self.rotation),
            ("scaling", self.scaling),
            ("elastic", self.elastic),
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("noise", self.noise),
            ("gamma", self.gamma),
            ("bias_field", self.bias_field),
            ("low_resolution", self.low_resolution),
        ];
        for (field, probability) in probabilities {
            if !(0.0..=1.0).contains(&probability) {
                return wrong(field, "a probability, for example 0.5");
            }
        }
        let ranges = [
            ("scaling_range", self.scaling_range, 0.1),
            ("gamma_range", self.gamma_range, 0.01),
            ("low_resolution_range", self.low_resolution_range, 1.0),
        ];
        for (field, [low, high], least) in ranges {
            if !(low >= least && low <= high && high <= 100.0) {
                return wrong(field, &format!("two factors from {least} to 100, the lower one first"));
            }
        }
        let strengths = [
            ("rotation_degrees", self.rotation_degrees.into_iter().fold(0.0, f32::max)),
            ("elastic_millimetres", self.elastic_millimetres),
            ("brightness_scale", self.brightness_scale),
            ("contrast_scale", self.contrast_scale),
            ("noise_sigma", self.noise_sigma),
            ("bias_field_strength", self.bias_field_strength),
        ];
        let negative = self.rotation_degrees.iter().any(|degrees| degrees.is_nan() || *degrees < 0.0);
        for (field, strength) in strengths {
            if !(0.0..=1e6).contains(&strength) || (negative && field == "rotation_degrees") {
                return wrong(field, "0 or more");
            }
        }
        if self.elastic_intervals.iter().any(|n| !(1..=64).contains(n)) {
            return wrong("elastic_intervals", "1 to 64 along each axis");
        }
        if self.max_shift.iter().any(|n| *n > 1 << 16) {
            return wrong("max_shift", "at most 65536 voxels along each axis");
        }
        Ok(())
    }

    /// Decides what happens to one case. Draws the same numbers whatever the outcome of each.
    pub fn draw(&self, rng: &mut Rng) -> Change {
        let mut change = Change::default();
        // A stream of its own, so that the first choices stay what they were before these existed.
        self.draw_further(&mut rng.split(rng.state()[2] ^ FURTHER), &mut change);
        let allowed: Vec<usize> = (0..3).filter(|&axis| self.flip_axes[axis]).collect();
        // Bits of a number of 1..2^n: a random non-empty subset.
        let subset = 1 + rng.below((1u64 << allowed.len()).saturating_sub(1).max(1));
        if rng.chance(self.flip) {
            allowed.iter().enumerate().for_each(|(bit, &axis)| change.flips[axis] ^= subset >> bit & 1 == 1);
        }
        let brightness = rng.uniform_in(-1.0, 1.0) * self.brightness_scale;
        change.brightness = rng.chance(self.brightness).then_some(brightness);
        let contrast = 1.0 + rng.uniform_in(-1.0, 1.0) * self.contrast_scale;
        change.contrast = rng.chance(self.contrast).then_some(contrast);
        let noise = rng.split(rng.state()[2]);
        change.noise = rng.chance(self.noise).then_some((self.noise_sigma, noise.state()));
        let shift = self.max_shift.map(|most| rng.below(2 * most as u64 + 1) as isize - most as isize);
        if rng.chance(self.shift) {
            change.shift = shift;
        }
        change
    }

    /// Mirrored axes, space, gamma, bias field, resolution.
    fn draw_further(&self, rng: &mut Rng, change: &mut Change) {
        change.flips = self.mirror.map(|probability| rng.chance(probability));
        let mut spatial = Spatial::STILL;
        let angles = self.rotation_degrees.map(|most| (rng.uniform_in(-1.0, 1.0) * most).to_radians());
        if rng.chance(self.rotation) {
            spatial.angles = angles;
        }
        let scale = rng.uniform_in(self.scaling_range[0], self.scaling_range[1]);
        if rng.chance(self.scaling) {
            spatial.scale = scale;
        }
        let elastic = Elastic {
            intervals: self.elastic_intervals,
            millimetres: self.elastic_millimetres,
            state: rng.split(1).state(),
        };
        spatial.elastic = rng.chance(self.elastic).then_some(elastic);
        change.spatial = (spatial != Spatial::STILL).then_some(spatial);
        let gamma = rng.uniform_in(self.gamma_range[0], self.gamma_range[1]);
        change.gamma = rng.chance(self.gamma).then_some(gamma);
        let field = (self.bias_field_strength, rng.split(2).state());
        change.bias_field = rng.chance(self.bias_field).then_some(field);
        let factor = rng.uniform_in(self.low_resolution_range[0], self.low_resolution_range[1]);
        change.low_resolution = rng.chance(self.low_resolution).then_some(factor);
    }
}

/// Tells the stream of the further changes from that of the noise.
const FURTHER: u64 = 0x6675_7274_6865_7221;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::border::BorderPoints;
    use crate::data::point_sampling::ravel;
    use crate::data::volume::{Labels, Volume};

    fn case() -> (Volume, Labels) {
        let shape = [3, 4, 5];
        let volume = Volume::new(shape, 2, (0..120).map(|v| v as f32 + 1.0).collect());
        (volume, Labels::new(shape, (1..=60).collect()))
    }

    #[test]
    fn labels_and_border_follow_the_image() {
        let (volume, labels) = case();
        let border = BorderPoints { shape: labels.shape, voxels: (0..60).collect() };
        let change = Change { flips: [true, false, true], shift: [1, -2, 0], ..Change::default() };
        let (image, moved) = (change.apply(&volume), change.apply_labels(&labels));
        let points = change.apply_border(&border, &moved);
        // 2 of 3 and 2 of 4 planes stay.
        assert_eq!(points.voxels.len(), 2 * 2 * 5);
        for (pair, &label) in image.voxels.chunks(2).zip(&moved.voxels) {
            let expected = if label == 0 { [0.0; 2] } else { [label as f32 * 2.0 - 1.0, label as f32 * 2.0] };
            assert_eq!(pair, expected);
        }
        for &voxel in &points.voxels {
            assert_ne!(moved.voxels[voxel as usize], 0);
        }
        // Voxel (1, 3, 0) of the flipped volume was (1, 3, 4); it goes to (2, 1, 0).
        assert_eq!(moved.voxels[ravel([2, 1, 0], labels.shape)], labels.voxels[ravel([1, 3, 4], labels.shape)]);
    }

    /// Each voxel goes where its flip and its shift take it, zeros move in, and a place in a batch gets what a new image gets.
    #[test]
    fn voxels_go_where_they_should() {
        let (volume, _) = case();
        let [d, h, w] = volume.shape;
        for which in 0..8 {
            for shift in [[0, 0, 0], [1, -2, 3], [-1, 2, -4], [0, 0, 5], [3, 0, 0]] {
                let flips = [0, 1, 2].map(|axis| which >> axis & 1 == 1);
                let change = Change { flips, shift, contrast: (which > 3).then_some(2.0), ..Change::default() };
                let factor = change.contrast.unwrap_or(1.0);
                let mut expected = vec![0.0; 120];
                for (from, value) in volume.voxels.iter().enumerate() {
                    let (voxel, channel) = (from / 2, from % 2);
                    let at = [voxel / (h * w), voxel / w % h, voxel % w];
                    let to = [0, 1, 2].map(|axis| {
                        let turned = if flips[axis] { volume.shape[axis] - 1 - at[axis] } else { at[axis] };
                        turned as isize + shift[axis]
                    });
                    if (0..3).all(|axis| (0..[d, h, w][axis] as isize).contains(&to[axis])) {
                        let [x, y, z] = to.map(|index| index as usize);
                        expected[((x * h + y) * w + z) * 2 + channel] = factor * value;
                    }
                }
                assert_eq!(change.apply(&volume).voxels, expected, "{change:?}");
                let mut place = vec![0.0; 120];
                change.apply_to(&volume, &mut place);
                assert_eq!(place, expected, "{change:?}");
            }
        }
    }

    #[test]
    fn intensity_changes() {
        let (volume, _) = case();
        let brighter = Change { brightness: Some(0.1), ..Change::default() }.apply(&volume);
        assert_eq!(brighter.voxels[7], volume.voxels[7] + 0.1 * 120.0);
        let change = Change { noise: Some((0.15, [1, 2, 0])), ..Change::default() };
        let flat = Volume::new([20, 20, 25], 1, vec![0.0; 10_000]);
        let noisy = change.apply(&flat);
        assert_eq!(noisy, change.apply(&flat));
        // The estimate of σ from 10,000 values has relative standard deviation 0.7 %; the bound is five of them.
        assert!((noisy.stats()[0].std / 0.15 - 1.0).abs() < 0.036);
    }

    #[test]
    fn probabilities_and_subsets() {
        let mut rng = Rng::new(9);
        let changes: Vec<Change> = (0..4000).map(|_| Augmentation::REFERENCE.draw(&mut rng)).collect();
        // 2,000 ± 32 (one standard deviation) of each; of the flips a third for each subset: 667 ± 24.
        let count = |which: &dyn Fn(&Change) -> bool| changes.iter().filter(|c| which(c)).count() as f64;
        assert!((count(&|c| c.flips != [false; 3]) - 2000.0).abs() < 160.0);
        assert!((count(&|c| c.flips == [true, true, false]) - 667.0).abs() < 120.0);
        assert!((count(&|c| c.brightness.is_some()) - 2000.0).abs() < 160.0);
        assert!((count(&|c| c.noise.is_some()) - 2000.0).abs() < 160.0);
        assert_eq!(count(&|c| c.flips[2] || c.shift != [0; 3]), 0.0);
        assert!(changes.iter().filter_map(|c| c.brightness).all(|b| b.abs() <= 0.15));
        assert_eq!(Augmentation::NONE.draw(&mut rng), Change::default());
        let shifts = Augmentation { shift: 1.0, max_shift: [2, 0, 1], ..Augmentation::NONE };
        let drawn: Vec<[isize; 3]> = (0..200).map(|_| shifts.draw(&mut rng).shift).collect();
        assert!((-2..=2).all(|s| drawn.iter().any(|d| d[0] == s)));
        assert!(drawn.iter().all(|d| d[0].abs() <= 2 && d[1] == 0 && d[2].abs() <= 1));
    }

    /// With a noiseless image that equals its labels, the labels follow every change of space as the image does.
    #[test]
    fn labels_follow_turns_scaling_and_bending() {
        let shape = [20, 22, 18];
        let inside = |i: usize| {
            let [x, y, z] = [i / (22 * 18), i / 18 % 22, i % 18].map(|i| i as f32);
            ((x - 9.0) / 6.0).powi(2) + ((y - 11.0) / 4.0).powi(2) + ((z - 8.0) / 5.0).powi(2) < 1.0
        };
        let labels = Labels::new(shape, (0..20 * 22 * 18).map(|i| inside(i) as u8).collect());
        let volume = Volume::new(shape, 1, labels.voxels.iter().map(|&v| f32::from(v)).collect());
        let border = BorderPoints::of(&labels);
        let all = Augmentation { rotation: 1.0, scaling: 1.0, elastic: 1.0, mirror: [0.5; 3], ..Augmentation::NONE };
        let mut rng = Rng::new(3);
        for _ in 0..10 {
            let change = all.draw(&mut rng);
            let (image, moved) = (change.apply(&volume), change.apply_labels(&labels));
            assert_eq!(change.apply(&volume), image, "the same change gives the same bits");
            for (value, &label) in image.voxels.iter().zip(&moved.voxels) {
                // Nearest and linear agree away from the boundary between two voxels.
                let wrong = if label == 1 { *value < 0.1 } else { *value > 0.9 };
                assert!(!wrong, "label {label} where the image is {value}");
            }
            assert_ne!(moved.voxels, labels.voxels);
            assert_eq!(change.apply_border(&border, &moved), BorderPoints::of(&moved));
        }
    }

    /// The further changes are drawn from a stream of their own: what older runs drew is what they still draw.
    #[test]
    fn older_choices_do_not_depend_on_newer_ones() {
        let more = Augmentation { rotation: 1.0, gamma: 0.5, low_resolution: 0.5, ..Augmentation::REFERENCE };
        for seed in 0..20 {
            let (few, many) = (Augmentation::REFERENCE.draw(&mut Rng::new(seed)), more.draw(&mut Rng::new(seed)));
            assert_eq!(few, Change { spatial: None, gamma: None, low_resolution: None, ..many });
        }
    }

    #[test]
    fn a_configuration_names_what_happens() {
        let text = r#"{"rotation": 0.2, "rotation_degrees": [15.0, 0.0, 0.0], "gamma": 0.3}"#;
        let read: Augmentation = serde_json::from_str(text).unwrap();
        let degrees = [15.0, 0.0, 0.0];
        let expected = Augmentation { rotation: 0.2, rotation_degrees: degrees, gamma: 0.3, ..Augmentation::NONE };
        assert_eq!(read, expected);
        assert!(serde_json::from_str::<Augmentation>(r#"{"rotatoin": 0.2}"#).is_err());
        for (name, preset) in Augmentation::PRESETS {
            preset.check().unwrap_or_else(|error| panic!("{name}: {error}"));
            let again: Augmentation = serde_json::from_str(&serde_json::to_string(&preset).unwrap()).unwrap();
            assert_eq!(again, preset);
        }
        let error = |change: &dyn Fn(&mut Augmentation)| {
            let mut augmentation = Augmentation::STRONG;
            change(&mut augmentation);
            augmentation.check().unwrap_err().to_string()
        };
        assert!(error(&|a| a.flip = 1.5).contains("flip must be a probability"));
        assert!(error(&|a| a.mirror[2] = f32::NAN).contains("mirror"));
        assert!(error(&|a| a.scaling_range = [1.4, 0.7]).contains("scaling_range"));
        assert!(error(&|a| a.low_resolution_range = [0.5, 1.0]).contains("from 1 to 100"));
        assert!(error(&|a| a.rotation_degrees[1] = -3.0).contains("rotation_degrees must be 0 or more"));
        assert!(error(&|a| a.noise_sigma = f32::INFINITY).contains("noise_sigma"));
        assert!(error(&|a| a.elastic_intervals[0] = 0).contains("elastic_intervals"));
    }
}
