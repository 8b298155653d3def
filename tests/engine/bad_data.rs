//! Files that cannot be used: each gives one line that names the file and says what to do, and no panic.

use std::path::{Path, PathBuf};

use crate::support::{Nifti, gzip};
use ossnet::data::nifti::{read_header, write_labels};
use ossnet::data::{Axes, Case, Dataset, Labels, Source, Volume};

/// A case of one image and one label in a folder of their own.
struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    fn new(image: &Nifti, label: &Nifti) -> Self {
        let folder = tempfile::tempdir().unwrap();
        image.write(&folder.path().join("image.nii"));
        label.write(&folder.path().join("label.nii"));
        Self { folder }
    }

    fn read(&self) -> String {
        let file = |name: &str| Source::File(self.folder.path().join(name));
        let case = Case { name: "p".into(), images: vec![file("image.nii")], label: Some(file("label.nii")) };
        case.read(&[0, 1], Axes::Canonical).unwrap_err().to_string()
    }
}

/// One line, naming `name`, holding each of `parts`, with a remedy behind a semicolon or in brackets.
fn check(message: &str, name: &str, parts: &[&str]) {
    assert!(!message.contains('\n'), "more than one line: {message}");
    assert!(message.contains(name), "'{name}' is not named: {message}");
    for part in parts {
        assert!(message.contains(part), "'{part}' is missing: {message}");
    }
    assert!(message.contains("; ") || message.ends_with(')'), "no remedy: {message}");
}

/// `bytes` under `name`, read as an image.
fn image_error(name: &str, bytes: &[u8], parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let error = Volume::read(&Source::File(path), Axes::Canonical).expect_err(name);
    check(&error.to_string(), name, parts);
    assert_eq!(error.exit_code(), 1);
}

fn floats(values: &[f32]) -> Nifti {
    let voxels = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Nifti::new([values.len() as i64, 1, 1]).typed(16, 4, voxels)
}

#[test]
fn headers_that_lie() {
    let good = Nifti::new([4, 4, 4]);
    let with = |change: &dyn Fn(&mut Nifti)| {
        let mut file = good.clone();
        change(&mut file);
        file.bytes()
    };
    let table: [(&str, Vec<u8>, &[&str]); 21] = [
        ("empty.nii", vec![], &["0 bytes"]),
        ("short.nii", vec![7; 100], &["100 bytes"]),
        ("text.nii", b"not an image at all ".repeat(30), &["no NIfTI file"]),
        ("magic.nii", with(&|f| f.magic = *b"abcd"), &["magic", "abcd"]),
        ("analyze.hdr", with(&|f| f.magic = [0; 4]), &["ANALYZE"]),
        ("negative.nii", with(&|f| f.dim[2] = -4), &["-4 voxels along axis 1"]),
        ("zero.nii", with(&|f| f.dim[3] = 0), &["0 voxels along axis 2"]),
        ("axes.nii", with(&|f| f.dim[0] = 9), &["9 axes"]),
        ("noaxes.nii", with(&|f| f.dim[0] = 0), &["0 axes"]),
        ("minusaxes.nii", with(&|f| f.dim[0] = -3), &["-3 axes"]),
        ("huge.nii", with(&|f| f.dim = [7, 32767, 32767, 32767, 32767, 32767, 32767, 32767]), &["limit"]),
        ("large.nii", with(&|f| f.dim[1] = 30000), &["truncated", "480352 bytes"]),
        ("colour.nii", with(&|f| f.datatype = 128), &["colours"]),
        ("complex.nii", with(&|f| f.datatype = 32), &["complex"]),
        ("type.nii", with(&|f| f.datatype = 77), &["77"]),
        ("offset.nii", with(&|f| f.offset = 100.0), &["byte 100"]),
        ("nanoffset.nii", with(&|f| f.offset = f64::NAN), &["NaN"]),
        ("faroffset.nii", with(&|f| f.offset = 1e12), &["truncated"]),
        ("intercept.nii", with(&|f| (f.slope, f.intercept) = (2.0, f64::INFINITY)), &["intercept inf"]),
        ("singular.nii", with(&|f| f.sform = [[0.0; 4]; 3]), &["sform", "span"]),
        ("nanaffine.nii", with(&|f| f.sform[1][3] = f64::NAN), &["sform", "NaN"]),
    ];
    for (name, bytes, parts) in table {
        image_error(name, &bytes, parts);
    }
    let huge2 =
        Nifti { version: 2, magic: *b"n+2\0", offset: 544.0, dim: [3, i64::MAX, i64::MAX, 2, 1, 1, 1, 1], ..good };
    image_error("huge2.nii", &huge2.bytes(), &["limit"]);
    image_error("short2.nii", &huge2.bytes()[..400], &["540"]);
}

#[test]
fn damaged_compression() {
    let file = Nifti::new([40, 40, 40]);
    let whole = gzip(&file.bytes());
    image_error("half.nii.gz", &whole[..whole.len() / 2], &["truncated"]);
    image_error("header.nii.gz", &whole[..30], &["truncated"]);
    // All voxels are there, but not the checksum.
    image_error("tail.nii.gz", &whole[..whole.len() - 5], &["truncated", "checksum"]);
    let mut flipped = whole.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 0x40;
    image_error("checksum.nii.gz", &flipped, &["damaged"]);
    image_error("noise.nii.gz", &[&[0x1f, 0x8b][..], &[9; 600]].concat(), &["damaged"]);
    // 32767 × 32767 × 3 bytes cannot come out of a file of this size.
    let lie = Nifti { dim: [3, 32767, 32767, 3, 1, 1, 1, 1], ..file };
    image_error("lie.nii.gz", &gzip(&lie.bytes()), &["truncated", "at most"]);
}

#[test]
fn voxels_that_are_not_numbers() {
    let mut values = [1.0; 24];
    (values[7], values[9], values[20]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let file = Nifti { dim: [3, 2, 3, 4, 1, 1, 1, 1], ..floats(&values) };
    image_error("nan.nii", &file.bytes(), &["3 voxels", "[1, 0, 1]"]);
    let voxels = [0.0f64, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
    let wide = Nifti::new([2, 1, 1]).typed(64, 8, voxels);
    image_error("wide.nii", &wide.bytes(), &["1 voxel that is NaN", "[1, 0, 0]"]);
}

#[test]
fn files_and_folders_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    check(&Dataset::open(&at("nowhere"), 0).unwrap_err().to_string(), "nowhere", &["No such file"]);
    std::fs::create_dir(at("nothing")).unwrap();
    check(&Dataset::open(&at("nothing"), 0).unwrap_err().to_string(), "nothing", &["empty folder"]);
    std::fs::create_dir(at("strange")).unwrap();
    std::fs::write(at("strange/readme.txt"), "hello").unwrap();
    check(&Dataset::open(&at("strange"), 0).unwrap_err().to_string(), "strange", &["dataset.json"]);
    std::fs::write(at("file"), "hello").unwrap();
    check(&Dataset::open(&at("file"), 0).map_err(|e| format!("{e}; ")).unwrap_err(), "file", &["Not a directory"]);
    check(&read_header(&Source::File(at("gone.nii"))).unwrap_err().to_string(), "gone.nii", &["No such file"]);
    check(&read_header(&Source::File(at("nothing"))).unwrap_err().to_string(), "nothing", &["regular file"]);

    let pair = Nifti { magic: *b"ni1\0", offset: 0.0, ..Nifti::new([2, 2, 2]) };
    std::fs::write(at("lonely.hdr"), &pair.header()[..348]).unwrap();
    std::fs::write(at("other.img"), &pair.voxels).unwrap();
    let read = |name: &str| Volume::read(&Source::File(at(name)), Axes::Canonical).unwrap_err().to_string();
    check(&read("lonely.hdr"), "lonely.hdr", &["lonely.img"]);
    check(&read("other.img"), "other.img", &["other.hdr"]);
    std::fs::write(at("lonely.img"), &pair.voxels[..5]).unwrap();
    check(&read("lonely.hdr"), "lonely.img", &["truncated"]);
}

#[test]
fn images_and_labels_that_do_not_belong_together() {
    let image = Nifti::new([6, 5, 4]);
    let label = Nifti::filled([6, 5, 4], 1);
    let shifted = |distance: f64| {
        let mut file = label.clone();
        file.sform[1][3] = distance;
        file
    };
    let series = |channels: i64| {
        let mut file = Nifti::filled([6, 5, 4], 1);
        file.dim[0] = 4;
        file.dim[4] = channels;
        file.voxels = vec![1; 120 * channels as usize];
        file
    };
    let mut halves = floats(&[0.5; 120]);
    halves.dim = label.dim;
    let table: [(&Nifti, &Nifti, &str, &[&str]); 6] = [
        (&image, &Nifti::filled([6, 5, 3], 1), "label.nii", &["[6, 5, 3]", "[6, 5, 4]", "image.nii"]),
        (&image, &shifted(2.0), "label.nii", &["2.000 mm", "[0 1 0 2]", "[0 1 0 0]"]),
        (&image, &Nifti::filled([6, 5, 4], 3), "label.nii", &["3 (120 voxels)", "[0, 1]"]),
        (&image, &series(2), "label.nii", &["2 channels", "3D"]),
        (&image, &halves, "label.nii", &["0.5", "[0, 0, 0]"]),
        (&Nifti::new([1, 1, 1]), &Nifti::new([1, 1, 1]), "image.nii", &["one voxel"]),
    ];
    for (image, label, name, parts) in table {
        check(&Pair::new(image, label).read(), name, parts);
    }
    let mut film = series(2);
    (film.dim[0], film.dim[5]) = (5, 2);
    film.voxels = vec![1; 480];
    check(&Pair::new(&film, &label).read(), "image.nii", &["more than three axes"]);

    // Rounding of an affine is forgiven.
    let pair = Pair::new(&image, &shifted(0.01));
    let file = |name: &str| Source::File(pair.folder.path().join(name));
    let case = Case { name: "p".into(), images: vec![file("image.nii")], label: Some(file("label.nii")) };
    assert!(case.read(&[0, 1], Axes::Canonical).unwrap().warnings.is_empty());
    // A label without foreground is only warned of.
    Nifti::filled([6, 5, 4], 0).write(&pair.folder.path().join("label.nii"));
    let warnings = case.read(&[0, 1], Axes::Canonical).unwrap().warnings;
    assert!(warnings[0].to_string().contains("label.nii: holds no foreground"));
}

/// Voxels are matched in the files' own order when the user says so, and not before.
#[test]
fn geometry_is_ignored_on_demand() {
    let image = Nifti::new([6, 5, 4]);
    let mut label = Nifti::filled([6, 5, 4], 0);
    // Lies elsewhere, and runs from right to left (in canonical order from 45 mm on): the file's order is what counts.
    label.sform = [[-1.0, 0.0, 0.0, 50.0], [0.0, 1.0, 0.0, 9.0], [0.0, 0.0, 1.0, 0.0]];
    label.voxels[1] = 1;
    let pair = Pair::new(&image, &label);
    let message = pair.read();
    check(&message, "label.nii", &["mm from", "--ignore-geometry", "[1 0 0 45]"]);
    let file = |name: &str| Source::File(pair.folder.path().join(name));
    let case = Case { name: "p".into(), images: vec![file("image.nii")], label: Some(file("label.nii")) };
    let scan = case.read_with(&[0, 1], Axes::Canonical, true).unwrap();
    let labels = scan.labels.unwrap();
    assert_eq!(labels.geometry, scan.image.geometry);
    let marked: Vec<f32> = (0..120).filter(|&i| labels.voxels[i] == 1).map(|i| scan.image.voxels[i]).collect();
    assert_eq!(marked, [1.0], "the second voxel of one file is the second of the other");
    // Another shape is never ignored.
    let pair = Pair::new(&image, &Nifti::filled([6, 5, 3], 1));
    let file = |name: &str| Source::File(pair.folder.path().join(name));
    let case = Case { name: "p".into(), images: vec![file("image.nii")], label: Some(file("label.nii")) };
    assert!(case.read_with(&[], Axes::Canonical, true).unwrap_err().to_string().contains("[6, 5, 3]"));
}

/// Grids that can be read but are hardly meant: the work goes on with a warning.
#[test]
fn odd_grids_are_warned_of() {
    let warnings = |image: &Nifti| {
        let pair = Pair::new(image, &Nifti { voxels: vec![1; 120], ..image.clone() });
        let file = |name: &str| Source::File(pair.folder.path().join(name));
        let case = Case { name: "p".into(), images: vec![file("image.nii")], label: Some(file("label.nii")) };
        let scan = case.read(&[0, 1], Axes::Canonical).unwrap();
        assert!(scan.image.geometry.affine.is_valid());
        scan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
    };
    let good = Nifti::new([6, 5, 4]);
    assert_eq!(warnings(&good), "");
    let mut skewed = good.clone();
    skewed.sform[0][1] = 1.0;
    let text = warnings(&skewed);
    assert!(text.contains("image.nii: has axes 0 and 1 at 45.0 degrees"), "{text}");
    let mut flat = Nifti { sform_code: 0, ..good.clone() };
    flat.pixdim[3] = 0.0;
    let text = warnings(&flat);
    assert!(text.contains("image.nii: states a spacing of 0 mm along axis 2: 1 mm is taken"), "{text}");
    // A spacing of 0 in the affine itself leaves nothing to go on with.
    let mut none = good;
    none.sform[2][2] = 0.0;
    image_error("none.nii", &none.bytes(), &["sform", "does not span space"]);
}

fn decathlon(root: &Path, training: &[&str], validation: &[&str], modalities: usize) {
    let entry = |name: &&str| format!(r#"{{"image": "./imagesTr/{name}.nii", "label": "./labelsTr/{name}.nii"}}"#);
    let list = |names: &[&str]| names.iter().map(entry).collect::<Vec<_>>().join(", ");
    let channels: Vec<String> = (0..modalities).map(|m| format!(r#""{m}": "m{m}""#)).collect();
    let json = format!(
        r#"{{"modality": {{{}}}, "labels": {{"0": "background", "1": "x"}}, "training": [{}], "validation": [{}]}}"#,
        channels.join(", "),
        list(training),
        list(validation)
    );
    std::fs::write(root.join("dataset.json"), json).unwrap();
    for name in training.iter().chain(validation) {
        Nifti::new([3, 3, 3]).write(&root.join(format!("imagesTr/{name}.nii")));
        Nifti::filled([3, 3, 3], 1).write(&root.join(format!("labelsTr/{name}.nii")));
    }
}

#[test]
fn data_sets_that_are_incomplete() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    decathlon(path, &["a", "b"], &["b"], 1);
    let dataset = Dataset::open(path, 0).unwrap();
    assert!(dataset.warnings[0].to_string().contains("trains and validates on the same case (b)"));
    assert_eq!(dataset.read(&dataset.training[0], Axes::Canonical).unwrap().image.len(), 27);

    decathlon(path, &["a"], &[], 1);
    assert!(Dataset::open(path, 0).unwrap().warnings[0].to_string().contains("nothing will be scored"));

    decathlon(path, &["a"], &["b"], 2);
    let dataset = Dataset::open(path, 0).unwrap();
    let message = dataset.read(&dataset.training[0], Axes::Canonical).unwrap_err().to_string();
    check(&message, "a.nii", &["1 channels", "2 are declared"]);

    decathlon(path, &["a", "a"], &["b"], 1);
    check(&Dataset::open(path, 0).unwrap_err().to_string(), "dataset.json", &["case a twice"]);
    decathlon(path, &[], &["b"], 1);
    std::fs::remove_dir_all(path.join("labelsTr")).unwrap();
    std::fs::create_dir(path.join("labelsTr")).unwrap();
    // Images without labels come before the list that is empty.
    check(&Dataset::open(path, 0).unwrap_err().to_string(), "imagesTr/a.nii", &["has no label", "2 more problems"]);

    decathlon(path, &["a"], &["b"], 1);
    std::fs::remove_file(path.join("labelsTr/b.nii")).unwrap();
    check(&Dataset::open(path, 0).unwrap_err().to_string(), "b.nii", &["does not exist", "dataset.json"]);
}

/// Modalities in separate files must lie on one grid.
#[test]
fn modalities_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..2).map(|i| folder.path().join(format!("p_000{i}.nii"))).collect();
    Nifti::new([3, 3, 3]).write(&paths[0]);
    Nifti::new([3, 3, 4]).write(&paths[1]);
    let sources: Vec<Source> = paths.iter().cloned().map(Source::File).collect();
    let message = Volume::read_channels(&sources, Axes::Canonical, false).unwrap_err().to_string();
    check(&message, "p_0001.nii", &["[3, 3, 4]", "p_0000.nii"]);
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let labels = Labels::new([2, 2, 2], vec![1; 8]);
    let write = |name: &str| write_labels(&folder.path().join(name), &labels).unwrap_err().to_string();
    check(&write("no/such/folder.nii"), "folder.nii", &["No such file"]);
    check(&write("out.png"), "out.png", &[".nii.gz"]);
    let long = Labels::new([40000, 1, 1], vec![1; 40000]);
    let message = write_labels(&folder.path().join("long.nii"), &long).unwrap_err().to_string();
    check(&message, "long.nii", &["40000"]);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "no partial file");
}

/// Any 1 to 3 bytes of a header changed, and any cut: an error or an image, never a panic.
#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    let good = Nifti { qform_code: 1, ..Nifti::new([5, 4, 3]) };
    let mut rng = ossnet::rng::Rng::new(1);
    for round in 0..1000 {
        let mut bytes = good.bytes();
        for _ in 0..=rng.below(3) {
            let place = rng.below(352) as usize;
            bytes[place] = rng.next_u32() as u8;
        }
        if round % 3 == 0 {
            bytes.truncate(rng.below(bytes.len() as u64) as usize);
        }
        if round % 2 == 0 {
            bytes = gzip(&bytes);
            let place = rng.below(bytes.len() as u64) as usize;
            bytes[place] ^= 1 << rng.below(8);
        }
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = Labels::read(&Source::File(path.clone()), Axes::Canonical) {
            check(&error.to_string(), "a.nii", &[]);
        }
    }
}
