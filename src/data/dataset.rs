//! Data sets: cases, classes, and who trains and who validates, whatever the layout on disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::geometry::Geometry;
use super::source::{Folder, Source};
use super::validate::{self, Warning};
use super::volume::{Axes, Labels, Volume};
use super::{border_file, brats, ct_window, decathlon, lits, nifti};
use crate::files::name::path_of;
use crate::order;
use crate::rng::Rng;
use crate::text::plural;
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
    /// The authors of the method chose it (BraTS 2020).
    Official,
    /// Drawn: every fifth case, at least one, validates (see [`draw_split`]).
    Drawn {
        /// Seed of the draw.
        seed: u64,
    },
    /// A fold of a cross-validation (see [`Folds`](super::Folds)).
    Fold {
        /// Seed of the draw.
        seed: u64,
    },
}

/// How a folder is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// A folder a subject.
    Brats,
    /// `input/volume-N`, `segmentation/segmentation-N`.
    LitsFolders,
    /// `volume-N` beside `segmentation-N`.
    LitsFlat,
    /// `dataset.json` that lists its cases.
    Decathlon,
    /// `dataset.json` with an image file a channel: `CASE_0000.nii.gz`.
    NnUNet,
}

impl Layout {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Brats => "BraTS",
            Layout::LitsFolders => "LiTS (folders)",
            Layout::LitsFlat => "LiTS (flat)",
            Layout::Decathlon => "Decathlon",
            Layout::NnUNet => "nnU-Net",
        }
    }
}

/// What a look at a folder gave: the cases that are complete, and what is wrong with the others.
#[derive(Debug)]
pub struct Scanned {
    /// The complete cases.
    pub dataset: Dataset,
    /// One error for each file or case that cannot be used.
    pub problems: Vec<Error>,
}

/// A data set, scanned but not read.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Its name, for tables and reports.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// How it is laid out.
    pub layout: Layout,
    /// Name of each image channel.
    pub channels: Vec<String>,
    /// Classes of the labels, background first, by value.
    pub classes: Vec<Class>,
    /// The label value of voxels that nobody has looked at: neither trained on nor scored.
    pub ignore: Option<u8>,
    /// Label values that files may hold in the place of declared ones: what is stored, what it is read as.
    pub aliases: Vec<[u8; 2]>,
    /// Cases to train on.
    pub training: Vec<Case>,
    /// Cases to validate on.
    pub validation: Vec<Case>,
    /// Cases without labels, which are neither trained on nor scored.
    pub test: Vec<Case>,
    /// Where the division comes from.
    pub split: Split,
    /// Limits of the stored values that suit it (Hounsfield units), unless the user says otherwise.
    pub clip: Option<ct_window::Limits>,
    /// True if files of a case are taken to lie on one grid whatever their headers say; see [`Case::read_with`].
    pub ignore_geometry: bool,
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
    /// The border map that lies beside it on disk, if there is one, in the labels' order.
    pub border: Option<Vec<u8>>,
    /// The value in the labels of voxels that nobody has looked at.
    pub ignore: Option<u8>,
    /// What is odd about it.
    pub warnings: Vec<Warning>,
}

impl Dataset {
    /// Scans the folder of a data set, whose layout is found by its files: Decathlon / nnU-Net (`dataset.json`), BraTS (a
    /// folder a subject), LiTS (`volume-N`, `segmentation-N`). `seed` draws the validation cases where nothing names them.
    ///
    /// # Errors
    /// [`Error::File`] if the folder does not exist, [`Error::Data`] if it is empty, of no known layout, or incomplete.
    pub fn open(path: &Path, seed: u64) -> Result<Self> {
        let Scanned { dataset, mut problems } = Self::scan(path, seed)?;
        let more = problems.len().saturating_sub(1);
        match problems.drain(..).next() {
            None => Ok(dataset),
            Some(Error::Data { path, problem, remedy }) if more > 0 => {
                let remedy = format!("{remedy} (and {}, which ossnet inspect lists)", plural(more, "more problem"));
                Err(Error::Data { path, problem, remedy })
            }
            Some(first) => Err(first),
        }
    }

    /// As [`Dataset::open`], but goes on past cases that cannot be used.
    ///
    /// # Errors
    /// As there, except for incomplete cases.
    pub fn scan(path: &Path, seed: u64) -> Result<Scanned> {
        let folder = Folder::Disk(path.into());
        let names = folder.list("")?;
        if names.is_empty() {
            return Err(Error::data(path, "is an empty folder", "give the folder that holds the data set"));
        }
        if let Some(found) = scan_layouts(&folder, seed)? {
            return Ok(found);
        }
        // The folder around a data set is what unpacking an archive leaves.
        let inner = names
            .iter()
            .map(|name| path_of(path, name))
            .filter(|inner| inner.is_dir())
            .find(|inner| scan_layouts(&Folder::Disk(inner.clone()), seed).is_ok_and(|found| found.is_some()));
        let remedy = match inner {
            Some(inner) => format!("give the folder {}, which is one", inner.display()),
            None if path.join("labelsTr").is_dir() => {
                "add the dataset.json that names channels and labels of imagesTr and labelsTr".into()
            }
            None => {
                "give a folder with dataset.json (Decathlon, nnU-Net), subject folders (BraTS) or volume-N files (LiTS)"
                    .into()
            }
        };
        Err(Error::data(path, "is no data set of a known layout", remedy))
    }

    /// All cases with what they are for: training, validation, test.
    pub fn cases(&self) -> impl Iterator<Item = (&'static str, &Case)> {
        let parts = [("training", &self.training), ("validation", &self.validation), ("test", &self.test)];
        parts.into_iter().flat_map(|(part, cases)| cases.iter().map(move |case| (part, case)))
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
        let stored = self.aliases.iter().map(|alias| alias[0]);
        let values: Vec<u8> = self.class_values().into_iter().chain(stored).chain(self.ignore).collect();
        let mut scan = case.read_with(&values, axes, self.ignore_geometry)?;
        validate::has_channels(scan.image.channels, self.channels.len(), case.images[0].path())?;
        scan.ignore = self.ignore;
        if let (Some(labels), Some(source)) = (&mut scan.labels, &case.label) {
            let counts = labels.histogram();
            let mut table: [u8; 256] = std::array::from_fn(|value| value as u8);
            for [stored, meant] in self.aliases.iter().filter(|[stored, _]| counts[usize::from(*stored)] > 0) {
                table[usize::from(*stored)] = *meant;
                let problem = format!("holds the label {stored}, which is read as {meant}");
                scan.warnings.push(Warning::new(source.path(), problem));
            }
            if table.iter().enumerate().any(|(value, meant)| value != usize::from(*meant)) {
                *labels = labels.mapped(&table);
            }
            if let Some(ignore) = self.ignore {
                validate::known(labels, ignore, source.path())?;
                scan.warnings.extend(validate::foreground_beside(labels, ignore, source.path()));
            }
        }
        Ok(scan)
    }

    /// Checks the headers of the cases that train and validate, so that a fault stops the work before it has begun.
    ///
    /// # Errors
    /// Those of [`Case::check_headers`], of the first case at fault, and if channels are not as many as declared.
    pub fn check_headers(&self) -> Result<()> {
        self.training.iter().chain(&self.validation).try_for_each(|case| self.check_headers_of(case))
    }

    /// The same for one of its cases.
    ///
    /// # Errors
    /// As there.
    pub fn check_headers_of(&self, case: &Case) -> Result<()> {
        let channels = case.check_headers(self.ignore_geometry)?;
        validate::has_channels(channels, self.channels.len(), case.images[0].path())
    }

    /// Warns of cases that both train and validate.
    pub(super) fn warn_of_overlap(&mut self) {
        let training: BTreeSet<&str> = order::set(self.training.iter().map(|case| case.name.as_str()));
        let both: Vec<&str> =
            self.validation.iter().map(|case| case.name.as_str()).filter(|name| training.contains(name)).collect();
        if !both.is_empty() {
            let problem = format!(
                "trains and validates on the same case ({}): its scores will be optimistically biased",
                both.join(", ")
            );
            self.warnings.push(Warning::of_the_division(&self.path, problem));
        }
    }
}

/// The first layout that the folder's files fit.
fn scan_layouts(folder: &Folder, seed: u64) -> Result<Option<Scanned>> {
    if folder.file("dataset.json")?.is_some() {
        return decathlon::scan(folder, seed).map(Some);
    }
    if let Some(found) = lits::scan(folder, seed)? {
        return Ok(Some(found));
    }
    brats::scan(folder, seed)
}

impl Case {
    /// Shape and place of the image as it would be in memory, by the header of its first file, which is long enough for it.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] if that cannot be read or promises more than the file can hold.
    pub fn grid(&self, axes: Axes) -> Result<([usize; 3], Geometry)> {
        let header = nifti::probe(&self.images[0])?;
        let geometry = Geometry::new(header.grid, axes == Axes::Canonical);
        Ok((geometry.orientation.shape(header.shape()), geometry))
    }

    /// Checks what the headers of all its files tell, without reading voxels: long enough for what they declare, on one grid
    /// (with `ignore_geometry`, of one shape), one channel each where they are several. Returns the number of image channels.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] naming the file at fault.
    pub fn check_headers(&self, ignore_geometry: bool) -> Result<usize> {
        let mut first: Option<(&Path, [usize; 3], Geometry)> = None;
        let mut channels = 0;
        for (number, source) in self.images.iter().chain(&self.label).enumerate() {
            let header = nifti::probe(source)?;
            let mut geometry = Geometry::new(header.grid, true);
            let shape = geometry.orientation.shape(header.shape());
            match &first {
                None => first = Some((source.path(), shape, geometry)),
                Some((path, expected, place)) => {
                    if ignore_geometry {
                        geometry = *place;
                    }
                    validate::same_grid((path, *expected, place), (source.path(), shape, &geometry))?;
                }
            }
            let is_label = number >= self.images.len();
            if (is_label || self.images.len() > 1) && header.channels() != 1 {
                let problem = format!("has {} channels where one volume is due", header.channels());
                return Err(Error::data(source.path(), problem, "split it into one file a channel"));
            }
            channels += if is_label { 0 } else { header.channels() };
        }
        Ok(channels)
    }

    /// Reads and checks image and label: same grid, declared classes (an empty list admits any), finite voxels.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Data`] naming the file at fault.
    pub fn read(&self, classes: &[u8], axes: Axes) -> Result<Scan> {
        self.read_with(classes, axes, false)
    }

    /// As [`Case::read`]; with `ignore_geometry`, all files are taken to lie where the header of the first says, voxel by
    /// voxel in the files' own order.
    ///
    /// # Errors
    /// As there.
    pub fn read_with(&self, classes: &[u8], axes: Axes, ignore_geometry: bool) -> Result<Scan> {
        let image = Volume::read_channels(&self.images, axes, ignore_geometry)?;
        let image_path = self.images[0].path();
        validate::has_extent(image.shape, image_path)?;
        let mut warnings: Vec<Warning> = validate::geometry(&image.geometry.stored, image_path);
        for source in self.images.iter().skip(1).filter(|_| !ignore_geometry) {
            warnings.extend(validate::geometry(&nifti::read_header(source)?.grid, source.path()));
        }
        warnings.extend(validate::contrast(&image, image_path));
        let mut border = None;
        let labels = match &self.label {
            None => None,
            Some(source) => {
                let grid = ignore_geometry.then_some(&image.geometry.stored);
                let labels = Labels::read_on(source, axes, grid)?;
                let path = source.path();
                validate::same_grid(
                    (image_path, image.shape, &image.geometry),
                    (path, labels.shape, &labels.geometry),
                )?;
                validate::declared_classes(&labels, classes, path)?;
                if !ignore_geometry {
                    warnings.extend(validate::geometry(&labels.geometry.stored, path));
                }
                warnings.extend(validate::foreground(&labels, path));
                if let Some(map) = border_file::find(source) {
                    border = Some(border_file::read(&map, source, &labels, axes)?);
                }
                Some(labels)
            }
        };
        Ok(Scan { name: self.name.clone(), image, labels, border, ignore: None, warnings })
    }
}

/// Divides cases where the data set does not: they are put in order by name and shuffled with `seed`; the first fifth (at
/// least one) validates. The same cases and seed give the same division on any machine. A single case does both, which
/// [`Dataset::warnings`] says.
pub fn draw_split(mut cases: Vec<Case>, seed: u64) -> (Vec<Case>, Vec<Case>) {
    order::by_name(&mut cases, |case| &case.name);
    if cases.len() == 1 {
        return (cases.clone(), cases);
    }
    let mut order: Vec<usize> = (0..cases.len()).collect();
    Rng::named(seed, "split").shuffle(&mut order);
    let chosen: BTreeSet<usize> = order::set(order.into_iter().take((cases.len() / 5).max(1)));
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
