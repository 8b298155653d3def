//! A cohort in shards: what they make together is what one run makes, whatever is killed, missing or damaged in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::Nifti;
use crate::support::cli::{PROGRAM, Place, ball, data_set};
use ossnet::rng::Rng;
use serde_json::Value;

const SIDE: i64 = 16;

/// A folder with an occupancy network, made once.
fn model() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = Place::new();
        data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
        let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --data data --epochs";
        place.run(&format!("{train} 4 --out one")).succeeded();
        place.run(&format!("{train} 5 --out two")).succeeded();
        place
    })
}

/// A folder with that network, and as many scans called `s000`, `s001`, …
fn place(scans: usize) -> Place {
    let place = Place::new();
    for (from, to) in [("one", "net.safetensors"), ("two", "other.safetensors")] {
        fs::copy(model().at(&format!("{from}/o-net-small.safetensors")), place.at(to)).unwrap();
    }
    for number in 0..scans {
        ball(SIDE, number as u64)[0].write(&place.at(&format!("scans/s{number:03}.nii.gz")));
    }
    place
}

const INFER: &str = "infer --quiet --threads 1 --load-model net.safetensors --input scans";

/// The files of a folder but the summaries, which tell of time.
fn lasting(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let named = entries.map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_string(), path)
    });
    named.filter(|(name, _)| !name.ends_with(".json")).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// Cases and millilitres of a summary.
fn summary(path: &Path) -> BTreeMap<String, Value> {
    let all: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let entries = all["cases"].as_array().unwrap().iter();
    entries.map(|entry| (entry["case"].as_str().unwrap().into(), entry["foreground_ml"].clone())).collect()
}

/// Runs all shards by two workers, each killed after a drawn time as often as `kills` says, and compares with one run.
fn shards_make_what_one_run_makes(scans: usize, shards: usize, kills: usize) {
    let place = place(scans);
    // Probabilities tell scans apart; the masks of so young a network may all be empty.
    let infer = format!("{INFER} --probabilities");
    let started = Instant::now();
    place.run(&format!("{infer} --out whole")).succeeded();
    // What one shard takes if nothing goes wrong, about.
    let each = started.elapsed().mul_f64(1.0 / shards as f64) + Duration::from_millis(60);
    let (next, killed) = (AtomicUsize::new(1), AtomicUsize::new(0));
    let worker = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number > shards {
            return;
        }
        let mut rng = Rng::named(number as u64, "kills");
        let command = format!("{infer} --out parts --resume --shard {number}/{shards}");
        for _ in 0..kills {
            let mut child = place.command(&command).spawn().unwrap();
            std::thread::sleep(each.mul_f64(f64::from(rng.uniform())));
            killed.fetch_add(usize::from(child.try_wait().unwrap().is_none()), Ordering::Relaxed);
            let _ = child.kill();
            child.wait().unwrap();
        }
        if number == shards {
            // Before the last has run the cohort is not whole, and a merge says so.
            let merge = place.run("infer --merge parts");
            assert!(merge.code == Some(1) && merge.err.contains("--resume"), "{}", merge.err);
            assert!(!place.at("parts/inference.json").exists());
        }
        place.run(&command).succeeded();
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        worker();
    });
    let killed = killed.into_inner();
    eprintln!("{killed} of {} starts killed", kills * shards);
    assert!(killed * 4 >= kills * shards, "the shards ended before they could be killed: {killed}");
    // Also nothing that begins with a dot: locks, temporaries.
    let (whole, parts) = (lasting(&place.at("whole")), lasting(&place.at("parts")));
    assert_eq!(whole.keys().collect::<Vec<_>>(), parts.keys().collect::<Vec<_>>());
    assert!(whole == parts, "a file differs");
    assert_eq!(whole.len(), 2 * scans + 2);
    let maps: BTreeSet<&Vec<u8>> =
        whole.iter().filter(|(name, _)| name.contains("probabilities")).map(|(_, bytes)| bytes).collect();
    assert_eq!(maps.len(), scans, "two scans have one answer");
    let said = place.run("infer --merge parts").succeeded();
    assert!(said.contains(&format!("{scans} cases of {shards} shards")), "{said}");
    assert_eq!(summary(&place.at("parts/inference.json")), summary(&place.at("whole/inference.json")));
    // Each case in the summary of one shard.
    let each = (1..=shards).map(|number| {
        let width = shards.to_string().len();
        summary(&place.at(&format!("parts/inference-{number:0width$}-of-{shards}.json"))).len()
    });
    assert_eq!(each.sum::<usize>(), scans);
}

#[test]
fn four_shards_of_twelve_scans_killed_at_random() {
    shards_make_what_one_run_makes(12, 4, 2);
}

#[cfg(feature = "exhaustive")]
#[test]
fn sixty_four_shards_of_two_hundred_scans_killed_at_random() {
    shards_make_what_one_run_makes(200, 64, 2);
}

/// A list instead of a folder, in another order; the numbers as nnU-Net and Slurm give them: the same shard.
#[test]
fn a_shard_by_any_name() {
    let place = place(6);
    let lines: String = (0..6).rev().map(|number| format!("scans/s{number:03}.nii.gz\n")).collect();
    fs::write(place.at("cases.txt"), lines).unwrap();
    let infer = INFER.replace("--input scans", "--input cases.txt");
    place.run(&format!("{INFER} --out a --shard 2/3")).succeeded();
    place.run(&format!("{infer} --out b --num-parts 3 --part-id 1")).succeeded();
    let mut slurm = place.command(&format!("{infer} --out c --shard slurm"));
    for (name, value) in [("ID", "11"), ("COUNT", "3"), ("MIN", "10"), ("MAX", "12"), ("STEP", "1")] {
        slurm.env(format!("SLURM_ARRAY_TASK_{name}"), value);
    }
    assert!(slurm.status().unwrap().success());
    let found = lasting(&place.at("a"));
    assert!((1..6).contains(&found.keys().filter(|name| name.ends_with(".nii.gz")).count()), "{:?}", found.keys());
    assert!(found == lasting(&place.at("b")) && found == lasting(&place.at("c")));
    for folder in ["a", "b", "c"] {
        assert!(place.at(&format!("{folder}/inference-2-of-3.json")).exists());
    }
    for (flags, parts) in [
        ("--out d --shard 4/3", &["--shard", "1/3"][..]),
        ("--out d --shard 0/3", &["1/3"]),
        ("--out d --num-parts 3 --part-id 3", &["--part-id 3", "from 0"]),
        ("--out d --num-parts 3", &["--part-id"]),
        ("--out d --shard 1/3 --report", &["--report", "--resume"]),
        ("--out d.nii.gz --shard 1/3", &["d.nii.gz", "folder"]),
        ("--out d --shard slurm", &["SLURM_ARRAY_TASK_ID", "sbatch"]),
    ] {
        let before = place.files();
        let outcome = place.command(&format!("{INFER} {flags}")).env_remove("SLURM_ARRAY_TASK_ID").output();
        let outcome = crate::support::cli::Outcome::from(outcome.unwrap());
        outcome.refused(2, parts);
        assert_eq!(place.files(), before, "{flags}");
    }
    place.refuses("infer --merge scans", 1, &["scans", "no summary of a shard"]);
    place.refuses("infer --merge gone", 1, &["gone"]);
}

/// A scan that cannot be read costs its shard the exit status, and nothing else; the merge names it too.
#[test]
fn a_bad_case_is_reported_and_passed_over() {
    let place = place(6);
    let whole = fs::read(place.at("scans/s003.nii.gz")).unwrap();
    fs::write(place.at("scans/s003.nii.gz"), &whole[..whole.len() / 2]).unwrap();
    Nifti::new([4; 3]).typed(16, 4, vec![0xff; 4 * 64]).write(&place.at("scans/nan.nii.gz"));
    let run = |number| place.run(&format!("{INFER} --out out --resume --shard {number}/2"));
    let outcomes = [run(1), run(2)];
    let said = format!("{}{}", outcomes[0].err, outcomes[1].err);
    assert!(said.contains("s003.nii.gz") && said.contains("nan.nii.gz"), "{said}");
    assert!(outcomes.iter().any(|outcome| outcome.code == Some(1)), "{said}");
    for number in [0, 1, 2, 4, 5] {
        assert!(place.at(&format!("out/s{number:03}.nii.gz")).exists());
    }
    assert!(!place.at("out/s003.nii.gz").exists() && !place.at("out/nan.nii.gz").exists());
    let merged = place.run("infer --merge out");
    assert_eq!(merged.code, Some(1));
    assert!(merged.err.contains("2 of 7 cases") && merged.err.contains("nan, s003"), "{}", merged.err);
    assert_eq!(summary(&place.at("out/inference.json")).len(), 5);
    fs::write(place.at("scans/s003.nii.gz"), &whole).unwrap();
    fs::remove_file(place.at("scans/nan.nii.gz")).unwrap();
    [run(1), run(2)].into_iter().for_each(|outcome| drop(outcome.succeeded()));
    assert!(place.run("infer --merge out").succeeded().contains("6 cases of 2 shards"));
    assert_eq!(summary(&place.at("out/inference.json")).len(), 6);
}

/// A file that was cut off by something else is made again; one of other weights is not taken for this run's.
#[test]
fn what_is_done_is_looked_at() {
    let place = place(3);
    let command = format!("{INFER} --out out --shard 1/1");
    place.run(&command).succeeded();
    let whole = lasting(&place.at("out"));
    for (name, content) in [("s000", &b""[..]), ("s001", &whole["s001.nii.gz"][..60])] {
        fs::write(place.at(&format!("out/{name}.nii.gz")), content).unwrap();
    }
    place.run(&format!("{command} --resume")).succeeded();
    assert!(lasting(&place.at("out")) == whole);
    let other = command.replace("net.safetensors", "other.safetensors");
    place.refuses(&format!("{other} --resume"), 1, &["out/s000.nii.gz", "other weights", "--overwrite"]);
    // A cohort of two checkpoints is none.
    fs::remove_file(place.at("out/inference-1-of-1.json")).unwrap();
    place.run(&format!("{INFER} --out two --shard 1/2")).succeeded();
    place.run(&format!("{} --out two --shard 2/2", INFER.replace("net.saf", "other.saf"))).succeeded();
    place.refuses("infer --merge two", 1, &["two", "different weights", "one checkpoint"]);
}

/// SIGUSR1, as Slurm warns, and SIGTERM: the running case is finished, and the rest waits for --resume.
#[cfg(unix)]
#[test]
fn a_schedulers_signal_ends_after_the_running_case() {
    for (signal, out) in [(libc::SIGUSR1, "warned"), (libc::SIGTERM, "ended")] {
        let place = place(3);
        // The answer of each scan takes a second or more.
        let long = format!("{INFER} --out {out} --resume --dense --resolution 200x200x200 --shard 1/1");
        let child = place.command(&long).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        // The shard's summary comes after the handlers are set and before the first scan.
        while !place.at(&format!("{out}/inference-1-of-1.json")).exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(!place.at(&format!("{out}/s000.nii.gz")).exists());
        // SAFETY: sends a signal to a child that has not been waited for, so that the number is still its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let outcome = child.wait_with_output().unwrap();
        let said = String::from_utf8(outcome.stderr).unwrap();
        assert_eq!(outcome.status.code(), Some(130), "{said}");
        let done = lasting(&place.at(out)).keys().filter(|name| name.ends_with(".nii.gz")).count();
        // The signal may come between the summary and the first scan.
        assert!(done <= 1 && said.contains(&format!("{done} of 3 scans segmented; add --resume")), "{done}: {said}");
        assert_eq!(summary(&place.at(&format!("{out}/inference-1-of-1.json"))).len(), done);
        assert!(
            place
                .run(&format!("infer --merge {out}"))
                .err
                .contains(&format!("{} not segmented yet", ["3 cases", "2 cases"][done]))
        );
    }
}

/// Two processes for one shard: the second is refused; another shard is not.
#[test]
fn a_shard_belongs_to_one_process() {
    let place = place(2);
    let long = format!("{INFER} --out out --dense --resolution 200x200x200 --shard 1/1");
    let mut child = place.command(&long).spawn().unwrap();
    while !place.at("out/inference-1-of-1.json").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let outcome = place.run(&format!("{INFER} --out out --resume --shard 1/1"));
    place.run(&format!("{INFER} --out out --overwrite --shard 1/2")).succeeded();
    child.kill().unwrap();
    child.wait().unwrap();
    outcome.refused(1, &["out", "part 1-of-1 is in use by process"]);
}

/// No network, no home, no folder for temporaries, and a file system that is read-only but for the output (where the system
/// lets a test make one).
#[cfg(target_os = "linux")]
#[test]
fn one_writable_folder_is_enough() {
    let place = place(2);
    fs::create_dir(place.at("out")).unwrap();
    let script = r#"mount --make-rprivate / && mount --bind out out && mount -o remount,bind,ro / &&
        { [ ! -e /tmp ] || mount -o remount,bind,ro "$(df --output=target . | tail -1)" 2> /dev/null || true; } &&
        cd . && if touch scans/x 2> /dev/null; then exit 77; fi; touch out/x && rm out/x && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--map-root-user", "sh", "-c", script, "sh", PROGRAM]);
    command.args(INFER.split(' ')).args(["--out", "out", "--shard", "1/1"]);
    command.current_dir(place.path()).stdin(Stdio::null()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/nowhere").env("TMPDIR", "/nowhere");
    let outcome = command.output();
    match outcome.as_ref().map(|outcome| (outcome.status.code(), String::from_utf8_lossy(&outcome.stderr))) {
        Ok((Some(0), _)) => {}
        Ok((code, said)) if !said.contains("ossnet") => {
            return eprintln!("skipped: no file system can be made read-only here ({code:?}: {})", said.trim());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lasting(&place.at("out")).len(), 4);
}
