//! What killed processes leave, and what two processes with one folder do: nothing is lost, nothing alive is touched.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::support::cli::{Place, ball, data_set};
use serde_json::Value;

/// Side of the cubes.
const SIDE: i64 = 16;

fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    place
}

const TRAIN: &str = "train --preset sample --threads 1 --points 64 --data data --model o-net-small";

/// A training that takes long, started and past its first step.
fn running(place: &Place, out: &str) -> Child {
    let mut child =
        place.command(&format!("{TRAIN} --epochs 100000 --out {out}")).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut steps = lines.map_while(Result::ok).filter(|line| line.contains("/") && line.contains("after"));
    assert!(steps.next().is_some(), "no step was made");
    // The pipe stays open: whoever writes to a closed one would be told so.
    std::thread::spawn(move || steps.for_each(drop));
    child
}

/// Names in a folder that begin with a dot.
fn hidden(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// A number of a process that has ended.
fn dead() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn the_second_process_is_refused_and_the_first_goes_on() {
    let place = place();
    let mut first = running(&place, "run");
    let temporary = format!("run/.o-net-small.safetensors.{}-7.tmp", first.id());
    fs::write(place.at(&temporary), "half").unwrap();
    let owner = format!("process {}", first.id());
    for command in [
        format!("{TRAIN} --quiet --epochs 1 --out run"),
        format!("{TRAIN} --quiet --epochs 100000 --resume run"),
        "compare --preset sample --quiet --models o-net-small --epochs 1 --data data --out run".into(),
        "inspect data --out run".into(),
    ] {
        place.run(&command).refused(1, &["run", "in use by", &owner]);
    }
    assert!(place.at(&temporary).exists(), "a living writer's temporary was removed");
    first.kill().unwrap();
    first.wait().unwrap();
    // Whoever comes next takes the lock over, and removes what the dead left.
    assert_eq!(hidden(&place.at("run")).len(), 2);
    place.run(&format!("{TRAIN} --quiet --epochs 1 --out run")).refused(1, &["holds a run already"]);
    assert!(hidden(&place.at("run")).is_empty(), "{:?}", hidden(&place.at("run")));
}

/// Commands that write into any folder remove the dead's temporaries there as well, and nobody else's files.
#[test]
fn temporaries_of_the_dead_are_removed_by_every_command() {
    let place = place();
    place.run(&format!("{TRAIN} --quiet --epochs 1 --out run")).succeeded();
    ball(SIDE, 7)[1].write(&place.at("seg.nii.gz"));
    let left = |folder: &str| {
        fs::create_dir_all(place.at(folder)).unwrap();
        fs::write(place.at(&format!("{folder}/.x.pt.{}-3.tmp", dead())), "half").unwrap();
        fs::write(place.at(&format!("{folder}/.mine.tmp")), "mine").unwrap();
    };
    for (folder, command) in [
        ("run", format!("{TRAIN} --quiet --epochs 1 --resume run")),
        ("", "convert run/o-net-small.safetensors o-net-small.pt".into()),
        ("", "mesh seg.nii.gz --quiet --out seg.ply".into()),
        ("data/bordersTr", "borders data --quiet".into()),
        ("run", "infer --quiet --load-model run/o-net-small.safetensors --input seg.nii.gz --out run".into()),
    ] {
        let folder = if folder.is_empty() { "." } else { folder };
        left(folder);
        place.run(&command).succeeded();
        assert_eq!(hidden(&place.at(folder)), [".mine.tmp"], "{command}");
        fs::remove_file(place.at(&format!("{folder}/.mine.tmp"))).unwrap();
    }
}

/// Killed between the segmentation and the line that tells of it: `--resume` completes the summary from the disk.
#[test]
fn a_summary_is_completed() {
    let place = place();
    place.run(&format!("{TRAIN} --quiet --epochs 1 --out run")).succeeded();
    for (name, number) in [("p", 1), ("q", 2)] {
        ball(SIDE, number)[0].write(&place.at(&format!("scans/{name}.nii.gz")));
    }
    let infer = "infer --quiet --load-model run/o-net-small.safetensors --input scans --out out";
    place.run(infer).succeeded();
    let read = || -> Vec<Value> {
        let text = fs::read_to_string(place.at("out/inference.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone()
    };
    let whole = read();
    assert_eq!(whole.len(), 2);
    for known in [&whole[..1], &[]] {
        fs::write(place.at("out/inference.json"), Value::from(known).to_string()).unwrap();
        place.run(&format!("{infer} --resume --report")).succeeded();
        let completed = read();
        assert_eq!(completed.len(), 2);
        for (entry, before) in completed.iter().zip(&whole) {
            for key in ["case", "input", "output", "shape", "foreground_ml", "ml_by_class"] {
                assert_eq!(entry[key], before[key], "{key}");
            }
        }
        assert!(place.at("out/report.html").exists());
    }
}

/// Every folder that a stopped comparison leaves is taken up again, and gives what an undisturbed one gives.
#[test]
fn a_comparison_is_taken_up_at_any_moment() {
    let place = place();
    let compare = "compare --preset sample --quiet --threads 1 --models o-net-small,unet2d --epochs 1 --data data";
    place.run(&format!("{compare} --out whole")).succeeded();
    let dice = |folder: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.at(folder).join("results.json")).unwrap();
        let results: Value = serde_json::from_str(&text).unwrap();
        results["models"].as_array().unwrap().iter().map(|model| model["dice"].clone()).collect()
    };
    // What lies there after a kill behind each file that is written, in their order.
    let order = [
        "",
        "o-net-small.safetensors",
        "o-net-small.costs.json",
        "unet2d.safetensors",
        "unet2d.costs.json",
        "results.json",
    ];
    for last in 0..order.len() {
        let folder = format!("left{last}");
        fs::create_dir(place.at(&folder)).unwrap();
        for file in &order[1..=last] {
            fs::copy(place.at(&format!("whole/{file}")), place.at(&format!("{folder}/{file}"))).unwrap();
        }
        fs::write(place.at(&format!("{folder}/.o-net-small.safetensors.{}-3.tmp", dead())), "half").unwrap();
        fs::write(
            place.at(&format!("{folder}/.ossnet.lock")),
            format!("{{\"host\":\"x\",\"pid\":{},\"start\":1}}", dead()),
        )
        .unwrap();
        place.run(&format!("{compare} --out {folder}")).succeeded();
        assert_eq!(dice(&folder), dice("whole"), "{folder}");
        assert!(place.at(&folder).join("report.html").exists() && hidden(&place.at(&folder)).is_empty());
    }
    place.run(&format!("{compare} --out whole")).refused(1, &["holds a finished comparison", "--overwrite"]);
    fs::write(place.at("whole/notes.txt"), "mine").unwrap();
    place.run(&format!("{compare} --out whole --overwrite")).succeeded();
    assert_eq!(dice("left0"), dice("whole"));
    assert!(place.at("whole/notes.txt").exists());
}

/// A full disk is told in one line.
#[test]
fn an_archive_that_does_not_fit_fails_once() {
    let place = place();
    place.run(&format!("{TRAIN} --quiet --epochs 1 --out run")).succeeded();
    // A limit on the size of files; the signal that comes with it is ignored, so that writing fails as on a full disk.
    let outcome = place.shell("trap '' XFSZ; ulimit -f 64; exec $ossnet convert run/o-net-small.safetensors big.pt");
    outcome.refused_by_the_system(&["big.pt"]);
    assert!(!place.at("big.pt").exists() && hidden(place.path()).is_empty());
}
