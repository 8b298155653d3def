//! `train`, `infer` and `compare` killed a hundred times each at drawn moments (`kill -9`), and started again until they end:
//! what they leave is what an undisturbed run leaves, and nothing half-written is ever there. `--features exhaustive`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::cli::{Place, ball, data_set};
use serde_json::Value;

/// Kills of each command.
const KILLS: usize = 100;

/// A fixed stream of shares of one (SplitMix64).
struct Draw(u64);

impl Draw {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn place() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    for number in 0..4 {
        ball(16, number)[0].write(&place.at(&format!("scans/s{number}.nii.gz")));
    }
    place
}

/// Runs to the end and tells how long it took.
fn undisturbed(place: &Place, command: &str) -> Duration {
    let started = Instant::now();
    place.run(command).succeeded();
    started.elapsed()
}

/// Starts `command`, kills it after a share of `whole`, and so on until it ends by itself; `between` looks at what lies there.
/// Returns how many were killed.
fn killed_until_done(
    place: &Place,
    whole: Duration,
    draw: &mut Draw,
    command: &dyn Fn() -> String,
    between: &dyn Fn(),
    done: &dyn Fn() -> bool,
) -> usize {
    for kills in 0.. {
        let mut child = place.command(&command()).spawn().unwrap();
        // The longer it goes on the later it is killed, so that it ends.
        let patience = whole.mul_f64(draw.share() * (0.3 + 0.05 * kills as f64));
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status} of: {}", command());
                return kills;
            }
            if started.elapsed() >= patience {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        between();
        // Killed behind its last file it is done: the next one says so, and removes what the dead left.
        if done() {
            place.run(&command()).refused(1, &["finished"]);
            return kills + 1;
        }
    }
    unreachable!()
}

/// Files of a folder by name, but those that tell of time and those that begin with a dot.
fn lasting(folder: &Path, lasting: &dyn Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let named = entries.map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_string(), path)
    });
    named.filter(|(name, _)| lasting(name)).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn no_leftovers(folder: &Path) {
    let hidden = lasting(folder, &|name| name.starts_with('.'));
    assert!(hidden.is_empty(), "{:?}", hidden.keys());
}

#[test]
fn trainings() {
    let (place, mut draw, mut kills, mut runs) = (place(), Draw(1), 0, 0);
    let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 12 --validate-every 3 --save-every 0 --data data";
    let whole = undisturbed(&place, &format!("{train} --out whole"));
    let weights = |folder: &str| lasting(&place.at(folder), &|name| name.ends_with(".safetensors"));
    let expected = weights("whole");
    assert_eq!(expected.len(), 2);
    let steps = |folder: &str| -> Vec<u64> {
        let log = fs::read_to_string(place.at(folder).join("log.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "step").map(|line| line["step"].as_u64().unwrap()).collect()
    };
    let logged = steps("whole");
    assert!(logged.len() >= 12 && logged.iter().eq(&(1..=logged.len() as u64).collect::<Vec<_>>()), "{logged:?}");
    while kills < KILLS {
        let out = format!("run{runs}");
        let command = || match place.at(&out).join("config.toml").exists() {
            true => format!("{train} --resume {out}"),
            false => format!("{train} --out {out}"),
        };
        let sound = || {
            for name in weights(&out).keys() {
                ossnet::checkpoint::load(place.at(&out).join(name)).unwrap();
            }
        };
        kills += killed_until_done(&place, whole, &mut draw, &command, &sound, &|| false);
        assert!(weights(&out) == expected, "other weights after {kills} kills");
        assert_eq!(steps(&out), logged, "steps are lost or told twice");
        no_leftovers(&place.at(&out));
        runs += 1;
    }
    eprintln!("{kills} kills over {runs} trainings");
}

#[test]
fn inferences() {
    let (place, mut draw, mut kills, mut runs) = (place(), Draw(2), 0, 0);
    undisturbed(
        &place,
        "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 1 --data data --out net",
    );
    let infer = "infer --quiet --threads 1 --load-model net/o-net-small.safetensors --input scans --mesh ply --resolution 48x48x48 --resume";
    let whole = undisturbed(&place, &format!("{infer} --out whole"));
    let found = |folder: &str| lasting(&place.at(folder), &|name| !name.starts_with('.') && name != "inference.json");
    let summary = |folder: &str| -> BTreeMap<String, Value> {
        let text = fs::read_to_string(place.at(folder).join("inference.json")).unwrap();
        let summary: Value = serde_json::from_str(&text).unwrap();
        let entries = summary["cases"].as_array().unwrap().iter();
        entries.map(|entry| (entry["case"].as_str().unwrap().into(), entry["foreground_ml"].clone())).collect()
    };
    let expected = found("whole");
    // Four segmentations and meshes, and the names and colours of the labels for two programs.
    assert_eq!(expected.len(), 10);
    while kills < KILLS {
        let out = format!("out{runs}");
        let whole_files = || found(&out).iter().for_each(|(name, bytes)| assert!(expected[name] == *bytes, "{name}"));
        kills +=
            killed_until_done(&place, whole, &mut draw, &|| format!("{infer} --out {out}"), &whole_files, &|| false);
        assert!(found(&out) == expected, "other files after {kills} kills");
        assert_eq!(summary(&out), summary("whole"));
        no_leftovers(&place.at(&out));
        runs += 1;
    }
    eprintln!("{kills} kills over {runs} inferences");
}

#[test]
fn comparisons() {
    let (place, mut draw, mut kills, mut runs) = (place(), Draw(3), 0, 0);
    let compare = "compare --preset sample --quiet --threads 1 --models o-net-small,unet2d --epochs 2 --data data";
    let whole = undisturbed(&place, &format!("{compare} --out whole"));
    let weights = |folder: &str| lasting(&place.at(folder), &|name| name.ends_with(".safetensors"));
    let dice = |folder: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.at(folder).join("results.json")).unwrap();
        let results: Value = serde_json::from_str(&text).unwrap();
        results["models"].as_array().unwrap().iter().map(|model| model["dice"].clone()).collect()
    };
    let expected = weights("whole");
    assert_eq!(expected.len(), 2);
    while kills < KILLS {
        let out = format!("compared{runs}");
        let sound = || {
            for name in weights(&out).keys() {
                ossnet::checkpoint::load(place.at(&out).join(name)).unwrap();
            }
        };
        kills += killed_until_done(&place, whole, &mut draw, &|| format!("{compare} --out {out}"), &sound, &|| {
            place.at(&out).join("report.html").exists()
        });
        assert!(weights(&out) == expected && dice(&out) == dice("whole"), "other results after {kills} kills");
        no_leftovers(&place.at(&out));
        runs += 1;
    }
    eprintln!("{kills} kills over {runs} comparisons");
}
