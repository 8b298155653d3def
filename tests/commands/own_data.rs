//! Your own data, without a configuration: `train` and `compare` choose the settings by the data, print them, and keep to them.

use std::fs;

use serde_json::Value;

use crate::support::cli::{Place, json};
use crate::support::cohort;

/// Training cases of the cohort.
const TRAINING: usize = 5;

/// What is said of a run before its first step.
const LINES: [&str; 9] =
    ["network", "data", "spacing", "shape", "batch", "learning", "device bytes", "host bytes", "steps"];

/// Asserts that each line is there `times` times.
fn lines(said: &str, times: usize) {
    for head in LINES {
        let own = said.lines().filter(|line| line.starts_with(&format!("{head:<14}"))).count();
        assert_eq!(own, times, "{head}: {said}");
    }
}

fn file(place: &Place, path: &str) -> String {
    fs::read_to_string(place.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn train_makes_its_settings_of_the_data_and_says_them() {
    let place = cohort::place(TRAINING);
    let train = "train --threads 1 --data data --model o-net-small --points 96";
    let outcome = place.run(&format!("{train} --epochs 8 --out run"));
    lines(&outcome.err, 1);
    let said = |part: &str| outcome.err.lines().position(|line| line.contains(part));
    // After five steps that were timed, one before them that was not.
    assert!(outcome.err.contains("expected end  in ") && outcome.err.contains("6 of 8 done"), "{}", outcome.err);
    assert!(said("steps         8 in 8 epochs") < said("training O-Net small"), "{}", outcome.err);
    let config = file(&place, "run/config.toml");
    assert!(config.contains("preset = \"auto\"") && config.contains("training_samples = 96"), "{config}");
    // The planned bytes are those of the run.
    let costs = json(&file(&place, "run/o-net-small.costs.json"));
    let planned = json(&place.run("memory --json --threads 1 --run run").succeeded());
    assert_eq!(planned["peak_bytes"], costs["peak_bytes"]);
    outcome.succeeded();

    let sample = place.run(&format!("{train} --epochs 8 --preset sample --out other"));
    lines(&sample.err, 0);
    assert!(sample.err.contains("--preset auto") && !sample.err.contains("expected end"), "{}", sample.err);
    let dumped = |flags: &str| place.run(&format!("train {flags} --dump-config")).succeeded();
    for (flags, preset) in [
        ("", "sample"),
        ("--data sample:heads", "sample"),
        ("--data data --quiet --epochs 3", "auto"),
        ("--dataset-path data --model oss-net-c", "brats"),
    ] {
        assert!(dumped(flags).contains(&format!("preset = \"{preset}\"")), "{flags}");
    }
    place.refuses("train --data data --preset sample --time-budget 5s", 2, &["--time-budget", "--epochs"]);
    place.refuses("train --data data --time-budget 5s --epochs 2", 2, &["--time-budget", "--epochs"]);
    place.refuses("train --data nowhere", 1, &["nowhere"]);
}

/// Seconds are measured anew each time, and folds that were begun keep the settings that they began with.
#[test]
fn folds_go_on_as_they_were_planned() {
    let place = cohort::place(TRAINING);
    let train = "train --threads 1 --data data --model o-net-small --points 96 --time-budget 2s --folds 2 --out cv";
    let first = place.run(train);
    lines(&first.err, 1);
    first.succeeded();
    let config = file(&place, "cv/config.toml");
    fs::remove_file(place.at("cv/fold-2/summary.json")).unwrap();
    let again = place.run(train);
    lines(&again.err, 0);
    assert_eq!(again.err.matches("was finished before").count(), 1, "{}", again.err);
    again.succeeded();
    assert_eq!(file(&place, "cv/config.toml"), config);
}

#[test]
fn compare_gives_every_network_the_run_that_the_data_make() {
    let place = cohort::place(TRAINING);
    let compare = "compare --threads 1 --data data --models o-net-small,unet3d --epochs 6 --out both";
    let outcome = place.run(compare);
    lines(&outcome.err, 2);
    assert!(outcome.err.contains("equal budgets: each scan seen 6 times by every network"), "{}", outcome.err);
    let table = outcome.succeeded();
    assert!(table.contains("Equal budgets: each scan seen 6 times by every network."), "{table}");
    let page = file(&place, "both/report.html");
    assert!(page.contains("under equal budgets (each scan seen 6 times by every network)"));
    assert!(page.contains("--epochs 6") && !page.contains("--epochs 150"));
    let results = json(&file(&place, "both/results.json"));
    for (model, name) in results["models"].as_array().unwrap().iter().zip(["o-net-small", "unet3d"]) {
        // The plan lies beside the checkpoint, is a configuration for `train`, and its bytes are those that were held.
        let plan = format!("memory --json --threads 1 --config both/{name}.toml");
        let plan = json(&place.run(&plan).succeeded());
        assert_eq!(plan["peak_bytes"], model["peak_bytes"], "{name}");
        assert_eq!((&plan["steps"], &plan["parameters"]), (&model["steps"], &model["parameters"]), "{name}");
        assert_eq!(model["epochs"], 6);
        // The same run alone has the same weights: a comparison is that many runs.
        place.run(&format!("train --quiet --threads 1 --config both/{name}.toml --out {name}")).succeeded();
        let alone = json(&file(&place, &format!("{name}/summary.json")));
        assert_eq!((&alone["dice"], &alone["cases"]), (&model["dice"], &model["cases"]), "{name}");
    }
    // What was stopped goes on with the plans that lie there.
    for file in ["both/report.html", "both/results.json", "both/unet3d.safetensors"] {
        fs::remove_file(place.at(file)).unwrap();
    }
    place.run(&compare.replace("--epochs 6", "--epochs 7")).refused(1, &["was planned for 6 epochs, not 7"]);
    let again = place.run(compare);
    lines(&again.err, 0);
    assert!(again.err.contains("planned before"), "{}", again.err);
    again.succeeded();
    let resumed = json(&file(&place, "both/results.json"));
    let scores = |results: &Value| {
        results["models"].as_array().unwrap().iter().map(|model| model["cases"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(scores(&resumed), scores(&results));
}

#[test]
fn compare_under_a_budget_of_time_over_folds() {
    let place = cohort::place(TRAINING);
    let compare = "compare --threads 1 --data data --models o-net-small,unet2d --time-budget 2s --folds 2 --out cv";
    let outcome = place.run(compare);
    lines(&outcome.err, 2);
    assert!(outcome.succeeded().contains("Equal budgets: 2 s of training for every network"));
    let results = json(&file(&place, "cv/results.json"));
    let plans = ["o-net-small", "unet2d"].map(|name| file(&place, &format!("cv/{name}.toml")));
    for (model, plan) in results["models"].as_array().unwrap().iter().zip(&plans) {
        assert!(plan.contains(&format!("epochs = {}\n", model["epochs"])), "{plan}");
    }
    for file in ["cv/report.html", "cv/fold-2/report.html", "cv/fold-2/unet2d.safetensors"] {
        fs::remove_file(place.at(file)).unwrap();
    }
    let again = place.run(compare);
    assert_eq!(again.err.matches("was finished before").count(), 1, "{}", again.err);
    again.succeeded();
    let resumed = json(&file(&place, "cv/results.json"));
    assert_eq!(resumed["models"][1]["cases"], results["models"][1]["cases"]);
    assert_eq!(["o-net-small", "unet2d"].map(|name| file(&place, &format!("cv/{name}.toml"))), plans);

    place.refuses("compare --data data --preset sample --time-budget 2s", 2, &["--time-budget", "--epochs"]);
    place.refuses("compare --time-budget 2s", 2, &["--time-budget", "--epochs"]);
    place.refuses("compare --data data --preset brats", 2, &["--preset", "auto or sample"]);
}
