//! Batches go on: a bad case is named, counted and passed over, and the exit status says so.

use std::fs;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::cli::{Place, ball, data_set};
use crate::support::{Nifti, gzip};

const SIDE: i64 = 16;

/// Networks of one channel and of two, `one.safetensors` and `two.safetensors`, made once.
fn models() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        data_set(&place.at("data"), SIDE, &["a", "b"], &["c"]);
        for name in ["a", "b"] {
            for channel in 0..2 {
                fs::create_dir_all(place.at("pairs/imagesTr")).unwrap();
                let image = place.at(&format!("pairs/imagesTr/{name}_000{channel}.nii.gz"));
                fs::copy(place.at(&format!("data/imagesTr/{name}.nii.gz")), image).unwrap();
            }
            fs::create_dir_all(place.at("pairs/labelsTr")).unwrap();
            let label = place.at(&format!("pairs/labelsTr/{name}.nii.gz"));
            fs::copy(place.at(&format!("data/labelsTr/{name}.nii.gz")), label).unwrap();
        }
        let json = r#"{"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}"#;
        fs::write(place.at("pairs/dataset.json"), json).unwrap();
        for (data, name) in [("data", "one"), ("pairs", "two")] {
            let train = format!("train --preset sample --quiet --threads 1 --data {data} --model unet3d --epochs 1 --out {name}");
            place.run(&train).succeeded();
            fs::rename(place.at(&format!("{name}/unet3d.safetensors")), place.at(&format!("{name}.safetensors"))).unwrap();
        }
        place
    })
}

pub fn place() -> Place {
    let place = Place::new();
    for name in ["one.safetensors", "two.safetensors"] {
        fs::copy(models().at(name), place.at(name)).unwrap();
    }
    place
}

pub fn segmented(place: &Place, out: &str) -> Vec<String> {
    let Ok(folder) = fs::read_dir(place.at(out)) else { return Vec::new() };
    let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".nii.gz"));
    names.sort();
    names
}

#[test]
fn a_bad_scan_does_not_stop_the_others() {
    let place = place();
    let good = ball(SIDE, 1)[0].clone();
    for name in ["a", "d"] {
        good.write(&place.at(&format!("in/{name}.nii.gz")));
    }
    fs::write(place.at("in/b.nii.gz"), "").unwrap();
    // Its header is good; its end is not.
    let mut damaged = gzip(&good.bytes());
    let last = damaged.len() - 6;
    damaged[last] ^= 0x40;
    fs::write(place.at("in/c.nii.gz"), damaged).unwrap();
    let mut series = good.clone();
    (series.dim[0], series.dim[4], series.voxels) = (4, 2, good.voxels.repeat(2));
    series.write(&place.at("in/e.nii.gz"));
    let infer = "infer --threads 1 --load-model one.safetensors --out out --input";
    let outcome = place.run(&format!("{infer} in"));
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert_eq!(segmented(&place, "out"), ["a.nii.gz", "d.nii.gz"]);
    for part in [
        "b.nii.gz: is empty",
        "c.nii.gz: is damaged",
        "case e has 2 image channels",
        "3 of 5 cases could not be segmented (b, e, c)",
    ] {
        assert!(outcome.err.contains(part), "'{part}' is missing: {}", outcome.err);
    }
    // What headers tell is told before the first scan is computed.
    let told = outcome.err.find("case e has").unwrap();
    assert!(outcome.err.find("b.nii.gz: is empty").unwrap() < outcome.err.find("c.nii.gz: is damaged").unwrap());
    assert!(told < outcome.err.find("c.nii.gz: is damaged").unwrap());
    // Again: only what is missing is tried. With the scans mended, all is well.
    let outcome = place.run(&format!("{infer} in --resume"));
    assert_eq!((outcome.code, outcome.out.lines().count()), (Some(1), 0), "{}", outcome.out);
    for name in ["b", "c", "e"] {
        good.write(&place.at(&format!("in/{name}.nii.gz")));
    }
    place.run(&format!("{infer} in --resume")).succeeded();
    assert_eq!(segmented(&place, "out").len(), 5);
    // A single scan is an error of its own.
    fs::write(place.at("bad.nii.gz"), "").unwrap();
    place
        .run("infer --threads 1 --load-model one.safetensors --out none --input bad.nii.gz")
        .refused(1, &["bad.nii.gz: is empty"]);
}

#[test]
fn blank_scans_and_odd_headers_are_told_of() {
    let place = place();
    let mut blank = Nifti::filled([SIDE; 3], 0);
    blank.sform_code = 0;
    blank.write(&place.at("blank.nii.gz"));
    let outcome = place.run("infer --threads 1 --load-model one.safetensors --out out --input blank.nii.gz --json");
    assert!(outcome.err.contains("warning: blank.nii.gz: is 0 everywhere"), "{}", outcome.err);
    assert!(outcome.err.contains("which may exchange left and right"), "{}", outcome.err);
    let entries: Value = serde_json::from_str(&outcome.succeeded()).unwrap();
    assert_eq!(entries["cases"][0]["warnings"].as_array().unwrap().len(), 2);
    // Commands that read a data set tell it once.
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    blank.write(&place.at("data/imagesTr/a.nii.gz"));
    let (plan, train) =
        ("plan --data data --model o-net-small --epochs 1", "train --data data --model o-net-small --epochs 1");
    for command in [format!("{plan} --out plans"), format!("{train} --points 64 --threads 1 --out run")] {
        let outcome = place.run(&command);
        assert_eq!(outcome.err.matches("a.nii.gz: is 0 everywhere").count(), 1, "{command}: {}", outcome.err);
        outcome.succeeded();
    }
}

/// Channels complete, distinct and of one patient; nothing else is a case.
#[test]
fn only_complete_cases_are_segmented() {
    let place = place();
    let scans = [ball(SIDE, 1)[0].clone(), ball(SIDE, 2)[0].clone()];
    for (folder, files, problem) in [
        ("gap", ["p_0000.nii.gz", "p_0002.nii.gz"], "lacks p_0001"),
        ("from-one", ["p_0001.nii.gz", "p_0002.nii.gz"], "lacks p_0000"),
        ("twice", ["p_0000.nii.gz", "p_0000.nii"], "both channel 0 of p"),
        ("patients", ["amos_0001.nii.gz", "amos_0507.nii.gz"], "case amos_0507 has 1 image channel,"),
    ] {
        for (file, scan) in files.iter().zip(&scans) {
            scan.write(&place.at(&format!("{folder}/{file}")));
        }
        let infer = format!("infer --threads 1 --load-model two.safetensors --input {folder} --out out-{folder}");
        let outcome = place.run(&infer);
        assert_eq!(outcome.code, Some(1), "{folder}");
        assert!(outcome.err.contains(problem), "{folder}: {}", outcome.err);
        assert!(segmented(&place, &format!("out-{folder}")).is_empty(), "{folder}");
    }
    for (file, scan) in ["q_0000.nii.gz", "q_0001.nii.gz"].iter().zip(&scans) {
        scan.write(&place.at(&format!("whole/{file}")));
    }
    place.run("infer --threads 1 --load-model two.safetensors --input whole --out out-whole").succeeded();
    assert_eq!(segmented(&place, "out-whole"), ["q.nii.gz"]);
    // A network of one channel takes each file by its own name.
    for file in ["amos_0101.nii.gz", "amos_0102.nii.gz"] {
        scans[0].write(&place.at(&format!("amos/{file}")));
    }
    place.run("infer --threads 1 --load-model one.safetensors --input amos --out out-amos").succeeded();
    assert_eq!(segmented(&place, "out-amos"), ["amos_0101.nii.gz", "amos_0102.nii.gz"]);
}

#[test]
fn evaluation_and_borders_go_on() {
    let place = place();
    data_set(&place.at("data"), SIDE, &["a", "b", "c"], &["d"]);
    fs::write(place.at("data/labelsTr/b.nii.gz"), "").unwrap();
    let evaluate =
        "evaluate --quiet --threads 1 --load-model one.safetensors --data data --part all --out scores --json";
    let outcome = place.run(evaluate);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(
        outcome.err.contains("b.nii.gz: is empty") && outcome.err.contains("1 of 4 cases could not be scored (b)"),
        "{}",
        outcome.err
    );
    let scores: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(scores["cases"].as_array().unwrap().len(), 3);
    let outcome = place.run("borders data --quiet --threads 1");
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.out.contains("3 border maps written") && outcome.err.contains("1 of 4 cases could not be read"),
        "{}",
        outcome.err
    );
    // Training stops, before it has read a voxel.
    place
        .run("train --preset sample --quiet --threads 1 --data data --model unet3d --epochs 1 --out run")
        .refused(1, &["b.nii.gz: is empty"]);
}
