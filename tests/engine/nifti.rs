//! NIfTI files are read as the standard says, and written back onto the grid that they came from.

use crate::support::{Nifti, gzip};
use ossnet::data::nifti::{read, read_header, write_volume};
use ossnet::data::{Axes, Labels, Source, Volume};

fn source(path: impl Into<std::path::PathBuf>) -> Source {
    Source::File(path.into())
}

/// The same eight numbers in each of the ten types, two versions and two byte orders.
#[test]
fn every_type_in_every_byte_order() {
    macro_rules! bytes {
        ($($type:ty),*) => { [$((std::mem::size_of::<$type>(),
            (0..8).flat_map(|i| ((i * 13) as $type).to_le_bytes()).collect::<Vec<u8>>())),*] };
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    let encoded = bytes![u8, i16, i32, f32, f64, i8, u16, u32, i64, u64];
    for (code, (size, voxels)) in [2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280].into_iter().zip(encoded) {
        for (version, magic, offset) in [(1, *b"n+1\0", 352.0), (2, *b"n+2\0", 544.0)] {
            for big_endian in [false, true] {
                let file = Nifti { version, magic, offset, big_endian, ..Nifti::new([2, 2, 2]) };
                file.typed(code, size, voxels.clone()).write(&path);
                let image = read(&source(&path)).unwrap();
                assert_eq!(image.voxels, [0.0, 13.0, 26.0, 39.0, 52.0, 65.0, 78.0, 91.0], "type {code}");
                assert_eq!((image.header.version, image.header.big_endian), (version, big_endian));
                assert_eq!(image.header.grid.sform.0[1], [0.0, 1.0, 0.0, 0.0]);
            }
        }
    }
}

#[test]
fn negative_numbers_slope_and_intercept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii.gz");
    let voxels: Vec<u8> = [-1000i16, 0, 3071].iter().flat_map(|v| v.to_le_bytes()).collect();
    let ct = Nifti::new([3, 1, 1]).typed(4, 2, voxels);
    ct.write(&path);
    assert_eq!(read(&source(&path)).unwrap().voxels, [-1000.0, 0.0, 3071.0]);
    Nifti { slope: 2.0, intercept: -24.0, ..ct.clone() }.write(&path);
    assert_eq!(read(&source(&path)).unwrap().voxels, [-2024.0, -24.0, 6118.0]);
    // A slope of 0 or NaN: no scaling, whatever the intercept.
    for slope in [0.0, f64::NAN] {
        Nifti { slope, intercept: 5.0, ..ct.clone() }.write(&path);
        assert_eq!(read(&source(&path)).unwrap().voxels, [-1000.0, 0.0, 3071.0]);
    }
}

#[test]
fn pairs_by_either_name_and_compressed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let pair = Nifti { magic: *b"ni1\0", offset: 0.0, ..Nifti::new([2, 3, 1]) };
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.hdr"), &pair.header()[..348]).unwrap();
    std::fs::write(at("a.img"), &pair.voxels).unwrap();
    std::fs::write(at("b.c.hdr.gz"), gzip(&pair.header()[..348])).unwrap();
    std::fs::write(at("b.c.img.gz"), gzip(&pair.voxels)).unwrap();
    for name in ["a.hdr", "a.img", "b.c.hdr.gz", "b.c.img.gz"] {
        assert_eq!(read(&source(at(name))).unwrap().voxels, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
        assert_eq!(read_header(&source(at(name))).unwrap().shape(), [2, 3, 1]);
    }
}

/// A gzip file of several members, as bgzip and pigz make, and one whose name does not say that it is compressed.
#[test]
fn compression_is_recognised_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    let bytes = Nifti::new([4, 4, 4]).bytes();
    let members = [gzip(&bytes[..400]), gzip(&bytes[400..])].concat();
    std::fs::write(&path, members).unwrap();
    assert_eq!(read(&source(&path)).unwrap().voxels[63], 63.0);
}

#[test]
fn channels_lie_along_the_fourth_or_fifth_axis() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    let mut file = Nifti::new([2, 1, 2]);
    file.voxels = (0..12).collect();
    for dim in [[4, 2, 1, 2, 3, 1, 1, 1], [5, 2, 1, 2, 1, 3, 1, 1]] {
        file.dim = dim;
        file.write(&path);
        let volume = Volume::read(&source(&path), Axes::Stored).unwrap();
        assert_eq!((volume.shape, volume.channels), ([2, 1, 2], 3));
        // First axis fastest in the file, channel fastest in memory.
        assert_eq!(volume.voxels, [0.0, 4.0, 8.0, 2.0, 6.0, 10.0, 1.0, 5.0, 9.0, 3.0, 7.0, 11.0]);
    }
    // Two axes: an image of depth 1.
    file.dim = [2, 4, 3, 1, 1, 1, 1, 1];
    file.write(&path);
    assert_eq!(Volume::read(&source(&path), Axes::Stored).unwrap().shape, [4, 3, 1]);
}

/// A scan stored as left, posterior, superior with its axes turned: RAS inside, and on the way out every field of the grid
/// and every voxel as it was.
#[test]
fn a_scan_goes_to_ras_and_its_output_onto_the_scans_own_grid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.nii.gz");
    let scan = Nifti {
        pixdim: [-1.0, 0.9, 0.8, 2.5, 1.0, 1.0, 1.0, 1.0],
        qform_code: 1,
        quaternion: [0.1, -0.2, 0.3, 11.0, 12.0, 13.0],
        sform_code: 4,
        sform: [[0.0, 0.0, -2.5, 90.0], [-0.9, 0.0, 0.0, 80.0], [0.0, 0.8, 0.0, -70.0]],
        ..Nifti::new([3, 4, 5])
    };
    scan.write(&path);
    let labels = Labels::read(&source(&path), Axes::Canonical).unwrap();
    assert_eq!(labels.shape, [5, 3, 4]);
    for (got, wanted) in labels.geometry.spacing().iter().zip([2.5, 0.9, 0.8]) {
        assert!((got - wanted).abs() < 1e-6); // stored as f32
    }
    // Inside (0, 0, 0) is the file's (2, 0, 4): leftmost, most posterior, lowest.
    assert_eq!(labels.voxels[0], 2 + 4 * 12);

    for name in ["out.nii", "out.nii.gz"] {
        let out = folder.path().join(name);
        labels.write(&out).unwrap();
        let (before, after) = (read(&source(&path)).unwrap(), read(&source(&out)).unwrap());
        assert_eq!(before.voxels, after.voxels);
        assert_eq!(before.header.grid, after.header.grid);
    }
    // The same data give the same bytes.
    let first = std::fs::read(folder.path().join("out.nii.gz")).unwrap();
    labels.write(&folder.path().join("out.nii.gz")).unwrap();
    assert_eq!(std::fs::read(folder.path().join("out.nii.gz")).unwrap(), first);

    let mut volume = Volume::read(&source(&path), Axes::Canonical).unwrap();
    volume.voxels.iter_mut().for_each(|v| *v += 0.25);
    volume.channels = 2;
    volume.voxels = volume.voxels.iter().flat_map(|&v| [v, -v]).collect();
    let out = folder.path().join("probabilities.nii.gz");
    write_volume(&out, &volume).unwrap();
    assert_eq!(Volume::read(&source(&out), Axes::Canonical).unwrap(), volume);
}

/// An image and its label stored in different orders meet in RAS.
#[test]
fn differently_stored_image_and_label_meet() {
    let folder = tempfile::tempdir().unwrap();
    let (image, label) = (folder.path().join("image.nii"), folder.path().join("label.nii"));
    Nifti::new([4, 3, 2]).write(&image);
    let mut flipped = Nifti::new([4, 3, 2]);
    flipped.sform[0] = [-1.0, 0.0, 0.0, 3.0];
    flipped.voxels.chunks_mut(4).for_each(<[u8]>::reverse);
    flipped.write(&label);
    let case = ossnet::data::Case { name: "a".into(), images: vec![source(&image)], label: Some(source(&label)) };
    let scan = case.read(&[], Axes::Canonical).unwrap();
    let labels: Vec<f32> = scan.labels.unwrap().voxels.iter().map(|&v| v as f32).collect();
    assert_eq!(labels, scan.image.voxels);
    // On the files' own axes they do not.
    assert!(case.read(&[], Axes::Stored).unwrap_err().to_string().contains("mm from"));
}
