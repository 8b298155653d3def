//! Border maps on disk: where they lie beside the labels, as NIfTI or as the official code's `.pt`.
//!
//! A map lies on its label's grid, in the file's own axis order: 1 near the border, else 0. A `.pt` is one bare tensor of
//! booleans, `[H, W, D]`.

use std::path::{Path, PathBuf};

use super::border::border_map;
use super::nifti::split_ending;
use super::source::Source;
use super::validate;
use super::volume::{Axes, Labels};
use crate::checkpoint::{Array, Data, torch};
use crate::files::name::file_name;
use crate::{Error, Result};

/// How maps are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BorderFormat {
    /// `.nii.gz`, unsigned bytes.
    #[default]
    Nifti,
    /// `.pt`, a tensor of booleans.
    Torch,
}

impl BorderFormat {
    /// The ending of the files.
    pub fn ending(self) -> &'static str {
        match self {
            BorderFormat::Nifti => ".nii.gz",
            BorderFormat::Torch => ".pt",
        }
    }
}

/// Where the map of a label file lies, without ending: `border/border-3` for `segmentation/segmentation-3.nii` (LiTS),
/// `S_border` for `S_seg.nii.gz` in the same folder (BraTS), `bordersTr/C` for `labelsTr/C.nii.gz`, `L_border` beside any
/// other.
pub fn place(label: &Path) -> PathBuf {
    let name = file_name(label);
    let (stem, _) = split_ending(&name);
    let folder = label.parent().unwrap_or(Path::new(""));
    let beside = |sibling: &str| folder.with_file_name(sibling);
    let renamed = match (stem.strip_prefix("segmentation-"), stem.strip_suffix("_seg")) {
        (Some(number), _) => format!("border-{number}"),
        (None, Some(subject)) => format!("{subject}_border"),
        (None, None) => format!("{stem}_border"),
    };
    match folder.file_name().and_then(|folder| folder.to_str()) {
        Some("segmentation") => beside("border").join(renamed),
        Some("labelsTr") => beside("bordersTr").join(stem),
        _ => folder.join(renamed),
    }
}

/// `place` with an ending added (a stem may hold dots).
pub fn with_ending(place: &Path, format: BorderFormat) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(format.ending());
    name.into()
}

/// The stored map of a label file, if there is one.
pub fn find(label: &Source) -> Option<PathBuf> {
    let Source::File(label) = label else { return None };
    let place = place(label);
    let named = |ending: &str| {
        let mut name = place.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    [".nii.gz", ".nii", ".pt"].map(named).into_iter().find(|path| path.is_file())
}

/// Makes the map of `labels` and writes it.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, labels: &Labels, format: BorderFormat) -> Result<()> {
    write_map(path, labels, border_map(&labels.foreground(), labels.shape), format)
}

/// Writes a map that was made of `labels`; the folder is created when missing.
///
/// # Errors
/// As [`write()`].
pub fn write_map(path: &Path, labels: &Labels, map: Vec<u8>, format: BorderFormat) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    }
    let map = Labels { voxels: map, ..*labels };
    match format {
        BorderFormat::Nifti => map.write(path),
        BorderFormat::Torch => {
            let shape = labels.geometry.stored.shape;
            let stored = labels.geometry.orientation.pack(&map.voxels, shape, 1);
            let values = transpose(&stored, [shape[2], shape[1], shape[0]]);
            let array = Array::new(shape.to_vec(), Data::Bool(values))
                .ok_or_else(|| Error::shape("borders", format!("a map of {shape:?}")))?;
            torch::write_tensor(path, array.view())
        }
    }
}

/// Reads the map that belongs to `labels`, in the order in which they are in memory: 1 near the border, else 0.
///
/// # Errors
/// Those of reading, and [`Error::Data`] if the map is not on the labels' grid.
pub fn read(path: &Path, label: &Source, labels: &Labels, axes: Axes) -> Result<Vec<u8>> {
    let remedy = "make it anew with ossnet borders --overwrite";
    let mut map = if path.extension().is_some_and(|ending| ending == "pt") {
        let array = torch::read_tensor(path)?;
        let shape = labels.geometry.stored.shape;
        // The official maps may have an axis of one channel in front.
        let axes: Vec<usize> =
            array.shape().iter().copied().skip_while(|&n| n == 1 && array.shape().len() > 3).collect();
        if axes != shape {
            let problem = format!("holds a map of {:?} where its label has {shape:?}", array.shape());
            return Err(Error::data(path, problem, remedy));
        }
        let bytes: Vec<u8> = array.to_f32().iter().map(|&v| u8::from(v != 0.0)).collect();
        labels.geometry.orientation.unpack(&transpose(&bytes, shape), shape, 1)
    } else {
        let source = Source::File(path.into());
        let map = Labels::read(&source, axes)?;
        validate::same_grid((label.path(), labels.shape, &labels.geometry), (path, map.shape, &map.geometry))?;
        map.voxels
    };
    map.iter_mut().for_each(|v| *v = u8::from(*v != 0));
    Ok(map)
}

/// An array of `shape`, last axis fastest, with its axes in the opposite order.
fn transpose(values: &[u8], [a, b, c]: [usize; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len());
    for k in 0..c {
        for j in 0..b {
            out.extend((0..a).map(|i| values[(i * b + j) * c + k]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::geometry::{Affine, Geometry, StoredGrid};

    #[test]
    fn maps_lie_beside_their_labels() {
        let at = |label: &str| with_ending(&place(Path::new(label)), BorderFormat::Torch).display().to_string();
        assert_eq!(at("lits/segmentation/segmentation-3.nii"), "lits/border/border-3.pt");
        assert_eq!(at("lits/segmentation-3.nii"), "lits/border-3.pt");
        assert_eq!(at("b/S_1/S_1_seg.nii.gz"), "b/S_1/S_1_border.pt");
        assert_eq!(at("t/labelsTr/a.b.nii.gz"), "t/bordersTr/a.b.pt");
        assert_eq!(at("mask.nii"), "mask_border.pt");
    }

    /// A label stored from right to left with turned axes: both formats give back the map that is in memory.
    #[test]
    fn both_formats_give_the_same_map() {
        let folder = tempfile::tempdir().unwrap();
        let stored = [17, 21, 15];
        let affine = Affine([[0.0, -1.0, 0.0, 20.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]);
        let geometry = Geometry::new(StoredGrid::from_affine(affine, stored), true);
        let shape = geometry.orientation.shape(stored);
        let mut labels = Labels::new(shape, vec![0; stored.iter().product()]);
        (labels.geometry, labels.voxels[40], labels.voxels[700]) = (geometry, 2, 1);
        let label = folder.path().join("x_seg.nii");
        labels.write(&label).unwrap();
        let source = Source::File(label.clone());
        let expected = border_map(&labels.foreground(), shape);
        for format in [BorderFormat::Torch, BorderFormat::Nifti] {
            assert_eq!(find(&source).is_some(), format == BorderFormat::Nifti);
            let path = with_ending(&place(&label), format);
            write(&path, &labels, format).unwrap();
            assert_eq!(read(&path, &source, &labels, Axes::Canonical).unwrap(), expected, "{format:?}");
            // On the file's own axes.
            let plain = Labels::read(&source, Axes::Stored).unwrap();
            let map = border_map(&plain.foreground(), stored);
            assert_eq!(read(&path, &source, &plain, Axes::Stored).unwrap(), map, "{format:?}");
        }
        assert_eq!(find(&source).unwrap(), folder.path().join("x_border.nii.gz"));
        let other = Labels::new([3, 3, 3], vec![1; 27]);
        for format in [BorderFormat::Torch, BorderFormat::Nifti] {
            let path = with_ending(&place(&label), format);
            let message = read(&path, &source, &other, Axes::Canonical).unwrap_err().to_string();
            assert!(message.contains("x_border"), "{message}");
        }
    }
}
