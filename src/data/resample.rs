//! Bringing images and labels to another number of voxels.
//!
//! Rules and rounding are PyTorch's (`interpolate`), in f32, so that volumes prepared for official checkpoints agree. No
//! smoothing is applied when shrinking: an image shrunk by more than 2 is subsampled.

use super::volume::{Labels, Volume};
use crate::{Error, Result};

/// How the first and last voxels of the two grids meet in trilinear resampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CornerAlignment {
    /// The outer faces of the volumes coincide (`align_corners=false`): the patient keeps its size.
    #[default]
    Faces,
    /// The centres of the outer voxels coincide (`align_corners=true`).
    Centres,
}

/// Which source voxel nearest-neighbour resampling takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nearest {
    /// The one that holds the new voxel's centre (`nearest-exact`).
    #[default]
    Centre,
    /// The one that holds the new voxel's low corner (`nearest`, what the official code uses): up to half a voxel off.
    Corner,
}

/// For one output index: two input indices and the weight of the second.
pub(crate) type Tap = (usize, usize, f32);

/// The taps of each of `output` voxels along an axis of `input` voxels.
#[cfg(feature = "infer")]
pub(crate) fn taps_between(input: usize, output: usize, corners: CornerAlignment) -> Vec<Tap> {
    taps(input, output, scale(input, output, corners), corners)
}

fn taps(input: usize, output: usize, scale: f32, corners: CornerAlignment) -> Vec<Tap> {
    (0..output)
        .map(|i| {
            let at = match corners {
                CornerAlignment::Faces => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
                CornerAlignment::Centres => i as f32 * scale,
            };
            let low = (at as usize).min(input - 1);
            (low, (low + 1).min(input - 1), (at - low as f32).clamp(0.0, 1.0))
        })
        .collect()
}

fn scale(input: usize, output: usize, corners: CornerAlignment) -> f32 {
    match corners {
        CornerAlignment::Faces => input as f32 / output as f32,
        CornerAlignment::Centres if output > 1 => (input - 1) as f32 / (output - 1) as f32,
        CornerAlignment::Centres => 0.0,
    }
}

/// `voxels` (`from` × `channels`, last axis fastest) at `[taps…]`, trilinearly.
fn trilinear(voxels: &[f32], from: [usize; 3], channels: usize, [tx, ty, tz]: &[Vec<Tap>; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(tx.len() * ty.len() * tz.len() * channels);
    let row = |i: usize, j: usize| &voxels[(i * from[1] + j) * from[2] * channels..][..from[2] * channels];
    for &(x0, x1, wx) in tx {
        for &(y0, y1, wy) in ty {
            let rows = [row(x0, y0), row(x0, y1), row(x1, y0), row(x1, y1)];
            for &(z0, z1, wz) in tz {
                for channel in 0..channels {
                    let (low, high) = (z0 * channels + channel, z1 * channels + channel);
                    let [a, b, c, d] = rows.map(|row| (1.0 - wz) * row[low] + wz * row[high]);
                    out.push((1.0 - wx) * ((1.0 - wy) * a + wy * b) + wx * ((1.0 - wy) * c + wy * d));
                }
            }
        }
    }
    out
}

fn check(from: [usize; 3], to: [usize; 3]) -> Result<()> {
    if to.contains(&0) || from.contains(&0) {
        return Err(Error::shape("resample", format!("{from:?} to {to:?}: no axis may have 0 voxels")));
    }
    Ok(())
}

impl Volume {
    /// Trilinear interpolation to `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis has no voxels.
    pub fn resample(&self, shape: [usize; 3], corners: CornerAlignment) -> Result<Volume> {
        check(self.shape, shape)?;
        let scales = [0, 1, 2].map(|k| scale(self.shape[k], shape[k], corners));
        Ok(self.interpolate(shape, scales, corners))
    }

    /// Half the resolution (⌊n/2⌋ voxels an axis, at least 1), what the official encoders see. Each new voxel is the mean of
    /// the eight it covers; the last voxel of an odd axis is left out.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis has no voxels.
    pub fn half(&self) -> Result<Volume> {
        let shape = self.shape.map(|n| (n / 2).max(1));
        check(self.shape, shape)?;
        let scales = self.shape.map(|n| if n == 1 { 1.0 } else { 2.0 });
        Ok(self.interpolate(shape, scales, CornerAlignment::Faces))
    }

    fn interpolate(&self, shape: [usize; 3], scales: [f32; 3], corners: CornerAlignment) -> Volume {
        let taps = [0, 1, 2].map(|k| taps(self.shape[k], shape[k], scales[k], corners));
        let voxels = trilinear(&self.voxels, self.shape, self.channels, &taps);
        let step = scales.map(f64::from);
        let start = step.map(|s| if corners == CornerAlignment::Faces { s / 2.0 - 0.5 } else { 0.0 });
        // One voxel of a long axis under `Centres` has no spacing of its own: keep the old one.
        let step = step.map(|s| if s > 0.0 { s } else { 1.0 });
        Volume { channels: self.channels, shape, voxels, geometry: self.geometry.regrid(start, step, shape) }
    }
}

impl Labels {
    /// Nearest-neighbour resampling to `shape`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis has no voxels.
    pub fn resample(&self, shape: [usize; 3], rule: Nearest) -> Result<Labels> {
        check(self.shape, shape)?;
        let shift = if rule == Nearest::Centre { 0.5 } else { 0.0 };
        let scales = [0, 1, 2].map(|k| scale(self.shape[k], shape[k], CornerAlignment::Faces));
        let [tx, ty, tz] = [0, 1, 2].map(|k| {
            let pick = |i: usize| (((i as f32 + shift) * scales[k]) as usize).min(self.shape[k] - 1);
            (0..shape[k]).map(pick).collect::<Vec<_>>()
        });
        let mut voxels = Vec::with_capacity(shape.iter().product());
        for &x in &tx {
            for &y in &ty {
                let row = &self.voxels[(x * self.shape[1] + y) * self.shape[2]..][..self.shape[2]];
                voxels.extend(tz.iter().map(|&z| row[z]));
            }
        }
        let step = scales.map(f64::from);
        let geometry = self.geometry.regrid(step.map(|s| s / 2.0 - 0.5), step, shape);
        Ok(Labels { shape, voxels, geometry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: [usize; 3]) -> Volume {
        let [a, b, c] = shape;
        let voxels = (0..a * b * c).flat_map(|i| [(i / (b * c)) as f32, (i / c % b * 10 + i % c) as f32]).collect();
        Volume::new(shape, 2, voxels)
    }

    #[test]
    fn half_is_the_mean_of_eight() {
        let half = ramp([4, 6, 5]).half().unwrap();
        assert_eq!(half.shape, [2, 3, 2]);
        // Voxels 2..4 of axis 0; 2..4 of axis 1 and 2..4 of axis 2: all values are exact in f32.
        let at = ((3 + 1) * 2 + 1) * 2;
        assert_eq!(half.voxels[at..at + 2], [2.5, 27.5]);
        assert_eq!(half.geometry.affine.apply([0.0; 3]), [0.5; 3]);
        assert_eq!(half.geometry.spacing(), [2.0; 3]);
        assert_eq!(ramp([1, 2, 2]).half().unwrap().shape, [1, 1, 1]);
    }

    /// A linear ramp stays linear wherever no edge is repeated.
    #[test]
    fn ramps_stay_ramps() {
        let volume = ramp([5, 4, 3]);
        let centres = volume.resample([9, 7, 5], CornerAlignment::Centres).unwrap();
        for (i, pair) in centres.voxels.chunks(2).enumerate() {
            let [x, y, z] = [i / 35, i / 5 % 7, i % 5].map(|i| i as f32 * 0.5);
            assert_eq!(pair, [x, 10.0 * y + z]);
        }
        assert_eq!(volume.resample([5, 4, 3], CornerAlignment::Faces).unwrap().voxels, volume.voxels);
        let faces = volume.resample([10, 4, 3], CornerAlignment::Faces).unwrap();
        let line: Vec<f32> = faces.voxels.chunks(2 * 12).map(|plane| plane[0]).collect();
        assert_eq!(line, [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.0]);
    }

    #[test]
    fn nearest_by_centre_and_by_corner() {
        let labels = Labels::new([4, 1, 1], vec![0, 1, 2, 3]);
        assert_eq!(labels.resample([2, 1, 1], Nearest::Centre).unwrap().voxels, [1, 3]);
        assert_eq!(labels.resample([2, 1, 1], Nearest::Corner).unwrap().voxels, [0, 2]);
        assert_eq!(labels.resample([8, 1, 1], Nearest::Centre).unwrap().voxels, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert!(labels.resample([0, 1, 1], Nearest::Centre).is_err());
    }
}
