//! Data sets: cases, classes, and who trains and who validates, whatever the layout on disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::check::{self, Warning};
use super::source::{Folder, Source};
use super::volume::{Axes, Labels, Volume};
use super::{brats, decathlon, lits};
use crate::rng::Rng;
use crate::{Error, Result};

/// One subject: files, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Unique in its data set; taken from the file or folder.
    pub name: String,
    /// One file with all channels, or one file a channel.
    pub images: Vec<Source>,
    /// The segmentation, if there is one.
    pub label: Option<Source>,
}

/// A value of the label files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// The stored value.
    pub value: u8,
    /// What it stands for.
    pub name: String,
}

/// Where the division into training and validation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The data set states it.
    Declared,
    /// Drawn: every fifth case, at least one, validates (see [`draw_split`]).
    Drawn {
        /// Seed of the draw.
        seed: u64,
    },
}

/// A data set, scanned but not read.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name, for tables and reports.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// Name of each image channel.
    pub channels: Vec<String>,
    /// Classes of the labels, background first, by value.
    pub classes: Vec<Class>,
    /// Cases to train on.
    pub training: Vec<Case>,
    /// Cases to validate on.
    pub validation: Vec<Case>,
    /// Where the division comes from.
    pub split: Split,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

/// A case in memory: checked, values as stored (not normalised).
#[derive(Debug, Clone)]
pub struct Scan {
    /// Name of the case.
    pub name: String,
    /// All channels.
    pub image: Volume,
    /// The segmentation, if the case has one.
    pub labels: Option<Labels>,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

impl Dataset {
    /// Scans the folder of a data set, whose layout is found by its files: Decathlon / nnU-Net (`dataset.json`), BraTS (a
    /// folder a subject), LiTS (`volume-N`, `segmentation-N`). `seed` draws the validation cases where the layout names
    /// none.
    ///
    /// # Errors
    /// [`Error::File`] if the folder does not exist, [`Error::Data`] if it is empty, of no known layout, or incomplete.
    pub fn open(path: &Path, seed: u64) -> Result<Self> {
        let folder = Folder::Disk(path.into());
        let names = folder.list("")?;
        if names.is_empty() {
            return Err(Error::data(path, "is an empty folder", "give the folder that holds the data set"));
        }
        if folder.file("dataset.json")?.is_some() {
            return decathlon::open(&folder, seed);
        }
        if let Some(found) = lits::open(&folder, seed)? {
            return Ok(found);
        }
        if let Some(found) = brats::open(&folder, seed)? {
            return Ok(found);
        }
        Err(Error::data(
            path,
            "is no data set of a known layout",
            "give a folder with dataset.json (Decathlon, nnU-Net), subject folders (BraTS) or volume-N files (LiTS)",
        ))
    }

    /// Values of the declared classes.
    pub fn class_values(&self) -> Vec<u8> {
        self.classes.iter().map(|class| class.value).collect()
    }

    /// Reads one of its cases; see [`Case::read`].
    ///
    /// # Errors
    /// As there, and if the channels are not as many as declared.
    pub fn read(&self, case: &Case, axes: Axes) -> Result<Scan> {
        let scan = case.read(&self.class_values(), axes)?;
        check::has_channels(&scan.image, self.channels.len(), case.images[0].path())?;
        Ok(scan)
    }

    /// Warns of cases that both train and validate.
    pub(super) fn warn_of_overlap(&mut self) {
        let training: BTreeSet<&str> = self.training.iter().map(|case| case.name.as_str()).collect();
        let both: Vec<&str> =
            self.validation.iter().map(|case| case.name.as_str()).filter(|name| training.contains(name)).collect();
        if !both.is_empty() {
            let problem =
                format!("trains and validates on the same case ({}): its scores are too good", both.join(", "));
            self.warnings.push(Warning::new(&self.path, problem));
        }
    }
}

impl Case {
    /// Reads and checks image and label: same grid, declared classes (an empty list admits any), finite voxels.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] naming the file at fault.
    pub fn read(&self, classes: &[u8], axes: Axes) -> Result<Scan> {
        let image = Volume::read_channels(&self.images, axes)?;
        let image_path = self.images[0].path();
        check::has_extent(&image, image_path)?;
        let mut warnings = Vec::new();
        let labels = match &self.label {
            None => None,
            Some(source) => {
                let labels = Labels::read(source, axes)?;
                let path = source.path();
                check::same_grid((image_path, image.shape, &image.geometry), (path, labels.shape, &labels.geometry))?;
                check::declared_classes(&labels, classes, path)?;
                warnings.extend(check::foreground(&labels, path));
                Some(labels)
            }
        };
        Ok(Scan { name: self.name.clone(), image, labels, warnings })
    }
}

/// Divides cases where the data set does not: they are put in order by name and shuffled with `seed`; the first fifth (at
/// least one) validates. The same cases and seed give the same division on any machine. A single case does both, which
/// [`Dataset::warnings`] says.
pub fn draw_split(mut cases: Vec<Case>, seed: u64) -> (Vec<Case>, Vec<Case>) {
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    if cases.len() == 1 {
        return (cases.clone(), cases);
    }
    let mut order: Vec<usize> = (0..cases.len()).collect();
    Rng::named(seed, "split").shuffle(&mut order);
    let chosen: BTreeSet<usize> = order.into_iter().take((cases.len() / 5).max(1)).collect();
    let (mut training, mut validation) = (Vec::new(), Vec::new());
    for (index, case) in cases.into_iter().enumerate() {
        if chosen.contains(&index) { validation.push(case) } else { training.push(case) }
    }
    (training, validation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(n: usize) -> Vec<Case> {
        (0..n).map(|i| Case { name: format!("case{i:03}"), images: vec![], label: None }).collect()
    }

    #[test]
    fn the_drawn_split_depends_on_names_and_seed_alone() {
        let (training, validation) = draw_split(cases(23), 5);
        assert_eq!((training.len(), validation.len()), (19, 4));
        let mut reversed = cases(23);
        reversed.reverse();
        assert_eq!(draw_split(reversed, 5), (training.clone(), validation.clone()));
        assert_ne!(draw_split(cases(23), 6).1, validation);
        assert!(validation.iter().all(|case| !training.contains(case)));
        assert_eq!(draw_split(cases(2), 1).1.len(), 1);
        assert_eq!(draw_split(cases(1), 1).0.len(), 1);
    }
}
