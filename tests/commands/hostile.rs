//! Sizes, names and files that are meant to do harm: one line, before memory is taken, time spent or a terminal obeyed.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::support::cli::{Place, ball, data_set};
use crate::support::{Nifti, gzip};
use ossnet::checkpoint::{self, Checkpoint, safetensors};
use ossnet::task::Task;
use serde_json::{Value, json};

/// Side of the cubes.
const SIDE: i64 = 16;

/// A folder with a data set, a scan, and an O-Net's checkpoint of one step.
fn place() -> Place {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    ball(SIDE, 7)[0].write(&place.at("scan.nii.gz"));
    let bytes = BYTES.get_or_init(|| {
        let train = "train --preset sample --quiet --threads 1 --points 64 --epochs 1 --data data --model o-net-small --out run";
        place.run(train).succeeded();
        let bytes = fs::read(place.at("run/o-net-small.safetensors")).unwrap();
        fs::remove_dir_all(place.at("run")).unwrap();
        bytes
    });
    fs::write(place.at("net.safetensors"), bytes).unwrap();
    place
}

/// Runs `$ossnet` with at most so many kibibytes of address space: what asks for more dies, and does not take the machine along.
fn within(place: &Place, kibibytes: u64, arguments: &str) -> crate::support::cli::Outcome {
    place.shell(&format!("ulimit -v {kibibytes}; exec $ossnet {arguments}"))
}

#[test]
fn headers_that_claim_more_channels_than_their_file_holds() {
    let place = Place::new();
    let mut first = Nifti::filled([1; 3], 0);
    first.dim = [5, 1, 1, 1, 32767, 3052, 1, 1];
    fs::write(place.at("one.nii"), first.bytes()).unwrap();
    let mut second = Nifti::filled([1; 3], 0);
    second.version = 2;
    second.magic = *b"n+2\0";
    second.dim = [5, 1, 1, 1, 1 << 40, 1 << 20, 1, 1];
    second.offset = 544.0;
    fs::write(place.at("two.nii"), second.bytes()).unwrap();
    fs::write(place.at("three.nii.gz"), gzip(&[second.bytes(), vec![0; 4 << 20]].concat())).unwrap();
    for file in ["one.nii", "two.nii", "three.nii.gz"] {
        // The problem is told as of any damaged file.
        let said = within(&place, 2 << 20, &format!("inspect {file}"));
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains("1 problem") && said.out.contains("limit"), "{}", said.out);
        within(&place, 2 << 20, &format!("mesh {file} --memory-budget 256MiB --out m.ply"))
            .refused(1, &[file, "limit"]);
    }
}

/// A megabyte that unpacks to four gigabytes of voxels is weighed by its header.
#[test]
fn scans_that_unpack_to_more_than_the_budget() {
    let place = place();
    let side = 512i64;
    let mut bomb = Nifti::filled([1; 3], 0);
    bomb.dim = [3, side, side, side, 1, 1, 1, 1];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&bomb.header()).unwrap();
    (0..side).for_each(|_| encoder.write_all(&vec![0; (side * side) as usize]).unwrap());
    let bytes = encoder.finish().unwrap();
    assert!(bytes.len() < 2 << 20, "{}", bytes.len());
    fs::write(place.at("bomb.nii.gz"), bytes).unwrap();
    // 2^27 voxels, as read and as turned.
    let parts = ["bomb.nii.gz", "1.0 GiB", "budget is 256.0 MiB", "--memory-budget"];
    for command in ["mesh bomb.nii.gz --out m.ply", "infer --load-model net.safetensors --input bomb.nii.gz --out out"]
    {
        place.refuses(&format!("{command} --quiet --memory-budget 256MiB"), 1, &parts);
    }
}

/// Pipes would be waited for, devices never end.
#[test]
fn files_that_are_none() {
    let place = place();
    assert!(Command::new("mkfifo").arg(place.at("pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(place.at("socket")).unwrap();
    for file in ["pipe", "socket", "/dev/zero"] {
        let parts = [file, "regular file"];
        place.refuses(&format!("evaluate --quiet --data data --load-model {file}"), 1, &parts);
        place.refuses(&format!("convert {file} out.pt"), 1, &parts);
        place.refuses(&format!("train --quiet --data data --config {file}"), 1, &parts);
        place.refuses(&format!("inspect {file}"), 1, &parts);
        place.refuses(&format!("mesh {file} --out m.ply"), 1, &parts);
    }
}

#[test]
fn flags_that_ask_for_the_moon() {
    let place = place();
    let huge = u64::MAX;
    let infer = "infer --quiet --threads 1 --input scan.nii.gz --out out --load-model net.safetensors";
    place.refuses(&format!("mesh scan.nii.gz --out m.ply --smooth {huge}"), 2, &["--smooth"]);
    place.refuses(&format!("{infer} --mesh ply --refine {huge}"), 2, &["--refine"]);
    // Taubin's filter lets long waves grow: where many iterations would make a ball of millilitres one of litres.
    place.refuses("mesh scan.nii.gz --out m.ply --smooth 101", 2, &["--smooth"]);
    // A patch of 2⁴⁸ voxels, and a spacing at which nothing is left of a scan.
    let train = "train --preset sample --quiet --memory-budget 2GiB --data data --model unet3d --out run";
    place.refuses(&format!("{train} --patch 65536x65536x65536"), 2, &["--patch", "batch of 1 case "]);
    place.refuses(&format!("{train} --spacing 1e30"), 2, &["spacing", "makes 0.00e0 voxels"]);
    for flags in [format!("--patch {huge},16,16"), "--resize 64".into(), format!("--resize {huge},1,1")] {
        let flag = flags.split(' ').next().unwrap();
        place.refuses(&format!("train --preset sample --quiet --data data --model unet3d {flags}"), 2, &[flag]);
    }
    place.run(&format!("{infer} --margin {huge} --points-at-once {huge}")).succeeded();
    let outcome =
        place.shell("OSSNET_SIMD=bogus exec $ossnet evaluate --quiet --data data --load-model net.safetensors");
    outcome.refused(2, &["OSSNET_SIMD=bogus", "portable"]);
}

/// The checkpoint with one entry of its metadata replaced, checksums right.
fn with_entry(place: &Place, key: &str, change: &dyn Fn(&mut Value)) {
    let Checkpoint { state, mut metadata, .. } = checkpoint::load(place.at("net.safetensors")).unwrap();
    let mut value: Value = serde_json::from_str(&metadata[key]).unwrap();
    change(&mut value);
    metadata.insert(key.into(), value.to_string());
    safetensors::write(place.at("bad.safetensors"), &state.views(), &metadata).unwrap();
}

/// Every number of a configuration and a task becomes every number that does harm: an error or an answer, never a panic, an
/// abort or a minute's wait.
#[test]
fn metadata_that_lies() {
    let place = place();
    let Checkpoint { metadata, .. } = checkpoint::load(place.at("net.safetensors")).unwrap();
    let hostile = [json!(0), json!(-1), json!(7), json!(1u64 << 40), json!(u64::MAX), json!(1e300), json!(null)];
    let mut tried = 0;
    for key in ["network", "task"] {
        let whole: Value = serde_json::from_str(&metadata[key]).unwrap();
        for pointer in numbers(&whole) {
            // All of them in the exhaustive run.
            let some = |(index, _): &(usize, &Value)| cfg!(feature = "exhaustive") || (index + tried) % 3 == 0;
            for (_, value) in hostile.iter().enumerate().filter(some).collect::<Vec<_>>() {
                with_entry(&place, key, &|whole| *whole.pointer_mut(&pointer).unwrap() = value.clone());
                let infer = "infer --quiet --threads 1 --memory-budget 512MiB --input scan.nii.gz --out out --load-model bad.safetensors";
                let outcome = within(&place, 4 << 20, infer);
                match outcome.code {
                    Some(0) => fs::remove_dir_all(place.at("out")).unwrap(),
                    // What cannot be applied to this scan is told as of a flag.
                    Some(2) => outcome.refused(2, &[]),
                    _ => outcome.refused(1, &[]),
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
    // Settings that are no numbers in the O-Net's own.
    for (name, value) in [
        ("resize", json!([0, 16, 16])),
        ("resize", json!([1u64 << 40, 16, 16])),
        ("resize", json!([65536, 65536, 65536])),
        ("spacing", json!([0.0, 1.0, 1.0])),
        ("spacing", json!([1e-300, 1.0, 1.0])),
        ("clip", json!([5.0, -5.0])),
        ("classes", json!([])),
        ("classes", json!([0, 0])),
        ("channels", json!([])),
    ] {
        with_entry(&place, "task", &|task| task["preprocessing"][name] = value.clone());
        let infer = "infer --quiet --threads 1 --memory-budget 512MiB --input scan.nii.gz --out out --load-model bad.safetensors";
        let outcome = within(&place, 4 << 20, infer);
        outcome.refused(if outcome.code == Some(2) { 2 } else { 1 }, &[]);
    }
    let task: Task = serde_json::from_str(&metadata["task"]).unwrap();
    assert_eq!(task.preprocessing.classes, [0, 1]);
}

/// JSON pointers of all numbers and of what may be one.
fn numbers(value: &Value) -> Vec<String> {
    let below =
        |key: String, value: &Value| numbers(value).into_iter().map(move |rest| format!("/{key}{rest}")).collect();
    let nested: Vec<Vec<String>> = match value {
        Value::Number(_) | Value::Null => return vec![String::new()],
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| below(index.to_string(), item)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, item)| below(key.clone(), item)).collect(),
        _ => Vec::new(),
    };
    nested.concat()
}

/// Names are shown, not obeyed: no control character reaches the terminal, no name makes a line of its own.
#[test]
fn names_with_control_characters() {
    let place = Place::new();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\nall is well\u{202e}";
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    let json = fs::read_to_string(place.at("data/dataset.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    json["name"] = evil.into();
    json["modality"]["0"] = evil.into();
    json["labels"]["1"] = evil.into();
    fs::write(place.at("data/dataset.json"), json.to_string()).unwrap();
    for part in ["imagesTr", "labelsTr"] {
        fs::rename(place.at(&format!("data/{part}/v.nii.gz")), place.at(&format!("data/{part}/{evil}.nii.gz")))
            .unwrap();
    }
    let text = fs::read_to_string(place.at("data/dataset.json")).unwrap();
    let escaped = serde_json::to_string(evil).unwrap();
    let name = escaped.trim_matches('"');
    fs::write(place.at("data/dataset.json"), text.replace("/v.nii.gz", &format!("/{name}.nii.gz"))).unwrap();
    fs::write(place.at(&format!("{evil}.nii")), "nonsense").unwrap();
    let clean = |text: &str| {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
        assert!(!text.contains('\u{202e}') && !text.lines().any(|line| line.starts_with("all is well")), "{text}");
    };
    let run = |arguments: &[&str]| {
        let mut command = place.command("");
        let outcome: crate::support::cli::Outcome = command.args(arguments).output().unwrap().into();
        clean(&outcome.out);
        clean(&outcome.err);
        outcome
    };
    assert!(run(&["inspect", "data", "--full"]).out.contains("\\u001b]0;owned\\u0007"));
    run(&["inspect", "data", "--json"]);
    assert_eq!(run(&["mesh", &format!("{evil}.nii"), "--out", "m.ply"]).code, Some(1));
    assert_eq!(run(&["train", "--model", evil]).code, Some(2));
    assert_eq!(run(&[evil]).code, Some(2));
    run(&[
        "train",
        "--threads",
        "1",
        "--points",
        "64",
        "--epochs",
        "1",
        "--data",
        "data",
        "--model",
        "o-net-small",
        "--out",
        "run",
    ]);
    let load = ["--load-model", "run/o-net-small.safetensors", "--data", "data"];
    assert_eq!(run(&[&["evaluate", "--out", "scores"], &load[..]].concat()).code, Some(0));
    assert_eq!(run(&[&["evaluate", "--sampled"], &load[..]].concat()).code, Some(0));
    run(&["compare", "--models", "o-net-small", "--epochs", "1", "--data", "data", "--out", "compared"]);
}

/// A case called like a formula is text in the table.
#[test]
fn cells_of_scores_are_no_formulas() {
    let place = place();
    let name = "=cmd|'calc'!A0";
    for part in ["imagesTr", "labelsTr"] {
        fs::rename(place.at(&format!("data/{part}/v.nii.gz")), place.at(&format!("data/{part}/{name}.nii.gz")))
            .unwrap();
    }
    let json = fs::read_to_string(place.at("data/dataset.json")).unwrap();
    fs::write(place.at("data/dataset.json"), json.replace("/v.nii.gz", &format!("/{name}.nii.gz"))).unwrap();
    place.run("evaluate --quiet --data data --load-model net.safetensors --out scores").succeeded();
    let csv = fs::read_to_string(place.at("scores/scores.csv")).unwrap();
    let line = csv.lines().nth(1).unwrap();
    assert!(line.starts_with(&format!("\"'{name}\",")), "{csv}");
}
