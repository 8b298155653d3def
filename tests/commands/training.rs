//! Training as users meet it: a run may be killed at any moment, is told by flags or by a file, and says what it did.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::cli::{Outcome, Place, ball, data_set, earlier_version};

/// Side of the cubes.
const SIDE: i64 = 16;

/// A run of 24 steps with everything that has a state: averages, validations, accumulated passes.
const RUN: &str = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 24 --batch-size 1 --accumulate 2 --data data \
    --average-decay 0.9 --clip-norm 1 --validate-every 5 --save-every 0";

fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    place
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A checkpoint from before versions that note the training data's spacing is gone on with as well.
#[test]
fn a_run_of_an_earlier_version() {
    let place = place();
    place.run(&format!("{RUN} --out run")).succeeded();
    earlier_version(&place.at("run/o-net-small.safetensors"), r#","trained_spacing":[1.0,1.0,1.0]"#);
    // A finished run is not looked into again.
    fs::remove_file(place.at("run/summary.json")).unwrap();
    place.run("train --quiet --threads 1 --resume run").succeeded();
}

/// `--validate-every 0` means none: not in between, and not at the end.
#[test]
fn no_validations_where_none_are_wanted() {
    let place = place();
    let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 4 --data data";
    for (every, count) in [(0, 0), (3, 2)] {
        place.run(&format!("{train} --validate-every {every} --out run-{every}")).succeeded();
        let log = String::from_utf8(bytes(&place.at(&format!("run-{every}/log.jsonl")))).unwrap();
        assert_eq!(log.matches(r#""event":"validation""#).count(), count, "{log}");
        assert_eq!(place.at(&format!("run-{every}/o-net-small.best.safetensors")).exists(), count > 0);
        let summary: serde_json::Value =
            serde_json::from_slice(&bytes(&place.at(&format!("run-{every}/summary.json")))).unwrap();
        assert_eq!(summary["best"].is_null(), count == 0, "{summary}");
        // The validation cases are scored at the end in both.
        let share = summary["validation_share"].as_f64().unwrap();
        assert!(summary["validation_seconds"].as_f64().unwrap() > 0.0 && share > 0.0 && share < 1.0, "{summary}");
    }
}

/// A finished run says so, more epochs are trained, from anywhere, and a refusal names what differs.
#[test]
fn a_run_that_goes_on_for_longer() {
    let place = place();
    let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --batch-size 1 --data data";
    place.run(&format!("{train} --epochs 3 --out a-run")).succeeded();
    let said = place.run("train --resume a-run").succeeded();
    assert!(said.contains("finished before: mean Dice") && said.contains("--epochs"), "{said}");
    fs::create_dir(place.at("elsewhere")).unwrap();
    place.shell("cd elsewhere && $ossnet train --quiet --threads 1 --resume ../a-run --epochs 5").succeeded();
    let summary: serde_json::Value = serde_json::from_slice(&bytes(&place.at("a-run/summary.json"))).unwrap();
    assert_eq!(summary["steps"], 10);
    for (flags, part) in
        [("--rate 0.5", "optimizer.rate 0.003"), ("--epochs 2", "epochs 5, not 2"), ("--seed 4", "seed 0, not 4")]
    {
        let refused = place.run(&format!("train --quiet --threads 1 --resume a-run {flags}"));
        refused.refused(1, &["o-net-small.safetensors", part]);
    }
    fs::create_dir(place.at("no-run")).unwrap();
    for folder in ["nowhere", "no-run"] {
        let refused = place.run(&format!("train --quiet --threads 1 --resume {folder}"));
        refused.refused(1, &[folder, "no run to go on with, config.toml is missing", "--out"]);
    }
    let other = place.run("train --quiet --threads 1 --resume a-run --model unet3d");
    other.refused(2, &["--resume a-run goes on with o-net-small, not with unet3d", "--out"]);
    assert!(!place.at("a-run/unet3d.safetensors").exists());
}

/// A run tells which scans it was begun with: others are told of, the same in another folder are not.
#[test]
fn a_run_that_goes_on_with_other_scans() {
    let place = place();
    let train = "train --preset sample --threads 1 --model o-net-small --points 64 --batch-size 1 --data data";
    place.run(&format!("{train} --epochs 1 --out run")).succeeded();
    let told = |epochs: usize| {
        let outcome = place.run(&format!("train --threads 1 --resume run --epochs {epochs}"));
        let told = outcome.err.contains("data.json: tells of other scans than");
        outcome.succeeded();
        told
    };
    assert!(!told(2));
    ball(SIDE, 7)[0].write(&place.at("data/imagesTr/a.nii.gz"));
    assert!(told(3), "a scan has changed");
    assert!(!told(4), "it was told once");
}

#[test]
fn a_run_that_is_killed_again_and_again() {
    let place = place();
    place.run(&format!("{RUN} --out whole")).succeeded();
    let next = |place: &Place| match place.at("killed/config.toml").exists() {
        true => place.command("train --quiet --threads 1 --resume killed"),
        false => place.command(&format!("{RUN} --out killed")),
    };
    for kill in 0..12u64 {
        let mut child = next(&place).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15 + 23 * kill * kill % 190));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let outcome: Outcome = next(&place).output().unwrap().into();
    outcome.succeeded();
    for file in ["o-net-small.safetensors", "o-net-small.best.safetensors", "config.toml"] {
        assert!(bytes(&place.at(&format!("whole/{file}"))) == bytes(&place.at(&format!("killed/{file}"))), "{file}");
    }
    let log = fs::read_to_string(place.at("killed/log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<u64> =
        lines.iter().filter(|line| line["event"] == "step").map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=24).collect::<Vec<_>>());
    let validations = lines.iter().filter(|line| line["event"] == "validation");
    assert_eq!(validations.map(|line| line["epoch"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 10, 15, 20, 24]);
    assert!(place.files().keys().all(|path| path.extension().is_none_or(|end| end != "tmp")), "a half-written file");
}

#[test]
fn a_file_says_the_same_as_flags_and_flags_override_it() {
    let place = place();
    let flags = "--model unet3d --epochs 2 --data data --patch 16,16,16 --optimizer adamw --schedule poly --rate 0.01";
    let dumped = place.run(&format!("train {flags} --dump-config")).succeeded();
    assert!(dumped.contains("patch = [16, 16, 16]") && dumped.contains("name = \"adamw\""), "{dumped}");
    fs::write(
        place.at("run.toml"),
        dumped.replace("epochs = 2", "epochs = 7").replace("channels = []", "channels = [4, 8]"),
    )
    .unwrap();
    place.run("train --quiet --threads 1 --config run.toml --epochs 2 --out file").succeeded();
    let stored = fs::read_to_string(place.at("file/config.toml")).unwrap();
    assert!(stored.contains("epochs = 2") && stored.contains("channels = [4, 8]"), "{stored}");
    place.run("train --quiet --threads 1 --config file/config.toml --out again").succeeded();
    assert!(bytes(&place.at("file/unet3d.safetensors")) == bytes(&place.at("again/unet3d.safetensors")));
    // The loss as well.
    let focal = "train --quiet --threads 1 --config run.toml --epochs 2 --focal 2 --hardest 0.5 --label-weights 1,2";
    place.run(&format!("{focal} --out focal")).succeeded();
    let stored = fs::read_to_string(place.at("focal/config.toml")).unwrap();
    for part in ["[loss]", "focal = 2.0", "hardest = 0.5", "label_weights = [1.0, 2.0]", "label_smoothing = 0.0"] {
        assert!(stored.contains(part), "{part}: {stored}");
    }
    assert!(bytes(&place.at("focal/unet3d.safetensors")) != bytes(&place.at("file/unet3d.safetensors")));
    for (flag, parts) in [
        ("--focal -1", ["--focal", "0 or more"]),
        ("--hardest 0", ["--hardest", "above 0"]),
        ("--label-smoothing 1", ["--label-smoothing", "below 1"]),
        ("--label-weights 1", ["--label-weights", "two numbers"]),
    ] {
        place.refuses(&format!("train --config run.toml {flag}"), 2, &parts);
    }
    fs::write(place.at("bad.toml"), "[schedule]\nwarmup = 0.1\n").unwrap();
    place.refuses("train --config bad.toml", 1, &["bad.toml", "schedule.warmup", "warm_up"]);
    place.refuses("train --config gone.toml", 1, &["gone.toml", "No such file"]);
}

#[test]
fn the_official_options() {
    let place = place();
    let official = place.run("train --model full2 --dataset LITS --train --test --dump-config").succeeded();
    for part in ["preset = \"lits\"", "epochs = 50", "batch_size = 8", "training_samples = 16384", "validate_every = 5"]
    {
        assert!(official.contains(part), "{part}: {official}");
    }
    place.refuses("train --model full --preset brats", 1, &["BraTS2020", "No such file"]);
    // The official name of the flag says no more than ours.
    let dump = |flag: &str| place.run(&format!("train {flag} oss-net-c --dump-config")).succeeded();
    assert_eq!(dump("--network-config"), dump("--model"));
    place.refuses("train --dataset BraTS", 2, &["vanilla_o_net", "oss-net-d"]);
    place.refuses("train --model full --dataset ACDC", 2, &["acdc", "BraTS or LITS"]);
    place.refuses("train --precision bf16 --data data", 2, &["--precision bf16", "CUDA device"]);
    place.refuses("train --cuda-devices 0,0 --data data", 2, &["--cuda-devices 0,0", "twice"]);
    place.refuses("train --cuda-devices x --data data", 2, &["--cuda-devices", "'x'"]);
    place.refuses(
        "train --preset sample --model o-net-small --patch 16,16,16 --data data",
        2,
        &["--patch", "O-Net small"],
    );
    place.refuses(
        "train --preset sample --model unet3d --patch 16,16,10 --data data",
        2,
        &["--patch", "multiples of 16"],
    );
    let reference = place.run("train --preset brats --model full --reference --dump-config").succeeded();
    assert!(reference.contains("reference = true") && official.contains("reference = false"));
    place.refuses(
        "train --preset brats --reference --model unet3d --data data",
        2,
        &["--reference", "3D residual U-Net"],
    );
    place.refuses("train --preset sample --reference --model o-net --data data", 2, &["--reference", "--preset brats"]);
}

/// A 2D network learns slices across any axis, and its checkpoint says which.
#[test]
fn slices_across_the_first_axis() {
    let place = place();
    fs::write(place.at("run.toml"), "network_config = 'unet2d'\nslice_axis = 0\n[network]\nchannels = [4, 8]\n")
        .unwrap();
    place.run("train --quiet --threads 1 --config run.toml --data data --slices 4 --epochs 2 --out run").succeeded();
    let scores = place.run("evaluate --quiet --json --load-model run/unet2d.safetensors --data data").succeeded();
    let scores: serde_json::Value = serde_json::from_str(&scores).unwrap();
    assert!(scores["dice"].as_f64().unwrap().is_finite(), "{scores}");
}

/// The event file is a row of records with valid checksums that hold the scalars of each step.
#[test]
fn tensorboard_reads_the_events() {
    let place = place();
    place.run(&format!("{RUN} --out run")).succeeded();
    let folder = fs::read_dir(place.at("run")).unwrap().map(|entry| entry.unwrap().path());
    let file = folder.into_iter().find(|path| path.to_string_lossy().contains("events.out.tfevents.")).unwrap();
    let (file, mut at, mut records) = (bytes(&file), 0, Vec::new());
    while at < file.len() {
        let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        let record = &file[at + 12..at + 12 + length];
        let sums = [&file[at + 8..at + 12], &file[at + 12 + length..at + 16 + length]];
        assert_eq!(sums, [&checksum(&file[at..at + 8])[..], &checksum(record)[..]]);
        records.push(record);
        at += 16 + length;
    }
    // Version, session start, 24 steps, 5 validations.
    assert_eq!(records.len(), 31);
    let holds = |text: &str| records.iter().filter(|r| r.windows(text.len()).any(|w| w == text.as_bytes())).count();
    assert_eq!(["brain.Event:2", "loss/train", "validation/iou"].map(holds), [1, 24, 5]);
}

/// Masked CRC-32C with a table, unlike the writer's.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let table: Vec<u32> = (0..256u32)
        .map(|i| (0..8).fold(i, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }))
        .collect();
    let crc = !bytes.iter().fold(!0u32, |crc, &byte| table[((crc ^ byte as u32) & 0xff) as usize] ^ crc >> 8);
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}
