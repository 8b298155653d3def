//! `--profile`: where the time of a step, a training and a segmentation goes.
#![cfg(feature = "train")]

use std::collections::BTreeMap;

use ossnet::device::{Device, UNLIMITED};
use ossnet::planner::{Workload, this_cpu};
use ossnet::train::dry_run::StepSizes;
use serde_json::Value;

use crate::support::cli::{Place, data_set, json};

/// The file of a profile, checked for what holds of each.
fn profile(place: &Place, name: &str) -> Value {
    let profile = json(&std::fs::read_to_string(place.at(name)).unwrap());
    let rows = profile["rows"].as_array().unwrap();
    let seconds: f64 = rows.iter().map(|row| row["seconds"].as_f64().unwrap()).sum();
    assert!((seconds - profile["seconds"].as_f64().unwrap()).abs() < 1e-6 * seconds, "{seconds}: {profile:#}");
    let passes: u64 = rows.iter().map(|row| row["passes"].as_u64().unwrap()).sum();
    let events = profile["traceEvents"].as_array().unwrap();
    assert_eq!(events.len() as u64, passes.min(20_000));
    let at = |event: &Value, key: &str| event[key].as_f64().unwrap();
    // One after the other, without holes: times are rounded to nanoseconds.
    assert!(events.windows(2).all(|pair| (at(&pair[0], "ts") + at(&pair[0], "dur") - at(&pair[1], "ts")).abs() < 0.01));
    for key in ["flops_per_second", "bytes_per_second"] {
        assert!(profile["best"][key].as_f64().unwrap() > 1e8, "{profile:#}");
    }
    profile
}

/// The sum of a figure over the rows of a phase and, unless it is empty, an op.
fn sum(profile: &Value, phase: &str, op: &str, figure: &str) -> f64 {
    let rows = profile["rows"].as_array().unwrap().iter();
    let wanted = rows.filter(|row| row["phase"] == phase && (op.is_empty() || row["op"] == op));
    wanted.map(|row| row[figure].as_f64().unwrap()).sum()
}

#[test]
fn a_step_does_the_work_that_is_planned() {
    let place = Place::new();
    let flags = "--model o-net --volume 32x32x32 --points 64";
    let text = place.run(&format!("memory {flags} --device cpu --threads 1 --steps 3 --profile step.json")).succeeded();
    assert!(text.contains("linear, backward") && text.contains("% best") && text.contains("step.json"), "{text}");
    let tables = text.lines().skip_while(|line| !line.contains("GFLOP/s and"));
    tables.take_while(|line| !line.starts_with("timeline")).for_each(|line| {
        assert!(line.chars().count() <= 84, "{line}");
    });
    let profile = profile(&place, "step.json");
    // Three steps make three times the operations of the plan's one.
    let step = Workload::official("o-net", StepSizes::new([32; 3], 1, 64)).unwrap();
    let plan = step.dry_run(&Device::plan_for(this_cpu(1), UNLIMITED), 1).unwrap();
    let mut planned: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    plan.work.iter().for_each(|work| *planned.entry((work.op, work.phase.name())).or_default() += work.flops);
    assert!(planned.len() > 10);
    for ((op, phase), flops) in planned {
        assert_eq!(sum(&profile, phase, op, "flops"), 3.0 * flops as f64, "{op}, {phase}");
    }
    assert!(sum(&profile, "optimizer", "", "seconds") > 0.0);
    place.refuses(&format!("memory {flags} --profile step2.json"), 2, &["--profile", "--device cpu"]);
    place.refuses("memory --device cpu --sweep 16..32 --profile step2.json", 2, &["--profile"]);
}

#[test]
fn a_training_and_a_segmentation() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    let train =
        "train --preset sample --model o-net-small --points 64 --batch-size 1 --epochs 4 --threads 1 --data data";
    let text = place.run(&format!("{train} --out run --profile run.json")).succeeded();
    assert!(text.contains("layer") && text.contains("decoder.blocks.0"), "{text}");
    let trained = profile(&place, "run.json");
    for phase in ["data", "forward", "backward", "optimizer"] {
        assert!(sum(&trained, phase, "", "seconds") > 0.0, "{phase}: {trained:#}");
    }
    // Eight steps, each with one loss.
    assert_eq!(sum(&trained, "forward", "binary_loss", "passes"), 8.0, "{trained:#}");
    // A profile changes nothing.
    place.run(&format!("{train} --out plain --quiet")).succeeded();
    let weights = |folder: &str| std::fs::read(place.at(folder).join("o-net-small.safetensors")).unwrap();
    assert!(weights("run") == weights("plain"));

    let infer = "infer --threads 1 --load-model run/o-net-small.safetensors --input data/imagesTr/v.nii.gz --dense";
    let text = place.run(&format!("{infer} --out answers --json --profile infer.json")).succeeded();
    assert_eq!(json(&text)["cases"].as_array().unwrap().len(), 1, "JSON and nothing else");
    let asked = profile(&place, "infer.json");
    let cost = sum(&asked, "evaluate", "occupancy", "flops");
    assert!(cost > 0.0 && sum(&asked, "evaluate", "conv3d", "flops") > 0.0, "{asked:#}");
    assert_eq!(sum(&asked, "backward", "", "passes"), 0.0);
}
