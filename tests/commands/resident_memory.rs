//! The process holds no more than the ledger and a stated constant.

use std::process::Command;

use ossnet::rng::Rng;

use crate::infer_memory::resident;
use crate::support::cli::Place;

const MIB: u64 = 1 << 20;

/// What the process needs beside the arena: the program itself, thread stacks, the GEMM crate's packing buffers.
const BESIDE: u64 = 64 * MIB;

#[test]
fn the_resident_set_agrees_with_the_ledger() {
    for model in [["--model", "oss-net-c", "--volume", "128x128x80"], ["--model", "unet3d", "--volume", "96x96x96"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ossnet"))
            .args(["memory", "--device", "cpu", "--steps", "1", "--threads", "2", "--json"])
            .args(model)
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (ledger, resident) = (json["peak_bytes"].as_u64().unwrap(), json["resident_peak_bytes"].as_u64().unwrap());
        let allowed = ledger + ledger * 15 / 100 + BESIDE;
        assert!(resident > ledger * 85 / 100 && resident <= allowed, "{model:?}: ledger {ledger}, resident {resident}");
    }
}

/// What an optimised program holds before its first step: planned. Builds without optimisation have a larger one.
const PROGRAM: u64 = 8 * MIB;

/// Steps that are drawn, unless OSSNET_DRAWN says how many.
const DRAWN: usize = 5;

/// What a process holds at most is never more than its plan says, whatever it computes and with however many threads. How
/// far above the plan is is printed: with many threads that do little, their stacks and packing buffers are not filled.
#[test]
fn no_step_holds_more_than_planned() {
    let mut rng = Rng::new(17);
    let mut least_left = u64::MAX;
    let drawn = std::env::var("OSSNET_DRAWN").map_or(DRAWN, |drawn| drawn.parse().expect("a number"));
    for _ in 0..drawn {
        let mut of = |choices: &[&str]| choices[rng.below(choices.len() as u64) as usize].to_string();
        let model = of(&["o-net", "oss-net-a", "oss-net-b", "oss-net-c", "oss-net-d", "unet3d", "unet2d"]);
        let mut flags = vec!["--model".to_string(), model.clone(), "--threads".into()];
        flags.push(of(&["1", "2", "3", "4", "6", "8", "12", "16"]));
        let sides = ["32", "48", "64", "80", "96"];
        let depth = if model == "unet2d" { of(&["1", "8"]) } else { of(&sides) };
        flags.extend(["--volume".into(), format!("{}x{}x{depth}", of(&sides), of(&sides)), "--step".into()]);
        flags.push(of(&["train", "train", "eval", "infer"]));
        if flags.last().is_some_and(|step| step == "train") {
            let levels = if model.starts_with('u') { &["0", "1", "2"][..] } else { &["0", "1", "2", "3"] };
            flags.extend(["--recompute".into(), of(levels), "--batch".into(), of(&["1", "1", "2", "3"])]);
        }
        if model.starts_with('o') {
            flags.extend(["--points".into(), of(&["256", "1000", "4096", "9000"])]);
        }
        let command = Command::new(env!("CARGO_BIN_EXE_ossnet"))
            .args(["memory", "--compare-to", "measured", "--json"])
            .args(&flags)
            .output()
            .unwrap();
        let problem = String::from_utf8_lossy(&command.stderr);
        assert!(command.status.success(), "{flags:?}: {problem}");
        let json: serde_json::Value = serde_json::from_slice(&command.stdout).unwrap();
        // How many points an occupancy network is asked in inference follows from its answers: the plan takes a share.
        let is_known = model.starts_with('u') || flags.iter().any(|flag| flag == "train");
        assert!(!is_known || json["events"]["first_difference"].is_null(), "{flags:?}: {json}");
        let bytes = |key: &str| json["resident_peak_bytes"][key].as_u64().unwrap();
        let larger_program = bytes("before_the_run").saturating_sub(PROGRAM);
        let (planned, measured) = (bytes("planned_at_most") + larger_program, bytes("measured"));
        assert!(measured <= planned, "{flags:?}: {measured} bytes are resident, {planned} are planned at most");
        least_left = least_left.min(planned - measured);
        println!("{:6.1} MiB less than planned: {}", (planned - measured) as f64 / MIB as f64, flags.join(" "));
    }
    println!("at least {:.1} MiB are left", least_left as f64 / MIB as f64);
}

/// A run from its first scan to its last page holds no more than the largest phase of its plan.
#[test]
fn no_run_holds_more_than_its_largest_phase() {
    let place = Place::new();
    let json =
        |arguments: &str| -> serde_json::Value { serde_json::from_str(&place.run(arguments).succeeded()).unwrap() };
    let empty = json("memory --compare-to measured --model unet3d --volume 16x16x16 --threads 1 --json");
    let larger_program = empty["resident_peak_bytes"]["before_the_run"].as_u64().unwrap().saturating_sub(PROGRAM);
    let mut rng = Rng::new(23);
    let drawn = std::env::var("OSSNET_DRAWN").map_or(DRAWN, |drawn| drawn.parse().expect("a number"));
    for run in 0..drawn {
        let mut of = |choices: &[&str]| choices[rng.below(choices.len() as u64) as usize].to_string();
        // Each network in turn: what is drawn is the rest.
        let model = ["o-net-small", "unet3d", "oss-net-c-small", "unet2d"][run % 4];
        let threads = of(&["1", "2", "4", "8"]);
        let mut flags = format!("--model {model} --epochs {} --validate-every {}", of(&["1", "2"]), of(&["0", "1"]));
        flags +=
            &format!(" --batch-size {} {}", of(&["1", "2", "4"]), of(&["", "--average-decay 0.9", "--prefetch 0"]));
        flags += &of(&["", " --recompute 1", " --recompute 2", " --accumulate 2"]);
        let train = format!("train --quiet --preset sample --threads {threads} {flags} --out run-{run}");
        let measured = resident(&mut place.command(&train));
        let plan = json(&format!("memory --run run-{run} --threads {threads} --json"));
        let bytes = |phase: &serde_json::Value, key: &str| phase[key].as_u64().unwrap();
        let phases = plan["phases"].as_array().unwrap().iter();
        let planned = phases.map(|phase| bytes(phase, "device_bytes") + bytes(phase, "host_bytes")).max().unwrap();
        let planned = planned + larger_program;
        println!("{:6.1} of {:.1} MiB planned: {flags}", measured as f64 / MIB as f64, planned as f64 / MIB as f64);
        assert!(
            measured <= planned,
            "{train}: {measured} bytes are resident, {planned} are planned: {}",
            plan["phases"]
        );
    }
}
