//! A network of many classes at 1.5 mm and scans of 1 mm: the answer is made in strips that fit the memory budget, is the same
//! whatever they are, and a plan tells beforehand what it takes. And cases beside one another, where the memory admits it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::Nifti;
use crate::support::cli::Place;
use ossnet::checkpoint::model::Model;
use ossnet::data::{Axes, Labels, Preprocessing, Source};
use ossnet::device::Device;
use ossnet::models::{Architecture, UNetConfig};
use ossnet::nn::Parameters;
use ossnet::rng::Rng;
use ossnet::task::Task;
use serde_json::Value;

/// Fewer than a whole body has: the cost of the last layers grows with their square.
const CLASSES: usize = 40;

/// A folder with a U-Net of made-up weights that was trained, so it says, at 1.5 mm in cubes of `side` voxels.
fn place(side: usize) -> Place {
    let place = Place::new();
    let device = Device::cpu(1, 1 << 30).unwrap();
    let mut parameters = Parameters::new(&device);
    let config = UNetConfig { channels: vec![4, 8], strides: vec![2], ..UNetConfig::standard(3, 1, CLASSES) };
    let network = config.build(&mut parameters, &mut Rng::new(5)).unwrap();
    let preprocessing = Preprocessing {
        channels: vec!["CT".into()],
        classes: (0..CLASSES as u8).collect(),
        axes: Axes::Canonical,
        clip: None,
        spacing: Some([1.5; 3]),
        resize: None,
        merge: false,
        multiple: [2; 3],
        trained_spacing: None,
        trained_shape: Some([side; 3]),
    };
    let class_names = (0..CLASSES).map(|class| format!("class{class}")).collect();
    let task = Task { name: "body".into(), preprocessing, class_names };
    Model::save(&*network, &parameters, &task, &place.at("body.safetensors")).unwrap();
    place
}

/// Noise, in another form for each number.
fn scan(place: &Place, shape: [i64; 3], number: u64) {
    let mut rng = Rng::new(number);
    let mut file = Nifti::new(shape);
    file.voxels.iter_mut().for_each(|voxel| *voxel = rng.below(256) as u8);
    file.write(&place.at(&format!("scans/s{number}.nii.gz")));
}

const INFER: &str = "infer --threads 2 --load-model body.safetensors --input scans";

fn cases(json: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(json).unwrap()["cases"].as_array().unwrap().clone()
}

fn summary(folder: &Path) -> Vec<Value> {
    cases(&fs::read_to_string(folder.join("inference.json")).unwrap())
}

#[test]
fn strips_that_fit_the_budget_change_nothing() {
    let place = place(8);
    scan(&place, [42, 28, 30], 1);
    let plan =
        |budget: &str| cases(&place.run(&format!("{INFER} --quiet --plan --json{budget}")).succeeded()).remove(0);
    let whole = plan("");
    let number = |plan: &Value, key: &str| plan[key].as_u64().unwrap();
    assert_eq!(whole["strips"], 1);
    assert_eq!(whole["network_shape"], serde_json::json!([28, 19, 20]));
    place.run(&format!("{INFER} --quiet --out whole")).succeeded();
    // Sums of 39 classes in 8 of 28 planes are most of it.
    let budget = format!(" --memory-budget {}", number(&whole, "peak_bytes") * 2 / 3);
    let narrow = plan(&budget);
    assert!(number(&narrow, "strips") > 1, "{narrow}");
    assert!(number(&narrow, "passes") > number(&whole, "passes"), "{narrow}");
    assert!(number(&narrow, "peak_bytes") <= number(&whole, "peak_bytes") * 2 / 3, "{narrow}");
    let told = place.run(&format!("{INFER} --quiet --plan{budget}")).succeeded();
    assert!(told.contains("42×28×30 voxels, 28×19×20 for the network") && told.contains(" strips; engine "), "{told}");
    place.run(&format!("{INFER} --quiet --out narrow{budget}")).succeeded();
    for (folder, plan) in [("whole", &whole), ("narrow", &narrow)] {
        let found = summary(&place.at(folder)).remove(0);
        assert_eq!(found["passes"], plan["passes"], "{folder}");
        // What the plan reserves holds what there is at most.
        assert!(number(&found, "peak_bytes") <= number(plan, "engine_bytes"), "{folder}: {found} {plan}");
        assert!(found["after_network_seconds"].as_f64().unwrap() > 0.0);
    }
    let read = |folder: &str| fs::read(place.at(&format!("{folder}/s1.nii.gz"))).unwrap();
    assert!(read("whole") == read("narrow"));
    // The classes are many, and not those of the nearest voxel of the network's grid, which stand in runs.
    let labels = Labels::read(&Source::File(place.at("whole/s1.nii.gz")), Axes::Canonical).unwrap();
    assert_eq!(labels.shape, [42, 28, 30]);
    assert!(labels.histogram().iter().filter(|&&count| count > 0).count() > 8);
    let nothing = place.run(&format!("{INFER} --quiet --plan --memory-budget 300KiB"));
    assert!(nothing.code == Some(1) && nothing.err.contains("--memory-budget"), "{}", nothing.err);
}

/// The files of a folder but the summary.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let named = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_string(), path)
    });
    named.filter(|(name, _)| !name.ends_with(".json")).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[test]
fn what_does_not_fit_beside_a_case_waits_and_changes_nothing() {
    let place = place(8);
    (0..5).for_each(|number| scan(&place, [16, 20, 24], number));
    let plan = cases(&place.run(&format!("{INFER} --quiet --plan --json")).succeeded());
    assert_eq!(plan.len(), 5);
    let infer = format!("{INFER} --verbose");
    let outcome = place.run(&format!("{infer} --out beside"));
    assert!(outcome.err.contains("of 5 scans 4 are read ahead, and 5 computed while"), "{}", outcome.err);
    outcome.succeeded();
    // Just enough for one scan on its own.
    let peak = plan[0]["peak_bytes"].as_u64().unwrap();
    let outcome = place.run(&format!("{infer} --out alone --memory-budget {peak}"));
    assert!(outcome.err.contains("of 5 scans 0 are read ahead, and 1 computed while"), "{}", outcome.err);
    outcome.succeeded();
    assert_eq!(summary(&place.at("alone"))[0]["passes"], plan[0]["passes"]);
    assert!(files(&place.at("beside")) == files(&place.at("alone")));
    assert_eq!(files(&place.at("beside")).len(), 7);
}

/// A scan whose voxels are cut off is told of in its place, though it was read while the one before was computed, and that one
/// was written while it was read.
#[test]
fn errors_keep_their_order() {
    let place = place(8);
    (0..5).for_each(|number| scan(&place, [16, 20, 24], number));
    for number in [1, 3, 4] {
        let path = place.at(&format!("scans/s{number}.nii.gz"));
        let whole = fs::read(&path).unwrap();
        fs::write(path, &whole[..whole.len() * 2 / 3]).unwrap();
    }
    let outcome = place.shell(&format!("$ossnet {INFER} --out out 2>&1"));
    assert_eq!(outcome.code, Some(1));
    let at = |part: &str| outcome.out.find(part).unwrap_or_else(|| panic!("{part}: {}", outcome.out));
    let places =
        ["out/s0.nii.gz: ", "scans/s1.nii.gz", "out/s2.nii.gz: ", "scans/s3.nii.gz", "scans/s4.nii.gz", "3 of 5"];
    assert!(places.map(at).is_sorted(), "{}", outcome.out);
    let told = fs::read_to_string(place.at("out/inference.json")).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let names = |key: &str| -> Vec<String> {
        told[key].as_array().unwrap().iter().map(|entry| entry["case"].as_str().unwrap().into()).collect()
    };
    assert_eq!(
        (names("cases"), names("failed")),
        (vec!["s0".into(), "s2".into()], ["s1", "s3", "s4"].map(String::from).to_vec())
    );
}
