//! `scripts/table1.py`: from a data set's folder to the paper's table, resumable at any moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cli::{Outcome, PROGRAM, Place, ball};

/// Subjects that the authors train on, and two that they validate on.
const SUBJECTS: [&str; 6] = ["031", "049", "065", "128", "036", "180"];

/// Subjects in BraTS's layout: in each contrast the same bright ball.
fn subjects(folder: &Path) {
    for (number, subject) in SUBJECTS.iter().enumerate() {
        let [image, label] = ball(16, number as u64);
        let name = format!("BraTS20_Training_{subject}");
        let file = |ending: &str| folder.join(format!("{name}/{name}_{ending}.nii.gz"));
        ["flair", "t1", "t1ce", "t2"].iter().for_each(|contrast| image.write(&file(contrast)));
        label.write(&file("seg"));
    }
}

/// The script with its arguments; without Python there is nothing to test.
fn script(place: &Place, arguments: &str) -> Option<Command> {
    let there = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|end| end.success());
    if !there {
        eprintln!("skipped: there is no python3");
        return None;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/table1.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(path).args(["--program", PROGRAM, "--threads", "1"]);
    // Small steps: published networks, few points.
    command.args(["--rules", "own", "--train-flags", "--batch-size 2 --points 16 --slices 4 --save-every 1"]);
    command.args(arguments.split_whitespace()).current_dir(place.path()).stdin(Stdio::null());
    Some(command)
}

fn table(place: &Place, out: &str) -> Value {
    serde_json::from_slice(&fs::read(place.at(&format!("{out}/table1.json"))).unwrap()).unwrap()
}

/// What must not depend on when the work was stopped.
fn lasting(table: &Value, row: usize) -> Vec<&Value> {
    let keys =
        ["row", "sampled_dice", "sampled_iou", "dice", "iou", "hd95_mm", "parameters", "steps", "device_peak_bytes"];
    keys.iter().map(|key| &table["rows"][row][key]).collect()
}

#[test]
fn table1_ends_beside_the_published_figures_and_goes_on_after_a_stop() {
    let place = Place::new();
    subjects(&place.at("data"));
    let flags = "--dataset brats --data data --epochs 12";
    let Some(mut whole) = script(&place, &format!("{flags} --rows unet2d,oss-net-c --out whole")) else { return };
    let page = Outcome::from(whole.output().unwrap()).succeeded();
    // The published figures as the authors state them.
    assert!(
        page.contains("| OSS-Net C | 0.8842 | 0.7991 |") && page.contains("| 2D residual U-Net | – | – |"),
        "{page}"
    );
    assert!(page.contains("Reduced: 12 epochs instead of 50"), "{page}");
    assert_eq!(page.trim_end(), fs::read_to_string(place.at("whole/table1.md")).unwrap().trim_end());
    assert_eq!(fs::read_to_string(place.at("whole/table1.csv")).unwrap().lines().count(), 3);
    // A filled mark each, and hollow ones at the bytes of every level of recomputation.
    let picture = fs::read_to_string(place.at("whole/table1.svg")).unwrap();
    assert_eq!(
        (picture.matches("MiB</title>").count(), picture.matches("MiB planned</title>").count()),
        (2, 8),
        "{picture}"
    );
    let complete = table(&place, "whole");
    for row in complete["rows"].as_array().unwrap() {
        assert_eq!(
            (row["finished"].as_bool(), row["subjects"].as_u64(), row["steps"].as_u64()),
            (Some(true), Some(2), Some(24))
        );
        for figure in
            ["host_peak_bytes", "training_seconds", "points_a_second", "inference_seconds", "inference_host_bytes"]
        {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}");
        }
        // The process holds what the engine does, and more.
        assert!(row["host_peak_bytes"].as_u64() > row["device_peak_bytes"].as_u64());
        let [low, mean, high] = ["low", "mean", "high"].map(|part| row["dice"][part].as_f64().unwrap());
        assert!(low <= mean && mean <= high && high <= 1.0);
    }
    // The mean of the table is that of the scores that `evaluate` gives for the subjects together.
    let evaluated = "evaluate --quiet --json --data data --load-model whole/rows/unet2d/run/unet2d.best.safetensors";
    let evaluated: Value = serde_json::from_str(&place.run(&format!("{evaluated} --out all")).succeeded()).unwrap();
    let means = [&complete["rows"][0]["dice"]["mean"], &evaluated["dice"]].map(|mean| mean.as_f64().unwrap());
    assert!((means[0] - means[1]).abs() < 1e-12, "{means:?}");

    // Stopped once in training, and begun again by the same command.
    let parts = format!("{flags} --rows unet2d --out parts");
    let mut child = script(&place, &parts).unwrap().stderr(Stdio::piped()).spawn().unwrap();
    let (log, begun) = (place.at("parts/rows/unet2d/run/log.jsonl"), Instant::now());
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("\"step\":2")) {
        assert!(begun.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let stopped = Outcome::from(child.wait_with_output().unwrap());
    assert_eq!(stopped.code, Some(130), "{}", stopped.err);
    assert!(stopped.err.contains("the same command goes on") && !place.at("parts/table1.json").exists());
    Outcome::from(script(&place, &parts).unwrap().output().unwrap()).succeeded();
    assert_eq!(lasting(&table(&place, "parts"), 0), lasting(&complete, 0));

    // A finished table is printed again without work; another setting is refused.
    let before = place.files();
    let again = Outcome::from(script(&place, &parts).unwrap().output().unwrap()).succeeded();
    assert!(again.contains("2D residual U-Net"));
    let names = |files: std::collections::BTreeMap<PathBuf, u64>| files.into_keys().collect::<Vec<_>>();
    assert_eq!(names(place.files()), names(before));
    let other = parts.replace("--epochs 12", "--epochs 6");
    let refused = Outcome::from(script(&place, &other).unwrap().output().unwrap());
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("was begun with epochs 12, not 6") && refused.err.lines().count() == 1,
        "{}",
        refused.err
    );
}

/// Rows as `ossnet plan` sets them up for the data, which train for a time and not for a number of epochs.
#[test]
fn table1_trains_rows_by_the_data_for_a_time() {
    let place = Place::new();
    subjects(&place.at("data"));
    let flags =
        "--dataset brats --data data --rows unet2d --rules data --minutes 0.05 --validate-every 0 --weights last";
    let Some(mut whole) = script(&place, &format!("{flags} --out whole")) else { return };
    let page = Outcome::from(whole.output().unwrap()).succeeded();
    assert!(page.contains("0.05 minutes of training for each row") && page.contains("`ossnet plan`"), "{page}");
    let row = &table(&place, "whole")["rows"][0];
    assert_eq!(row["finished"], true, "{row}");
    for figure in ["steps", "points_a_second", "training_processor_seconds", "inference_processor_seconds"] {
        assert!(row[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
    }
    let config = fs::read_to_string(place.at("whole/rows/unet2d/run/config.toml")).unwrap();
    assert!(config.contains("preset = \"auto\"") && config.contains("merge_classes = true"), "{config}");
    let refused =
        Outcome::from(script(&place, "--dataset brats --data data --minutes 1 --out other").unwrap().output().unwrap());
    assert!(refused.code == Some(2) && refused.err.contains("--rules data"), "{}", refused.err);
}

#[test]
fn table1_plans_before_it_runs_and_refuses_what_it_cannot_use() {
    let place = Place::new();
    subjects(&place.at("data"));
    let flags = "--dataset brats --data data --epochs 50 --subjects 3 --rows unet2d --out planned --plan";
    let Some(mut plan) = script(&place, flags) else { return };
    let page = Outcome::from(plan.output().unwrap()).succeeded();
    assert!(page.contains("hours in all") && page.contains("2D residual U-Net"), "{page}");
    let rows: Value = serde_json::from_slice(&fs::read(place.at("planned/plan.json")).unwrap()).unwrap();
    // Two of three subjects train, both in one step; nothing of the rehearsal is left behind.
    assert_eq!(rows[0]["steps"].as_u64(), Some(50));
    assert!(rows[0]["device_bytes"].as_u64() > Some(0) && rows[0]["training_seconds"].as_f64() > Some(0.0));
    assert!(!place.at("planned/rows").exists() && !place.at("planned/table1.json").exists());
    for (arguments, code, told) in [
        ("--dataset lits --data data --out other", 1, "has the layout brats, not lits"),
        ("--dataset brats --data absent --out other", 1, "absent"),
        ("--dataset brats --data data --out other --rows unet4d", 2, "choose from o-net"),
    ] {
        let refused = Outcome::from(script(&place, arguments).unwrap().output().unwrap());
        assert_eq!((refused.code, refused.out.as_str()), (Some(code), ""), "{}", refused.err);
        assert!(refused.err.contains(told), "{}", refused.err);
        assert!(!place.at("other").exists());
    }
}
