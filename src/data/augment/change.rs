//! What happens to one case, applied to its image, labels and border.

use std::borrow::Cow;

use super::super::border::BorderPoints;
use super::super::point_sampling::{ravel, unravel};
use super::super::volume::{Labels, Volume};
use super::intensity;
use super::warp::{Spatial, Warp};
use crate::rng::Rng;

/// What happens to one case.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// How it is turned, scaled and bent, before the flips.
    pub spatial: Option<Spatial>,
    /// Axes that are reversed, before the shift.
    pub flips: [bool; 3],
    /// By how many voxels the content moves towards higher indices.
    pub shift: [isize; 3],
    /// Share of the volume's maximum that is added to each value.
    pub brightness: Option<f32>,
    /// What each value is multiplied by, before that.
    pub contrast: Option<f32>,
    /// Standard deviation, and state of the generator, of the noise added to each value.
    pub noise: Option<(f32, [u64; 3])>,
    /// Power of the values as shares of their range.
    pub gamma: Option<f32>,
    /// Largest coefficient, and state of the generator, of the multiplicative field.
    pub bias_field: Option<(f32, [u64; 3])>,
    /// Factor by which voxels grow.
    pub low_resolution: Option<f32>,
}

impl Change {
    /// The image after the change. Its geometry is kept: a change invents a case, it does not move the patient.
    pub fn apply(&self, volume: &Volume) -> Volume {
        let (shape, channels, geometry) = (volume.shape, volume.channels, volume.geometry);
        let voxels = match self.values(volume) {
            // Last, so that what moves in is 0 as padding is.
            values if self.moves() => self.rearranged(&values, shape, channels),
            values => values.into_owned(),
        };
        Volume { voxels, shape, channels, geometry }
    }

    /// Writes the voxels of the image after the change to `out`, which holds zeros.
    pub fn apply_to(&self, volume: &Volume, out: &mut [f32]) {
        match self.values(volume) {
            values if self.moves() => self.rearrange(&values, volume.shape, volume.channels, out),
            values => out.copy_from_slice(&values),
        }
    }

    /// The voxels before they move; those of `volume` where nothing else happens to them.
    fn values<'a>(&self, volume: &'a Volume) -> Cow<'a, [f32]> {
        let still = Self { flips: [false; 3], shift: [0; 3], ..*self };
        if still == Self::default() {
            return Cow::Borrowed(&volume.voxels);
        }
        let mut out = volume.clone();
        if let Some(spatial) = &self.spatial {
            out.voxels = Warp::new(spatial, volume.shape, &volume.geometry).linear(&volume.voxels, volume.channels);
        }
        if let Some(factor) = self.low_resolution {
            intensity::low_resolution(&mut out, factor);
        }
        if let Some(gamma) = self.gamma {
            intensity::gamma(&mut out, gamma);
        }
        if let Some((strength, state)) = self.bias_field {
            intensity::bias_field(&mut out, strength, &mut Rng::from_state(state));
        }
        if let Some(factor) = self.contrast {
            out.voxels.iter_mut().for_each(|v| *v *= factor);
        }
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
        Cow::Owned(out.voxels)
    }

    /// The labels after the change; background moves in.
    pub fn apply_labels(&self, labels: &Labels) -> Labels {
        let mut voxels = match &self.spatial {
            Some(spatial) => Warp::new(spatial, labels.shape, &labels.geometry).nearest(&labels.voxels),
            None => labels.voxels.clone(),
        };
        if self.moves() {
            voxels = self.rearranged(&voxels, labels.shape, 1);
        }
        Labels { voxels, ..*labels }
    }

    /// The border points after the change; those that leave the volume are dropped. `labels` are those that the border
    /// belongs to, after the change: what is turned or bent has its border found anew.
    pub fn apply_border(&self, border: &BorderPoints, labels: &Labels) -> BorderPoints {
        if self.spatial.is_some() {
            return BorderPoints::of(labels);
        }
        let shape = border.shape;
        let target = |&voxel: &u32| {
            let point = unravel(voxel as usize, shape);
            let mut moved = [0; 3];
            for k in 0..3 {
                moved[k] = self.target(point[k] as usize, shape[k], k)? as u32;
            }
            Some(ravel(moved, shape) as u32)
        };
        // Room for all of them at once: a list that grows holds twice as many for a moment.
        let mut voxels = Vec::with_capacity(border.voxels.len());
        voxels.extend(border.voxels.iter().filter_map(target));
        BorderPoints { shape, voxels }
    }

    fn moves(&self) -> bool {
        self.flips.contains(&true) || self.shift != [0; 3]
    }

    /// Where index `i` of an axis goes, if it stays inside.
    fn target(&self, i: usize, n: usize, axis: usize) -> Option<usize> {
        let flipped = if self.flips[axis] { n - 1 - i } else { i };
        flipped.checked_add_signed(self.shift[axis]).filter(|&i| i < n)
    }

    fn rearranged<T: Copy + Default>(&self, voxels: &[T], shape: [usize; 3], channels: usize) -> Vec<T> {
        let mut out = vec![T::default(); voxels.len()];
        self.rearrange(voxels, shape, channels, &mut out);
        out
    }

    /// Moves voxels to where they go in `out`; others stay what they are there.
    fn rearrange<T: Copy>(&self, voxels: &[T], shape: [usize; 3], channels: usize, out: &mut [T]) {
        let [tx, ty, tz] = [0, 1, 2].map(|k| (0..shape[k]).map(|i| self.target(i, shape[k], k)).collect::<Vec<_>>());
        let row = shape[2] * channels;
        // What stays of a row that is not turned is in one piece: where it begins and ends, and where it goes.
        let begin = tz.iter().position(Option::is_some).unwrap_or(shape[2]);
        let piece = begin * channels..(begin + tz.iter().flatten().count()) * channels;
        let place = tz.get(begin).copied().flatten().unwrap_or(0) * channels;
        for (i, x) in tx.iter().enumerate() {
            for (j, y) in ty.iter().enumerate() {
                let (Some(x), Some(y)) = (x, y) else { continue };
                let from = &voxels[(i * shape[1] + j) * row..][..row];
                let to = &mut out[(x * shape[1] + y) * row..][..row];
                if !self.flips[2] {
                    to[place..][..piece.len()].copy_from_slice(&from[piece.clone()]);
                    continue;
                }
                for (voxel, z) in from.chunks_exact(channels).zip(&tz) {
                    if let Some(z) = z {
                        to[z * channels..][..channels].copy_from_slice(voxel);
                    }
                }
            }
        }
    }
}
