//! Units, statements that contradict each other, scans without content.

use ossnet::data::{Axes, Labels, Source, Volume};

use super::{read_pair, warnings};
use crate::support::Nifti;
use crate::support::cli::Place;

/// A grid of 2 × 2 × 3 mm with an origin, its lengths multiplied by `factor`, in the unit of `code`.
fn in_units(code: u8, factor: f64, version: u8) -> Nifti {
    let mut file = Nifti::new([6, 5, 4]);
    if version == 2 {
        (file.version, file.magic, file.offset) = (2, *b"n+2\0", 544.0);
    }
    file.units = code;
    file.sform =
        [[2.0, 0.0, 0.0, -10.0], [0.0, 2.0, 0.0, 4.0], [0.0, 0.0, 3.0, 7.0]].map(|row| row.map(|v| v * factor));
    file.pixdim[1..4].copy_from_slice(&[2.0, 2.0, 3.0].map(|v| v * factor));
    (file.qform_code, file.quaternion) = (1, [0.0, 0.0, 0.0, -10.0 * factor, 4.0 * factor, 7.0 * factor]);
    file
}

/// A mm, a metre and a micron, in either version, by sform, qform or spacing alone, are one and the same grid.
#[test]
fn lengths_are_in_mm_whatever_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    for (code, factor) in [(2, 1.0), (1, 1e-3), (3, 1e3), (2 + 8, 1.0), (1 + 16, 1e-3)] {
        for version in [1, 2] {
            for codes in [(1, 1), (0, 1), (1, 0), (0, 0)] {
                let mut file = in_units(code, factor, version);
                (file.sform_code, file.qform_code) = codes;
                file.write(&path);
                let volume = Volume::read(&Source::File(path.clone()), Axes::Canonical).unwrap();
                let (spacing, expected) = (volume.geometry.spacing(), [2.0, 2.0, 3.0]);
                // Stored as f32: relative error 6e-8.
                assert!((0..3).all(|k| (spacing[k] - expected[k]).abs() < 1e-6), "{code} {codes:?}: {spacing:?}");
                let origin = volume.geometry.affine.apply([0.0; 3]);
                let right = if codes == (0, 0) { [0.0; 3] } else { [-10.0, 4.0, 7.0] };
                assert!((0..3).all(|k| (origin[k] - right[k]).abs() < 1e-5), "{code} {codes:?}: {origin:?}");
                // What is written says what its unit is, and leads to the same place.
                let out = folder.path().join("out.nii");
                let labels = Labels { geometry: volume.geometry, ..Labels::new(volume.shape, vec![1; 120]) };
                labels.write(&out).unwrap();
                let bytes = std::fs::read(&out).unwrap();
                assert_eq!(bytes[123] & 7, 2, "mm");
                assert_eq!(bytes[123] & !7, code & !7, "the unit of time stays");
                let again = Labels::read(&Source::File(out), Axes::Canonical).unwrap();
                assert!((0..3).all(|k| (again.geometry.spacing()[k] - expected[k]).abs() < 1e-6));
            }
        }
    }
}

/// Numbers of NIfTI-2 that NIfTI-1 has no room for: a grid that f32 cannot hold is refused, wide codes keep their meaning.
#[test]
fn what_is_read_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::File(folder.path().join("a.nii"));
    for factor in [1e-60, 1e60] {
        in_units(2, factor, 2).write(source.path());
        let message = Volume::read(&source, Axes::Canonical).unwrap_err().to_string();
        assert!(message.contains("sform that does not span space"), "{factor}: {message}");
    }
    let mut turned = in_units(2, 1.0, 2);
    (turned.sform_code, turned.quaternion[0]) = (0, 1e60);
    turned.write(source.path());
    let message = Volume::read(&source, Axes::Canonical).unwrap_err().to_string();
    assert!(message.contains("qform or pixdim that does not span space"), "{message}");
    // Cut to 16 bits, the first would be 0 and the second positive.
    for (sform_code, qform_code) in [(1 << 16, 1), (i32::MIN + 1, 1)] {
        let mut file = in_units(2, 1.0, 2);
        (file.sform_code, file.qform_code) = (sform_code, qform_code);
        file.quaternion[3] += 5.0;
        file.write(source.path());
        let volume = Volume::read(&source, Axes::Canonical).unwrap();
        let out = folder.path().join("out.nii");
        let labels = Labels { geometry: volume.geometry, ..Labels::new(volume.shape, vec![1; 120]) };
        labels.write(&out).unwrap();
        let again = Labels::read(&Source::File(out), Axes::Canonical).unwrap().geometry.affine.apply([0.0; 3]);
        assert_eq!(again, volume.geometry.affine.apply([0.0; 3]), "{sform_code}");
    }
}

/// An image in mm and a label in microns of the same place belong together.
#[test]
fn units_may_differ_within_a_case() {
    let label = Nifti { voxels: vec![1; 120], ..in_units(3, 1e3, 1) };
    let scan = read_pair(&in_units(2, 1.0, 1), &label).unwrap();
    assert_eq!(warnings(&scan), "");
}

#[test]
fn unknown_units_are_told_of() {
    for code in [0, 4, 8, 24] {
        let odd = in_units(code, 1.0, 1);
        let scan = read_pair(&odd, &Nifti { voxels: vec![1; 120], ..odd.clone() }).unwrap();
        let text = warnings(&scan);
        assert!(text.contains("image.nii: does not say in which unit its lengths are: mm are taken"), "{text}");
        assert!(text.contains("(also another file)") && !text.contains('|'), "said once: {text}");
    }
}

#[test]
fn headers_that_contradict_themselves_are_told_of() {
    let good = in_units(2, 1.0, 1);
    let told = |change: &dyn Fn(&mut Nifti)| {
        let mut file = good.clone();
        change(&mut file);
        let label = Nifti { voxels: vec![1; 120], ..file.clone() };
        warnings(&read_pair(&file, &label).unwrap())
    };
    assert_eq!(told(&|_| {}), "");
    assert_eq!(told(&|file| file.qform_code = 0), "");
    let text = told(&|file| (file.sform_code, file.qform_code) = (0, 0));
    assert!(text.contains("codes are 0") && text.contains("left and right"), "{text}");
    // A half turn about the third axis.
    let text = told(&|file| file.quaternion[2] = 1.0);
    assert!(text.contains("sform whose axes run to RAS and a qform whose axes run to LPS"), "{text}");
    let text = told(&|file| file.quaternion[3] += 5.0);
    assert!(text.contains("put a corner 5.000 mm apart"), "{text}");
    // An atlas' space is elsewhere than the scanner's, but left and right are the same.
    assert_eq!(told(&|file| (file.sform_code, file.quaternion[3]) = (4, 30.0)), "");
    assert!(told(&|file| (file.sform_code, file.quaternion[2]) = (4, 1.0)).contains("LPS"));
    let text = told(&|file| (file.pixdim[3], file.qform_code) = (1.0, 0));
    assert!(text.contains("2 × 2 × 1 mm (pixdim)") && text.contains("2 × 2 × 3 mm"), "{text}");
    assert_eq!(told(&|file| (file.pixdim[3], file.qform_code) = (3.0001, 0)), "", "rounding");
}

#[test]
fn blank_scans_are_told_of() {
    let blank = Nifti::filled([6, 5, 4], 7);
    let text = warnings(&read_pair(&blank, &Nifti::filled([6, 5, 4], 1)).unwrap());
    assert!(text.contains("image.nii: is 7 everywhere"), "{text}");
    let mut two = Nifti { voxels: (0..240).map(|i: u32| if i < 120 { i as u8 } else { 3 }).collect(), ..blank.clone() };
    (two.dim[0], two.dim[4]) = (4, 2);
    let text = warnings(&read_pair(&two, &Nifti::filled([6, 5, 4], 1)).unwrap());
    assert!(text.contains("has a channel 1 that is 3 everywhere") && !text.contains("channel 0"), "{text}");
}

/// A box of one millilitre, whatever the unit; and a warning of what is not said.
#[test]
fn meshes_have_their_volume() {
    let place = Place::new();
    let mut cube = Nifti::filled([20, 20, 20], 0);
    for at in 0..8000usize {
        let inside = [at % 20, at / 20 % 20, at / 400].iter().all(|k| (5..15).contains(k));
        cube.voxels[at] = inside.into();
    }
    for (name, code, factor) in [("mm", 2, 1.0), ("um", 3, 1e3), ("m", 1, 1e-3), ("none", 0, 1.0)] {
        let mut file = Nifti { units: code, ..cube.clone() };
        (0..3).for_each(|k| (file.sform[k][k], file.pixdim[k + 1]) = (factor, factor));
        file.write(&place.at(&format!("{name}.nii")));
        let outcome =
            place.run(&format!("mesh {name}.nii --out {name}.ply --smallest 0 --smooth 0 --triangles 0 --threads 1"));
        assert_eq!(outcome.err.contains("warning: none.nii: does not say in which unit"), code == 0, "{}", outcome.err);
        let text = outcome.succeeded();
        assert!(text.contains(" 1.0 ml"), "{text}");
        let text = place.run(&format!("inspect {name}.nii --full")).succeeded();
        assert!(text.contains("1 × 1 × 1 mm") && text.contains("no problems found") != (code == 0), "{text}");
    }
    place.run("inspect none.nii --check").out.contains("1 problem");
    assert_eq!(place.run("inspect none.nii --check").code, Some(1));
    assert_eq!(place.run("inspect mm.nii --check").code, Some(0));
}
