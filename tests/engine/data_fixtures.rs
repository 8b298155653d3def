//! Data preparation and metrics agree with what the official code computed (`tests/fixtures`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ossnet::checkpoint::{Data, torch};
use ossnet::data::border::border_map;
use ossnet::data::preprocess::Preprocessing;
use ossnet::data::{Axes, Case, Labels, Padding, Source, Volume};
use ossnet::evaluate::metrics::{Confusion, ScoreRule, mean};

/// Arrays of an `.npz`, as numbers; those of other types are left out.
fn load(name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).unwrap();
        // Version 1: magic, version, u16 length of the header, header.
        let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        let header = std::str::from_utf8(&bytes[10..start]).unwrap();
        assert!(header.contains("'fortran_order': False"), "{header}");
        let between = |from: &str, to: &str| header.split_once(from).unwrap().1.split_once(to).unwrap().0.to_owned();
        let shape: Vec<usize> = between("'shape': (", ")").split(',').filter_map(|n| n.trim().parse().ok()).collect();
        let data = &bytes[start..];
        let values: Vec<f64> = match between("'descr': '", "'").as_str() {
            "|u1" => data.iter().map(|&v| v as f64).collect(),
            "<i2" => data.as_chunks().0.iter().map(|&v| i16::from_le_bytes(v) as f64).collect(),
            "<f4" => data.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v) as f64).collect(),
            "<f8" => data.as_chunks().0.iter().map(|&v| f64::from_le_bytes(v)).collect(),
            _ => continue,
        };
        arrays.insert(member.name().unwrap().trim_end_matches(".npy").to_owned(), (shape, values));
    }
    arrays
}

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().map(|&v| v as u8).collect()
}

#[test]
fn border_maps_are_equal_bit_for_bit() {
    let arrays = load("borders.npz");
    let (shape, label) = &arrays["label"];
    let map = border_map(&bytes(label), [shape[0], shape[1], shape[2]]);
    for name in ["border_official", "border_float"] {
        assert_eq!(map, bytes(&arrays[name].1), "{name}");
    }
    assert!(map.contains(&0) && map.contains(&1));
}

/// `ossnet borders` writes the official map bit for bit, as `.pt` and as NIfTI, and training takes what lies there.
#[test]
fn border_maps_are_written_and_taken() {
    let arrays = load("borders.npz");
    let (shape, label) = &arrays["label"];
    let (shape, official) = ([shape[0], shape[1], shape[2]], bytes(&arrays["border_official"].1));
    let place = crate::support::cli::Place::new();
    let label = Labels::new(shape, bytes(label));
    label.write(&place.at("S_1_seg.nii.gz")).unwrap();
    let text = place.run("borders S_1_seg.nii.gz --format pt").succeeded();
    assert!(text.starts_with("1 border map written"), "{text}");
    let map = torch::read_tensor(place.at("S_1_border.pt")).unwrap();
    let Data::Bool(values) = map.data() else { panic!("not booleans") };
    assert_eq!((map.shape(), values), (&shape[..], &official));
    assert!(place.run("borders S_1_seg.nii.gz --format pt").succeeded().contains("1 were there already"));
    place.run("borders S_1_seg.nii.gz").succeeded();
    let map = Labels::read(&Source::File(place.at("S_1_border.nii.gz")), Axes::Stored).unwrap();
    assert_eq!((map.voxels, map.geometry.affine), (official.clone(), label.geometry.affine));
    place.refuses("borders nowhere.nii", 1, &["nowhere.nii"]);

    // What lies beside the label is taken, even if it is not what would be computed.
    let mut other = official.clone();
    other.fill(0);
    other[77] = 1;
    Labels { voxels: other.clone(), ..label.clone() }.write(&place.at("S_1_border.nii.gz")).unwrap();
    ossnet::data::nifti::write_labels(&place.at("image.nii"), &label).unwrap();
    let file = |name: &str| Source::File(place.at(name));
    let case = Case { name: "S_1".into(), images: vec![file("image.nii")], label: Some(file("S_1_seg.nii.gz")) };
    let scan = case.read(&[], Axes::Canonical).unwrap();
    assert_eq!(scan.border, Some(other));
    let json = r#"{"channels": ["x"], "classes": [0, 1], "axes": "canonical", "clip": null, "spacing": null,
        "multiple": [16, 16, 16]}"#;
    let preprocessing: Preprocessing = serde_json::from_str(json).unwrap();
    let task = ossnet::task::Task { name: "t".into(), preprocessing, class_names: vec!["a".into(), "b".into()] };
    let case = task.prepare(scan, None).unwrap();
    let border = case.border.unwrap();
    assert_eq!((border.shape, border.voxels.len()), (case.volume.shape, 1));
}

/// The synthetic BraTS case: z-score, padding (larger half first), half resolution.
#[test]
fn a_case_is_prepared_as_officially() {
    let arrays = load("brats_dataset.npz");
    let (raw_shape, raw) = &arrays["raw"];
    let shape = [raw_shape[1], raw_shape[2], raw_shape[3]];
    let count: usize = shape.iter().product();
    let voxels = (0..count).flat_map(|i| (0..4).map(move |c| raw[c * count + i] as f32)).collect();
    let mut volume = Volume::new(shape, 4, voxels);
    for (stats, stated) in volume.normalise().iter().zip(arrays["norm_stats"].1.chunks(2)) {
        // The official statistics are f32 reductions over 133,200 values: a few parts in 10⁶.
        assert!((stats.mean - stated[0]).abs() < 1e-5 * stats.std && (stats.std / stated[1] - 1.0).abs() < 1e-5);
    }
    let padding = Padding::to_shape(shape, [64, 64, 40]).unwrap();
    let half = volume.pad(&padding, 0.0).half().unwrap();
    let (official_shape, official) = &arrays["volume"];
    assert_eq!(half.shape, official_shape[1..]);
    let count = half.len();
    for i in 0..count {
        for c in 0..4 {
            let (ours, theirs) = (half.voxels[i * 4 + c] as f64, official[c * count + i]);
            // Values below 10 whose mean and spread differ by a few parts in 10⁶.
            assert!((ours - theirs).abs() < 5e-5, "{ours} is not {theirs}");
        }
    }
    let label = volume_labels(&arrays);
    assert_eq!(border_map(&label, shape), bytes(&arrays["border"].1));
    // Labels at the coordinates that the official sampler drew in the padded volume.
    let padded = padding.pad(&label, shape, 1, 0);
    let coords: Vec<[u32; 3]> = arrays["coords"].1.chunks(3).map(|c| [c[0] as u32, c[1] as u32, c[2] as u32]).collect();
    let labels = ossnet::data::Labels::new([64, 64, 40], padded);
    assert_eq!(labels.at(&coords), bytes(&arrays["labels"].1));
}

fn volume_labels(arrays: &BTreeMap<String, (Vec<usize>, Vec<f64>)>) -> Vec<u8> {
    arrays["seg"].1.iter().map(|&v| (v > 0.0) as u8).collect()
}

#[test]
fn metrics_are_the_official_ones_under_the_reference_rule() {
    let arrays = load("metrics.npz");
    let (p, y) = (&arrays["p"].1, &arrays["y"].1);
    let each = p.len() / 4;
    let (mut dice, mut iou) = (Vec::new(), Vec::new());
    for (p, y) in p.chunks(each).zip(y.chunks(each)) {
        let p: Vec<f32> = p.iter().map(|&p| p as f32).collect();
        let counts = Confusion::of_probabilities(&p, &bytes(y), &ScoreRule::REFERENCE);
        dice.push(counts.dice(&ScoreRule::REFERENCE));
        iou.push(counts.iou(&ScoreRule::REFERENCE));
    }
    // The official scores are quotients of f32 sums of up to 200 ones: exact sums, one rounding.
    let close = |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&dice, &arrays["dice_each"].1), "{dice:?}");
    assert!(close(&iou, &arrays["iou_each"].1), "{iou:?}");
    assert!(close(&[mean(&dice), mean(&iou)], &[arrays["dice_batch"].1[0], arrays["iou_batch"].1[0]]));
}
