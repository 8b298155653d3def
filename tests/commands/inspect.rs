//! `ossnet inspect`: what a data set holds and what is wrong with it.

use std::fs;
use std::path::Path;

use crate::support::Nifti;
use crate::support::cli::{Place, ball, data_set};
use serde_json::Value;

fn phantoms(part: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/phantoms").join(part).display().to_string()
}

#[test]
fn a_decathlon_task_in_words_and_as_json() {
    let place = Place::new();
    let path = phantoms("Task01_BrainTumour");
    let text = place.run(&format!("inspect {path} --full --out look")).succeeded();
    for part in [
        "layout       Decathlon",
        "1 training, 1 validation (division drawn), 1 without labels",
        "FLAIR, T1w, t1gd, T2w",
        "shapes       24 × 24 × 16",
        "spacings     10 × 10 × 10 mm",
        "RAS (3)",
        "int16 (3)",
        "1 edema: in 2 of 2 cases",
        "no problems found",
        "rows: BRATS_001, BRATS_002, BRATS_003",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    let page = fs::read_to_string(place.at("look/report.html")).unwrap();
    assert_eq!((page.matches("<article class=\"scan\"").count(), page.matches("class=\"stack\"").count()), (3, 3));
    assert!(page.contains("BRATS_002") && page.contains("edema, ") && !page.contains("<canvas"), "names and a legend");
    crate::support::cli::keep_page("inspect", page);
    let picture = fs::read(place.at("look/montage.png")).unwrap();
    assert_eq!(&picture[1..4], b"PNG");
    let mut printed: Value =
        serde_json::from_str(&place.run(&format!("inspect {path} --full --json")).succeeded()).unwrap();
    let mut written: Value = serde_json::from_slice(&fs::read(place.at("look/inspection.json")).unwrap()).unwrap();
    // They were made at two times.
    printed["made_by"]["date"].take();
    written["made_by"]["date"].take();
    assert_eq!(printed, written);
    let case = printed["cases"].as_array().unwrap().iter().find(|case| case["name"] == "BRATS_002").unwrap();
    assert_eq!(case["orientation"], "RAS");
    assert_eq!(case["channels"], 4);
    let enhancing = case["labels"].as_array().unwrap().iter().find(|label| label["value"] == 3).unwrap();
    // 22 voxels of one millilitre.
    assert_eq!((enhancing["voxels"].as_u64(), enhancing["millilitres"].as_f64()), (Some(22), Some(22.0)));
    assert_eq!(case["intensities"].as_array().unwrap().len(), 4);
}

/// Scans of several spacings want one of them before training, and the text says how.
#[test]
fn spacings_that_differ_are_told_of() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    assert!(!place.run("inspect data").succeeded().contains("spacings differ"));
    for (mut file, folder) in ball(16, 2).into_iter().zip(["imagesTr", "labelsTr"]) {
        file.sform[2][2] = 2.5;
        file.write(&place.at(&format!("data/{folder}/v.nii.gz")));
    }
    let text = place.run("inspect data").succeeded();
    assert!(text.contains("spacings differ: train --preset auto, or --spacing 1x1x1, resamples all"), "{text}");
}

#[test]
fn other_layouts_and_a_single_file() {
    let place = Place::new();
    let text = place.run(&format!("inspect {}", phantoms("MICCAI_BraTS2020_TrainingData"))).succeeded();
    assert!(text.contains("layout       BraTS") && text.contains("LPS (2)"), "{text}");
    let text = place.run(&format!("inspect {}", phantoms("LiTS"))).succeeded();
    assert!(text.contains("LiTS (flat)") && text.contains("24 × 24 × 15–32"), "{text}");
    let file = phantoms("LiTS/volume-0.nii.gz");
    let text = place.run(&format!("inspect {file} --full")).succeeded();
    assert!(text.contains("single file") && text.contains("24 × 24 × 32"), "{text}");
    place.refuses("inspect nowhere", 1, &["nowhere", "check the path"]);
}

/// An embedded task is inspected as `train` takes it. Of an even number of volumes the median lies between the two in the middle.
#[test]
fn an_embedded_task_and_its_medians() {
    let place = Place::new();
    let text = place.run("inspect sample:heads --full").succeeded();
    assert!(text.contains("layout       Decathlon") && text.contains("6 of 6 cases"), "{text}");
    let found: Value = serde_json::from_str(&place.run("inspect sample:heads --full --json").succeeded()).unwrap();
    let cases = found["cases"].as_array().unwrap().iter();
    let mut volumes: Vec<f64> = cases.map(|case| case["labels"][1]["millilitres"].as_f64().unwrap()).collect();
    volumes.sort_by(f64::total_cmp);
    let median = (volumes[2] + volumes[3]) / 2.0;
    assert!(volumes[3] - volumes[2] > 1.0 && text.contains(&format!("{median:.1} ml (median)")), "{volumes:?}: {text}");
    place.refuses("inspect sample:head", 2, &["no embedded task 'head'", "heads"]);
}

/// Without the voxels nothing is said of them: a blank scan shows only with `--full`.
#[test]
fn what_was_not_read_is_said() {
    let place = Place::new();
    Nifti::filled([8; 3], 0).write(&place.at("blank.nii"));
    let text = place.run("inspect blank.nii").succeeded();
    assert!(text.contains("no problems found in names and headers; --full reads all voxels\n1 case in "), "{text}");
    let text = place.run("inspect blank.nii --full").succeeded();
    assert!(text.contains("1 problem:") && text.contains("is 0 everywhere"), "{text}");
}

/// Every fault is listed, and none stops the others from being found.
#[test]
fn faults_are_listed() {
    let place = Place::new();
    let root = place.at("data");
    for name in ["good", "shifted", "short", "shape", "series", "skewed"] {
        Nifti::new([6, 5, 4]).write(&root.join(format!("imagesTr/{name}_0000.nii")));
        Nifti::filled([6, 5, 4], 1).write(&root.join(format!("labelsTr/{name}.nii")));
    }
    let mut shifted = Nifti::filled([6, 5, 4], 1);
    shifted.sform[2][3] = 7.0;
    shifted.write(&root.join("labelsTr/shifted.nii"));
    fs::write(root.join("imagesTr/short_0000.nii"), &Nifti::new([6, 5, 4]).bytes()[..400]).unwrap();
    Nifti::filled([6, 5, 3], 1).write(&root.join("labelsTr/shape.nii"));
    let mut series = Nifti::filled([6, 5, 4], 1);
    (series.dim[0], series.dim[4], series.voxels) = (4, 2, vec![1; 240]);
    series.write(&root.join("labelsTr/series.nii"));
    let mut skewed = Nifti::new([6, 5, 4]);
    skewed.sform[0][1] = 0.5;
    skewed.pixdim[2] = 1.25f64.sqrt();
    skewed.write(&root.join("imagesTr/skewed_0000.nii"));
    skewed.write(&root.join("labelsTr/skewed.nii"));
    Nifti::filled([6, 5, 4], 1).write(&root.join("labelsTr/alone.nii"));
    let json = r#"{"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii"}"#;
    fs::write(root.join("dataset.json"), json).unwrap();
    let text = place.run("inspect data").succeeded();
    for part in [
        "6 problems",
        "shifted.nii: lies 7.000 mm from",
        "--ignore-geometry",
        "short_0000.nii: is truncated",
        "shape.nii: has shape [6, 5, 3]",
        "series.nii: has 2 channels",
        "at 63.4 degrees where scans have 90",
        "alone_0000.nii: does not exist",
    ] {
        assert!(text.contains(part), "'{part}' is missing in\n{text}");
    }
    assert!(text.lines().any(|line| line.contains("shifted") && line.starts_with("! ")), "{text}");
    let text = place.run("inspect data --ignore-geometry").succeeded();
    assert!(!text.contains("7.000 mm"), "{text}");
    // A value that no class declares is only seen in the voxels.
    Nifti::filled([6, 5, 4], 9).write(&root.join("labelsTr/good.nii"));
    assert!(!place.run("inspect data").succeeded().contains("good.nii"));
    let text = place.run("inspect data --full").succeeded();
    assert!(
        text.contains("good.nii: holds label values outside the declared classes [0, 1]: 9 (120 voxels)"),
        "{text}"
    );
}

/// A data set of 500 subjects of four modalities, each file as long as its header says (holes, not bytes): only headers
/// are read, so that the scan takes seconds at most.
#[test]
fn five_hundred_cases_in_seconds() {
    let place = Place::new();
    let header = Nifti { datatype: 4, ..Nifti::new([240, 240, 155]) }.header();
    let length = header.len() as u64 + 2 * 240 * 240 * 155;
    for subject in 0..500 {
        let folder = place.at(&format!("data/S_{subject:03}"));
        fs::create_dir_all(&folder).unwrap();
        for part in ["flair", "t1", "t1ce", "t2", "seg"] {
            let path = folder.join(format!("S_{subject:03}_{part}.nii"));
            fs::write(&path, &header).unwrap();
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        }
    }
    let started = std::time::Instant::now();
    let text = place.run("inspect data").succeeded();
    let seconds = started.elapsed().as_secs_f64();
    assert!(text.contains("400 training, 100 validation") && text.contains("no problems found"), "{text}");
    // Reading the 45 GB of voxels would take a minute at the least; 2,500 headers take a tenth of a second.
    assert!(seconds < 10.0, "{seconds} s");
}
