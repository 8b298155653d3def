//! The Medical Segmentation Decathlon's layout, and nnU-Net's, which grew from it.
//!
//! `dataset.json` names modalities and labels and lists the training cases. Read beyond the Decathlon's own: an extra list
//! `validation`; images split by modality (`CASE_0000.nii.gz`, `CASE_0001.nii.gz`, …); nnU-Net version 2, which has
//! `channel_names`, labels as name → value, and lists no cases (`labelsTr` does).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ct_window;
use super::dataset::{Case, Class, Dataset, Layout, Scanned, Split, draw_split};
use super::nifti::{is_image, split_ending};
use super::source::{Folder, Source};
use super::validate::Warning;
use crate::{Error, Result};

/// No honest `dataset.json` is larger.
const MAX_JSON: u64 = 64 << 20;

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
    let mut problems = Vec::new();
    let (mut training, mut layout) = (description.cases(folder, "training", &mut problems)?, Layout::Decathlon);
    let listed = description.json.get("training").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !listed {
        training = list_cases(folder, description.channels.len(), &mut problems)?;
    }
    if !listed || training.iter().any(|case| case.images.len() > 1) {
        layout = Layout::NnUNet;
    }
    if training.is_empty() && problems.is_empty() {
        return Err(description.wrong("lists no training cases", "fill its list 'training', or the folder labelsTr"));
    }
    let declared = description.json.contains_key("validation");
    let (training, validation, split) = if declared {
        (training, description.cases(folder, "validation", &mut problems)?, Split::Declared)
    } else {
        let (training, validation) = draw_split(training, seed);
        (training, validation, Split::Drawn { seed })
    };
    let test = description.test_cases(folder)?;
    let name = description.json.get("name").and_then(Value::as_str).map(str::to_owned);
    let name = name.or_else(|| Some(folder.path().file_name()?.to_string_lossy().into_owned()));
    let clip = description.channels.iter().all(|name| ct_window::is_ct(name)).then(|| ct_window::limits("wide"));
    let mut dataset = Dataset {
        name: name.unwrap_or_default(),
        path: folder.path().into(),
        layout,
        channels: description.channels,
        classes: description.classes,
        training,
        validation,
        test,
        split,
        clip,
        ignore_geometry: false,
        warnings: Vec::new(),
    };
    if declared && dataset.validation.is_empty() && problems.is_empty() {
        dataset.warnings.push(Warning::new(source.path(), "has an empty list 'validation': nothing will be scored"));
    }
    dataset.warn_of_overlap();
    Ok(Scanned { dataset, problems })
}

/// A parsed `dataset.json`.
struct Description {
    source: Source,
    json: Map<String, Value>,
    channels: Vec<String>,
    classes: Vec<Class>,
}

impl Description {
    fn parse(source: &Source) -> Result<Self> {
        let text = source.text(MAX_JSON)?;
        let json = serde_json::from_str::<Map<String, Value>>(&text).map_err(|e| {
            Error::data(source.path(), format!("is not a JSON object ({e})"), "correct it at that line and column")
        })?;
        let ending = json.get("file_ending").and_then(Value::as_str).unwrap_or(".nii.gz");
        if ![".nii", ".nii.gz", ".hdr", ".img"].contains(&ending) {
            let problem = format!("says that its files end in {ending}, which cannot be read");
            return Err(Error::data(source.path(), problem, "convert them to .nii.gz and correct its 'file_ending'"));
        }
        let mut description = Self { source: source.clone(), json, channels: Vec::new(), classes: Vec::new() };
        description.channels = description.channels()?;
        description.classes = description.classes()?;
        Ok(description)
    }

    fn wrong(&self, problem: impl Into<String>, remedy: &str) -> Error {
        Error::data(self.source.path(), problem, remedy)
    }

    /// `"modality": {"0": "FLAIR", "1": "T1"}` or `"channel_names"`, in the order of the numbers.
    fn channels(&self) -> Result<Vec<String>> {
        let remedy = "write them as \"modality\": {\"0\": \"T1\"}";
        let Some(value) = self.json.get("modality").or_else(|| self.json.get("channel_names")) else {
            return Err(self.wrong("names no modalities", remedy));
        };
        let mut numbered = Vec::new();
        for (key, name) in value.as_object().into_iter().flatten() {
            match (key.parse::<usize>(), name.as_str()) {
                (Ok(number), Some(name)) => numbered.push((number, name.to_owned())),
                _ => return Err(self.wrong(format!("has a modality {key}: {name} that is not number: name"), remedy)),
            }
        }
        numbered.sort();
        if numbered.is_empty() || numbered.iter().enumerate().any(|(i, (number, _))| i != *number) {
            return Err(self.wrong("does not number its modalities 0, 1, 2, …", remedy));
        }
        Ok(numbered.into_iter().map(|(_, name)| name).collect())
    }

    /// `"labels": {"0": "background", "1": "liver"}`, or name → value.
    fn classes(&self) -> Result<Vec<Class>> {
        let remedy = "write them as \"labels\": {\"0\": \"background\", \"1\": \"liver\"}";
        let Some(entries) = self.json.get("labels").and_then(Value::as_object) else {
            return Err(self.wrong("declares no labels", remedy));
        };
        let (mut classes, mut regions): (Vec<Class>, Vec<Class>) = (Vec::new(), Vec::new());
        for (key, value) in entries {
            // nnU-Net's regions are unions of classes; the classes are what the files hold.
            if let Value::Array(members) = value {
                let members = members.iter().filter_map(|member| u8::try_from(member.as_u64()?).ok());
                regions.extend(members.map(|value| Class { value, name: format!("class {value}") }));
                continue;
            }
            let class = match value {
                Value::String(name) => key.parse().ok().map(|value| Class { value, name: name.clone() }),
                Value::Number(number) => {
                    let value = number.as_u64().and_then(|n| u8::try_from(n).ok());
                    value.map(|value| Class { value, name: key.clone() })
                }
                _ => None,
            };
            match class {
                Some(class) => classes.push(class),
                None => {
                    return Err(
                        self.wrong(format!("has a label {key}: {value} that is no class number of 0 to 255"), remedy)
                    );
                }
            }
        }
        for region in regions {
            if classes.iter().all(|class| class.value != region.value) {
                classes.push(region);
            }
        }
        classes.sort_by_key(|class| class.value);
        if classes.len() < 2 || classes[0].value != 0 || classes.windows(2).any(|pair| pair[0].value == pair[1].value) {
            return Err(self.wrong("does not declare background (0) and at least one class, each value once", remedy));
        }
        Ok(classes)
    }

    /// The cases of one list; none if the list is absent. Those whose files do not exist go to `problems`.
    fn cases(&self, folder: &Folder, list: &str, problems: &mut Vec<Error>) -> Result<Vec<Case>> {
        let Some(value) = self.json.get(list) else { return Ok(Vec::new()) };
        let remedy = "write entries as {\"image\": \"./imagesTr/CASE.nii.gz\", \"label\": \"./labelsTr/CASE.nii.gz\"}";
        let Some(entries) = value.as_array() else {
            return Err(self.wrong(format!("has a '{list}' that is not a list"), remedy));
        };
        let mut names = BTreeSet::new();
        let mut cases: Vec<Case> = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            let file = |key: &str| entry.get(key).and_then(Value::as_str);
            let (Some(image), Some(label)) = (file("image"), file("label")) else {
                return Err(self.wrong(format!("has an entry {number} of '{list}' without image and label"), remedy));
            };
            let name = case_name(label);
            if !names.insert(name.clone()) {
                return Err(self.wrong(format!("lists the case {name} twice in '{list}'"), "name each case once"));
            }
            match self.images(folder, image).and_then(|images| Ok((images, self.existing(folder, label)?))) {
                Ok((images, label)) => cases.push(Case { name, images, label: Some(label) }),
                Err(problem) => problems.push(problem),
            }
        }
        Ok(cases)
    }

    /// Cases without labels: the list `test`, or what lies in `imagesTs`. Those whose files do not exist are left out:
    /// nothing is trained on them or scored by them.
    fn test_cases(&self, folder: &Folder) -> Result<Vec<Case>> {
        let listed = self.json.get("test").and_then(Value::as_array).into_iter().flatten();
        let mut files: Vec<String> = listed
            .filter_map(|entry| entry.as_str().or_else(|| entry.get("image")?.as_str()).map(str::to_owned))
            .collect();
        if files.is_empty() {
            files = folder.list("imagesTs").unwrap_or_default().into_iter().filter(|name| is_image(name)).collect();
            // Of the files a channel, the first stands for all.
            files.retain(|file| !has_channel_number(split_ending(file).0) || split_ending(file).0.ends_with("_0000"));
            files.iter_mut().for_each(|file| *file = format!("imagesTs/{file}"));
        }
        let mut cases = Vec::new();
        for file in files {
            if let Ok(images) = self.images(folder, &file) {
                let name = case_name(&file);
                let name = name.strip_suffix("_0000").unwrap_or(&name).to_owned();
                cases.push(Case { name, images, label: None });
            }
        }
        Ok(cases)
    }

    /// The file as listed, if it is one for all channels; else the files `STEM_0000`, `STEM_0001`, … of its modalities.
    fn images(&self, folder: &Folder, listed: &str) -> Result<Vec<Source>> {
        let (stem, ending) = split_ending(listed);
        let stem = match stem.strip_suffix("_0000") {
            Some(stem) if self.channels.len() > 1 => stem,
            // nnU-Net version 1 lists CASE.nii.gz where CASE_0000.nii.gz, … exist.
            _ if folder.file(listed)?.is_none() && folder.file(&format!("{stem}_0000{ending}"))?.is_some() => stem,
            _ => return Ok(vec![self.existing(folder, listed)?]),
        };
        let names = (0..self.channels.len()).map(|channel| format!("{stem}_{channel:04}{ending}"));
        names.map(|name| self.existing(folder, &name)).collect()
    }

    fn existing(&self, folder: &Folder, relative: &str) -> Result<Source> {
        folder.file(relative)?.ok_or_else(|| {
            let wanted = folder.path().join(relative.trim_start_matches("./"));
            let problem = format!("does not exist, though {} lists it", self.source.path().display());
            Error::data(wanted, problem, "copy the file there, or take it off the list")
        })
    }
}

/// Cases found by their labels: `labelsTr/CASE.nii.gz` with `imagesTr/CASE_0000.nii.gz`, … (or `imagesTr/CASE.nii.gz`).
/// A label without its images is a problem, and so is an image without its label.
fn list_cases(folder: &Folder, channels: usize, problems: &mut Vec<Error>) -> Result<Vec<Case>> {
    let (mut cases, mut paired) = (Vec::new(), BTreeSet::new());
    for label in folder.list("labelsTr")?.into_iter().filter(|name| is_image(name)) {
        let (stem, ending) = split_ending(&label);
        let find = |name: String| -> Result<Source> {
            folder.file(&name)?.ok_or_else(|| {
                let problem = format!("does not exist, though there is a label {label}");
                Error::data(folder.path().join(&name), problem, "copy the image there, or remove the label")
            })
        };
        let channel_files = || -> Result<Vec<Source>> {
            (0..channels).map(|channel| find(format!("imagesTr/{stem}_{channel:04}{ending}"))).collect()
        };
        let images = match folder.file(&format!("imagesTr/{label}"))? {
            Some(whole) => Ok(vec![whole]),
            None => channel_files(),
        };
        paired.insert(stem.to_owned());
        match images {
            Ok(images) => {
                cases.push(Case { name: stem.to_owned(), images, label: Some(find(format!("labelsTr/{label}"))?) });
            }
            Err(problem) => problems.push(problem),
        }
    }
    for image in folder.list("imagesTr").unwrap_or_default().into_iter().filter(|name| is_image(name)) {
        let (stem, ending) = split_ending(&image);
        let case = if has_channel_number(stem) { &stem[..stem.len() - 5] } else { stem };
        if paired.insert(case.to_owned()) && !paired.contains(stem) {
            let problem = format!("has no label labelsTr/{case}{ending}");
            let path = folder.path().join("imagesTr").join(&image);
            problems.push(Error::data(path, problem, "add it, or move the image to imagesTs"));
        }
    }
    Ok(cases)
}

/// True for `CASE_0000`.
fn has_channel_number(stem: &str) -> bool {
    stem.len() > 5 && stem.is_ascii() && {
        let (_, number) = stem.split_at(stem.len() - 5);
        number.starts_with('_') && number[1..].bytes().all(|digit| digit.is_ascii_digit())
    }
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
