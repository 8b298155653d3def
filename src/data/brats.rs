//! BraTS: a folder a subject, directly in the data set's folder or, as in the first years, in its folders `HGG` and `LGG`.
//!
//! Until 2021 a subject holds `*_flair`, `*_t1`, `*_t1ce`, `*_t2` and `*_seg`, from 2023 on `*-t2f`, `*-t1n`, `*-t1c`, `*-t2w`
//! and `*-seg`, as `.nii` or `.nii.gz`. Channels are in the official code's order. Labels are kept as stored: 0, 1, 2, 4 until
//! 2021 (a 3, as converted files have it, is read as 4), 0 to 3 from 2023 on. Who validates is the authors' choice for the
//! subjects that they name (`assets/brats_2020_split.txt`), and drawn where it names none of them.

use std::collections::BTreeSet;

use super::dataset::{Case, Class, Dataset, Layout, Scanned, Split, draw_split};
use super::nifti::split_ending;
use super::source::{Folder, Source};
use super::validate::Warning;
use crate::files::name::{file_name, path_of};
use crate::order;
use crate::packed::packed;
use crate::{Error, Result};

/// Modalities in channel order; until 2021 the file names end in `_` and these.
pub const MODALITIES: [&str; 4] = ["flair", "t1", "t1ce", "t2"];

/// How file names end from 2023 on, in the same order.
const LATER: [&str; 4] = ["-t2f", "-t1n", "-t1c", "-t2w"];

/// Label values until 2021 and what they stand for.
const CLASSES: [(u8, &str); 4] = [(0, "background"), (1, "necrotic core"), (2, "oedema"), (4, "enhancing tumour")];

/// The value of the enhancing tumour from 2023 on.
const LATER_ENHANCING: u8 = 3;

/// The authors' training and validation subjects.
fn split() -> String {
    packed!("assets-brats_2020_split.txt")
}

/// How the names of a modality's files end, in lower case, in any year; `_NAME` for anything but BraTS's modalities.
pub fn endings(modality: &str) -> Vec<String> {
    let modality = modality.to_lowercase();
    let later = MODALITIES.iter().position(|known| *known == modality).map(|place| LATER[place].to_owned());
    [format!("_{modality}")].into_iter().chain(later).collect()
}

/// What stands before the ending of a modality in a file's name.
fn prefix(file: &str) -> String {
    let stem = split_ending(file).0;
    let endings = MODALITIES.iter().map(|name| format!("_{name}")).chain(LATER.map(String::from));
    let prefix = endings.filter_map(|ending| stem.strip_suffix(ending.as_str())).next();
    prefix.unwrap_or(stem).to_owned()
}

/// True if the names are BraTS's modalities, in any order and case.
pub(super) fn are_modalities(names: &[String]) -> bool {
    let names: BTreeSet<String> = order::set(names.iter().map(|name| name.to_lowercase()));
    names == MODALITIES.iter().map(ToString::to_string).collect()
}

/// The classes until 2021.
pub(super) fn classes() -> Vec<Class> {
    CLASSES.map(|(value, name)| Class { value, name: name.into() }).to_vec()
}

/// Scans a folder of subjects; `None` if no folder in it holds a FLAIR image. A subject that lacks a modality or its
/// segmentation is a problem.
///
/// # Errors
/// If a folder cannot be read.
pub fn scan(folder: &Folder, seed: u64) -> Result<Option<Scanned>> {
    let Folder::Disk(root) = folder else { return Ok(None) };
    let (mut cases, mut problems, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let (mut is_brats, mut years) = (false, BTreeSet::new());
    for subject in subjects(folder)? {
        let names = folder.images(&subject)?;
        let place = path_of(root, &subject);
        let matching = |ending: &str| -> Vec<&String> {
            names.iter().filter(|name| split_ending(name).0.ends_with(ending)).collect()
        };
        let find = |ending: &str| Some(Source::File(path_of(&place, matching(ending).first()?)));
        let modality = |channel: usize| find(&format!("_{}", MODALITIES[channel])).or_else(|| find(LATER[channel]));
        if modality(0).is_none() {
            let others = (1..MODALITIES.len()).filter(|&channel| modality(channel).is_some()).count();
            // One other file may be anything; two are a subject that lost its first modality.
            if others < 2 {
                continue;
            }
        }
        is_brats = true;
        let later = LATER.iter().filter(|ending| find(ending).is_some()).count() >= 2;
        years.insert(later);
        let mut need = |part: &str, found: Option<Source>| {
            if found.is_none() {
                let problem = format!("holds no file *{part}.nii or *{part}.nii.gz");
                problems.push(Error::data(&place, problem, "complete the subject, or move it elsewhere"));
            }
            found
        };
        let ending = |channel: usize| match later {
            true => LATER[channel].to_owned(),
            false => format!("_{}", MODALITIES[channel]),
        };
        let images: Vec<Source> =
            (0..MODALITIES.len()).filter_map(|channel| need(&ending(channel), modality(channel))).collect();
        // The segmentation of subject 355 was published under the name of its source.
        let label = find("_seg").or_else(|| find("-seg")).or_else(|| find("_Segm"));
        let label = need(if later { "-seg" } else { "_seg" }, label);
        let endings = (0..MODALITIES.len()).map(ending).chain(["_seg", "-seg"].map(String::from));
        if let Some(twice) = endings.map(|ending| matching(&ending)).find(|files| files.len() > 1) {
            let problem = format!("and {} are both that image of the subject", twice[0]);
            problems.push(Error::data(path_of(&place, twice[1]), problem, "remove one of them"));
        } else if images.len() == MODALITIES.len() && label.is_some() {
            // A folder is a subject; files of several are likely to have been mixed up.
            let stems: BTreeSet<String> = order::set(images.iter().map(|image| prefix(&file_name(image.path()))));
            if stems.len() > 1 {
                let named = stems.into_iter().collect::<Vec<_>>().join(", ");
                let problem = format!("holds images called {named}: are they of one subject?");
                warnings.push(Warning::new(&place, problem));
            }
            let name = subject.rsplit('/').next().unwrap_or(&subject).to_owned();
            cases.push(Case { name, images, label });
        }
    }
    if !is_brats {
        return Ok(None);
    }
    let mut classes = classes();
    let mut aliases = vec![[LATER_ENHANCING, CLASSES[3].0]];
    if !years.contains(&false) {
        classes[3].value = LATER_ENHANCING;
        aliases.clear();
    }
    let (training, validation, split) = divide(cases, seed);
    let mut dataset = Dataset {
        name: "BraTS".into(),
        path: root.clone(),
        layout: Layout::Brats,
        channels: MODALITIES.map(str::to_owned).to_vec(),
        classes,
        ignore: None,
        aliases,
        training,
        validation,
        test: Vec::new(),
        split,
        clip: None,
        ignore_geometry: false,
        warnings,
    };
    dataset.warn_of_overlap();
    Ok(Some(Scanned { dataset, problems }))
}

/// Paths of the folders that may be subjects, below the data set's.
fn subjects(folder: &Folder) -> Result<Vec<String>> {
    let is_folder = |relative: &String| path_of(folder.path(), relative).is_dir();
    let mut subjects: Vec<String> = folder.list("")?.into_iter().filter(is_folder).collect();
    for grade in ["HGG", "LGG"].map(String::from).into_iter().filter(is_folder) {
        let below = folder.list(&grade)?.into_iter().map(|subject| format!("{grade}/{subject}"));
        subjects.extend(below.filter(is_folder));
    }
    Ok(subjects)
}

/// The authors' division, if it gives both sides a case; subjects that it does not name train.
fn divide(cases: Vec<Case>, seed: u64) -> (Vec<Case>, Vec<Case>, Split) {
    let split = split();
    let (_, validation) = split.split_once("Validation:").unwrap_or((&split, ""));
    let named: BTreeSet<&str> = order::set(validation.split_whitespace());
    let count = cases.iter().filter(|case| named.contains(case.name.as_str())).count();
    if count == 0 || count == cases.len() {
        let (training, validation) = draw_split(cases, seed);
        return (training, validation, Split::Drawn { seed });
    }
    let (validation, training) = cases.into_iter().partition(|case| named.contains(case.name.as_str()));
    (training, validation, Split::Official)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(names: &[&str]) -> Vec<Case> {
        names.iter().map(|&name| Case { name: name.into(), images: vec![], label: None }).collect()
    }

    #[test]
    fn the_authors_division_is_built_in() {
        let split = split();
        let (training, validation) = split.split_once("Validation:").unwrap();
        let [training, validation] = [training, validation].map(|part| {
            part.split_whitespace().filter(|word| word.starts_with("BraTS20_Training_")).collect::<BTreeSet<_>>()
        });
        assert_eq!((training.len(), validation.len()), (324, 45));
        assert!(training.is_disjoint(&validation));
        let all: Vec<&str> = training.iter().chain(&validation).copied().collect();
        let (trains, validates, split) = divide(cases(&all), 0);
        assert_eq!((trains.len(), validates.len(), split), (324, 45, Split::Official));
        assert!(validates.iter().all(|case| validation.contains(case.name.as_str())));
    }

    #[test]
    fn other_subjects_train_and_a_division_without_one_side_is_drawn() {
        let split = split();
        let first = split.split_once("Validation:").unwrap().1.split_whitespace().next().unwrap();
        let (training, validation, split) = divide(cases(&[first, "BraTS20_Training_031", "mine"]), 0);
        assert_eq!((training.len(), validation[0].name.as_str(), split), (2, first, Split::Official));
        for names in [&["BraTS20_Training_031", "BraTS20_Training_049"][..], &[first]] {
            assert_eq!(divide(cases(names), 5).2, Split::Drawn { seed: 5 });
        }
    }
}
