//! Padding to what a network takes, and cropping back.

use super::volume::{Labels, Volume};
use crate::{Error, Result};

/// Voxels added before and after each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// Added at index 0.
    pub before: [usize; 3],
    /// Added at the end.
    pub after: [usize; 3],
}

impl Padding {
    /// From `shape` to `target`: the larger half goes first (the official code's rule).
    ///
    /// # Errors
    /// [`Error::Shape`] if an axis of `target` is shorter.
    pub fn to_shape(shape: [usize; 3], target: [usize; 3]) -> Result<Self> {
        if (0..3).any(|k| target[k] < shape[k]) {
            let problem = format!("a volume of {shape:?} voxels does not fit into {target:?}");
            return Err(Error::shape("pad", problem));
        }
        let before = [0, 1, 2].map(|k| (target[k] - shape[k]).div_ceil(2));
        let after = [0, 1, 2].map(|k| (target[k] - shape[k]) / 2);
        Ok(Self { before, after })
    }

    /// To the next multiple of `multiple` on each axis.
    ///
    /// # Panics
    /// If a multiple is 0.
    pub fn to_multiple(shape: [usize; 3], multiple: [usize; 3]) -> Self {
        // What no memory holds is refused by whoever pads.
        let missing =
            [0, 1, 2].map(|k| shape[k].checked_next_multiple_of(multiple[k]).unwrap_or(usize::MAX) - shape[k]);
        Self { before: missing.map(|n| n.div_ceil(2)), after: missing.map(|n| n / 2) }
    }

    /// The padded shape.
    pub fn outer(&self, shape: [usize; 3]) -> [usize; 3] {
        [0, 1, 2].map(|k| shape[k] + self.before[k] + self.after[k])
    }

    /// The shape that was padded to `outer`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the padding leaves nothing of `outer`.
    pub fn inner(&self, outer: [usize; 3]) -> Result<[usize; 3]> {
        let mut inner = [0; 3];
        for k in 0..3 {
            inner[k] = outer[k].checked_sub(self.before[k] + self.after[k]).filter(|&n| n > 0).ok_or_else(|| {
                Error::shape("crop", format!("nothing of {outer:?} is left without padding {self:?}"))
            })?;
        }
        Ok(inner)
    }

    /// `voxels` (`shape` × `channels`, last axis fastest) surrounded by `fill`.
    ///
    /// # Panics
    /// If `voxels.len()` does not match.
    pub fn pad<T: Copy>(&self, voxels: &[T], shape: [usize; 3], channels: usize, fill: T) -> Vec<T> {
        let outer = self.outer(shape);
        let mut out = vec![fill; outer.iter().product::<usize>() * channels];
        self.rows(shape, channels, voxels.len(), |inside, outside, n| {
            out[outside..outside + n].copy_from_slice(&voxels[inside..inside + n]);
        });
        out
    }

    /// The inverse of [`Padding::pad`] on an array of the padded shape; `shape` is the inner one.
    ///
    /// # Panics
    /// If `padded.len()` does not match.
    pub fn crop<T: Copy + Default>(&self, padded: &[T], shape: [usize; 3], channels: usize) -> Vec<T> {
        assert_eq!(padded.len(), self.outer(shape).iter().product::<usize>() * channels, "padded array");
        let mut out = vec![T::default(); shape.iter().product::<usize>() * channels];
        self.rows(shape, channels, out.len(), |inside, outside, n| {
            out[inside..inside + n].copy_from_slice(&padded[outside..outside + n]);
        });
        out
    }

    /// Calls `copy(start inside, start outside, length)` for each row.
    fn rows(&self, shape: [usize; 3], channels: usize, len: usize, mut copy: impl FnMut(usize, usize, usize)) {
        assert_eq!(len, shape.iter().product::<usize>() * channels, "array of {shape:?} × {channels}");
        let outer = self.outer(shape);
        let row = shape[2] * channels;
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                let outside = ((i + self.before[0]) * outer[1] + j + self.before[1]) * outer[2] + self.before[2];
                copy((i * shape[1] + j) * row, outside * channels, row);
            }
        }
    }
}

impl Volume {
    /// Padded by `fill`, the geometry shifted with it.
    pub fn pad(&self, padding: &Padding, fill: f32) -> Volume {
        let shape = padding.outer(self.shape);
        let geometry = self.geometry.regrid(padding.before.map(|n| -(n as f64)), [1.0; 3], shape);
        let voxels = padding.pad(&self.voxels, self.shape, self.channels, fill);
        Volume { channels: self.channels, shape, voxels, geometry }
    }

    /// Without its padding.
    ///
    /// # Errors
    /// If nothing would be left.
    pub fn crop(&self, padding: &Padding) -> Result<Volume> {
        let shape = padding.inner(self.shape)?;
        let geometry = self.geometry.regrid(padding.before.map(|n| n as f64), [1.0; 3], shape);
        let voxels = padding.crop(&self.voxels, shape, self.channels);
        Ok(Volume { channels: self.channels, shape, voxels, geometry })
    }
}

impl Labels {
    /// Padded by background.
    pub fn pad(&self, padding: &Padding) -> Labels {
        let shape = padding.outer(self.shape);
        let geometry = self.geometry.regrid(padding.before.map(|n| -(n as f64)), [1.0; 3], shape);
        Labels { shape, voxels: padding.pad(&self.voxels, self.shape, 1, 0), geometry }
    }

    /// Without its padding.
    ///
    /// # Errors
    /// If nothing would be left.
    pub fn crop(&self, padding: &Padding) -> Result<Labels> {
        let shape = padding.inner(self.shape)?;
        let geometry = self.geometry.regrid(padding.before.map(|n| n as f64), [1.0; 3], shape);
        Ok(Labels { shape, voxels: padding.crop(&self.voxels, shape, 1), geometry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_half_goes_first() {
        let padding = Padding::to_shape([240, 240, 155], [256, 256, 160]).unwrap();
        assert_eq!(padding, Padding { before: [8, 8, 3], after: [8, 8, 2] });
        assert_eq!(Padding::to_multiple([240, 240, 155], [16; 3]).outer([240, 240, 155]), [240, 240, 160]);
        let message = Padding::to_shape([4, 5, 6], [4, 4, 8]).unwrap_err().to_string();
        assert!(message.contains("[4, 5, 6]") && message.contains("[4, 4, 8]"), "{message}");
    }

    #[test]
    fn cropping_undoes_padding() {
        let volume = Volume::new([2, 3, 4], 2, (0..48).map(|v| v as f32).collect());
        let padding = Padding::to_shape([2, 3, 4], [5, 6, 7]).unwrap();
        let padded = volume.pad(&padding, -1.0);
        assert_eq!(padded.shape, [5, 6, 7]);
        assert_eq!(padded.voxels.iter().filter(|&&v| v == -1.0).count(), (210 - 24) * 2);
        assert_eq!(padded.geometry.affine.apply(padding.before.map(|n| n as f64)), [0.0; 3]);
        assert_eq!(padded.crop(&padding).unwrap(), volume);
        let labels = Labels::new([2, 3, 4], (0..24).collect());
        assert_eq!(labels.pad(&padding).crop(&padding).unwrap(), labels);
        assert!(labels.crop(&Padding { before: [1, 0, 0], after: [1, 0, 0] }).is_err());
    }
}
