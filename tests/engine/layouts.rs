//! Data sets are found by their files and read, layout by layout: small phantoms drawn by a published script
//! (`tests/fixtures/phantoms`), and the real scans beside the repository where they are.

use std::fs;
use std::path::{Path, PathBuf};

use ossnet::data::{Axes, Case, Dataset, Layout, Source, Split};

fn phantoms(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/phantoms").join(part)
}

/// Copies a folder, uncompressing `.nii.gz` to `.nii` if `plain`.
fn copy(from: &Path, to: &Path, plain: bool) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name), plain);
        } else if let Some(name) = name.strip_suffix(".gz").filter(|_| plain) {
            let mut decoder = flate2::read::GzDecoder::new(fs::File::open(&path).unwrap());
            std::io::copy(&mut decoder, &mut fs::File::create(to.join(name)).unwrap()).unwrap();
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Label counts by value as the script that drew the phantom stated them.
fn counts(dataset: &Dataset, case: &str) -> Vec<u64> {
    let (_, case) = dataset.cases().find(|(_, other)| other.name == case).unwrap();
    let scan = dataset.read(case, Axes::Canonical).unwrap();
    assert_eq!(scan.image.channels, dataset.channels.len());
    let last = dataset.classes.last().unwrap().value as usize;
    scan.labels.unwrap().histogram()[..=last].to_vec()
}

#[test]
fn brats_as_published_and_uncompressed() {
    let folder = tempfile::tempdir().unwrap();
    for plain in [false, true] {
        let root = folder.path().join(plain.to_string());
        copy(&phantoms("MICCAI_BraTS2020_TrainingData"), &root, plain);
        let dataset = Dataset::open(&root, 0).unwrap();
        assert_eq!(dataset.layout, Layout::Brats);
        assert_eq!(dataset.channels, ["flair", "t1", "t1ce", "t2"]);
        assert_eq!(counts(&dataset, "BraTS20_Training_001"), [9103, 4, 99, 0, 10]);
        assert_eq!(counts(&dataset, "BraTS20_Training_002"), [9099, 13, 83, 0, 21]);
        // One of the two is among the authors' validation subjects.
        assert_eq!(dataset.split, Split::Official);
        let scan = dataset.read(&dataset.training[0], Axes::Canonical).unwrap();
        // Stored from right to left and from front to back; canonical inside.
        assert!((0..3).all(|k| scan.image.geometry.affine.0[k][k] == 10.0));
        assert_eq!(scan.image.geometry.orientation.flips, [true, true, false]);
    }
}

#[test]
fn the_authors_division_is_taken_for_the_subjects_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let source = phantoms("MICCAI_BraTS2020_TrainingData");
    let validation = include_str!("../../assets/brats_2020_split.txt").split_once("Validation:").unwrap().1;
    let named = validation.split_whitespace().next().unwrap();
    for (from, to) in [("BraTS20_Training_001", "BraTS20_Training_031"), ("BraTS20_Training_002", named)] {
        for part in ["flair", "t1", "t1ce", "t2", "seg"] {
            let target = folder.path().join(to);
            fs::create_dir_all(&target).unwrap();
            // Subject 355 was published with a segmentation of another name.
            let name = if part == "seg" && to == named { "W39_1998.09.19_Segm".into() } else { format!("{to}_{part}") };
            fs::copy(source.join(from).join(format!("{from}_{part}.nii.gz")), target.join(format!("{name}.nii.gz")))
                .unwrap();
        }
    }
    let dataset = Dataset::open(folder.path(), 0).unwrap();
    assert_eq!(dataset.split, Split::Official);
    assert_eq!(dataset.training[0].name, "BraTS20_Training_031");
    assert_eq!(dataset.validation[0].name, named);
    assert_eq!(counts(&dataset, named)[4], 21);
}

#[test]
fn lits_in_folders_and_flat() {
    let folder = tempfile::tempdir().unwrap();
    let flat = folder.path().join("flat");
    copy(&phantoms("LiTS"), &flat, true);
    let folders = folder.path().join("folders");
    for number in 0..2 {
        for (part, name) in [("input", "volume"), ("segmentation", "segmentation")] {
            fs::create_dir_all(folders.join(part)).unwrap();
            let name = format!("{name}-{number}.nii");
            fs::copy(flat.join(&name), folders.join(part).join(&name)).unwrap();
        }
    }
    for (root, layout) in [(flat, Layout::LitsFlat), (folders, Layout::LitsFolders)] {
        let dataset = Dataset::open(&root, 0).unwrap();
        assert_eq!(dataset.layout, layout);
        assert_eq!(counts(&dataset, "volume-0"), [17870, 553, 9]);
        assert_eq!(counts(&dataset, "volume-1"), [8300, 339, 1]);
        // A CT is clipped to soft tissue unless the user says otherwise.
        assert_eq!(dataset.clip, Some([-200.0, 300.0]));
    }
}

#[test]
fn the_decathlon_with_four_dimensional_images_and_with_one_channel() {
    let brain = Dataset::open(&phantoms("Task01_BrainTumour"), 0).unwrap();
    assert_eq!((brain.layout, brain.name.as_str()), (Layout::Decathlon, "BRATS"));
    assert_eq!(brain.channels, ["FLAIR", "T1w", "t1gd", "T2w"]);
    assert_eq!(brain.classes[2].name, "non-enhancing tumor");
    assert_eq!(counts(&brain, "BRATS_001"), [9192, 19, 1, 4]);
    assert_eq!(counts(&brain, "BRATS_002"), [9067, 122, 5, 22]);
    assert_eq!(brain.test.len(), 1);
    let scan = brain.read(&brain.test[0], Axes::Canonical).unwrap();
    assert_eq!((scan.name.as_str(), scan.image.channels, scan.labels), ("BRATS_003", 4, None));
    assert_eq!(brain.clip, None);

    let liver = Dataset::open(&phantoms("Task03_Liver"), 0).unwrap();
    assert_eq!(counts(&liver, "liver_1"), [11286, 233, 1]);
    assert_eq!(counts(&liver, "liver_2"), [6812, 98, 2]);
    assert_eq!(liver.clip, Some([-1024.0, 1024.0]));
}

/// The same cases as nnU-Net wants them: an image file a channel, no list of cases.
#[test]
fn nnu_net_raw() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let brats = phantoms("MICCAI_BraTS2020_TrainingData");
    for (number, case) in ["001", "002"].into_iter().enumerate() {
        let from = |part: &str| brats.join(format!("BraTS20_Training_{case}/BraTS20_Training_{case}_{part}.nii.gz"));
        for below in ["imagesTr", "labelsTr", "imagesTs"] {
            fs::create_dir_all(root.join(below)).unwrap();
        }
        for (channel, part) in ["flair", "t1", "t1ce", "t2"].into_iter().enumerate() {
            fs::copy(from(part), root.join(format!("imagesTr/BRATS_{number}_{channel:04}.nii.gz"))).unwrap();
            fs::copy(from(part), root.join(format!("imagesTs/TEST_{number}_{channel:04}.nii.gz"))).unwrap();
        }
        fs::copy(from("seg"), root.join(format!("labelsTr/BRATS_{number}.nii.gz"))).unwrap();
    }
    let json = r#"{"channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}, "file_ending": ".nii.gz",
        "labels": {"background": 0, "whole tumour": [1, 2, 4], "core": 1, "enhancing": 4}, "numTraining": 2}"#;
    fs::write(root.join("dataset.json"), json).unwrap();
    let dataset = Dataset::open(root, 0).unwrap();
    assert_eq!(dataset.layout, Layout::NnUNet);
    let classes: Vec<(u8, &str)> = dataset.classes.iter().map(|class| (class.value, class.name.as_str())).collect();
    assert_eq!(classes, [(0, "background"), (1, "core"), (2, "class 2"), (4, "enhancing")]);
    assert_eq!(counts(&dataset, "BRATS_0"), [9103, 4, 99, 0, 10]);
    let tests: Vec<&str> = dataset.test.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(tests, ["TEST_0", "TEST_1"]);
    assert_eq!(dataset.test[0].images.len(), 4);

    // Faults, each in one line.
    let refused = |change: &dyn Fn(), parts: &[&str]| {
        change();
        let message = Dataset::open(root, 0).unwrap_err().to_string();
        assert!(!message.contains('\n') && parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let image = root.join("imagesTr/BRATS_1_0002.nii.gz");
    refused(&|| fs::rename(&image, root.join("spare")).unwrap(), &["BRATS_1_0002.nii.gz: does not exist", "BRATS_1"]);
    fs::rename(root.join("spare"), &image).unwrap();
    let label = root.join("labelsTr/BRATS_1.nii.gz");
    refused(&|| fs::remove_file(&label).unwrap(), &["BRATS_1_0000.nii.gz: has no label labelsTr/BRATS_1.nii.gz"]);
    let other = json.replace(".nii.gz\",", ".mha\",");
    refused(&|| fs::write(root.join("dataset.json"), &other).unwrap(), &["files end in .mha", "convert them"]);
}

#[test]
fn a_folder_around_a_data_set_is_told_apart() {
    let message = Dataset::open(&phantoms(""), 0).unwrap_err().to_string();
    assert!(message.contains("no data set of a known layout") && message.contains("give the folder"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("labelsTr")).unwrap();
    let message = Dataset::open(folder.path(), 0).unwrap_err().to_string();
    assert!(message.contains("add the dataset.json"), "{message}");
}

/// Whole heads and a whole abdomen, as their sources distribute them.
#[test]
fn real_volumes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/full");
    if !root.is_dir() {
        eprintln!("SKIPPED: the real volumes are not at {}", root.display());
        return;
    }
    let file = |name: &str| Source::File(root.join(name));
    let read = |image: &str, label: &str| {
        let case = Case { name: image.into(), images: vec![file(image)], label: Some(file(label)) };
        case.read(&[], Axes::Canonical).unwrap()
    };
    for number in [1, 2] {
        let scan = read(
            &format!("pyradiomics/brain{number}_image.nii.gz"),
            &format!("pyradiomics/brain{number}_label.nii.gz"),
        );
        assert!(scan.labels.unwrap().foreground().contains(&1));
        assert!((0..3).all(|k| scan.image.geometry.affine.0[k][k] > 0.0));
    }
    let scan = read("pycortex/S1_t1.nii.gz", "derived/pycortexS1_brainmask.nii.gz");
    let brain = scan.labels.unwrap().histogram()[1] as f64 * scan.image.geometry.affine.determinant() / 1e6;
    assert!((0.9..2.0).contains(&brain), "an adult's brain is 1.0 to 1.8 litres, not {brain}");
    let scan = read("totalsegmentator/example_ct.nii.gz", "totalsegmentator/example_seg_fast_force_split.nii.gz");
    let low = scan.image.voxels.iter().copied().fold(f32::INFINITY, f32::min);
    assert!((-3100.0..=-900.0).contains(&low), "the air of a CT is near −1000, not {low}");
}
