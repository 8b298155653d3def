//! Random changes to a training case: flips, whole-voxel shifts, brightness and noise. Labels and border points follow the
//! geometric ones.

use super::border::BorderPoints;
use super::sampling::{ravel, unravel};
use super::volume::{Labels, Volume};
use crate::rng::Rng;

/// Which changes are made, and how strong. Probabilities are a change's own, independent of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// Probability of a flip along a random non-empty subset of [`Augmentation::flip_axes`].
    pub flip: f32,
    /// Axes that may be flipped.
    pub flip_axes: [bool; 3],
    /// Probability of adding one number to the volume: uniform within ±[`Augmentation::brightness_scale`] × its maximum.
    pub brightness: f32,
    /// See [`Augmentation::brightness`].
    pub brightness_scale: f32,
    /// Probability of adding normal noise to each value.
    pub noise: f32,
    /// Standard deviation of the noise.
    pub noise_sigma: f32,
    /// Probability of a shift by whole voxels, zeros moving in.
    pub shift: f32,
    /// The longest shift along each axis, in voxels, in either direction.
    pub max_shift: [usize; 3],
}

impl Augmentation {
    /// No change.
    pub const NONE: Augmentation = Augmentation {
        flip: 0.0,
        flip_axes: [false; 3],
        brightness: 0.0,
        brightness_scale: 0.0,
        noise: 0.0,
        noise_sigma: 0.0,
        shift: 0.0,
        max_shift: [0; 3],
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

    /// Decides what happens to one case. Draws the same numbers whatever the outcome of each.
    pub fn draw(&self, rng: &mut Rng) -> Change {
        let mut change = Change::default();
        let allowed: Vec<usize> = (0..3).filter(|&axis| self.flip_axes[axis]).collect();
        // Bits of a number of 1..2^n: a random non-empty subset.
        let subset = 1 + rng.below((1u64 << allowed.len()).saturating_sub(1).max(1));
        if rng.chance(self.flip) {
            allowed.iter().enumerate().for_each(|(bit, &axis)| change.flips[axis] = subset >> bit & 1 == 1);
        }
        let brightness = rng.uniform_in(-1.0, 1.0) * self.brightness_scale;
        change.brightness = rng.chance(self.brightness).then_some(brightness);
        let noise = rng.split(rng.state()[2]);
        change.noise = rng.chance(self.noise).then_some((self.noise_sigma, noise.state()));
        let shift = self.max_shift.map(|most| rng.below(2 * most as u64 + 1) as isize - most as isize);
        if rng.chance(self.shift) {
            change.shift = shift;
        }
        change
    }
}

/// What happens to one case.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// Axes that are reversed, before the shift.
    pub flips: [bool; 3],
    /// By how many voxels the content moves towards higher indices.
    pub shift: [isize; 3],
    /// Share of the volume's maximum that is added to each value.
    pub brightness: Option<f32>,
    /// Standard deviation, and state of the generator, of the noise added to each value.
    pub noise: Option<(f32, [u64; 3])>,
}

impl Change {
    /// The image after the change. Its geometry is kept: a change invents a case, it does not move the patient.
    pub fn apply(&self, volume: &Volume) -> Volume {
        let mut out = volume.clone();
        if let Some(share) = self.brightness {
            let most = out.voxels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            out.voxels.iter_mut().for_each(|v| *v += share * most);
        }
        if let Some((sigma, state)) = self.noise {
            let mut rng = Rng::from_state(state);
            for pair in out.voxels.chunks_mut(2) {
                pair.iter_mut().zip(rng.normal_pair()).for_each(|(v, z)| *v += sigma * z);
            }
        }
        // Last, so that what moves in is 0 as padding is.
        if self.moves() {
            out.voxels = self.rearrange(&out.voxels, volume.shape, volume.channels);
        }
        out
    }

    /// The labels after the change; background moves in.
    pub fn apply_labels(&self, labels: &Labels) -> Labels {
        let voxels = if self.moves() { self.rearrange(&labels.voxels, labels.shape, 1) } else { labels.voxels.clone() };
        Labels { voxels, ..*labels }
    }

    /// The border points after the change; those that leave the volume are dropped.
    pub fn apply_border(&self, border: &BorderPoints) -> BorderPoints {
        let shape = border.shape;
        let target = |&voxel: &u32| {
            let point = unravel(voxel as usize, shape);
            let mut moved = [0; 3];
            for k in 0..3 {
                moved[k] = self.target(point[k] as usize, shape[k], k)? as u32;
            }
            Some(ravel(moved, shape) as u32)
        };
        BorderPoints { shape, voxels: border.voxels.iter().filter_map(target).collect() }
    }

    fn moves(&self) -> bool {
        self.flips.contains(&true) || self.shift != [0; 3]
    }

    /// Where index `i` of an axis goes, if it stays inside.
    fn target(&self, i: usize, n: usize, axis: usize) -> Option<usize> {
        let flipped = if self.flips[axis] { n - 1 - i } else { i };
        flipped.checked_add_signed(self.shift[axis]).filter(|&i| i < n)
    }

    fn rearrange<T: Copy + Default>(&self, voxels: &[T], shape: [usize; 3], channels: usize) -> Vec<T> {
        let mut out = vec![T::default(); voxels.len()];
        let [tx, ty, tz] = [0, 1, 2].map(|k| (0..shape[k]).map(|i| self.target(i, shape[k], k)).collect::<Vec<_>>());
        let row = shape[2] * channels;
        for (i, x) in tx.iter().enumerate() {
            for (j, y) in ty.iter().enumerate() {
                let (Some(x), Some(y)) = (x, y) else { continue };
                let from = &voxels[(i * shape[1] + j) * row..][..row];
                let to = &mut out[(x * shape[1] + y) * row..][..row];
                for (voxel, z) in from.chunks_exact(channels).zip(&tz) {
                    if let Some(z) = z {
                        to[z * channels..][..channels].copy_from_slice(voxel);
                    }
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let points = change.apply_border(&border);
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
}
