//! The Medical Segmentation Decathlon's layout, and nnU-Net's, which grew from it.
//!
//! `dataset.json` names modalities and labels and lists the training cases. Read beyond the Decathlon's own: an extra list
//! `validation`, or folds of MONAI's lists; images split by modality (`CASE_0000.nii.gz`, `CASE_0001.nii.gz`, …) or listed one
//! by one; nnU-Net version 2, which has `channel_names`, labels as name → value, `ignore` for what nobody looked at, and lists
//! no cases (`labelsTr` does) or lists them in the dictionary `dataset`.

mod classes;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::channels::{channel_of, group};
use super::dataset::{Case, Class, Dataset, Layout, Scanned, Split, draw_split};
use super::nifti::{read_header, split_ending};
use super::source::{Folder, Source};
use super::validate::Warning;
use super::{brats, ct_window};
use crate::files::name::{file_name, path_of, text_of};
use crate::order;
use crate::{Error, Result};
use lists::Entry;

/// No honest `dataset.json` is larger.
const MAX_JSON: u64 = 64 << 20;

/// Endings of images and labels that can be read.
const ENDINGS: [&str; 5] = [".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz"];

/// Scans a folder with a `dataset.json`. Images are looked up, not read; a file that is named and does not exist is a
/// problem.
///
/// # Errors
/// [`Error::Data`] if the description is missing or malformed.
pub fn scan(folder: &Folder, seed: u64) -> Result<Scanned> {
    let Some(source) = folder.file("dataset.json")? else {
        return Err(Error::data(folder.path(), "has no dataset.json", "give the folder that holds it"));
    };
    let description = Description::parse(&source)?;
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let lists = description.lists()?;
    let listed = !lists.training.is_empty();
    let (mut training, mut folds) = description.cases(folder, &lists.training, &lists.names, &mut problems)?;
    if !listed {
        training = found_cases(folder, description.channels.len(), &mut problems)?;
        folds = Vec::new();
    }
    let mut layout = Layout::Decathlon;
    if !listed
        || lists.training.iter().any(|entry| entry.key.is_some())
        || training.iter().any(|case| case.images.len() > 1)
    {
        layout = Layout::NnUNet;
    }
    if training.is_empty() && problems.is_empty() {
        return Err(description.wrong("lists no training cases", "fill its list 'training', or the folder labelsTr"));
    }
    let (validation, _) = description.cases(folder, &lists.validation, &lists.names, &mut problems)?;
    let declared = description.json.contains_key("validation");
    warnings.extend(description.wrong_count(training.len(), validation.len(), problems.len()));
    if listed {
        warnings.extend(unlisted(folder, training.iter().chain(&validation)));
    }
    let (training, validation, split) = match (declared, divide_by_fold(&training, &folds)) {
        (true, _) => (training, validation, Split::Declared),
        (false, Some((training, validation))) => (training, validation, Split::Declared),
        (false, None) => {
            let (training, validation) = draw_split(training, seed);
            (training, validation, Split::Drawn { seed })
        }
    };
    let test = description.test_cases(folder, &mut warnings)?;
    let name = description.json.get("name").and_then(Value::as_str).map(str::to_owned);
    let name = name.or_else(|| Some(text_of(folder.path().file_name()?)));
    let clip = description.channels.iter().all(|name| ct_window::is_ct(name)).then(|| ct_window::limits("wide"));
    let mut dataset = Dataset {
        name: name.unwrap_or_default(),
        path: folder.path().into(),
        layout,
        channels: description.channels,
        classes: description.classes,
        ignore: description.ignore,
        aliases: Vec::new(),
        training,
        validation,
        test,
        split,
        clip,
        ignore_geometry: false,
        warnings: Vec::new(),
    };
    if declared && dataset.validation.is_empty() && problems.is_empty() {
        let problem = "has an empty list 'validation': nothing will be scored";
        dataset.warnings.push(Warning::of_the_division(source.path(), problem));
    }
    dataset.warn_of_overlap();
    dataset.warnings.append(&mut warnings);
    Ok(Scanned { dataset, problems })
}

/// A parsed `dataset.json`.
struct Description {
    source: Source,
    json: Map<String, Value>,
    channels: Vec<String>,
    classes: Vec<Class>,
    ignore: Option<u8>,
}

/// The labelled cases that a description lists.
struct Lists {
    training: Vec<Entry>,
    validation: Vec<Entry>,
    /// By label file.
    names: BTreeMap<String, String>,
}

impl Description {
    fn parse(source: &Source) -> Result<Self> {
        let text = source.text(MAX_JSON)?;
        let json = serde_json::from_str::<Map<String, Value>>(&text).map_err(|e| {
            Error::data(source.path(), format!("is not a JSON object ({e})"), "correct it at that line and column")
        })?;
        let ending = json.get("file_ending").and_then(Value::as_str).unwrap_or(".nii.gz");
        if !ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)) {
            let problem = format!("says that its files end in {ending}, which cannot be read");
            return Err(Error::data(source.path(), problem, "convert them to .nii.gz and correct its 'file_ending'"));
        }
        let mut description =
            Self { source: source.clone(), json, channels: Vec::new(), classes: Vec::new(), ignore: None };
        description.channels = description.channels()?;
        (description.classes, description.ignore) = description.classes()?;
        Ok(description)
    }

    fn wrong(&self, problem: impl Into<String>, remedy: &str) -> Error {
        Error::data(self.source.path(), problem, remedy)
    }

    /// `"modality": {"0": "FLAIR", "1": "T1"}` or `"channel_names"`, in the order of the numbers; without either, what the
    /// files are called that the first entry lists one by one.
    fn channels(&self) -> Result<Vec<String>> {
        let remedy = "write them as \"modality\": {\"0\": \"T1\"}";
        let Some(value) = self.json.get("modality").or_else(|| self.json.get("channel_names")) else {
            return self.listed_channels().ok_or_else(|| self.wrong("names no modalities", remedy));
        };
        let mut numbered = Vec::new();
        for (key, name) in value.as_object().into_iter().flatten() {
            match (key.parse::<usize>(), name.as_str()) {
                (Ok(number), Some(name)) => numbered.push((number, name.to_owned())),
                _ => return Err(self.wrong(format!("has a modality {key}: {name} that is not number: name"), remedy)),
            }
        }
        numbered.sort_unstable();
        if numbered.is_empty() || numbered.iter().enumerate().any(|(i, (number, _))| i != *number) {
            return Err(self.wrong("does not number its modalities 0, 1, 2, …", remedy));
        }
        Ok(numbered.into_iter().map(|(_, name)| name).collect())
    }

    /// The last word in the name of each file of the first entry, if it lists several that end in different words.
    fn listed_channels(&self) -> Option<Vec<String>> {
        let entries = lists::entries(self.json.get("training")?, "training", true).ok()?;
        let images = &entries.first()?.images;
        let word = |file: &String| split_ending(file).0.rsplit(['_', '-', '/']).next().unwrap_or_default().to_owned();
        let words: Vec<String> = images.iter().map(word).collect();
        let different = order::set(words.iter().map(String::as_str)).len() == words.len();
        (words.len() > 1 && different).then_some(words)
    }

    fn classes(&self) -> Result<(Vec<Class>, Option<u8>)> {
        match self.json.get("labels").and_then(Value::as_object) {
            Some(entries) => classes::parse(entries).map_err(|problem| self.wrong(problem, classes::REMEDY)),
            // MONAI's lists of BraTS subjects say nothing of labels.
            None if !self.json.contains_key("labels") && brats::are_modalities(&self.channels) => {
                Ok((brats::classes(), None))
            }
            None => Err(self.wrong("declares no labels", classes::REMEDY)),
        }
    }

    /// The lists `training` (or `dataset`) and `validation`, empty where they are absent, and the names of their cases.
    fn lists(&self) -> Result<Lists> {
        let read = |list: &str| match self.json.get(list) {
            Some(value) => lists::entries(value, list, true).map_err(|problem| self.wrong(problem, lists::REMEDY)),
            None => Ok(Vec::new()),
        };
        let (mut training, validation) = (read("training")?, read("validation")?);
        if training.is_empty() {
            training = read("dataset")?;
        }
        for (list, entries) in [("training", &training), ("validation", &validation)] {
            let mut seen = BTreeSet::new();
            if let Some(twice) = entries.iter().find(|entry| !seen.insert(plain(&entry.label))) {
                let name = case_name(&twice.label);
                return Err(self.wrong(format!("lists the case {name} twice in '{list}'"), "name each case once"));
            }
        }
        let labels: BTreeSet<&str> = order::set(training.iter().chain(&validation).map(|entry| plain(&entry.label)));
        let mut names = lists::names(&labels);
        for entry in training.iter().chain(&validation) {
            if let Some(key) = &entry.key {
                names.insert(plain(&entry.label).to_owned(), key.replace(['/', '\\'], "_"));
            }
        }
        Ok(Lists { training, validation, names })
    }

    /// The cases of a list, and the folds of all its entries. Those whose files do not exist go to `problems`.
    #[allow(clippy::type_complexity)] // two lists that belong together
    fn cases(
        &self,
        folder: &Folder,
        entries: &[Entry],
        names: &BTreeMap<String, String>,
        problems: &mut Vec<Error>,
    ) -> Result<(Vec<Case>, Vec<Option<u64>>)> {
        let (mut cases, mut folds) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in entries {
            let name = names.get(plain(&entry.label)).cloned().unwrap_or_else(|| case_name(&entry.label));
            match self.images(folder, entry).and_then(|images| Ok((images, self.existing(folder, &entry.label)?))) {
                Ok((images, label)) => {
                    cases.push(Case { name, images, label: Some(label) });
                    folds.push(entry.fold);
                }
                Err(problem) => problems.push(problem),
            }
        }
        Ok((cases, folds))
    }

    /// What is to be said if nnU-Net's or the Decathlon's count of cases is not theirs.
    fn wrong_count(&self, training: usize, validation: usize, problems: usize) -> Option<Warning> {
        let stated = usize::try_from(self.json.get("numTraining")?.as_u64()?).ok()?;
        let fits = [training, training + validation].iter().any(|found| (*found..=found + problems).contains(&stated));
        let problem = format!("says that it has {stated} training cases (numTraining), where {training} are found");
        (!fits).then(|| Warning::new(self.source.path(), problem))
    }

    /// Cases without labels: the list `test` (MONAI: `testing`), or what lies in `imagesTs`. Those whose files do not exist
    /// are left out: nothing is trained on them or scored by them.
    fn test_cases(&self, folder: &Folder, warnings: &mut Vec<Warning>) -> Result<Vec<Case>> {
        let listed = ["test", "testing"].iter().find_map(|list| Some((list, self.json.get(*list)?)));
        let entries = match listed {
            Some((list, value)) => {
                lists::entries(value, list, false).map_err(|problem| self.wrong(problem, lists::REMEDY))?
            }
            None => Vec::new(),
        };
        let mut cases = Vec::new();
        for entry in &entries {
            if let Ok(images) = self.images(folder, entry) {
                let name = entry.key.clone().unwrap_or_else(|| case_name(&entry.images[0]));
                let name = channel_of(&name, self.channels.len()).map_or(name.as_str(), |(case, _)| case).to_owned();
                cases.push(Case { name, images, label: None });
            }
        }
        if entries.is_empty() {
            let names = folder.images("imagesTs").unwrap_or_default();
            let whole = |file: &str| {
                let source = folder.file(&format!("imagesTs/{file}")).ok().flatten();
                source.is_some_and(|source| read_header(&source).is_ok_and(|it| it.channels() == self.channels.len()))
            };
            let (found, odd) = group(&folder.path().join("imagesTs"), &names, self.channels.len(), whole);
            warnings.extend(odd.into_iter().filter_map(|problem| match problem {
                Error::Data { path, problem, .. } => Some(Warning::new(path, problem)),
                _ => None,
            }));
            for (name, files) in found {
                let images = files.iter().filter_map(|file| folder.file(&format!("imagesTs/{file}")).ok()?).collect();
                cases.push(Case { name, images, label: None });
            }
        }
        Ok(cases)
    }

    /// The files of an entry: as listed, if they are several or one for all channels; else the files `STEM_0000`,
    /// `STEM_0001`, … of its modalities.
    fn images(&self, folder: &Folder, entry: &Entry) -> Result<Vec<Source>> {
        let [listed] = &entry.images[..] else {
            if entry.images.len() != self.channels.len() {
                let problem = format!(
                    "lists {} images for {} where {} modalities are declared",
                    entry.images.len(),
                    entry.label,
                    self.channels.len()
                );
                return Err(self.wrong(problem, "list one image a modality, or one with all of them"));
            }
            return entry.images.iter().map(|image| self.existing(folder, image)).collect();
        };
        let (stem, ending) = split_ending(listed);
        let stem = match stem.strip_suffix("_0000") {
            Some(stem) if self.channels.len() > 1 => stem,
            // nnU-Net version 1 lists CASE.nii.gz where CASE_0000.nii.gz, … exist.
            _ if folder.image(listed)?.is_none() && folder.image(&format!("{stem}_0000{ending}"))?.is_some() => stem,
            _ => return Ok(vec![self.existing(folder, listed)?]),
        };
        let names = (0..self.channels.len()).map(|channel| format!("{stem}_{channel:04}{ending}"));
        names.map(|name| self.existing(folder, &name)).collect()
    }

    fn existing(&self, folder: &Folder, relative: &str) -> Result<Source> {
        folder.image(relative)?.ok_or_else(|| {
            let wanted = folder.path().join(plain(relative));
            let problem = format!("does not exist, though {} lists it", self.source.path().display());
            Error::data(wanted, problem, "copy the file there, or take it off the list")
        })
    }
}

/// MONAI's division: fold 0 validates, if the entries are of several folds.
fn divide_by_fold(cases: &[Case], folds: &[Option<u64>]) -> Option<(Vec<Case>, Vec<Case>)> {
    let known: Option<Vec<u64>> = folds.iter().copied().collect();
    let known = known.filter(|folds| folds.contains(&0) && folds.iter().any(|fold| *fold != 0))?;
    let of = |validates: bool| {
        let cases = cases.iter().zip(&known).filter(move |(_, fold)| (**fold == 0) == validates);
        cases.map(|(case, _)| case.clone()).collect()
    };
    Some((of(false), of(true)))
}

/// Cases found by their labels: `labelsTr/CASE.nii.gz` with `imagesTr/CASE_0000.nii.gz`, … (or `imagesTr/CASE.nii.gz`), each
/// with any of NIfTI's endings. A label without its images is a problem, and so is an image without its label.
fn found_cases(folder: &Folder, channels: usize, problems: &mut Vec<Error>) -> Result<Vec<Case>> {
    let (mut cases, mut paired) = (Vec::new(), BTreeMap::new());
    for label in folder.images("labelsTr")? {
        let (stem, ending) = split_ending(&label);
        if let Some(first) = paired.insert(stem.to_owned(), label.clone()) {
            let problem = format!("and {first} are both the label of {stem}");
            problems.push(Error::data(path_of(&folder.path().join("labelsTr"), &label), problem, "remove one of them"));
            cases.retain(|case: &Case| case.name != stem);
            continue;
        }
        let find = |name: String| -> Result<Source> {
            folder.image(&name)?.ok_or_else(|| {
                let problem = format!("does not exist, though there is a label {label}");
                Error::data(folder.path().join(&name), problem, "copy the image there, or remove the label")
            })
        };
        let channel_files = || -> Result<Vec<Source>> {
            (0..channels).map(|channel| find(format!("imagesTr/{stem}_{channel:04}{ending}"))).collect()
        };
        let whole = folder.image(&format!("imagesTr/{label}"));
        match whole.and_then(|whole| whole.map_or_else(channel_files, |whole| Ok(vec![whole]))) {
            Ok(images) => {
                cases.push(Case { name: stem.to_owned(), images, label: Some(find(format!("labelsTr/{label}"))?) });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let (mut told, mut seen) = (BTreeSet::new(), BTreeMap::new());
    for image in folder.images("imagesTr").unwrap_or_default() {
        let (stem, ending) = split_ending(&image);
        if let Some(first) = seen.insert(stem.to_owned(), image.clone()) {
            let problem = format!("and {first} are both the image {stem}");
            problems.push(Error::data(path_of(&folder.path().join("imagesTr"), &image), problem, "remove one of them"));
            let stem_of = |image: &Source| split_ending(&file_name(image.path())).0.to_owned();
            cases.retain(|case: &Case| case.images.iter().all(|image| stem_of(image) != stem));
        }
        let case = channel_of(stem, channels).map_or(stem, |(case, _)| case);
        if !paired.contains_key(case) && !paired.contains_key(stem) && told.insert(case.to_owned()) {
            let problem = format!("has no label labelsTr/{case}{ending}");
            let path = path_of(&folder.path().join("imagesTr"), &image);
            problems.push(Error::data(path, problem, "add it, or move the image to imagesTs"));
        }
    }
    Ok(cases)
}

/// What is to be said of images and labels that no list names.
fn unlisted<'a>(folder: &Folder, cases: impl Iterator<Item = &'a Case>) -> Vec<Warning> {
    let known: BTreeSet<&std::path::Path> =
        order::set(cases.flat_map(|case| case.images.iter().chain(&case.label)).map(Source::path));
    let look = |below: &str| {
        let names = folder.images(below).unwrap_or_default();
        let files = names.iter().filter_map(|name| folder.file(&format!("{below}/{name}")).ok()?);
        let mut odd = files.filter(|file| !known.contains(file.path()));
        let first = odd.next()?;
        let more = match odd.count() {
            0 => String::new(),
            1 => " (also another file there)".into(),
            more => format!(" (also {more} other files there)"),
        };
        Some(Warning::new(first.path(), format!("is not on the lists of dataset.json: it is not used{more}")))
    };
    ["imagesTr", "labelsTr"].into_iter().filter_map(look).collect()
}

/// A path without a leading `./`.
fn plain(path: &str) -> &str {
    path.trim_start_matches("./")
}

/// `labelsTr/colin27.nii.gz` is the label of `colin27`.
fn case_name(file: &str) -> String {
    let (stem, _) = split_ending(file);
    stem.rsplit('/').next().unwrap_or(stem).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::volume::{Axes, Labels};
    use std::fs;
    use std::path::Path;

    fn write(root: &Path, relative: &str, value: u8) {
        let path = root.join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Labels::new([2, 2, 2], vec![value; 8]).write(&path).unwrap();
    }

    fn open_json(root: &Path, json: &str) -> Result<Dataset> {
        fs::write(root.join("dataset.json"), json).unwrap();
        Dataset::open(root, 0)
    }

    const HEAD: &str = r#""modality": {"0": "a", "1": "b"}, "labels": {"0": "background", "1": "x"}"#;

    #[test]
    fn modalities_in_separate_files() {
        let root = tempfile::tempdir().unwrap();
        for (file, value) in [("imagesTr/p_0000.nii.gz", 3), ("imagesTr/p_0001.nii.gz", 5), ("labelsTr/p.nii.gz", 1)] {
            write(root.path(), file, value);
        }
        // The three ways to say it: the first file, nnU-Net's common stem, and nothing (version 2).
        for list in [
            r#", "training": [{"image": "./imagesTr/p_0000.nii.gz", "label": "./labelsTr/p.nii.gz"}]"#,
            r#", "training": [{"image": "./imagesTr/p.nii.gz", "label": "./labelsTr/p.nii.gz"}]"#,
            "",
        ] {
            let dataset = open_json(root.path(), &format!("{{{HEAD}{list}}}")).unwrap();
            assert_eq!(dataset.split, Split::Drawn { seed: 0 });
            assert_eq!(dataset.warnings.len(), 1, "one case cannot be divided");
            let scan = dataset.read(&dataset.training[0], Axes::Canonical).unwrap();
            assert_eq!((scan.name.as_str(), scan.image.channels), ("p", 2));
            assert_eq!(scan.image.voxels[..2], [3.0, 5.0]);
            assert_eq!(scan.labels.unwrap().voxels, [1; 8]);
        }
    }

    #[test]
    fn nnunet_version_2_names() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "imagesTr/p_0000.nii.gz", 3);
        write(root.path(), "labelsTr/p.nii.gz", 1);
        let json =
            r#"{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}"#;
        let dataset = open_json(root.path(), json).unwrap();
        assert_eq!(dataset.channels, ["CT"]);
        assert_eq!(dataset.classes[1], Class { value: 1, name: "liver".into() });
    }

    #[test]
    fn malformed_descriptions() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "labelsTr/p.nii.gz", 1);
        let table = [
            ("{", "JSON"),
            ("[]", "JSON"),
            ("{}", "modalities"),
            (r#"{"modality": {"1": "a"}, "labels": {"0": "b", "1": "x"}}"#, "number its modalities"),
            (r#"{"modality": {"0": 7}, "labels": {"0": "b", "1": "x"}}"#, "number: name"),
            (r#"{"modality": {"0": "a"}}"#, "labels"),
            (r#"{"modality": {"0": "a"}, "labels": {"0": "b", "300": "x"}}"#, "300"),
            (r#"{"modality": {"0": "a"}, "labels": {"1": "x", "2": "y"}}"#, "background"),
            (r#"{"modality": {"0": "a"}, "labels": {"0": "b", "1": "x"}, "training": 4}"#, "not a list"),
            (r#"{"modality": {"0": "a"}, "labels": {"0": "b", "1": "x"}, "training": ["p"]}"#, "entry 0"),
            (
                r#"{"modality": {"0": "a"}, "labels": {"0": "b", "1": "x"}, "training": [{"image": "q.nii", "label": "labelsTr/p.nii.gz"}]}"#,
                "q.nii: does not exist",
            ),
            (
                r#"{"modality": {"0": "a"}, "labels": {"0": "b", "1": "x"}, "training": [{"image": "../q.nii", "label": "labelsTr/p.nii.gz"}]}"#,
                "not below the folder",
            ),
        ];
        for (json, expected) in table {
            let message = open_json(root.path(), json).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains('\n'), "{json}: {message}");
        }
    }

    #[test]
    fn names_of_cases() {
        assert_eq!(case_name("./labelsTr/colin27.nii.gz"), "colin27");
    }
}
