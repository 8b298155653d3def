//! What an image and its label must agree on before anything is trained or scored.

use std::fmt;
use std::path::{Path, PathBuf};

use super::geometry::{GEOMETRY_TOLERANCE, Geometry, StoredGrid};
use super::volume::{Labels, Volume};
use crate::{Error, Result};

/// Something that is probably wrong, but does not stop the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file or folder.
    pub path: PathBuf,
    /// What to look at.
    pub problem: String,
}

impl Warning {
    /// A warning about `path`.
    pub fn new(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self { path: path.as_ref().into(), problem: problem.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

/// A grid and the file it comes from.
pub type NamedGrid<'a> = (&'a Path, [usize; 3], &'a Geometry);

/// The two grids have the same shape and lie at the same place, to [`GEOMETRY_TOLERANCE`] of a voxel.
///
/// # Errors
/// [`Error::Data`] on the second file, showing both shapes, or both affines and how far apart they put a corner.
pub fn same_grid((first, shape, a): NamedGrid, (second, other, b): NamedGrid) -> Result<()> {
    let partner = first.display();
    if shape != other {
        let problem = format!("has shape {other:?}, but {partner} has {shape:?}");
        return Err(Error::data(
            second,
            problem,
            "check that they belong together, or resample one to the other's grid",
        ));
    }
    let distance = a.affine.corner_distance(&b.affine, shape);
    let finest = a.spacing().into_iter().chain(b.spacing()).fold(f64::INFINITY, f64::min);
    if distance > GEOMETRY_TOLERANCE * finest {
        let problem = format!(
            "lies {distance:.3} mm from {partner} at the farthest corner ({:.3} mm are tolerated): affine {} against {}",
            GEOMETRY_TOLERANCE * finest,
            b.affine,
            a.affine
        );
        let remedy = "resample one to the other's grid, copy the right header (for example with fslcpgeom), or go on all the \
                      same with --ignore-geometry";
        return Err(Error::data(second, problem, remedy));
    }
    Ok(())
}

/// Cosine of the angle between two axes from which they do not count as perpendicular: 0.6 degrees from it.
const SHEAR: f64 = 0.01;

/// Warnings of a grid that is readable, but hardly meant: spacings of 0, axes that are not perpendicular.
pub fn geometry(grid: &StoredGrid, path: &Path) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // With an affine the spacings are not used.
    if grid.sform_code <= 0 {
        for axis in (0..3).filter(|&axis| grid.pixdim[axis + 1] == 0.0) {
            warnings
                .push(Warning::new(path, format!("states a spacing of 0 mm along axis {axis}: 1 mm is taken instead")));
        }
    }
    let affine = grid.affine();
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let cosine = affine.cosine(a, b);
        if cosine.abs() > SHEAR {
            let degrees = cosine.acos().to_degrees();
            let problem = format!(
                "has axes {a} and {b} at {degrees:.1} degrees where scans have 90: distances are measured along the skewed grid"
            );
            warnings.push(Warning::new(path, problem));
        }
    }
    warnings
}

/// The image is a volume: more than one voxel.
///
/// # Errors
/// [`Error::Data`] if there is a single voxel.
pub fn has_extent(image: &Volume, path: &Path) -> Result<()> {
    if image.len() < 2 {
        return Err(Error::data(path, "has one voxel, which cannot be normalised or segmented", "give a whole scan"));
    }
    Ok(())
}

/// The image has the number of channels that the data set declares.
///
/// # Errors
/// [`Error::Data`] if not.
pub fn has_channels(channels: usize, declared: usize, path: &Path) -> Result<()> {
    if channels != declared {
        let problem = format!("has {channels} channels (modalities) where {declared} are declared");
        return Err(Error::data(path, problem, "correct the modalities in dataset.json, or give the matching files"));
    }
    Ok(())
}

/// All labels are among the declared classes; an empty list admits any.
///
/// # Errors
/// [`Error::Data`] with the undeclared values and their voxel counts.
pub fn declared_classes(labels: &Labels, classes: &[u8], path: &Path) -> Result<()> {
    if classes.is_empty() {
        return Ok(());
    }
    let counts = labels.histogram();
    let foreign: Vec<String> = (0..=255u8)
        .filter(|value| counts[*value as usize] > 0 && !classes.contains(value))
        .map(|value| format!("{value} ({} voxels)", counts[value as usize]))
        .collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let problem = format!("holds label values outside the declared classes {classes:?}: {}", foreign.join(", "));
    Err(Error::data(path, problem, "declare them in the data set's labels, or correct the file"))
}

/// A warning if every voxel is background.
pub fn foreground(labels: &Labels, path: &Path) -> Option<Warning> {
    labels.voxels.iter().all(|&v| v == 0).then(|| {
        Warning::new(path, "holds no foreground: the case teaches background only, and scores 1 if nothing is found")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::geometry::Affine;

    #[test]
    fn grids_are_compared_in_space() {
        let a = Geometry::from_affine(Affine::from_spacing([1.0, 1.0, 5.0]), [10, 10, 10]);
        let b = a.regrid([0.05, 0.0, 0.0], [1.0; 3], [10, 10, 10]);
        let c = a.regrid([0.0, 0.5, 0.0], [1.0; 3], [10, 10, 10]);
        let (image, label) = (Path::new("image.nii"), Path::new("label.nii"));
        same_grid((image, [10; 3], &a), (label, [10; 3], &b)).unwrap();
        let message = same_grid((image, [10; 3], &a), (label, [10; 3], &c)).unwrap_err().to_string();
        assert!(message.contains("0.500 mm") && message.contains("[0 1 0 0.5]"), "{message}");
        let message = same_grid((image, [10; 3], &a), (label, [10, 10, 9], &a)).unwrap_err().to_string();
        assert!(message.starts_with("label.nii") && message.contains("[10, 10, 9]"), "{message}");
    }

    #[test]
    fn classes_and_foreground() {
        let labels = Labels::new([1, 1, 4], vec![0, 1, 4, 4]);
        let path = Path::new("label.nii.gz");
        declared_classes(&labels, &[0, 1, 4], path).unwrap();
        declared_classes(&labels, &[], path).unwrap();
        let message = declared_classes(&labels, &[0, 1, 2], path).unwrap_err().to_string();
        assert!(message.contains("4 (2 voxels)") && message.contains("label.nii.gz"), "{message}");
        assert_eq!(foreground(&labels, path), None);
        let empty = foreground(&Labels::new([1, 1, 2], vec![0, 0]), path).unwrap();
        assert!(empty.to_string().starts_with("label.nii.gz: holds no foreground"));
    }
}
