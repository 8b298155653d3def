//! `ossnet plan` makes runs of data and budgets, and what `ossnet memory` plans of a run is what the run then costs, to the byte.
#![cfg(feature = "train")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::cli::json;
use crate::support::cohort;

/// Training cases of the cohort.
const TRAINING: usize = 5;

/// What `costs.json` and a forecast both say of bytes.
fn bytes(costs: &Value) -> Vec<Value> {
    ["peak_bytes", "peak_activations", "peak_by_role", "peak_op"].map(|key| costs[key].clone()).to_vec()
}

/// Ctrl-C while steps are rehearsed: nothing is written, as nothing is known.
#[test]
fn an_interrupted_plan_leaves_nothing() {
    let place = cohort::place(TRAINING);
    // The published networks' steps take long enough.
    let plan = "plan --threads 1 --data data --model oss-net-c,oss-net-d,unet3d --out plans";
    let mut child = place.command(plan).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.starts_with("planning oss-net-c")).expect("planning starts");
    // SAFETY: sends a signal to a child that has not been waited for, so that the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let said: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    assert!(said.last().unwrap().starts_with("ossnet: interrupted; "), "{said:?}");
    assert!(!place.at("plans").exists());
}

/// The files of a plan: a fingerprint of the cohort as it was drawn, and configurations that train as they are.
#[test]
fn a_plan_becomes_a_run_and_keeps_its_word() {
    let place = cohort::place(TRAINING);
    let planned =
        place.run("plan --quiet --json --data data --epochs 1 --threads 2 --model o-net-small,unet3d --out plans");
    let planned = json(&planned.succeeded());
    let fingerprint = json(&fs::read_to_string(place.at("plans/fingerprint.json")).unwrap());
    assert_eq!(fingerprint["schema_version"], 1);
    let cases = fingerprint["cases"].as_array().unwrap();
    assert_eq!(cases.len(), TRAINING, "of the training cases alone");
    assert_eq!(fingerprint["spacing"]["median"], serde_json::json!([1.0, 1.0, 1.0]));
    // Class 2 is absent in every fourth case, the fourth of these five.
    assert_eq!((&fingerprint["classes"][1]["cases"], &fingerprint["classes"][2]["cases"]), (&5.into(), &4.into()));
    for (number, name) in ["o-net-small", "unet3d"].into_iter().enumerate() {
        let file = fs::read_to_string(place.at(&format!("plans/{name}.toml"))).unwrap();
        assert!(
            file.contains("preset = \"auto\"") && file.lines().filter(|line| line.starts_with("# ")).count() > 12,
            "{file}"
        );
        let train = format!("train --quiet --json --threads 2 --config plans/{name}.toml --out {name}");
        let trained = json(&place.run(&train).succeeded());
        let plan = &planned["plans"][number]["plan"];
        assert_eq!((&trained["parameters"], &trained["steps"]), (&plan["parameters"], &plan["steps"]), "{name}");
        let costs = json(&fs::read_to_string(place.at(&format!("{name}/{name}.costs.json"))).unwrap());
        assert_eq!(bytes(plan), bytes(&costs), "{name}");
        let config = json(&place.run(&format!("memory --json --threads 2 --config plans/{name}.toml")).succeeded());
        assert_eq!(bytes(&config), bytes(&costs), "{name}");
    }
}

/// Runs of several networks, optimisers and sizes: `memory --run` and `--data` give the bytes of their `costs.json`.
#[test]
fn the_plan_of_a_run_is_what_it_cost() {
    let place = cohort::place(TRAINING);
    for (name, flags, rest) in [
        ("oss-net-c-small", "--points 300 --batch-size 2", "--average-decay 0.9 --clip-norm 1 --validate-every 1"),
        ("unet3d", "", "--patch 16x16x16 --batch-size 3 --optimizer sgd"),
        ("unet2d", "", "--slices 7 --accumulate 2 --recompute 2"),
    ] {
        let train =
            format!("train --quiet --threads 2 --data data --epochs 2 --model {name} {flags} {rest} --out {name}");
        place.run(&train).succeeded();
        let costs = json(&fs::read_to_string(place.at(&format!("{name}/{name}.costs.json"))).unwrap());
        let again = json(&place.run(&format!("memory --json --threads 2 --run {name}")).succeeded());
        assert_eq!(bytes(&again), bytes(&costs), "{name}");
        let sum = again["peak_by_role"].as_array().unwrap().iter().map(|role| role[1].as_u64().unwrap()).sum::<u64>();
        assert_eq!(again["peak_bytes"], sum);
        assert!(again["device_bytes"].as_u64() >= again["reserved_bytes"].as_u64());
        assert!(again["reserved_bytes"].as_u64() >= again["peak_bytes"].as_u64());
        assert!(again["validation_reserved_bytes"].as_u64().unwrap() > 0);
    }
    // Without a run: the same defaults that `train` would take.
    let train = "train --quiet --threads 2 --data data --epochs 1 --model o-net-small --points 128 --out plain";
    place.run(train).succeeded();
    let costs = json(&fs::read_to_string(place.at("plain/o-net-small.costs.json")).unwrap());
    let said = place.run("memory --json --threads 2 --data data --model o-net-small --points 128").succeeded();
    assert_eq!(bytes(&json(&said)), bytes(&costs));
    let text = place.run("memory --threads 2 --run plain").succeeded();
    assert!(text.contains("device, in all") && text.contains("host, in all"), "{text}");
    // On a GPU the context is the device's, and the two sums stay apart.
    let gpu = json(&place.run("memory --json --run plain --plan-for sm_90").succeeded());
    let number = |key: &str| gpu[key].as_u64().unwrap();
    let engine = number("reserved_bytes").max(number("validation_reserved_bytes"));
    assert_eq!(number("device_bytes"), engine + (512 << 20));
}

/// What `--recompute auto` became under the budget of a run is what `memory --run` plans, whatever the budget then.
#[test]
fn auto_is_planned_as_it_was_run() {
    let place = cohort::place(TRAINING);
    let train = |rest: &str| {
        let run = "train --threads 2 --data sample:heads --model unet3d --epochs 1";
        place.run(&format!("{run} {rest}"))
    };
    train("--quiet --out whole").succeeded();
    let planned = |run: &str| json(&place.run(&format!("memory --json --threads 2 --run {run}")).succeeded());
    let whole = planned("whole");
    let budget = whole["reserved_bytes"].as_u64().unwrap() - 1;
    let outcome = train(&format!("--recompute auto --memory-budget {budget} --out lean"));
    let costs = json(&fs::read_to_string(place.at("lean/unet3d.costs.json")).unwrap());
    let (lean, recompute) = (planned("lean"), costs["recompute"].as_str().unwrap());
    assert!(outcome.err.contains(&format!("recompute {recompute}: the fastest whose plan fits ")), "{}", outcome.err);
    assert_eq!((lean["recompute"].as_str(), bytes(&lean)), (Some(recompute), bytes(&costs)));
    assert!(lean["peak_bytes"].as_u64() < whole["peak_bytes"].as_u64());
}

/// The budget of bytes decides the sizes, and that of time the epochs.
#[test]
fn budgets_decide_sizes_and_epochs() {
    let place = cohort::place(TRAINING);
    let plan = |flags: &str| {
        let out = format!("out-{}", flags.len());
        let said = place.run(&format!("plan --quiet --json --threads 1 --data data {flags} --out {out}")).succeeded();
        json(&said)["plans"][0]["plan"].clone()
    };
    let reserved = |plan: &Value| plan["reserved_bytes"].as_u64().unwrap();
    let large = plan("--model unet3d --epochs 3");
    let budget = reserved(&large) - 1;
    let small = plan(&format!("--model unet3d --epochs 3 --memory-budget {budget}"));
    assert!(reserved(&small) <= budget, "{small}");
    let sizes = |plan: &Value| [&plan["batch"], &plan["shape"], &plan["recompute"]].map(Value::clone);
    assert_ne!(sizes(&small), sizes(&large));
    assert_eq!((&large["batch"], &large["epochs"]), (&2.into(), &3.into()));
    place.refuses(
        "plan --quiet --data data --model unet3d --epochs 1 --memory-budget 40MiB --out none",
        2,
        &["3D residual U-Net", "40.0 MiB", "--memory-budget"],
    );
    assert!(!place.at("none").exists());
    let timed =
        place.run("plan --quiet --data data --model o-net-small --threads 1 --time-budget 5s --out timed").succeeded();
    assert!(timed.contains("steps") && timed.contains("ossnet train --config timed/o-net-small.toml"), "{timed}");
    let file = fs::read_to_string(place.at("timed/o-net-small.toml")).unwrap();
    assert!(file.contains("a step measured") && file.contains("are for steps\nepochs = "), "{file}");
}

/// `train --preset auto` is the plan and the run in one; what the flags say stays.
#[test]
fn a_run_configured_by_its_data() {
    let place = cohort::place(TRAINING);
    let train = "train --threads 1 --preset auto --data data --model o-net-small --epochs 1 --points 96 --out run";
    let outcome = place.run(train);
    assert!(
        outcome.err.contains("network       O-Net small") && outcome.err.contains("96 points each"),
        "{}",
        outcome.err
    );
    outcome.succeeded();
    let config = fs::read_to_string(place.at("run/config.toml")).unwrap();
    assert!(config.contains("preset = \"auto\"") && config.contains("training_samples = 96"), "{config}");
    place.run("train --quiet --resume run").succeeded();
}

#[test]
fn what_cannot_be_planned() {
    let place = cohort::place(TRAINING);
    place.refuses("plan --data nowhere", 1, &["nowhere"]);
    place.refuses("plan --data data --model resnet", 2, &["resnet", "oss-net-c"]);
    place.refuses("plan --data data --model full,oss-net-c", 2, &["oss-net-c", "twice"]);
    place.refuses("plan --data data --time-budget soon", 2, &["soon", "30m"]);
    place.refuses("memory --data data --batch 3", 2, &["--data", "--batch"]);
    place.refuses("memory --config gone.toml", 1, &["gone.toml"]);
    place.refuses("memory --run nowhere", 1, &["nowhere"]);
}
