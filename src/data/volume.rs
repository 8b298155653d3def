//! Images and labels in memory.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::geometry::{Affine, Geometry, StoredGrid};
use super::nifti;
use super::source::Source;
use crate::memory::size;
use crate::{Error, Result};

/// An image: `[shape[0], shape[1], shape[2], channels]`, last axis fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Values of each voxel.
    pub channels: usize,
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// `shape` × `channels` values.
    pub voxels: Vec<f32>,
    /// Where the voxels lie.
    pub geometry: Geometry,
}

/// A segmentation: one class a voxel, `[shape[0], shape[1], shape[2]]`, last axis fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Voxels along each axis.
    pub shape: [usize; 3],
    /// The class of each voxel; 0 is background.
    pub voxels: Vec<u8>,
    /// Where the voxels lie.
    pub geometry: Geometry,
}

/// Which way the axes run in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Axes {
    /// Right, anterior, superior, whatever the file's order.
    #[default]
    Canonical,
    /// As in the file (what the official code does).
    Stored,
}

/// Mean and standard deviation of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelStats {
    /// Mean over all voxels.
    pub mean: f64,
    /// Unbiased standard deviation over all voxels; 0 for a constant channel and for a single voxel.
    pub std: f64,
}

impl Volume {
    /// A volume on a unit grid.
    ///
    /// # Panics
    /// If `voxels.len()` is not the product of `shape` and `channels`.
    pub fn new(shape: [usize; 3], channels: usize, voxels: Vec<f32>) -> Self {
        assert_eq!(voxels.len(), shape.iter().product::<usize>() * channels, "{shape:?} × {channels}");
        Self { channels, shape, voxels, geometry: Geometry::from_affine(Affine::from_spacing([1.0; 3]), shape) }
    }

    /// Reads an image: two or three axes, and channels along the fourth (or fifth, as vectors are stored).
    ///
    /// # Errors
    /// Those of [`nifti::read`], and [`Error::Data`] if there are more axes.
    pub fn read(source: &Source, axes: Axes) -> Result<Self> {
        Self::read_on(source, axes, None)
    }

    /// As [`Volume::read`], on `grid` instead of the one that the file states; its shape stays the file's.
    ///
    /// # Errors
    /// As there.
    fn read_on(source: &Source, axes: Axes, grid: Option<&StoredGrid>) -> Result<Self> {
        Ok(Self::read_stored(source, axes, grid)?.0)
    }

    /// As [`Volume::read`], with how far from whole numbers the file's labels may lie, if it holds labels.
    ///
    /// # Errors
    /// As there.
    pub fn read_with_tolerance(source: &Source, axes: Axes) -> Result<(Self, f32)> {
        Self::read_stored(source, axes, None)
    }

    fn read_stored(source: &Source, axes: Axes, grid: Option<&StoredGrid>) -> Result<(Self, f32)> {
        let nifti::Image { mut header, voxels } = nifti::read(source)?;
        let shape = header.shape();
        if let Some(grid) = grid {
            header.grid = StoredGrid { shape, ..*grid };
        }
        let channels = voxels.len() / shape.iter().product::<usize>();
        // Longer than one: at most one axis beyond space.
        if header.dims.iter().skip(3).filter(|&&n| n > 1).count() > 1 {
            let problem = format!("has shape {:?}: more than three axes of space and one of channels", header.dims);
            return Err(Error::data(source.path(), problem, "extract one image of the series"));
        }
        let geometry = Geometry::new(header.grid, axes == Axes::Canonical);
        let voxels = geometry.orientation.unpack(&voxels, shape, channels);
        let volume = Self { channels, shape: geometry.orientation.shape(shape), voxels, geometry };
        Ok((volume, header.label_tolerance()))
    }

    /// Reads several files of one channel each (an image a modality) into one volume. With `ignore_geometry`, only the
    /// first file's header says where the voxels lie.
    ///
    /// # Errors
    /// Those of [`Volume::read`], and [`Error::Data`] if the files differ in shape or geometry, or one has channels.
    pub fn read_channels(sources: &[Source], axes: Axes, ignore_geometry: bool) -> Result<Self> {
        let [first, rest @ ..] = sources else {
            return Err(Error::shape("read_channels", "no files given"));
        };
        let mut whole = Self::read(first, axes)?;
        if rest.is_empty() {
            return Ok(whole);
        }
        let count = sources.len();
        // All channels, and the one that is being read: as read, turned, and the first.
        size::within_host_budget(&[whole.voxels.len(), count.saturating_add(3), size_of::<f32>()]).map_err(|told| {
            let problem = format!("reading {count} images of {:?} voxels {told}", whole.shape);
            Error::data(first.path(), problem, "crop or resample them, or raise --memory-budget")
        })?;
        let mut voxels = vec![0.0; whole.voxels.len() * count];
        for (channel, source) in sources.iter().enumerate() {
            let grid = ignore_geometry.then_some(&whole.geometry.stored);
            let part = if channel == 0 { whole.clone() } else { Self::read_on(source, axes, grid)? };
            if part.channels != 1 {
                let problem = format!("has {} channels where one 3D image a modality is expected", part.channels);
                return Err(Error::data(source.path(), problem, "split it into one file a channel, or list it alone"));
            }
            super::validate::same_grid(
                (first.path(), whole.shape, &whole.geometry),
                (source.path(), part.shape, &part.geometry),
            )?;
            part.voxels.iter().enumerate().for_each(|(i, &v)| voxels[i * count + channel] = v);
        }
        whole.channels = count;
        whole.voxels = voxels;
        Ok(whole)
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if there is no voxel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean and unbiased standard deviation of each channel over all voxels, in f64 (two passes).
    pub fn stats(&self) -> Vec<ChannelStats> {
        let n = self.len() as f64;
        let means: Vec<f64> = self.sums(|_, value| value).iter().map(|sum| sum / n).collect();
        let squares = self.sums(|channel, value| (value - means[channel]).powi(2));
        let stats = means.iter().zip(squares);
        stats.map(|(&mean, squares)| ChannelStats { mean, std: (squares / (n - 1.0).max(1.0)).sqrt() }).collect()
    }

    /// The sum of `of(channel, value)` over each channel, all in one pass: they lie beside each other.
    fn sums(&self, of: impl Fn(usize, f64) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for voxel in self.voxels.chunks_exact(self.channels.max(1)) {
            sums.iter_mut().zip(voxel).enumerate().for_each(|(k, (sum, &value))| *sum += of(k, value.into()));
        }
        sums
    }

    /// Brings each channel to mean 0 and standard deviation 1 (z-score); a constant channel becomes 0. Returns what the
    /// statistics were.
    pub fn normalise(&mut self) -> Vec<ChannelStats> {
        let stats = self.stats();
        for voxel in self.voxels.chunks_exact_mut(self.channels) {
            for (value, stats) in voxel.iter_mut().zip(&stats) {
                let spread = if stats.std > 0.0 { stats.std } else { 1.0 };
                *value = ((*value as f64 - stats.mean) / spread) as f32;
            }
        }
        stats
    }

    /// Limits all values to `[low, high]` (Hounsfield windows, say).
    ///
    /// # Panics
    /// If `low > high` or either is NaN.
    pub fn clip(&mut self, low: f32, high: f32) {
        self.voxels.iter_mut().for_each(|v| *v = v.clamp(low, high));
    }
}

impl Labels {
    /// Among class numbers (not among stored values): nobody has looked at the voxel. It is neither trained on nor scored.
    pub const IGNORED: u8 = u8::MAX;

    /// Labels on a unit grid.
    ///
    /// # Panics
    /// If `voxels.len()` is not the product of `shape`.
    pub fn new(shape: [usize; 3], voxels: Vec<u8>) -> Self {
        assert_eq!(voxels.len(), shape.iter().product::<usize>(), "{shape:?}");
        Self { shape, voxels, geometry: Geometry::from_affine(Affine::from_spacing([1.0; 3]), shape) }
    }

    /// Reads a 3D label file; every voxel must be a whole number of `0..=255`.
    ///
    /// # Errors
    /// Those of [`nifti::read`], and [`Error::Data`] if there are channels or other values.
    pub fn read(source: &Source, axes: Axes) -> Result<Self> {
        Self::read_on(source, axes, None)
    }

    /// As [`Labels::read`], on `grid` instead of the one that the file states; its shape stays the file's.
    ///
    /// # Errors
    /// As there.
    pub fn read_on(source: &Source, axes: Axes, grid: Option<&StoredGrid>) -> Result<Self> {
        let path = source.path();
        let (image, tolerance) = Volume::read_stored(source, axes, grid)?;
        if image.channels != 1 {
            let problem = format!("has {} channels where a 3D label is due", image.channels);
            return Err(Error::data(path, problem, "give one file of class numbers a case"));
        }
        let voxels = to_classes(&image.voxels, tolerance).map_err(|(index, value)| {
            let [_, b, c] = image.shape;
            let place = [index / (b * c), index / c % b, index % c];
            let problem = format!("has label value {value} at {place:?} where whole numbers of 0 to 255 are classes");
            let remedy = match value > 255.0 && value.fract() == 0.0 {
                true => {
                    "renumber the classes, at most 256; ossnet.evaluate of the Python module takes any whole numbers"
                }
                false => "convert probabilities or colours to class numbers",
            };
            Error::data(path, problem, remedy)
        })?;
        Ok(Self { shape: image.shape, voxels, geometry: image.geometry })
    }

    /// Number of voxels.
    pub fn len(&self) -> usize {
        self.voxels.len()
    }

    /// True if there is no voxel.
    pub fn is_empty(&self) -> bool {
        self.voxels.is_empty()
    }

    /// Voxels of each class value.
    pub fn histogram(&self) -> [u64; 256] {
        let mut counts = [0; 256];
        self.voxels.iter().for_each(|&v| counts[v as usize] += 1);
        counts
    }

    /// The same labels with each value `v` replaced by `table[v]`.
    pub fn mapped(&self, table: &[u8; 256]) -> Self {
        Self { voxels: self.voxels.iter().map(|&v| table[v as usize]).collect(), ..*self }
    }

    /// 1 where the label is not background.
    pub fn foreground(&self) -> Vec<u8> {
        self.voxels.iter().map(|&v| (v > 0) as u8).collect()
    }

    /// Writes to a file; see [`nifti::write_labels`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, path: &Path) -> Result<()> {
        nifti::write_labels(path, self)
    }
}

/// Whole numbers of `0..=255`, or the first value that is none, to `tolerance` (see [`nifti::Header::label_tolerance`]).
pub fn to_classes(values: &[f32], tolerance: f32) -> std::result::Result<Vec<u8>, (usize, f32)> {
    let class = |(index, &value): (usize, &f32)| {
        let whole = value.round();
        let good = (value - whole).abs() <= tolerance && (0.0..=255.0).contains(&whole);
        if good { Ok(whole as u8) } else { Err((index, value)) }
    };
    values.iter().enumerate().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_scores_by_channel() {
        // Channel 0: 1, 2, 3, 4 (mean 2.5, unbiased variance 5/3); channel 1 is constant.
        let mut volume = Volume::new([2, 2, 1], 2, vec![1.0, 7.0, 2.0, 7.0, 3.0, 7.0, 4.0, 7.0]);
        let stats = volume.normalise();
        assert_eq!(stats[0].mean, 2.5);
        assert!((stats[0].std - (5.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(stats[1], ChannelStats { mean: 7.0, std: 0.0 });
        let first = (-1.5 / (5.0f64 / 3.0).sqrt()) as f32;
        assert_eq!(volume.voxels[..2], [first, 0.0]);
        assert_eq!(volume.voxels[6], -first);
    }

    /// In f32 the sum of a million values of 1000.5 would be off by percents of the spread.
    #[test]
    fn statistics_survive_many_voxels_far_from_zero() {
        let voxels: Vec<f32> = (0..1_000_000).map(|i| 1000.0 + (i % 2) as f32).collect();
        let stats = Volume::new([100, 100, 100], 1, voxels).stats();
        assert!((stats[0].mean - 1000.5).abs() < 1e-9);
        assert!((stats[0].std - 0.25f64.sqrt() * (1e6 / (1e6 - 1.0f64)).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn class_numbers() {
        assert_eq!(to_classes(&[0.0, 255.0, 1.9999], 1e-3), Ok(vec![0, 255, 2]));
        assert_eq!(to_classes(&[1.0, 2.5], 1e-3), Err((1, 2.5)));
        assert_eq!(to_classes(&[1.0, 1.98], 1e-3), Err((1, 1.98)));
        assert_eq!(to_classes(&[1.0, 1.98], 0.03), Ok(vec![1, 2]));
        assert_eq!(to_classes(&[-1.0], 0.2), Err((0, -1.0)));
        assert_eq!(to_classes(&[256.0], 0.2), Err((0, 256.0)));
    }

    #[test]
    fn clipping() {
        let mut volume = Volume::new([1, 1, 3], 1, vec![-2000.0, 40.0, 3000.0]);
        volume.clip(-200.0, 300.0);
        assert_eq!(volume.voxels, [-200.0, 40.0, 300.0]);
    }
}
