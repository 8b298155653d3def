//! What an image and its label must agree on before anything is trained or scored.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use super::geometry::{GEOMETRY_TOLERANCE, Geometry, Orientation, StoredGrid};
use super::volume::{Labels, Volume};
use crate::text::plural;
use crate::{Error, Result};

/// Something that is probably wrong, but does not stop the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The file or folder.
    pub path: PathBuf,
    /// What to look at.
    pub problem: String,
    division: bool,
}

impl Warning {
    /// A warning about `path`.
    pub fn new(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self { path: path.as_ref().into(), problem: problem.into(), division: false }
    }

    /// That the declared division trains and validates on the same cases, or validates on none.
    pub(super) fn of_the_division(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self { division: true, ..Self::new(path, problem) }
    }

    /// Whether it is about the division into training and validation alone.
    pub(super) fn is_of_the_division(&self) -> bool {
        self.division
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

/// Codes of an `sform` from which on it leads into an atlas (Talairach, MNI, another template), where a scan may lie and be
/// scaled as it never was in the scanner.
const ATLAS: i32 = 3;

/// Share by which the header's spacings may differ from those of the affine that is used.
const SPACING_TOLERANCE: f64 = 0.01;

/// Warnings of a grid that is readable, but hardly meant: no unit, no statement of left and right, statements that contradict
/// each other, spacings of 0, axes that are not perpendicular.
pub fn geometry(grid: &StoredGrid, path: &Path) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |problem: String| warnings.push(Warning::new(path, problem));
    if !grid.has_units() {
        warn("does not say in which unit its lengths are: mm are taken".into());
    }
    if grid.sform_code <= 0 && grid.qform_code <= 0 {
        warn(
            "does not say where its axes run (sform and qform codes are 0): they are taken to run to the right, to the front \
             and up, which may exchange left and right"
                .into(),
        );
    }
    contradictions(grid).into_iter().for_each(warn);
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

/// What two statements of a header say differently.
fn contradictions(grid: &StoredGrid) -> Vec<String> {
    let mut problems = Vec::new();
    let used = grid.affine();
    if let Some(qform) = grid.qform().filter(|qform| grid.sform_code > 0 && qform.is_valid()) {
        let [first, second] = [&used, &qform].map(Orientation::letters);
        let finest = used.spacing().into_iter().chain(qform.spacing()).fold(f64::INFINITY, f64::min);
        let distance = used.corner_distance(&qform, grid.shape);
        if first != second {
            problems.push(format!(
                "has an sform whose axes run to {first} and a qform whose axes run to {second}: the sform is taken; check \
                 left and right"
            ));
        } else if grid.sform_code < ATLAS && distance > GEOMETRY_TOLERANCE * finest {
            problems.push(format!(
                "has an sform and a qform that put a corner {distance:.3} mm apart: the sform is taken ({used} against {qform})"
            ));
        }
    }
    let (spacing, stated) = (used.spacing(), [1, 2, 3].map(|k| grid.pixdim[k].abs()));
    let differs = |k: usize| stated[k] > 0.0 && (spacing[k] - stated[k]).abs() > SPACING_TOLERANCE * stated[k];
    if (0..3).any(|k| grid.shape[k] > 1 && differs(k)) {
        let mm = |spacing: [f64; 3]| spacing.map(|mm| format!("{}", (mm * 1e4).round() / 1e4)).join(" × ");
        problems.push(format!(
            "states voxels of {} mm (pixdim) and has an sform with voxels of {} mm, which is taken: volumes and distances \
             follow from it",
            mm(stated),
            mm(spacing)
        ));
    }
    problems
}

/// Warnings that say the same of several files as one, which names the first and counts the others.
pub fn grouped(warnings: impl IntoIterator<Item = Warning>) -> Vec<Warning> {
    let mut groups: Vec<(Warning, BTreeSet<PathBuf>)> = Vec::new();
    let mut place: HashMap<String, usize> = HashMap::new();
    for warning in warnings {
        match place.get(&warning.problem) {
            Some(&at) => {
                groups[at].1.insert(warning.path);
            }
            None => {
                place.insert(warning.problem.clone(), groups.len());
                groups.push((warning.clone(), BTreeSet::from([warning.path])));
            }
        }
    }
    let count = |(mut warning, paths): (Warning, BTreeSet<PathBuf>)| {
        match paths.len() - 1 {
            0 => {}
            1 => warning.problem.push_str(" (also another file)"),
            more => warning.problem.push_str(&format!(" (also {more} other files)")),
        }
        warning
    };
    groups.into_iter().map(count).collect()
}

/// Warnings of channels that have one value everywhere.
pub fn contrast(image: &Volume, path: &Path) -> Vec<Warning> {
    let channels = image.channels.max(1);
    let Some(first) = image.voxels.get(..channels) else { return Vec::new() };
    let mut constant = vec![true; channels];
    for voxel in image.voxels.chunks_exact(channels) {
        constant
            .iter_mut()
            .zip(voxel.iter().zip(first))
            .for_each(|(constant, (value, first))| *constant &= value == first);
        if !constant.contains(&true) {
            return Vec::new();
        }
    }
    let which = |channel: usize| if channels == 1 { "is".into() } else { format!("has a channel {channel} that is") };
    let blank = (0..channels).filter(|&channel| constant[channel]);
    blank
        .map(|channel| {
            Warning::new(path, format!("{} {} everywhere: there is nothing to see", which(channel), first[channel]))
        })
        .collect()
}

/// The image is a volume: more than one voxel.
///
/// # Errors
/// [`Error::Data`] if there is a single voxel.
pub fn has_extent(shape: [usize; 3], path: &Path) -> Result<()> {
    if shape == [1; 3] {
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
        .map(|value| format!("{value} ({})", plural(counts[value as usize] as usize, "voxel")))
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

/// Somebody has looked at some of the voxels.
///
/// # Errors
/// [`Error::Data`] if all are `ignore`.
pub fn known(labels: &Labels, ignore: u8, path: &Path) -> Result<()> {
    if labels.voxels.iter().all(|&value| value == ignore) {
        let problem = format!("holds nothing but the value {ignore}, which is ignored");
        return Err(Error::data(path, problem, "leave the case out, or annotate a part of it"));
    }
    Ok(())
}

/// A warning if every voxel is background or ignored; one that is background everywhere is [`foreground`]'s.
pub fn foreground_beside(labels: &Labels, ignore: u8, path: &Path) -> Option<Warning> {
    let nothing = labels.voxels.iter().all(|&value| value == 0 || value == ignore) && labels.voxels.contains(&ignore);
    nothing.then(|| Warning::new(path, "holds no foreground beside what is ignored: the case teaches background only"))
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
