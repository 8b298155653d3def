//! What is around a file's content: compression, what follows it, endings, byte order marks.

use std::fs;
use std::path::Path;

use ossnet::data::{Axes, Dataset, Source, Volume};

use crate::support::cli::{Place, data_set};
use crate::support::{Nifti, gzip};

fn read(path: &Path) -> ossnet::Result<Volume> {
    Volume::read(&Source::File(path.into()), Axes::Canonical)
}

/// What gunzip takes: several members, and anything behind the last that begins no other.
#[test]
fn what_follows_a_gzip_stream_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii.gz");
    let bytes = Nifti::new([20, 20, 20]).bytes();
    let whole = gzip(&bytes);
    let two = [gzip(&bytes[..3000]), gzip(&bytes[3000..])].concat();
    let behind: [&[u8]; 6] = [&[], &[0; 512], b"garbage at the end", &[0x1f], &[0x1f, 0x00, 0x8b], &[0; 70_000]];
    for stream in [&whole, &two] {
        for behind in behind {
            fs::write(&path, [stream, behind].concat()).unwrap();
            let volume = read(&path).unwrap_or_else(|error| panic!("{} bytes behind: {error}", behind.len()));
            assert_eq!(volume.shape, [20; 3]);
            assert_eq!(volume.voxels[1], f32::from(bytes[352 + 400]));
        }
    }
    // Damage is still noticed: in the first member's checksum, in the second's, and where voxels are missing.
    for place in [whole.len() - 6, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x40;
        fs::write(&path, [&damaged[..], &[0; 512]].concat()).unwrap();
        read(&path).unwrap_err();
    }
    let mut damaged = two.clone();
    let last = damaged.len() - 6;
    damaged[last] ^= 0x40;
    fs::write(&path, &damaged).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("damaged"));
    fs::write(&path, [gzip(&bytes[..3000]), vec![0; 512]].concat()).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("truncated"));
}

/// Endings in any case are read, wherever a folder is looked through.
#[test]
fn endings_in_any_case() {
    let place = Place::new();
    let root = place.at("data");
    for (image, label) in [("a_0000.nii.gz", "a.nii.gz"), ("b_0000.NII.GZ", "b.NII.GZ"), ("c_0000.Nii", "c.NII")] {
        Nifti::new([6, 5, 4]).write(&root.join("imagesTr").join(image.to_lowercase()));
        let mut labels = Nifti::filled([6, 5, 4], 1);
        labels.voxels[0] = 0;
        labels.write(&root.join("labelsTr").join(label.to_lowercase()));
        for (below, name) in [("imagesTr", image), ("labelsTr", label)] {
            fs::rename(root.join(below).join(name.to_lowercase()), root.join(below).join(name)).unwrap();
        }
    }
    let json = r#"{"channel_names": {"0": "MR"}, "labels": {"background": 0, "x": 1}, "numTraining": 3, "file_ending": ".NII.GZ"}"#;
    fs::write(root.join("dataset.json"), json).unwrap();
    let text = place.run("inspect data --full").succeeded();
    assert!(text.contains("2 training, 1 validation") && text.contains("no problems found"), "{text}");
    // The two halves of a pair.
    let pair = Nifti { magic: *b"ni1\0", offset: 0.0, ..Nifti::new([2, 2, 2]) };
    fs::write(place.at("p.HDR"), &pair.header()[..348]).unwrap();
    fs::write(place.at("p.IMG"), &pair.voxels).unwrap();
    assert_eq!(read(&place.at("p.HDR")).unwrap().shape, [2; 3]);
    assert_eq!(read(&place.at("p.IMG")).unwrap().shape, [2; 3]);
    // LiTS and BraTS.
    Nifti::new([6, 5, 4]).write(&place.at("lits/volume-0.nii"));
    Nifti::filled([6, 5, 4], 1).write(&place.at("lits/segmentation-0.nii"));
    fs::rename(place.at("lits/volume-0.nii"), place.at("lits/volume-0.NII")).unwrap();
    assert_eq!(Dataset::open(&place.at("lits"), 0).unwrap().training.len(), 1);
    for part in ["flair", "t1", "t1ce", "t2", "seg"] {
        Nifti::filled([6, 5, 4], 1).write(&place.at(&format!("brats/S_1/S_1_{part}.nii")));
        fs::rename(place.at(&format!("brats/S_1/S_1_{part}.nii")), place.at(&format!("brats/S_1/S_1_{part}.NII")))
            .unwrap();
    }
    assert_eq!(Dataset::open(&place.at("brats"), 0).unwrap().training.len(), 1);
}

#[test]
fn a_byte_order_mark_and_backslashes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    data_set(root, 6, &["a", "b"], &["c"]);
    let json = fs::read_to_string(root.join("dataset.json")).unwrap();
    fs::write(root.join("dataset.json"), format!("\u{feff}{json}")).unwrap();
    assert_eq!(Dataset::open(root, 0).unwrap().training.len(), 2);
    let windows = json.replace("./imagesTr/", r".\\imagesTr\\").replace("./labelsTr/", r".\\labelsTr\\");
    assert_ne!(windows, json);
    fs::write(root.join("dataset.json"), windows).unwrap();
    let dataset = Dataset::open(root, 0).unwrap();
    let names: Vec<&str> = dataset.cases().map(|(_, case)| case.name.as_str()).collect();
    assert_eq!((names, dataset.warnings.len()), (vec!["a", "b", "c"], 0));
    assert_eq!(dataset.read(&dataset.training[0], Axes::Canonical).unwrap().image.len(), 216);
}
