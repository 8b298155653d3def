//! Label maps as they are stored: scaled, above 255, below 0; and what is no label map.

use std::fs;

use ossnet::data::{Axes, Labels, Source};

use crate::support::Nifti;
use crate::support::cli::Place;

/// Labels of `values` as stored in `datatype` of `size` bytes, with a slope and an intercept.
fn stored(datatype: i16, size: usize, voxels: Vec<u8>, scaling: (f64, f64)) -> ossnet::Result<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nii");
    let count = (voxels.len() / size) as i64;
    let mut file = Nifti::new([count, 1, 1]).typed(datatype, size, voxels);
    (file.slope, file.intercept) = scaling;
    file.write(&path);
    Labels::read(&Source::File(path), Axes::Stored).map(|labels| labels.voxels)
}

#[test]
fn labels_within_half_a_slope_of_whole_numbers() {
    // 104 classes in 16 bits, as a program stores floats that it was given: slope 104/65535 about 52.
    let (slope, middle) = (104.0 / 65535.0, 52.0008);
    let words: Vec<u8> =
        (0..=104).flat_map(|class| (((class as f64 - middle) / slope).round() as i16).to_le_bytes()).collect();
    assert_eq!(stored(4, 2, words, (slope, middle)).unwrap(), (0..=104).collect::<Vec<u8>>());
    // Twelve classes in 8 bits: 1, 2 and 3 come out as 0.988, 2.023 and 3.012.
    let bytes = [0, 1, 2, 3, 12].map(|class| (f64::from(class) * 255.0 / 12.0).round() as u8).to_vec();
    assert_eq!(stored(2, 1, bytes, (12.0 / 255.0, 0.0)).unwrap(), [0, 1, 2, 3, 12]);
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(stored(16, 4, floats(&[0.9999, 2.0001, 0.0]), (0.0, 0.0)).unwrap(), [1, 2, 0]);
    // A mask of 0 and 255 that a slope makes 0 and 1.
    assert_eq!(stored(2, 1, vec![0, 255], (1.0 / 255.0, 0.0)).unwrap(), [0, 1]);
    for (name, read) in [
        ("probabilities in bytes", stored(2, 1, vec![0, 127, 255], (1.0 / 255.0, 0.0))),
        ("halves", stored(2, 1, vec![0, 1, 2], (0.5, 0.0))),
        ("steps between labels", stored(2, 1, vec![0, 1, 2], (0.7, 0.0))),
        ("an intercept of one half", stored(2, 1, vec![0, 1, 2], (1.0, 0.5))),
        ("interpolated", stored(16, 4, floats(&[0.0, 0.98, 1.0]), (0.0, 0.0))),
        ("below 0", stored(4, 2, [0i16, -1].iter().flat_map(|v| v.to_le_bytes()).collect(), (0.0, 0.0))),
        ("above 255", stored(4, 2, [0i16, 1001].iter().flat_map(|v| v.to_le_bytes()).collect(), (0.0, 0.0))),
    ] {
        let message = read.expect_err(name).to_string();
        assert!(message.contains("has label value"), "{name}: {message}");
    }
}

/// A cube of 30³ voxels of 1 mm with three boxes of `values`.
fn boxes(values: [i32; 3], background: i32) -> Nifti {
    let mut voxels = Vec::new();
    for at in 0..27000usize {
        let [x, y, z] = [at % 30, at / 30 % 30, at / 900];
        let inside = |x0: usize, x1: usize, y0: usize, y1: usize, z0: usize, z1: usize| {
            (x0..x1).contains(&x) && (y0..y1).contains(&y) && (z0..z1).contains(&z)
        };
        let value = match () {
            () if inside(3, 12, 3, 12, 3, 12) => values[0],
            () if inside(12, 24, 3, 12, 3, 12) => values[1],
            () if inside(3, 12, 16, 28, 16, 28) => values[2],
            () => background,
        };
        voxels.extend(value.to_le_bytes());
    }
    Nifti::new([30; 3]).typed(8, 4, voxels)
}

/// What each class' mesh holds, by class as the file names say.
fn millilitres(place: &Place, name: &str) -> Vec<(String, f64)> {
    let command = format!("mesh {name}.nii --out {name}.ply --smallest 0 --smooth 0 --triangles 0 --threads 1 --json");
    let result: serde_json::Value = serde_json::from_str(&place.run(&command).succeeded()).unwrap();
    let entries = result["meshes"].as_array().unwrap();
    let class = |entry: &serde_json::Value| {
        let file = entry["files"][0].as_str().unwrap().to_owned();
        file.trim_end_matches(".ply").rsplit_once('_').unwrap().1.to_owned()
    };
    entries.iter().map(|entry| (class(entry), entry["volume_ml"].as_f64().unwrap())).collect()
}

/// One mesh a class, whatever whole numbers the classes are; surfaces are those of the exact map.
#[test]
fn meshes_of_any_label_map() {
    let place = Place::new();
    boxes([1, 2, 3], 0).write(&place.at("exact.nii"));
    let exact = millilitres(&place, "exact");
    assert_eq!(exact.iter().map(|(class, _)| class.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    // 9³, 12·9² and 9·12² voxels: surfaces of masks cut corners, by less than a tenth.
    for ((_, volume), voxels) in exact.iter().zip([729.0, 972.0, 1296.0]) {
        assert!((volume * 1000.0 / voxels - 1.0).abs() < 0.1, "{volume} ml of {voxels} voxels");
    }
    let mut scaled = boxes([1, 2, 3], 0);
    scaled.datatype = 2;
    scaled.voxels = scaled.voxels.as_chunks::<4>().0.iter().map(|v| (f64::from(v[0]) * 21.25).round() as u8).collect();
    scaled.slope = 12.0 / 255.0;
    scaled.write(&place.at("scaled.nii"));
    assert_eq!(millilitres(&place, "scaled"), exact);
    // FreeSurfer's, an atlas whose numbers 32-bit floats do not tell apart, and negative ones.
    for (name, values) in
        [("aseg", [1001, 1002, 2035]), ("atlas", [312782546, 312782547, 312782548]), ("negative", [1, 2, -1])]
    {
        boxes(values, 0).write(&place.at(&format!("{name}.nii")));
        let mut found = millilitres(&place, name);
        let mut expected: Vec<(String, f64)> =
            values.iter().zip(&exact).map(|(v, (_, ml))| (v.to_string(), *ml)).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(found, expected, "{name}");
    }
    place.run("mesh negative.nii --out one.ply --label -1").succeeded();
    place.run("mesh aseg.nii --out x.ply --label 7").refused(1, &["aseg.nii", "class 7", "1001, 1002, 2035"]);
}

/// Neither classes nor probabilities: an error, never one surface of everything.
#[test]
fn scans_are_no_segmentations() {
    let place = Place::new();
    boxes([40, 40, 40], -1000).write(&place.at("ct.nii"));
    place.refuses("mesh ct.nii --out a.ply", 1, &["ct.nii", "-1000 to 40", "no background", "--threshold"]);
    place.run("mesh ct.nii --out a.ply --threshold 0").succeeded();
    let words: Vec<u8> = (0..8000i16).flat_map(|i| (i % 2000).to_le_bytes()).collect();
    Nifti::new([20; 3]).typed(4, 2, words).write(&place.at("mr.nii"));
    place.refuses("mesh mr.nii --out b.ply", 1, &["mr.nii", "more than 512 different values", "--threshold"]);
    place.run("mesh mr.nii --out c.ply --label 1999").succeeded();
    // Few values, but noise; an atlas of as many areas is one.
    Nifti { voxels: (0..8000u32).map(|i| (i * i % 251) as u8).collect(), ..Nifti::new([20; 3]) }
        .write(&place.at("us.nii"));
    place.refuses("mesh us.nii --out b.ply", 1, &["us.nii", "neighbours are seldom alike", "--threshold"]);
    Nifti { voxels: (0..8000u32).map(|i| (i / 40) as u8).collect(), ..Nifti::new([20; 3]) }
        .write(&place.at("atlas.nii"));
    place.run("mesh atlas.nii --out atlas/a.ply --smallest 0").succeeded();
    assert_eq!(fs::read_dir(place.at("atlas")).unwrap().count(), 199);
    let floats: Vec<u8> = (0..8000).flat_map(|i| (i as f32 / 1000.0).to_le_bytes()).collect();
    Nifti::new([20; 3]).typed(16, 4, floats).write(&place.at("field.nii"));
    place.refuses("mesh field.nii --out d.ply", 1, &["field.nii", "from 0 to 7.999", "probabilities"]);
    let floats: Vec<u8> = (0..8000).flat_map(|i| (i as f32 / 7999.0).to_le_bytes()).collect();
    Nifti::new([20; 3]).typed(16, 4, floats).write(&place.at("map.nii"));
    place.run("mesh map.nii --out e.ply").succeeded();
}
