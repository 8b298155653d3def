//! Which files make up which case: lists of other tools, names, orphans, download folders.

use std::fs;
use std::path::Path;

use ossnet::data::{Axes, Dataset, Layout, Split};
use serde_json::{Value, json};

use crate::support::Nifti;
use crate::support::cli::Place;

pub fn image(root: &Path, name: impl AsRef<Path>, value: u8) {
    let mut file = Nifti::new([4, 4, 4]);
    file.voxels[0] = value;
    file.write(&root.join(name));
}

pub fn label(root: &Path, name: impl AsRef<Path>, value: u8) {
    Nifti::filled([4, 4, 4], value).write(&root.join(name));
}

pub fn describe(root: &Path, description: &Value) -> ossnet::Result<Dataset> {
    fs::write(root.join("dataset.json"), description.to_string()).unwrap();
    Dataset::open(root, 0)
}

/// A folder a patient, whose files are called alike: three cases in each tool's form of list.
#[test]
fn a_folder_a_patient() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for number in 0..3u8 {
        image(root, format!("p{number}/ct.nii.gz"), 10 + number);
        image(root, format!("p{number}/ct2.nii.gz"), 20 + number);
        label(root, format!("p{number}/seg.nii.gz"), 1);
    }
    let names = |dataset: &Dataset| {
        let mut names: Vec<String> = dataset.cases().map(|(_, case)| case.name.clone()).collect();
        names.sort();
        names
    };
    let labels = json!({"0": "background", "1": "x"});
    let entry = |n: usize| json!({"image": format!("p{n}/ct.nii.gz"), "label": format!("p{n}/seg.nii.gz")});
    let plain = json!({"modality": {"0": "CT"}, "labels": labels, "training": [entry(0), entry(1), entry(2)]});
    let dataset = describe(root, &plain).unwrap();
    assert_eq!((names(&dataset), dataset.layout), (vec!["p0".into(), "p1".into(), "p2".into()], Layout::Decathlon));
    // The same names where training and validation are listed apart, so that no case seems to be in both.
    let mut apart = plain.clone();
    apart["training"] = json!([entry(0), entry(1)]);
    apart["validation"] = json!([entry(2)]);
    let dataset = describe(root, &apart).unwrap();
    assert_eq!((names(&dataset).len(), dataset.warnings.len(), dataset.split), (3, 0, Split::Declared));
    assert_eq!(dataset.validation[0].name, "p2");

    // MONAI: an image a channel, and folds.
    let files = |n: usize| json!([format!("p{n}/ct.nii.gz"), format!("p{n}/ct2.nii.gz")]);
    let entry = |n: usize, fold: usize| json!({"fold": fold, "image": files(n), "label": format!("p{n}/seg.nii.gz")});
    let mut monai = plain.clone();
    monai["modality"] = json!({"0": "CT", "1": "CT"});
    monai["training"] = json!([entry(0, 0), entry(1, 0), entry(2, 0)]);
    let dataset = describe(root, &monai).unwrap();
    assert_eq!((names(&dataset).len(), dataset.split), (3, Split::Drawn { seed: 0 }));
    let (_, case) = dataset.cases().find(|(_, case)| case.name == "p1").unwrap();
    let scan = dataset.read(case, Axes::Canonical).unwrap();
    assert_eq!((scan.image.channels, &scan.image.voxels[..2]), (2, &[11.0, 21.0][..]));
    monai["training"] = json!([entry(0, 2), entry(1, 0), entry(2, 1)]);
    let dataset = describe(root, &monai).unwrap();
    assert_eq!((dataset.split, dataset.validation[0].name.as_str()), (Split::Declared, "p1"));
    monai["modality"] = json!({"0": "CT"});
    let message = describe(root, &monai).unwrap_err().to_string();
    assert!(message.contains("lists 2 images for p0/seg.nii.gz where 1 modalities are declared"), "{message}");

    // nnU-Net 2: a dictionary.
    let entry = |n: usize| json!({"images": [format!("p{n}/ct.nii.gz")], "label": format!("p{n}/seg.nii.gz")});
    let nnunet = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}, "numTraining": 3,
        "file_ending": ".nii.gz", "dataset": {"one": entry(0), "two": entry(1), "three": entry(2)}});
    let dataset = describe(root, &nnunet).unwrap();
    assert_eq!((names(&dataset), dataset.layout), (vec!["one".into(), "three".into(), "two".into()], Layout::NnUNet));
    assert!(dataset.warnings.is_empty());
}

/// Lists of BraTS subjects as MONAI's research code has them: folds and files, nothing else.
#[test]
fn a_list_of_brats_subjects() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut training = Vec::new();
    for number in 0..2 {
        let file = |part: &str| format!("TrainingData/B_{number}/B_{number}_{part}.nii.gz");
        for part in ["flair", "t1ce", "t1", "t2"] {
            image(root, file(part), 9);
        }
        label(root, file("seg"), 4);
        let images = ["flair", "t1ce", "t1", "t2"].map(file);
        training.push(json!({"fold": number, "image": images, "label": file("seg")}));
    }
    let dataset = describe(root, &json!({"training": training})).unwrap();
    assert_eq!(dataset.channels, ["flair", "t1ce", "t1", "t2"]);
    assert_eq!(dataset.class_values(), [0, 1, 2, 4]);
    assert_eq!(dataset.validation[0].name, "B_0_seg");
    assert_eq!(dataset.read(&dataset.training[0], Axes::Canonical).unwrap().image.channels, 4);
}

/// Every image without a label is told of, whatever it is called, and so is a count that is not the data set's.
#[test]
fn no_case_is_lost_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let description =
        json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"});
    for name in ["a", "b"] {
        image(root, format!("imagesTr/{name}.nii.gz"), 1);
        label(root, format!("labelsTr/{name}.nii.gz"), 1);
    }
    assert_eq!(describe(root, &description).unwrap().cases().count(), 2);
    for orphan in ["c", "größe_0000", "c_0000", "amos_0507", "a_0001", "x y"] {
        let path = format!("imagesTr/{orphan}.nii.gz");
        image(root, &path, 1);
        let message = describe(root, &description).unwrap_err().to_string();
        assert!(message.contains(&format!("{orphan}.nii.gz: has no label")), "{orphan}: {message}");
        fs::remove_file(root.join(path)).unwrap();
    }
    // Two labels of one case.
    label(root, "labelsTr/a.nii", 0);
    let message = describe(root, &description).unwrap_err().to_string();
    assert!(message.contains("both the label of a"), "{message}");
    fs::remove_file(root.join("labelsTr/a.nii")).unwrap();
    for (stated, told) in [(2, false), (100, true), (1, true)] {
        let mut counted = description.clone();
        counted["numTraining"] = stated.into();
        let dataset = describe(root, &counted).unwrap();
        let said = dataset.warnings.iter().any(|warning| warning.to_string().contains("numTraining"));
        assert_eq!(said, told, "{stated}: {:?}", dataset.warnings);
    }
    // Files beside a list that does not name them.
    let mut listed = description.clone();
    listed["training"] = json!([{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}]);
    let dataset = describe(root, &listed).unwrap();
    let text: Vec<String> = dataset.warnings.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|line| line.contains("imagesTr/b.nii.gz: is not on the lists")), "{text:?}");
}

/// A label `a.nii` with an image `a_0000.nii.gz`, and the other way; listed or not.
#[test]
fn either_ending() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    image(root, "imagesTr/a_0000.nii.gz", 7);
    label(root, "labelsTr/a.nii", 1);
    image(root, "imagesTr/b.nii", 7);
    label(root, "labelsTr/b.nii.gz", 1);
    let mut description = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}});
    let dataset = describe(root, &description).unwrap();
    assert_eq!((dataset.cases().count(), dataset.warnings.len()), (2, 0));
    description["training"] = json!([
        {"image": "./imagesTr/a.nii", "label": "./labelsTr/a.nii"}, {"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"}
    ]);
    let dataset = describe(root, &description).unwrap();
    assert_eq!(dataset.cases().count(), 2);
    assert_eq!(dataset.read(&dataset.training[0], Axes::Canonical).unwrap().image.voxels[0], 7.0);
}

/// Cases without labels are counted by their own names: numbers beyond the channels belong to them.
#[test]
fn test_cases_have_their_own_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a", "b"] {
        image(root, format!("imagesTr/{name}_0000.nii.gz"), 1);
        label(root, format!("labelsTr/{name}.nii.gz"), 1);
    }
    for name in ["amos_0101", "amos_0102", "c_0000"] {
        image(root, format!("imagesTs/{name}.nii.gz"), 1);
    }
    let description = json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "x": 1}});
    let dataset = describe(root, &description).unwrap();
    let names: Vec<&str> = dataset.test.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names, ["amos_0101", "amos_0102", "c"]);
}

#[test]
fn brats_of_all_years() {
    let place = Place::new();
    let subject = |root: &str, name: &str, parts: [&str; 5], value: u8| {
        for part in parts {
            let path = place.at(&format!("{root}/{name}/{name}{part}.nii.gz"));
            let fill = if part.ends_with("seg") { value } else { part.len() as u8 };
            let mut file = Nifti::filled([4, 4, 4], fill);
            file.voxels[0] = 0;
            file.write(&path);
        }
    };
    let later = ["-t2f", "-t1n", "-t1c", "-t2w", "-seg"];
    let earlier = ["_flair", "_t1", "_t1ce", "_t2", "_seg"];
    for number in 0..2 {
        subject("of2023", &format!("BraTS-GLI-0000{number}-000"), later, 3);
        subject("of2021", &format!("BraTS2021_0000{number}"), earlier, 4);
        subject("converted", &format!("BraTS2021_0000{number}"), earlier, 3);
    }
    for (root, values, held) in
        [("of2023", [0, 1, 2, 3], 3), ("of2021", [0, 1, 2, 4], 4), ("converted", [0, 1, 2, 4], 4)]
    {
        let dataset = Dataset::open(&place.at(root), 0).unwrap();
        assert_eq!(
            (dataset.layout, dataset.class_values(), dataset.cases().count()),
            (Layout::Brats, values.to_vec(), 2)
        );
        assert_eq!(dataset.channels, ["flair", "t1", "t1ce", "t2"]);
        let scan = dataset.read(&dataset.training[0], Axes::Canonical).unwrap();
        assert_eq!(scan.labels.unwrap().histogram()[held], 63, "{root}");
        let told = scan.warnings.iter().any(|warning| warning.to_string().contains("label 3, which is read as 4"));
        assert_eq!(told, root == "converted", "{root}");
    }
    let dataset = Dataset::open(&place.at("of2023"), 0).unwrap();
    let first = dataset.training[0].images[0].path().display().to_string();
    assert!(first.ends_with("-t2f.nii.gz"), "FLAIR is the first channel: {first}");
    fs::remove_file(place.at("of2023/BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz")).unwrap();
    let message = Dataset::open(&place.at("of2023"), 0).unwrap_err().to_string();
    assert!(message.contains("BraTS-GLI-00000-000: holds no file *-t1c.nii"), "{message}");
}

/// The challenge's download is two folders and one data set.
#[test]
fn lits_in_training_batches() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (batch, number) in [(1, 0), (1, 1), (2, 28), (2, 29)] {
        image(root, format!("Training Batch {batch}/volume-{number}.nii"), 1);
        label(root, format!("Training Batch {batch}/segmentation-{number}.nii"), 1);
    }
    let dataset = Dataset::open(root, 0).unwrap();
    assert_eq!((dataset.layout, dataset.cases().count()), (Layout::LitsFlat, 4));
    assert!(dataset.read(&dataset.validation[0], Axes::Canonical).is_ok());
    image(root, "Training Batch 2/volume-0.nii", 1);
    let message = Dataset::open(root, 0).unwrap_err().to_string();
    assert!(message.contains("Training Batch 2/volume-0.nii") && message.contains("both volume-0"), "{message}");
    fs::rename(root.join("Training Batch 2/volume-0.nii"), root.join("Training Batch 2/volume-7.nii")).unwrap();
    let message = Dataset::open(root, 0).unwrap_err().to_string();
    assert!(message.contains("volume-7.nii: has no partner Training Batch 2/segmentation-7.nii"), "{message}");
}
