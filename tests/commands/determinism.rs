//! The same seed gives the same bits: with one thread and with two, in one go and interrupted. Another seed does not.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::support::cli::{Place, data_set};

/// Two training cases and one for validation, of 32³ voxels.
fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), 32, &["a", "b"], &["v"]);
    place
}

/// The checkpoint of a short training run, byte by byte. Weights, running statistics, optimiser state and losses are all
/// in it; times, which differ, lie in another file.
fn checkpoint(place: &Place, model: &str, flags: &str) -> Vec<u8> {
    let name = format!("run{}", flags.replace(' ', ""));
    let command = format!(
        "train --preset sample --quiet --model {model} --points 500 --epochs 3 --data data --out {name} {flags}"
    );
    place.run(&command).succeeded();
    fs::read(place.at(&name).join(format!("{model}.safetensors"))).unwrap()
}

/// Twice the same, whatever the number of threads, and something else with another seed.
fn same_bits(model: &str) {
    let place = place();
    let one = checkpoint(&place, model, "--threads 1");
    let two = checkpoint(&place, model, "--threads 2");
    assert!(one == two, "{model}: 1 and 2 threads differ");
    let again = checkpoint(&place, model, "--threads 2 --seed 0");
    assert!(two == again, "{model}: a repetition differs");
    let other = checkpoint(&place, model, "--threads 2 --seed 1");
    assert!(two != other, "{model}: the seed has no effect");
}

#[test]
fn o_net() {
    same_bits("o-net-small");
}

#[test]
fn oss_net_c() {
    same_bits("oss-net-c-small");
}

#[test]
fn oss_net_d() {
    same_bits("oss-net-d-small");
}

#[test]
fn unet_3d() {
    same_bits("unet3d");
}

#[test]
fn unet_2d() {
    same_bits("unet2d");
}

/// Scores and losses of a comparison: its results without times.
fn figures(folder: &Path) -> serde_json::Value {
    let text = fs::read_to_string(folder.join("results.json")).unwrap();
    let mut results: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(results.as_object_mut().unwrap().remove("made_by").is_some());
    for model in results["models"].as_array_mut().unwrap() {
        for time in ["step_seconds", "total_seconds"] {
            assert!(model.as_object_mut().unwrap().remove(time).is_some());
        }
    }
    results
}

#[test]
fn an_interrupted_comparison_ends_as_an_uninterrupted_one() {
    let place = place();
    let compare =
        "compare --preset sample --threads 1 --models o-net-small,oss-net-c-small --epochs 16 --data data --out";
    place.run(&format!("{compare} whole --quiet")).succeeded();
    let mut hint = String::new();
    // Interrupted in the first model, then in the second.
    for model in ["O-Net small", "OSS-Net C small"] {
        let mut child = place.command(&format!("{compare} parts")).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line.starts_with(model) && line.contains(": 1/")).expect("training starts");
        // SAFETY: sends a signal to a child that has not been waited for, so that the number is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
        let said: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
        let last = said.last().unwrap();
        hint = last.split_once("go on with: ossnet ").unwrap_or_else(|| panic!("{said:?}")).1.to_string();
    }
    // What an interrupt says how to go on with is a command that does.
    place.run(&format!("{hint} --quiet")).succeeded();
    assert_eq!(figures(&place.at("parts")), figures(&place.at("whole")));
    for name in ["o-net-small", "oss-net-c-small"] {
        let read = |folder: &str| fs::read(place.at(folder).join(format!("{name}.safetensors"))).unwrap();
        assert!(read("parts") == read("whole"), "{name}: the interrupted run differs");
    }
}
