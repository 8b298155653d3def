//! Names that are no text, and files that lie there twice.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::json;

use super::lists::{describe, image, label};
use crate::support::cli::{Place, json as parsed};
use ossnet::data::{Axes, Dataset};

/// `größe` and `grüße` in Latin-1, which differ in bytes that are no UTF-8.
const LATIN: [&[u8]; 2] = [b"gr\xf6\xdfe", b"gr\xfc\xdfe"];

fn latin(folder: &str, stem: &[u8], ending: &str) -> PathBuf {
    PathBuf::from(folder).join(OsStr::from_bytes(&[stem, ending.as_bytes()].concat()))
}

/// Each is a case of its own, with its own name, in a data set of each layout.
#[test]
fn names_that_are_no_text_name_cases() {
    let place = Place::new();
    let root = place.path();
    for (number, stem) in (1u8..).zip(LATIN) {
        image(root, latin("n/imagesTr", stem, "_0000.nii.gz"), 10 + number);
        label(root, latin("n/labelsTr", stem, ".nii.gz"), 1);
        image(root, latin("lits", &[b"volume-", stem].concat(), ".nii"), 10 + number);
        label(root, latin("lits", &[b"segmentation-", stem].concat(), ".nii"), 1);
        let subject = latin("brats", stem, "");
        for part in ["flair", "t1", "t1ce", "t2", "seg"] {
            image(
                root,
                subject.join(latin("", stem, &format!("_{part}.nii"))),
                if part == "seg" { 1 } else { 10 + number },
            );
            if part == "seg" {
                label(root, subject.join(latin("", stem, "_seg.nii")), 1);
            }
        }
    }
    let json = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}});
    fs::write(root.join("n/dataset.json"), json.to_string()).unwrap();
    for data in ["n", "lits", "brats"] {
        let dataset = Dataset::open(&root.join(data), 0).unwrap();
        let mut found: Vec<(String, f32)> = dataset
            .cases()
            .map(|(_, case)| (case.name.clone(), dataset.read(case, Axes::Canonical).unwrap().image.voxels[0]))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let start = if data == "lits" { "volume-" } else { "" };
        assert_eq!(found, [(format!("{start}gr%F6%DFe"), 11.0), (format!("{start}gr%FC%DFe"), 12.0)], "{data}");
    }
    // A border map each, beside the labels.
    place.run("borders --quiet n").succeeded();
    let maps = fs::read_dir(root.join("n/bordersTr")).unwrap().count();
    assert_eq!(maps, 2);
}

/// Commands take such paths from their flags, and name outputs so that both are kept.
#[test]
fn names_that_are_no_text_are_segmented() {
    let place = super::batches::place();
    fs::create_dir_all(place.at("scans")).unwrap();
    for (number, stem) in (1u64..).zip(LATIN) {
        crate::support::cli::ball(16, number)[0].write(&place.path().join(latin("scans", stem, ".nii")));
    }
    let scan = latin("scans", LATIN[0], ".nii");
    let infer = |input: &OsStr, out: &str| {
        let mut command = place.command("infer --quiet --json --load-model one.safetensors --out");
        command.arg(out).arg("--input").arg(input);
        let output: crate::support::cli::Outcome = command.output().unwrap().into();
        parsed(&output.succeeded())
    };
    infer(scan.as_os_str(), "alone");
    infer(OsStr::new("scans"), "both");
    assert_eq!(super::batches::segmented(&place, "alone"), ["gr%F6%DFe.nii.gz"]);
    assert_eq!(super::batches::segmented(&place, "both"), ["gr%F6%DFe.nii.gz", "gr%FC%DFe.nii.gz"]);
    assert_eq!(
        fs::read(place.at("alone/gr%F6%DFe.nii.gz")).unwrap(),
        fs::read(place.at("both/gr%F6%DFe.nii.gz")).unwrap()
    );
    // What is not there is told by its name.
    let mut command = place.command("infer --load-model one.safetensors --out none --input");
    let output: crate::support::cli::Outcome = command.arg(OsStr::from_bytes(b"gone\xff.nii")).output().unwrap().into();
    output.refused(1, &["gone%FF.nii"]);
}

/// A file beside its compressed copy is one file; beside another one of its name, it is a problem that names both.
#[test]
fn compressed_copies() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let json = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}});
    for name in ["a", "b"] {
        for ending in [".nii", ".nii.gz"] {
            image(root, format!("imagesTr/{name}_0000{ending}"), 7);
            label(root, format!("labelsTr/{name}{ending}"), 1);
        }
        image(root, format!("imagesTs/{name}.nii"), 1);
        image(root, format!("imagesTs/{name}.nii.gz"), 1);
    }
    let dataset = describe(root, &json).unwrap();
    assert_eq!((dataset.training.len() + dataset.validation.len(), dataset.test.len()), (2, 2));
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    for (name, value, both) in
        [("imagesTr/a_0000.nii", 8, "are both the image a_0000"), ("labelsTr/a.nii", 0, "label of a")]
    {
        let before = fs::read(root.join(name)).unwrap();
        image(root, name, value);
        let message = describe(root, &json).unwrap_err().to_string();
        assert!(message.contains(both), "{message}");
        fs::write(root.join(name), before).unwrap();
    }
    image(root, "imagesTs/a.nii", 2);
    let dataset = describe(root, &json).unwrap();
    assert_eq!(dataset.test.len(), 1);
    assert!(dataset.warnings[0].to_string().contains("both called a"), "{:?}", dataset.warnings);
}

/// A subject that holds two files for a modality is none; of images of two names it is asked whether they are one subject's.
#[test]
fn subjects_of_one_patient() {
    let place = Place::new();
    let root = place.path();
    for subject in ["s1", "s2"] {
        for part in ["flair", "t1", "t1ce", "t2"] {
            image(root, format!("d/{subject}/{subject}_{part}.nii"), 5);
        }
        label(root, format!("d/{subject}/{subject}_seg.nii"), 1);
    }
    let open = || Dataset::open(&root.join("d"), 0);
    assert!(open().unwrap().warnings.is_empty());
    image(root, "d/s1/s1_t1.nii.gz", 5);
    assert!(open().unwrap().warnings.is_empty(), "a copy");
    image(root, "d/s1/s1_t1.nii.gz", 6);
    let message = open().unwrap_err().to_string();
    assert!(message.contains("s1_t1.nii.gz: and s1_t1.nii are both"), "{message}");
    fs::remove_file(root.join("d/s1/s1_t1.nii.gz")).unwrap();
    fs::rename(root.join("d/s1/s1_t2.nii"), root.join("d/s1/s9_t2.nii")).unwrap();
    let warnings = open().unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].to_string().contains("called s1, s9"), "{warnings:?}");
    let channels = ["flair", "t1", "t1ce", "t2"].map(String::from);
    let message =
        ossnet::infer::inputs::cases(&[root.join("d/s1").display().to_string()], &channels).unwrap_err().to_string();
    assert!(message.contains("holds channels of s1, s9"), "{message}");
}

/// A prediction is of the case that it is called after, and of no other whose label file happens to be called alike.
#[test]
fn predictions_of_one_case() {
    let place = Place::new();
    let root = place.path();
    for number in 0..2 {
        image(root, format!("d/p{number}/ct.nii.gz"), number);
        label(root, format!("d/p{number}/seg.nii.gz"), 1);
        label(root, format!("found/p{number}.nii.gz"), 1);
    }
    let entry = |n: usize| json!({"image": format!("p{n}/ct.nii.gz"), "label": format!("p{n}/seg.nii.gz")});
    let json =
        json!({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "x"}, "training": [entry(0), entry(1)]});
    fs::write(root.join("d/dataset.json"), json.to_string()).unwrap();
    let evaluate = "evaluate --quiet --predictions found --data d --part all --out";
    place.run(&format!("{evaluate} scores")).succeeded();
    // Another file of the same name.
    label(root, "found/p1.nii", 0);
    let outcome = place.run(&format!("{evaluate} twice"));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.contains("p1.nii.gz are both called as the case p1"), "{}", outcome.err);
    fs::remove_file(root.join("found/p1.nii")).unwrap();
    fs::rename(root.join("found/p1.nii.gz"), root.join("found/seg.nii.gz")).unwrap();
    let outcome = place.run(&format!("{evaluate} missing"));
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.err.contains("holds no label file of case p1"), "{}", outcome.err);
}
