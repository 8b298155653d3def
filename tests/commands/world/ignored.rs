//! nnU-Net's `ignore`: voxels that nobody has looked at are not trained on, not predicted and not scored.

use std::fs;

use ossnet::data::{Axes, Labels, Source};
use serde_json::Value;

use crate::support::cli::{Place, ball};

const SIDE: i64 = 16;

/// Balls of which only every second slice was annotated, as nnU-Net wants them.
fn sparse(place: &Place, classes: &str) {
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let [image, mut label] = ball(SIDE, number as u64);
        let slice = (SIDE * SIDE) as usize;
        for (at, value) in label.voxels.iter_mut().enumerate() {
            if at / slice % 2 == 1 {
                *value = 2;
            }
        }
        image.write(&place.at(&format!("data/imagesTr/{name}_0000.nii.gz")));
        label.write(&place.at(&format!("data/labelsTr/{name}.nii.gz")));
    }
    let json = format!(
        r#"{{"channel_names": {{"0": "X"}}, "labels": {classes}, "numTraining": 3, "file_ending": ".nii.gz"}}"#
    );
    fs::write(place.at("data/dataset.json"), json).unwrap();
}

#[test]
fn ignored_voxels_are_left_out_everywhere() {
    let place = Place::new();
    sparse(&place, r#"{"background": 0, "lesion": 1, "ignore": 2}"#);
    let text = place.run("inspect data --full").succeeded();
    assert!(text.contains("0 background, 1 lesion, 2 (ignored)") && text.contains("no problems found"), "{text}");
    for (model, more) in [
        ("unet3d", ""),
        ("unet2d", ""),
        ("o-net-small", "--points 512"),
        ("oss-net-c-small", "--points 512 --sampling class"),
    ] {
        let train = format!(
            "train --preset sample --quiet --threads 1 --data data --model {model} --epochs 8 {more} --out {model}"
        );
        place.run(&train).succeeded();
        let weights = format!("{model}/{model}.safetensors");
        let infer =
            format!("infer --quiet --threads 1 --load-model {weights} --input data/imagesTr --out {model}/found");
        place.run(&infer).succeeded();
        for name in ["a", "b", "c"] {
            let path = place.at(&format!("{model}/found/{name}.nii.gz"));
            let found = Labels::read(&Source::File(path), Axes::Stored).unwrap();
            assert!(found.voxels.iter().all(|&value| value < 2), "{model} predicts what is ignored");
        }
        let evaluate = format!(
            "evaluate --quiet --threads 1 --json --load-model {weights} --data data --part all --out {model}/scores"
        );
        let scores: Value = serde_json::from_str(&place.run(&evaluate).succeeded()).unwrap();
        for case in scores["scores"].as_array().unwrap() {
            let classes = case["classes"].as_array().unwrap();
            assert_eq!((classes.len(), classes[0]["class"].as_str()), (1, Some("lesion")));
            // The volume of the annotated half, in voxels of 1 mm.
            let number = ["a", "b", "c"].iter().position(|name| case["name"] == *name).unwrap();
            let [_, label] = ball(SIDE, number as u64);
            let slice = (SIDE * SIDE) as usize;
            let known = label
                .voxels
                .iter()
                .enumerate()
                .filter(|(at, value)| (at / slice).is_multiple_of(2) && **value == 1)
                .count();
            assert_eq!(classes[0]["true_ml"].as_f64().unwrap(), known as f64 / 1000.0);
        }
    }
}

/// With several classes, and where a part is all that is known.
#[test]
fn several_classes_and_cases_without_a_known_voxel() {
    let place = Place::new();
    sparse(&place, r#"{"background": 0, "lesion": 1, "oedema": 3, "ignore": 2}"#);
    let outcome = place.run("train --preset sample --threads 1 --data data --model unet3d --epochs 2 --out run");
    assert!(outcome.err.contains("no training case holds the class oedema"), "{}", outcome.err);
    outcome.succeeded();
    // Nothing but what is ignored: there is nothing to learn or score.
    crate::support::Nifti::filled([SIDE; 3], 2).write(&place.at("data/labelsTr/b.nii.gz"));
    place
        .run("train --preset sample --quiet --threads 1 --data data --model unet3d --epochs 1 --out again")
        .refused(1, &["b.nii.gz", "nothing but the value 2, which is ignored"]);
    let text = place.run("borders data --quiet --threads 1").succeeded();
    assert!(text.contains("3 border maps written"), "{text}");
    let map = Labels::read(&Source::File(place.at("data/bordersTr/b.nii.gz")), Axes::Stored).unwrap();
    assert!(map.voxels.iter().all(|&value| value == 0), "what is ignored has no border");
}
