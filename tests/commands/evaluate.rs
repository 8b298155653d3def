//! `ossnet evaluate`: every score, in every form.

use std::fs;

use crate::support::Nifti;
use crate::support::cli::{Place, ball, data_set, json};
use serde_json::Value;

fn trained() -> Place {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v", "w"]);
    place
        .run("train --quiet --threads 1 --model unet3d --epochs 4 --data data --config net.toml --out run")
        .refused(1, &["net.toml"]);
    fs::write(place.at("net.toml"), "[network]\nchannels = [4, 8]\n").unwrap();
    place
        .run("train --quiet --threads 1 --model unet3d --epochs 4 --data data --config net.toml --out run")
        .succeeded();
    place
}

#[test]
fn scores_of_a_network_in_every_form() {
    let place = trained();
    let evaluate = "evaluate --quiet --load-model run/unet3d.safetensors --data data";
    let printed = place.run(&format!("{evaluate} --out scores --json")).succeeded();
    assert_eq!(printed, fs::read_to_string(place.at("scores/scores.json")).unwrap());
    let json: Value = serde_json::from_str(&printed).unwrap();
    let case = &json["scores"][0];
    assert_eq!((case["name"].as_str(), json["scores"].as_array().unwrap().len()), (Some("v"), 2));
    let dice = |case: usize| json["scores"][case]["classes"][0]["values"]["dice"].as_f64().unwrap();
    assert_eq!(json["cases"][0]["dice"].as_f64(), Some(dice(0)));
    let summary = &json["summary"][0]["values"]["dice"];
    assert_eq!((summary["count"].as_u64(), summary["mean"].as_f64()), (Some(2), Some((dice(0) + dice(1)) / 2.0)));
    // Two cases: s = |a − b|/√2, and no interval.
    let deviation = (dice(0) - dice(1)).abs() / 2f64.sqrt();
    assert!((summary["deviation"].as_f64().unwrap() - deviation).abs() < 1e-9);
    assert!(summary["interval"].is_null() && json["schema_version"] == 2);
    let csv = fs::read_to_string(place.at("scores/scores.csv")).unwrap();
    assert_eq!(
        csv.lines().next().unwrap(),
        "case,class,true_ml,predicted_ml,dice,iou,precision,recall,hd95_mm,assd_mm,surface_dice,volume_error_ml,relative_volume_error"
    );
    assert_eq!(csv.lines().count(), 3);
    let page = fs::read_to_string(place.at("scores/report.html")).unwrap();
    assert!(page.contains("hd95") && page.contains("95 % interval") && !page.contains("http"));
    let table = place.run(evaluate).succeeded();
    assert!(
        table.contains("surface")
            && table.lines().all(|line| line.chars().count() <= 80)
            && table.contains("median")
            && table.contains("runs/001-evaluate"),
        "{table}"
    );
    place.refuses(&format!("{evaluate} --tolerance=-1"), 2, &["--tolerance"]);
    place.refuses(&format!("{evaluate} --out scores"), 1, &["scores.json: exists already", "--overwrite"]);
    place.refuses(&format!("{evaluate} --out run --overwrite"), 1, &["run", "not empty"]);
    fs::write(place.at("scores/scores.csv"), "").unwrap();
    place.run(&format!("{evaluate} --out scores --overwrite")).succeeded();
    assert_eq!(fs::read_to_string(place.at("scores/scores.csv")).unwrap(), csv);
}

/// A case without foreground counts in the mean of the cases by the rule, 1 or 0, and in no class's: the text says so.
#[test]
fn cases_without_foreground_are_told_of() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    Nifti::filled([16; 3], 0).write(&place.at("data/labelsTr/b.nii.gz"));
    for (number, case) in ["a", "b", "v"].into_iter().enumerate() {
        ball(16, number as u64)[1].write(&place.at(&format!("found/{case}.nii.gz")));
    }
    let text = place.run("evaluate -q --predictions found --data data --part all -o scores").succeeded();
    assert!(text.contains("mean Dice 0.6667, IoU 0.6667 over 3 cases, 1 without foreground among them\n"), "{text}");
    assert!(text.contains("1 of 3 labels lack it; it was predicted in 1 of them; they do not count"), "{text}");
    let outcome = place.run("borders data -o maps");
    assert!(outcome.err.contains("labelsTr/b.nii.gz: holds no foreground: its border map is empty"), "{}", outcome.err);
}

/// The official evaluation draws points; the same seed gives the same ones, and a U-Net's are those of its dense answer.
#[test]
fn sampled_scores() {
    let place = trained();
    let evaluate = "evaluate --quiet --load-model run/unet3d.safetensors --data data --sampled --json";
    let scores =
        |more: &str| -> Value { serde_json::from_str(&place.run(&format!("{evaluate} {more}")).succeeded()).unwrap() };
    let first = scores("");
    assert_eq!(first["points"].as_u64(), Some(1 << 17));
    assert_eq!(first["cases"], scores("")["cases"]);
    assert_ne!(first["cases"], scores("--seed 1")["cases"]);
}

/// Files of any program are scored: by the names of the cases, with one line for each that cannot be.
#[test]
fn scores_of_label_files() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["c", "d"]);
    let copy = |from: &str, to: &str| {
        fs::create_dir_all(place.at(to).parent().unwrap()).unwrap();
        fs::copy(place.at(from), place.at(to)).unwrap();
    };
    copy("data/labelsTr/c.nii.gz", "found/c.nii.gz");
    copy("data/labelsTr/c.nii.gz", "found/d.nii.gz");
    let evaluate = "evaluate --quiet --predictions found --data data";
    let json: Value = serde_json::from_str(&place.run(&format!("{evaluate} --json --out scores")).succeeded()).unwrap();
    let dice = |json: &Value, case: usize| json["cases"][case]["dice"].as_f64().unwrap();
    assert_eq!((json["model"].as_str(), json["cases"].as_array().unwrap().len()), (Some("found"), 2));
    assert!(dice(&json, 0) == 1.0 && dice(&json, 1) < 1.0);
    // The same without a data set.
    let labels = "evaluate --quiet --predictions found --labels data/labelsTr --json --out labels";
    let outcome = place.run(labels);
    assert_eq!(outcome.code, Some(1), "{}", outcome.err);
    assert!(outcome.err.contains("2 of 4 cases could not be scored (a, b)"), "{}", outcome.err);
    let by_labels: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!([0, 1].map(|case| dice(&by_labels, case)), [0, 1].map(|case| dice(&json, case)));

    // One is missing, one has another shape, one holds a label that there is none of.
    let [_, other] = ball(12, 0);
    other.write(&place.at("found/a.nii.gz"));
    let mut odd = ball(16, 1)[1].clone();
    odd.voxels[0] = 9;
    odd.write(&place.at("found/d.nii.gz"));
    let outcome = place.run("evaluate --predictions found --data data --out some");
    assert!(
        outcome.err.contains("found: holds 1 file of cases that are not scored; add --part all"),
        "{}",
        outcome.err
    );
    let outcome = place.run(&format!("{evaluate} --part all --json --out rest"));
    assert_eq!(outcome.code, Some(1));
    for part in [
        "a.nii.gz: has shape [12, 12, 12], but",
        "found: holds no label file of case b; name it b.nii.gz",
        "d.nii.gz: holds label values outside",
        "3 of 4 cases could not be scored (a, b, d)",
    ] {
        assert_eq!(outcome.err.lines().filter(|line| line.contains(part)).count(), 1, "{part}: {}", outcome.err);
    }
    let rest: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!((rest["cases"].as_array().unwrap().len(), dice(&rest, 0)), (1, 1.0));

    fs::create_dir(place.at("none")).unwrap();
    place.refuses("evaluate --predictions none --data data", 1, &["none", "no label file"]);
    place.refuses("evaluate --predictions found", 2, &["--data", "--labels"]);
    place.refuses("evaluate", 2, &["CHECKPOINT"]);
}

/// Without --data the run's own data are scored, with the division that the run had, and the terminal says so.
#[test]
fn a_checkpoint_knows_its_data() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b", "c"], &["d"]);
    let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 1 --data data --fold 2/2 --out run";
    let trained: Value = serde_json::from_str(&place.run(&format!("{train} --json")).succeeded()).unwrap();
    let outcome = place.run("evaluate run/o-net-small.safetensors --json --out scores");
    assert!(outcome.err.contains("2 validation cases of balls, fold 2/2"), "{}", outcome.err);
    let scored: Value = serde_json::from_str(&outcome.succeeded()).unwrap();
    assert_eq!(scored["cases"], trained["cases"]);
    // From another folder, and with the data named.
    fs::create_dir(place.at("elsewhere")).unwrap();
    let other =
        place.shell("cd elsewhere && $ossnet evaluate ../run/o-net-small.safetensors --quiet --json --out scores");
    assert_eq!(serde_json::from_str::<Value>(&other.succeeded()).unwrap()["cases"], trained["cases"]);
    let named = place.run("evaluate run/o-net-small.safetensors --data data --quiet --json --out named");
    assert_eq!(serde_json::from_str::<Value>(&named.succeeded()).unwrap()["cases"], trained["cases"]);
    fs::create_dir(place.at("alone")).unwrap();
    fs::copy(place.at("run/o-net-small.safetensors"), place.at("alone/o-net-small.safetensors")).unwrap();
    place.refuses("evaluate alone/o-net-small.safetensors", 1, &["alone/o-net-small.safetensors", "--data"]);
}

/// Every voxel on request: the scores of the files that `infer --dense` writes.
#[test]
fn dense_scores() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b", "c"], &["v", "w"]);
    let train = "train --preset sample --quiet --threads 1 --data data --points 256";
    place.run(&format!("{train} --model o-net-small --epochs 40 --out run")).succeeded();
    let infer = "infer --quiet --threads 1 --checkpoint run --dense --out found --input";
    place.run(&format!("{infer} data/imagesTr/v.nii.gz data/imagesTr/w.nii.gz")).succeeded();
    let files = place.run("evaluate --quiet --json --predictions found --data data --out files").succeeded();
    let dense = place.run("evaluate run --quiet --json --dense --out dense").succeeded();
    let cases = |text: &str| serde_json::from_str::<Value>(text).unwrap()["cases"].clone();
    assert_eq!(cases(&files), cases(&dense));
    fs::write(place.at("net.toml"), "[network]\nchannels = [4, 8]\n").unwrap();
    place.run(&format!("{train} --model unet3d --epochs 1 --config net.toml --out unet")).succeeded();
    place.refuses("evaluate unet --quiet --dense", 2, &["--dense", "every voxel anyway"]);
    place.refuses("evaluate run --quiet --dense --sampled", 2, &["--dense", "--sampled"]);
}

/// A U-Net that has learnt from patches is asked in windows by either rule. 2¹⁷ points see each of 31³ voxels four times, about 3,800 of
/// them in the ball: drawing them moves a Dice by less than 0.01. Asked for the whole volume at once, as `--sampled` did, this network is
/// 0.09 worse.
#[test]
fn random_points_are_answered_as_all_voxels_are() {
    let place = Place::new();
    data_set(&place.at("data"), 32, &["a", "b"], &["v"]);
    let train = "train --preset sample --quiet --threads 1 --data data --model unet3d --patch 16x16x16 --epochs 30 --augment none";
    place.run(&format!("{train} --no-scoring --out run")).succeeded();
    let dice = |rule: &str| {
        let command =
            format!("evaluate --quiet --threads 1 --json --load-model run/unet3d.safetensors --data data {rule}");
        json(&place.run(&command).succeeded())["dice"].as_f64().unwrap()
    };
    let (all, sampled) = (dice("--out scores"), dice("--sampled"));
    assert!((all - sampled).abs() < 0.03, "{all} of all voxels, {sampled} of points");
}
