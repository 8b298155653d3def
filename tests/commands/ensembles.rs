//! Several checkpoints that answer together: the mean of their probabilities, whatever networks they hold.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::support::cli::{Place, ball, data_set, json};
use ossnet::data::{Axes, Labels, Source, Volume};
use serde_json::Value;

const SIDE: i64 = 16;

/// Runs `a`, `b` of an occupancy network, `u`, `w` of a U-Net, and `cv` of two folds, made once.
fn models() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        data_set(&place.at("data"), SIDE, &["p", "q", "r"], &["v"]);
        fs::write(place.at("net.toml"), "[network]\nchannels = [4, 8]\n").unwrap();
        let train = "train --quiet --threads 1 --preset sample --points 256 --data data";
        let (occupancy, unet) = ("--model o-net-small --epochs 25", "--model unet3d --config net.toml --epochs 6");
        for (network, seed, out) in [(occupancy, 0, "a"), (occupancy, 1, "b"), (unet, 0, "u"), (unet, 1, "w")] {
            place.run(&format!("{train} {network} --seed {seed} --out {out}")).succeeded();
        }
        place.run(&format!("{train} {unet} --folds 2 --out cv")).succeeded();
        place
    })
}

const INFER: &str = "infer --quiet --threads 1 --input data/imagesTr --out";

const OCCUPANCY: [&str; 2] = ["a/o-net-small.safetensors", "b/o-net-small.safetensors"];
const UNET: [&str; 2] = ["u/unet3d.safetensors", "w/unet3d.safetensors"];

fn labels(path: &Path) -> Vec<u8> {
    Labels::read(&Source::File(path.into()), Axes::Stored).unwrap().voxels
}

fn probabilities(path: &Path) -> Vec<f32> {
    Volume::read(&Source::File(path.into()), Axes::Stored).unwrap().voxels
}

/// The copy of the models' folder that a test writes into.
fn place() -> Place {
    let place = Place::new();
    let copied = std::process::Command::new("cp").arg("-r").arg(models().at(".")).arg(place.path()).status().unwrap();
    assert!(copied.success());
    place
}

#[test]
fn a_checkpoint_given_twice_answers_as_given_once() {
    let place = place();
    for [one, _] in [OCCUPANCY, UNET] {
        for (flags, files) in [("", 1), ("--probabilities", 2)] {
            let out = |name: &str| format!("{}{files}{name}", &one[..1]);
            place.run(&format!("{INFER} {} --load-model {one} {flags}", out("once"))).succeeded();
            place.run(&format!("{INFER} {} --checkpoint {one} {one} {one} {flags}", out("thrice"))).succeeded();
            for name in ["p", "v"] {
                for file in [format!("{name}.nii.gz"), format!("{name}_probabilities.nii.gz")].iter().take(files) {
                    let [once, thrice] =
                        ["once", "thrice"].map(|of| fs::read(place.at(&format!("{}/{file}", out(of)))).unwrap());
                    assert!(once == thrice, "{one} {flags}: {file}");
                }
            }
        }
    }
}

#[test]
fn probabilities_are_averaged_and_decide() {
    let place = place();
    for (pair, of) in [(OCCUPANCY, "o"), (UNET, "u")] {
        let [one, two] = pair;
        let run = |out: &str, files: &str, threshold: f32| {
            let flags = format!("--checkpoint {files} --probabilities --threshold {threshold}");
            place.run(&format!("{INFER} {of}-{out} {flags}")).succeeded();
        };
        let found =
            |out: &str, case: &str| probabilities(&place.at(&format!("{of}-{out}/{case}_probabilities.nii.gz")));
        // Half of a case's voxels lie on each side of this threshold, whatever such young networks say.
        run("first", &format!("{one} {two}"), 0.5);
        let mut sorted = found("first", "p");
        sorted.sort_by(f32::total_cmp);
        let threshold = sorted[sorted.len() / 2];
        run("one", one, threshold);
        run("two", two, threshold);
        run("both", &format!("{one} --checkpoint {two}"), threshold);
        let mut decided = [0; 2];
        for case in ["p", "q", "r", "v"] {
            let [a, b, mean] = ["one", "two", "both"].map(|out| found(out, case));
            let answers = ["one", "two", "both"].map(|out| labels(&place.at(&format!("{of}-{out}/{case}.nii.gz"))));
            for (at, mean) in mean.iter().enumerate() {
                // a + (b − a)/2: the difference, its half and the sum are rounded once each, all below 1.
                assert!((mean - (a[at] + b[at]) / 2.0).abs() <= 2.0 * f32::EPSILON, "{case} {at}");
                assert_eq!(answers[2][at], u8::from(*mean > threshold), "{case} {at}: {mean}");
                if answers[0][at] != answers[1][at] {
                    decided[usize::from(answers[2][at])] += 1;
                }
            }
        }
        assert!(decided.iter().all(|&voxels| voxels > 0), "{of}: the networks agree too much to tell: {decided:?}");
        // Without their probabilities occupancy networks are asked twice where they differ, and nowhere else.
        let plain = format!("{INFER} {of}-plain --checkpoint {one} {two} --threshold {threshold} --json");
        let dense = if of == "o" { "--dense" } else { "" };
        let told = json(&place.run(&format!("{plain} {dense}")).succeeded());
        for case in ["p", "q", "r", "v"] {
            let [kept, plain] = ["both", "plain"].map(|out| labels(&place.at(&format!("{of}-{out}/{case}.nii.gz"))));
            assert_eq!(kept, plain, "{of} {case}");
        }
        let entry = &told["cases"][0];
        assert_eq!(entry["checkpoints"], 2);
        assert!(entry["weights"].as_str().unwrap().matches("crc32:").count() == 2, "{entry}");
        if of == "o" {
            // All of both, and once more by both where they differ.
            let voxels = (SIDE * SIDE * SIDE) as u64;
            let points = entry["points"].as_u64().unwrap();
            assert!(points > 2 * voxels && points < 4 * voxels, "{points}");
        }
    }
}

/// Any networks for one task, on the scan's own grid; a fold's folder stands for its checkpoint, that of all for all of them.
#[test]
fn folders_and_networks_of_any_kind() {
    let place = place();
    let mixed = format!("{INFER} mixed --checkpoint {} {} --json", OCCUPANCY[0], UNET[0]);
    let told = json(&place.run(&mixed).succeeded());
    assert_eq!(told["cases"].as_array().unwrap().len(), 4);
    place.run(&format!("{INFER} folder --checkpoint cv")).succeeded();
    place.run(&format!("{INFER} files --checkpoint cv/fold-1 cv/fold-2/unet3d.safetensors")).succeeded();
    let same = |a: &str, b: &str| {
        let [a, b] = [a, b].map(|out| fs::read(place.at(&format!("{out}/v.nii.gz"))).unwrap());
        a == b
    };
    assert!(same("folder", "files"));
    fs::remove_file(place.at("cv/fold-2/summary.json")).unwrap();
    place.refuses(&format!("{INFER} other --checkpoint cv"), 1, &["no finished fold 2 of 2"]);
    place.refuses(&format!("{INFER} other --checkpoint data"), 1, &["data", "holds no checkpoint"]);
    fs::copy(place.at("a/o-net-small.safetensors"), place.at("u/o-net-small.safetensors")).unwrap();
    place.refuses(&format!("{INFER} other --checkpoint u"), 1, &["several networks (o-net-small, unet3d)"]);
}

#[test]
fn shards_and_resuming_know_all_checkpoints() {
    let place = place();
    let [one, two] = UNET;
    place.run(&format!("{INFER} whole --checkpoint {one} {two}")).succeeded();
    for number in 1..=3 {
        place.run(&format!("{INFER} parts --checkpoint {one} {two} --shard {number}/3 --resume")).succeeded();
    }
    place.run("infer --merge parts").succeeded();
    for case in ["p", "q", "r", "v"] {
        let [whole, part] = ["whole", "parts"].map(|out| fs::read(place.at(&format!("{out}/{case}.nii.gz"))).unwrap());
        assert!(whole == part, "{case}");
    }
    // What is missing is made again by the same networks; others are refused.
    fs::remove_file(place.at("whole/q.nii.gz")).unwrap();
    place.run(&format!("{INFER} whole --checkpoint {one} --resume")).refused(1, &["was made with other weights"]);
    place.run(&format!("{INFER} whole --checkpoint {one} {two} --resume")).succeeded();
    let [whole, part] = ["whole", "parts"].map(|out| fs::read(place.at(&format!("{out}/q.nii.gz"))).unwrap());
    assert!(whole == part);
}

#[test]
fn networks_that_do_not_fit_are_refused() {
    let place = place();
    let other = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(place.at("data/dataset.json")).unwrap();
        assert!(text.contains(from));
        data_set(&place.at(name), SIDE, &["p", "q"], &["v"]);
        fs::write(place.at(&format!("{name}/dataset.json")), text.replace(from, to)).unwrap();
        if from.contains("modality") || to.contains('2') {
            let mut label = ball(SIDE, 0)[1].clone();
            label.voxels.iter_mut().for_each(|value| *value *= 2);
            ["p", "q", "r", "v"]
                .iter()
                .for_each(|case| label.write(&place.at(&format!("{name}/labelsTr/{case}.nii.gz"))));
            ball(SIDE, 0)[0].write(&place.at(&format!("{name}/imagesTr/r.nii.gz")));
        } else {
            let [image, label] = ball(SIDE, 0);
            image.write(&place.at(&format!("{name}/imagesTr/r.nii.gz")));
            label.write(&place.at(&format!("{name}/labelsTr/r.nii.gz")));
        }
        let train = "train --quiet --threads 1 --preset sample --points 64 --epochs 1 --model o-net-small";
        place.run(&format!("{train} --data {name} --out {name}-run")).succeeded();
        format!("{name}-run/o-net-small.safetensors")
    };
    let one = OCCUPANCY[0];
    let values = other("values", r#""1": "ball""#, r#""2": "ball""#);
    place.refuses(
        &format!("{INFER} x --checkpoint {one} {values}"),
        1,
        &[&values, "has the labels [0, 2], not [0, 1]", one],
    );
    let names = other("names", "ball\"", "cube\"");
    place.refuses(
        &format!("{INFER} x --checkpoint {one} {names}"),
        1,
        &[&names, "background, cube, not background, ball"],
    );
    let channels = other("channels", r#""0": "X""#, r#""0": "CT""#);
    place.refuses(&format!("{INFER} x --checkpoint {one} {channels}"), 1, &[&channels, "takes the channels CT, not X"]);
    place.refuses(&format!("evaluate --quiet {one} {channels} --data data"), 1, &[&channels, "channels"]);
    for (flags, parts) in [("--verify", "--verify"), ("--mesh ply --refine 2", "--refine")] {
        let outcome = place.run(&format!("{INFER} x --checkpoint {one} {} {flags}", OCCUPANCY[1]));
        outcome.refused(2, &[parts]);
    }
    place.refuses(&format!("evaluate --quiet {one} {} --sampled --data data", OCCUPANCY[1]), 2, &["--sampled"]);
}

/// The score of several networks is that of the files that they write; cases that one of them was trained on are told.
#[test]
fn evaluate_scores_what_infer_writes() {
    let place = place();
    for (pair, out) in [(OCCUPANCY, "o"), (UNET, "u")] {
        let [one, two] = pair;
        place.run(&format!("{INFER} {out} --checkpoint {one} {two}")).succeeded();
        let files = format!("evaluate --quiet --predictions {out} --data data --part all --json --out {out}-files");
        let files = json(&place.run(&files).succeeded());
        let together = format!("evaluate {one} {two} --quiet --part all --json --out {out}-together");
        let together = json(&place.run(&together).succeeded());
        assert_eq!(files["cases"], together["cases"]);
        assert!(together["model"].as_str().unwrap().ends_with("(mean of 2 checkpoints)"), "{}", together["model"]);
    }
    let folds = place.run("evaluate cv --out folds --json");
    assert!(folds.err.contains("2 of 2 cases were trained on by some of these checkpoints"), "{}", folds.err);
    let scores: Value = json(&folds.succeeded());
    assert_eq!(scores["cases"].as_array().unwrap().len(), 2);
}

/// The plan holds the weights of all and the work of one at a time: never less than the run held, and no second network's work.
#[test]
fn planned_bytes_are_those_of_one_network_and_all_weights() {
    let place = place();
    for [one, two] in [OCCUPANCY, UNET] {
        let planned = |files: &str| {
            let plan =
                format!("infer --quiet --threads 1 --json --plan --input data/imagesTr/v.nii.gz --checkpoint {files}");
            json(&place.run(&plan).succeeded())["cases"][0].clone()
        };
        let held = |files: &str, out: &str| {
            let run = format!(
                "infer --quiet --threads 1 --json --input data/imagesTr/v.nii.gz --out {out} --checkpoint {files}"
            );
            json(&place.run(&run).succeeded())["cases"][0]["peak_bytes"].as_u64().unwrap()
        };
        let both = format!("{one} {two}");
        let (alone, plan) = (planned(one), planned(&both));
        let peak = held(&both, &format!("{}-held", &one[..1]));
        let bytes = |plan: &Value, key: &str| plan[key].as_u64().unwrap();
        let weights = fs::metadata(place.at(two)).unwrap().len();
        assert!(peak <= bytes(&plan, "engine_bytes"), "{peak} held, {plan}");
        assert!(bytes(&plan, "engine_bytes") <= bytes(&alone, "engine_bytes") + weights, "{plan} of {alone}");
        assert!(bytes(&plan, "engine_bytes") > bytes(&alone, "engine_bytes"));
        assert!(bytes(&plan, "host_bytes") > bytes(&alone, "host_bytes"));
        assert_eq!(bytes(&plan, "passes"), 2 * bytes(&alone, "passes"));
    }
}
