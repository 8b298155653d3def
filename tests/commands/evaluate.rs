//! `ossnet evaluate`: every score, in every form.

use std::fs;

use crate::support::cli::{Place, data_set};
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
    // Two cases: t(1) · s/√2 = 12.7062 · |a − b|/2.
    let half = 12.7062 * (dice(0) - dice(1)).abs() / 2.0;
    assert!((summary["half_width"].as_f64().unwrap() - half).abs() < 1e-9);
    let csv = fs::read_to_string(place.at("scores/scores.csv")).unwrap();
    assert_eq!(
        csv.lines().next().unwrap(),
        "case,class,true_ml,predicted_ml,dice,iou,precision,recall,hd95_mm,assd_mm,surface_dice,volume_error_ml,relative_volume_error"
    );
    assert_eq!(csv.lines().count(), 3);
    let page = fs::read_to_string(place.at("scores/report.html")).unwrap();
    assert!(page.contains("hd95") && page.contains("95 % confidence") && !page.contains("http"));
    let table = place.run(evaluate).succeeded();
    assert!(table.contains("surface dice") && table.contains('±') && table.contains("runs/001-evaluate"), "{table}");
    place.refuses(&format!("{evaluate} --tolerance=-1"), 2, &["--tolerance"]);
    place.refuses(&format!("{evaluate} --out scores"), 1, &["scores", "not empty"]);
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
    assert_eq!(first, scores(""));
    assert_ne!(first["cases"], scores("--seed 1")["cases"]);
}
