//! What a data set holds and what is wrong with it, from its headers alone or from every voxel.
//!
//! Nothing stops at the first fault: a case that cannot be used is described by its problems, and the rest goes on.

use std::path::Path;

use serde::Serialize;

use super::dataset::{Case, Class, Dataset, Layout, Scan, Scanned, Split};
use super::geometry::{Geometry, Orientation};
use super::nifti::{self, Header};
use super::parallel::in_parallel;
use super::source::Source;
use super::validate::{self, Warning};
use super::volume::{Axes, Labels};
use crate::files::name::file_name;
use crate::{Error, Result};

/// How thorough the look is.
#[derive(Debug, Clone, Copy, Default)]
pub struct InspectOptions {
    /// Read every voxel: label values, volumes, intensities, damaged files.
    pub full: bool,
    /// Do not compare where the files of a case lie.
    pub ignore_geometry: bool,
    /// Seed of a drawn division.
    pub seed: u64,
}

/// A data set, or a single file, described.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Its name.
    pub name: String,
    /// How it is laid out; `None` for a single file.
    pub layout: Option<Layout>,
    /// Name of each image channel.
    pub channels: Vec<String>,
    /// Declared classes: value and name.
    pub classes: Vec<(u8, String)>,
    /// The value of voxels that are neither trained on nor scored, if the data set declares one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore: Option<u8>,
    /// Where the division into training and validation comes from.
    pub split: &'static str,
    /// True if every voxel was read.
    pub full: bool,
    /// Every case: training, validation, test, by name within each.
    pub cases: Vec<CaseInspection>,
    /// What is wrong or odd beyond single cases, and cases that are incomplete.
    pub problems: Vec<String>,
}

/// One case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseInspection {
    /// Its name.
    pub name: String,
    /// What it is for: training, validation, test.
    pub part: &'static str,
    /// Its files, the label last.
    pub files: Vec<String>,
    /// Voxels along the file's axes.
    pub shape: [usize; 3],
    /// Image channels.
    pub channels: usize,
    /// Distance between neighbours along the file's axes, in mm.
    pub spacing: [f64; 3],
    /// Where the file's axes run, for example RAS or LPS.
    pub orientation: String,
    /// Type of the stored voxels.
    pub datatype: &'static str,
    /// What the labels hold, if they were read: value, name, voxels, millilitres.
    pub labels: Vec<LabelInspection>,
    /// What each channel holds, if it was read.
    pub intensities: Vec<Intensities>,
    /// What is wrong or odd.
    pub problems: Vec<String>,
}

/// One value of a label file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelInspection {
    /// The stored value.
    pub value: u8,
    /// Its class, if it is declared.
    pub name: Option<String>,
    /// How many voxels have it.
    pub voxels: u64,
    /// Their volume.
    pub millilitres: f64,
}

/// Values of one channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intensities {
    /// The lowest.
    pub low: f32,
    /// The highest.
    pub high: f32,
    /// Their mean.
    pub mean: f64,
    /// Their unbiased standard deviation.
    pub std: f64,
}

/// Looks at a data set's folder, at an embedded task (`sample:heads`), or at a single image file. `progress` hears of each
/// case that is done and of how many there are.
///
/// # Errors
/// A path that does not exist, or a folder that is no data set.
pub fn inspect(
    path: &Path,
    options: InspectOptions,
    progress: impl Fn(&str, usize) + Sync,
) -> Result<(Inspection, Dataset)> {
    let (Scanned { mut dataset, problems }, layout) = if path.is_dir() {
        let scanned = Dataset::scan(path, options.seed)?;
        let layout = scanned.dataset.layout;
        (scanned, Some(layout))
    } else if let Some(dataset) = embedded_task(path) {
        let dataset = dataset?;
        let layout = dataset.layout;
        (Scanned { dataset, problems: Vec::new() }, Some(layout))
    } else {
        (Scanned { dataset: single_file(path)?, problems: Vec::new() }, None)
    };
    dataset.ignore_geometry = options.ignore_geometry;
    let mut extra = Vec::new();
    let cases: Vec<(&'static str, &Case)> = dataset.cases().collect();
    let facts = in_parallel(cases.len(), 0, |index| {
        let (part, case) = cases[index];
        let facts = look(&dataset, case, if layout.is_some() { part } else { "file" }, options);
        progress(&case.name, cases.len());
        facts
    });
    let (mut facts, odd): (Vec<CaseInspection>, Vec<Vec<Warning>>) = facts.into_iter().unzip();
    // What many cases have in common is said once, at the first of them.
    for warning in validate::grouped(odd.into_iter().flatten()) {
        let path = warning.path.display().to_string();
        let text = warning.to_string();
        match facts.iter_mut().find(|case| case.files.contains(&path)) {
            Some(case) => case.problems.push(text),
            None => extra.push(text),
        }
    }
    let mut problems: Vec<String> = problems.iter().map(Error::to_string).collect();
    problems.extend(dataset.warnings.iter().map(ToString::to_string));
    problems.extend(extra);
    problems.extend(odd_ones(&facts));
    if options.full {
        problems.extend(absent_classes(&dataset.classes, &facts));
    }
    let inspection = Inspection {
        name: dataset.name.clone(),
        layout,
        channels: dataset.channels.clone(),
        classes: dataset.classes.iter().map(|class| (class.value, class.name.clone())).collect(),
        ignore: dataset.ignore,
        split: match dataset.split {
            Split::Declared => "declared by the data set",
            Split::Official => "the authors'",
            Split::Drawn { .. } => "drawn",
            Split::Fold { .. } => "a fold",
        },
        full: options.full,
        cases: facts,
        problems,
    };
    Ok((inspection, dataset))
}

/// The embedded task that `sample:TASK` names.
#[cfg(feature = "train")]
fn embedded_task(path: &Path) -> Option<Result<Dataset>> {
    use super::embedded;
    path.to_str().and_then(|path| path.strip_prefix(embedded::SAMPLE)).map(embedded::open)
}

/// Nothing is embedded where nothing is trained.
#[cfg(not(feature = "train"))]
fn embedded_task(_: &Path) -> Option<Result<Dataset>> {
    None
}

/// A file as a data set of one case without a label.
fn single_file(path: &Path) -> Result<Dataset> {
    let source = Source::File(path.into());
    let header = nifti::read_header(&source)?;
    let name = file_name(path);
    // Of a file that cannot hold what its header claims nothing is named: the case's own facts say what is wrong.
    let count = nifti::probe(&source).map_or(0, |_| header.channels());
    let channels = (0..count).map(|channel| format!("channel {channel}")).collect();
    Ok(Dataset {
        name: name.clone(),
        path: path.into(),
        layout: Layout::Decathlon,
        channels,
        classes: Vec::new(),
        ignore: None,
        aliases: Vec::new(),
        training: Vec::new(),
        validation: Vec::new(),
        test: vec![Case { name, images: vec![source], label: None }],
        split: Split::Declared,
        clip: None,
        ignore_geometry: false,
        warnings: Vec::new(),
    })
}

/// One case, from its headers or whole, and what is odd about it, which does not keep it from being used.
fn look(dataset: &Dataset, case: &Case, part: &'static str, options: InspectOptions) -> (CaseInspection, Vec<Warning>) {
    let mut odd = Vec::new();
    let sources: Vec<&Source> = case.images.iter().chain(&case.label).collect();
    let mut facts = CaseInspection {
        name: case.name.clone(),
        part,
        files: sources.iter().map(|source| source.path().display().to_string()).collect(),
        shape: [0; 3],
        channels: 0,
        spacing: [0.0; 3],
        orientation: String::new(),
        datatype: "",
        labels: Vec::new(),
        intensities: Vec::new(),
        problems: Vec::new(),
    };
    let mut headers: Vec<Option<Header>> = Vec::new();
    for source in &sources {
        match nifti::probe(source) {
            Ok(header) => headers.push(Some(header)),
            Err(problem) => {
                facts.problems.push(problem.to_string());
                headers.push(None);
            }
        }
    }
    let images = &headers[..case.images.len()];
    if let Some(header) = images.first().and_then(Option::as_ref) {
        let affine = header.grid.affine();
        facts.shape = header.shape();
        facts.spacing = affine.spacing();
        facts.orientation = Orientation::letters(&affine);
        facts.datatype = header.datatype.name();
        facts.channels = images.iter().flatten().map(Header::channels).sum();
        let path = case.images[0].path();
        let seen = if options.ignore_geometry { 1 } else { headers.len() };
        let read =
            sources.iter().zip(&headers).take(seen).filter_map(|(source, header)| Some((source, header.as_ref()?)));
        odd.extend(read.flat_map(|(source, header)| validate::geometry(&header.grid, source.path())));
        facts.problems.extend(compare(case, &headers, options.ignore_geometry));
        if images.iter().all(Option::is_some) && facts.channels != dataset.channels.len() {
            let problem = validate::has_channels(facts.channels, dataset.channels.len(), path);
            facts.problems.extend(problem.err().map(|problem| problem.to_string()));
        }
    }
    // What the headers refuse would only be refused again.
    if options.full && facts.problems.is_empty() {
        match dataset.read(case, Axes::Canonical) {
            Ok(scan) => {
                let ignored = dataset.ignore.map(|value| Class { value, name: "(ignored)".into() });
                let classes: Vec<Class> = dataset.classes.iter().cloned().chain(ignored).collect();
                fill_in(&mut facts, &scan, &classes);
                odd = scan.warnings;
            }
            Err(problem) => facts.problems.push(problem.to_string()),
        }
    }
    (facts, odd)
}

/// Where the other files of a case do not fit the first.
fn compare(case: &Case, headers: &[Option<Header>], ignore_geometry: bool) -> Vec<String> {
    let sources: Vec<&Source> = case.images.iter().chain(&case.label).collect();
    let grid = |header: &Header| {
        let geometry = Geometry::new(header.grid, true);
        (geometry.orientation.shape(header.shape()), geometry)
    };
    let mut problems = Vec::new();
    let Some(Some(first)) = headers.first() else { return problems };
    let (shape, geometry) = grid(first);
    for (source, header) in sources.iter().zip(headers).skip(1) {
        let Some(header) = header else { continue };
        let (other, mut place) = grid(header);
        if ignore_geometry {
            place = geometry;
        }
        let fits = validate::same_grid((sources[0].path(), shape, &geometry), (source.path(), other, &place));
        problems.extend(fits.err().map(|problem| problem.to_string()));
        if header.channels() != 1 {
            let problem = format!("has {} channels where one volume is due", header.channels());
            let problem = Error::data(source.path(), problem, "split it into one file a channel");
            problems.push(problem.to_string());
        }
    }
    problems
}

/// What only the voxels tell.
fn fill_in(facts: &mut CaseInspection, scan: &Scan, classes: &[Class]) {
    for (channel, stats) in scan.image.stats().iter().enumerate() {
        let values = || scan.image.voxels.iter().skip(channel).step_by(scan.image.channels).copied();
        let (low, high) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
        facts.intensities.push(Intensities { low, high, mean: stats.mean, std: stats.std });
    }
    if let Some(labels) = &scan.labels {
        facts.labels = volumes(labels, classes);
    }
}

/// The values that labels hold, with their volumes.
pub fn volumes(labels: &Labels, classes: &[Class]) -> Vec<LabelInspection> {
    let counts = labels.histogram();
    let held = (0..=255u8).filter(|&value| counts[value as usize] > 0);
    held.map(|value| LabelInspection {
        value,
        name: classes.iter().find(|class| class.value == value).map(|class| class.name.clone()),
        voxels: counts[value as usize],
        millilitres: labels.geometry.affine.millilitres(counts[value as usize]),
    })
    .collect()
}

/// Cases whose spacing is far from the others': mostly a wrong header.
fn odd_ones(facts: &[CaseInspection]) -> Vec<String> {
    const FAR: f64 = 4.0;
    let mut volumes: Vec<f64> =
        facts.iter().filter(|case| case.channels > 0).map(|case| case.spacing.iter().product()).collect();
    if volumes.len() < 3 {
        return Vec::new();
    }
    volumes.sort_unstable_by(f64::total_cmp);
    let median: f64 = volumes[volumes.len() / 2];
    let far = |case: &&CaseInspection| {
        let ratio = case.spacing.iter().product::<f64>() / median;
        case.channels > 0 && !(1.0 / FAR.powi(3)..=FAR.powi(3)).contains(&ratio)
    };
    let describe = |case: &CaseInspection| {
        format!(
            "{}: its voxels of {} mm are far from the other cases'; check the header's spacing",
            case.files[0],
            millimetres(case.spacing)
        )
    };
    facts.iter().filter(far).map(describe).collect()
}

/// Declared classes that no case holds.
fn absent_classes(classes: &[Class], facts: &[CaseInspection]) -> Vec<String> {
    if facts.iter().all(|case| case.labels.is_empty()) {
        return Vec::new();
    }
    let held = |value: u8| facts.iter().flat_map(|case| &case.labels).any(|label| label.value == value);
    let absent = classes.iter().filter(|class| !held(class.value));
    absent.map(|class| format!("class {} ({}) is declared but no case holds it", class.value, class.name)).collect()
}

/// Spacings in words: `1 × 1 × 2.5`.
pub fn millimetres(spacing: [f64; 3]) -> String {
    spacing.map(|mm| format!("{}", (mm * 1000.0).round() / 1000.0)).join(" × ")
}
