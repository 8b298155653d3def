//! Cross-validation: every labelled case validates once, folds are resumed, and one fold alone is the same as among others.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::cli::{Place, data_set};

/// Small enough for a second a run.
const TRAIN: &str =
    "train --preset sample --threads 1 --model o-net-small --points 64 --epochs 2 --batch-size 2 --data data";

/// Seven cases, two of which the data set declares to be for validation.
fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["c1", "c2", "c3", "c4", "c5"], &["c6", "c7"]);
    place
}

fn json(place: &Place, path: &str) -> Value {
    let text = fs::read_to_string(place.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap()
}

fn names(cases: &Value) -> Vec<String> {
    cases.as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn all_folds_are_trained_and_resumed() {
    let place = place();
    let printed = place.run(&format!("{TRAIN} --folds 3 --out cv --json --quiet")).succeeded();
    let summary: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(summary, json(&place, "cv/summary.json"));
    let scored = names(&summary["cases"]);
    assert_eq!(scored.len(), 7);
    assert_eq!(scored.iter().cloned().collect::<BTreeSet<_>>().len(), 7, "{scored:?}");
    let drawn = json(&place, "cv/folds.json");
    assert_eq!((drawn["fold"].clone(), drawn["seed"].clone()), (Value::Null, 0.into()));
    for number in 1..=3 {
        let own = json(&place, &format!("cv/fold-{number}/summary.json"));
        let told: Vec<String> = serde_json::from_value(drawn["folds"][number - 1].clone()).unwrap();
        assert_eq!(names(&own["cases"]), told, "fold {number}");
        let own = json(&place, &format!("cv/fold-{number}/folds.json"));
        assert_eq!((own["fold"].clone(), own["folds"].clone()), (number.into(), drawn["folds"].clone()));
    }
    let checkpoint = |fold: &str| fs::read(place.at(&format!("{fold}/o-net-small.safetensors"))).unwrap();
    let all = ["cv/fold-1", "cv/fold-2", "cv/fold-3"].map(checkpoint);

    // A fold alone has the same bits.
    place.run(&format!("{TRAIN} --fold 2/3 --out alone --quiet")).succeeded();
    assert!(checkpoint("alone") == all[1], "fold 2 alone differs");
    // Folds that were trained one by one are gathered.
    fs::create_dir(place.at("gathered")).unwrap();
    fs::rename(place.at("alone"), place.at("gathered/fold-2")).unwrap();
    let gathered = place.run(&format!("{TRAIN} --folds 3 --out gathered"));
    assert_eq!(gathered.err.matches("was finished before").count(), 1, "{}", gathered.err);
    let gathered_scores = json(&place, "gathered/summary.json");
    assert_eq!(gathered_scores["cases"], summary["cases"]);

    // One fold is gone, of another the end is missing.
    fs::remove_dir_all(place.at("cv/fold-2")).unwrap();
    fs::remove_file(place.at("cv/fold-3/summary.json")).unwrap();
    let before = fs::metadata(place.at("cv/fold-1/o-net-small.safetensors")).unwrap().modified().unwrap();
    let resumed = place.run("train --threads 1 --resume cv");
    assert_eq!(resumed.err.matches("was finished before").count(), 1, "{}", resumed.err);
    assert!(resumed.succeeded().contains("on 7 cases of 3 folds"));
    assert_eq!(fs::metadata(place.at("cv/fold-1/o-net-small.safetensors")).unwrap().modified().unwrap(), before);
    assert!(["cv/fold-1", "cv/fold-2", "cv/fold-3"].map(checkpoint) == all, "a resumed fold differs");
    let again = json(&place, "cv/summary.json");
    assert_eq!(again["cases"], summary["cases"]);
}

#[test]
fn a_comparison_over_folds_scores_every_case_once() {
    let place = place();
    let compare =
        "compare --preset sample --threads 1 --models o-net-small,unet3d --epochs 1 --data data --folds 3 --out cv";
    place.run(&format!("{compare} --quiet")).succeeded();
    let results = json(&place, "cv/results.json");
    for row in ["models", "baselines"].iter().flat_map(|part| results[part].as_array().unwrap()) {
        let scored = names(&row["cases"]);
        assert_eq!(scored.len(), 7, "{row}");
        assert_eq!(scored.iter().collect::<BTreeSet<_>>().len(), 7, "{row}");
    }
    let page = fs::read_to_string(place.at("cv/report.html")).unwrap();
    assert!(page.contains("--folds 3"));
    // A stopped comparison: the last fold and what all say together are missing.
    for file in ["cv/report.html", "cv/fold-3/report.html", "cv/fold-3/results.json", "cv/fold-3/unet3d.safetensors"] {
        fs::remove_file(place.at(file)).unwrap();
    }
    let resumed = place.run(compare);
    assert_eq!(resumed.err.matches("was finished before").count(), 2, "{}", resumed.err);
    resumed.succeeded();
    let again = json(&place, "cv/results.json");
    for (old, new) in results["models"].as_array().unwrap().iter().zip(again["models"].as_array().unwrap()) {
        assert_eq!((&old["dice"], &old["cases"]), (&new["dice"], &new["cases"]));
    }
}

#[test]
fn refused_folds() {
    let place = place();
    place.refuses(&format!("{TRAIN} --folds 8"), 1, &["7 labelled cases", "8 folds"]);
    place.refuses(&format!("{TRAIN} --folds 1"), 2, &["--folds", "2 to 1000"]);
    place.refuses(&format!("{TRAIN} --fold 4/3"), 2, &["--fold", "2/5"]);
    place.refuses("compare --preset sample --data data --folds 1", 2, &["--folds"]);
    place.refuses("compare --preset sample --data data --fold 2", 2, &["--fold", "2/5"]);
    place.run(&format!("{TRAIN} --folds 2 --out cv --quiet")).succeeded();
    // Another case makes other folds.
    data_set(&place.at("data"), 16, &["c1", "c2", "c3", "c4", "c5", "c6", "c7"], &["c8"]);
    place.refuses("train --quiet --resume cv", 1, &["folds.json", "divides 7 cases", "has 8"]);
}
