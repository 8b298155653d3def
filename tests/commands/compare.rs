//! The main job on the embedded heads, and a network's way from training to a segmentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::Nifti;
use crate::support::cli::{Place, ball, data_set};
use ossnet::data::nifti::read_header;
use ossnet::data::{Axes, Labels, Source, Volume};
use serde_json::Value;

/// A comparison of two networks on the embedded sample, run once from an empty folder, with what it printed.
fn comparison() -> &'static (Place, String, String) {
    static RUN: OnceLock<(Place, String, String)> = OnceLock::new();
    RUN.get_or_init(|| {
        let place = Place::new();
        let outcome = place.run("--models unet3d,unet2d --epochs 1 --seed 3");
        let said = outcome.err.clone();
        let printed = outcome.succeeded();
        (place, printed, said)
    })
}

fn folder() -> PathBuf {
    comparison().0.at("runs/001-compare")
}

fn results(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_comparison_prints_a_table_and_fills_a_folder() {
    let (place, printed, said) = comparison();
    for part in ["model", "parameters", "Dice", "IoU", "3D residual U-Net", "2D residual U-Net", "MiB/scan", "total "] {
        assert!(printed.contains(part), "'{part}' is missing:\n{printed}");
    }
    for part in ["mean of the training masks", "best single threshold", "report: runs/001-compare/report.html"] {
        assert!(printed.contains(part), "'{part}' is missing:\n{printed}");
    }
    assert!(said.contains("3D residual U-Net: 1/"), "no progress:\n{said}");
    let mut names: Vec<String> =
        place.files().into_keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    let expected = [
        "001-compare",
        "report.html",
        "results.json",
        "runs",
        "unet2d.costs.json",
        "unet2d.safetensors",
        "unet3d.costs.json",
        "unet3d.safetensors",
    ];
    assert_eq!(names, expected);
}

#[test]
fn results_have_the_promised_keys() {
    let results = results(&folder().join("results.json"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let promised = [
        "schema_version",
        "models",
        "baselines",
        "device",
        "threads",
        "seed",
        "version",
        "statistics",
        "made_by",
        "data",
    ];
    assert_eq!(keys(&results), promised);
    assert_eq!(results["seed"], 3);
    let models = results["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for model in models {
        let promised = [
            "name",
            "parameters",
            "dice",
            "iou",
            "cases",
            "peak_bytes",
            "peak_by_role",
            "step_seconds",
            "total_seconds",
        ];
        assert_eq!(keys(model)[..promised.len()], promised);
        let by_role: u64 = model["peak_by_role"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        assert_eq!(model["peak_bytes"], by_role);
        assert_eq!(model["cases"].as_array().unwrap().len(), 2);
        assert!(model["total_seconds"].as_f64() >= model["step_seconds"].as_f64());
    }
}

/// The scores that `SOURCE.md` of the sample states, to its two digits.
#[test]
fn the_baselines_score_what_the_sample_states() {
    let results = results(&folder().join("results.json"));
    for (row, stated) in results["baselines"].as_array().unwrap().iter().zip([["0.81", "0.77"], ["0.64", "0.66"]]) {
        let scores: Vec<String> = row["cases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|case| format!("{:.2}", case["dice"].as_f64().unwrap()))
            .collect();
        assert_eq!(scores, stated, "{row}");
    }
}

#[test]
fn the_report_needs_no_network() {
    let page = fs::read_to_string(folder().join("report.html")).unwrap();
    // The name of the SVG language looks like an address, but nothing is loaded from it.
    let rest = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for address in ["http://", "https://", "src=\"//", "@import", "<link", "<script src"] {
        assert!(!rest.contains(address), "'{address}' in the report");
    }
    for part in ["3D residual U-Net", "pycortexS1", "pyradbrain2", "data:image/png;base64,", "<svg", "ossnet compare"] {
        assert!(page.contains(part), "'{part}' is missing in the report");
    }
}

#[test]
fn json_is_the_results_file_and_nothing_else() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    let outcome = place.run(
        "compare --preset sample --json --models o-net-small,oss-net-c-small --epochs 1 --data data --out a/new/folder",
    );
    let file = fs::read_to_string(place.at("a/new/folder/results.json")).unwrap();
    assert_eq!(outcome.succeeded(), file);
    assert!(fs::read_to_string(place.at("a/new/folder/report.html")).unwrap().contains("balls"));
}

#[test]
fn help_version_and_licences() {
    let place = Place::new();
    let help = place.run("--help").succeeded();
    for command in ["compare", "train", "evaluate", "infer", "licences"] {
        assert!(help.contains(command), "{help}");
    }
    assert!(
        ["Examples:", "Exit status:", "OSSNET_THREADS", "Not a medical device"].iter().all(|part| help.contains(part))
    );
    for command in ["compare --help", "--seed 1 --help"] {
        let help = place.run(command).succeeded();
        for flag in ["--models", "--data", "--epochs", "--seed", "--out", "--threads", "--memory-budget", "--json"] {
            assert!(help.contains(flag), "{flag} is missing in {command}:\n{help}");
        }
    }
    let version = place.run("--version").succeeded();
    assert!(version.starts_with(&format!("ossnet {}\n", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("features: ") && version.contains("report"), "{version}");
    let licences = place.run("licences").succeeded();
    assert!(["Apache License", "Montreal Neurological", "pycortex"].iter().all(|part| licences.contains(part)));
    assert!(place.files().is_empty());
}

/// A scan stored from right to left, 2 mm thick and tilted; its segmentation must lie where it does.
#[test]
fn a_segmentation_lies_where_its_scan_does() {
    let place = Place::new();
    data_set(&place.at("data"), 24, &["a", "b"], &["v"]);
    for (model, flags) in [("unet3d", ""), ("oss-net-a-small", "--points 500")] {
        let out = format!("runs/{model}");
        let train =
            format!("train --preset sample --quiet --json --data data --epochs 2 --model {model} --out {out} {flags}");
        let summary: Value = serde_json::from_str(&place.run(&train).succeeded()).unwrap();
        assert_eq!(summary, results(&place.at(&out).join("summary.json")));

        let load = format!("--quiet --load-model {out}/{model}.safetensors");
        let scores: Value =
            serde_json::from_str(&place.run(&format!("evaluate {load} --data data --json")).succeeded()).unwrap();
        assert_eq!((&scores["dice"], &scores["cases"]), (&summary["dice"], &summary["cases"]));
        let table = place.run(&format!("evaluate {load} --data data --part all")).succeeded();
        let row = |name: &str| table.lines().any(|line| line.split_whitespace().next() == Some(name));
        assert!(["a", "b", "v", "mean"].into_iter().all(row), "{table}");

        let [mut scan, _] = ball(20, 5);
        scan.dim[3] = 15;
        scan.voxels.truncate(20 * 20 * 15);
        scan.pixdim[3] = 2.0;
        scan.sform = [[-1.0, 0.0, 0.0, 90.0], [0.0, 0.8, -1.2, 3.0], [0.0, 0.6, 1.6, -7.0]];
        scan.write(&place.at("scan.nii"));
        place.run(&format!("infer {load} --input scan.nii --out segmented/{model}")).succeeded();
        same_place(&scan, &place.at("scan.nii"), &place.at(&format!("segmented/{model}/scan.nii.gz")));
    }
}

/// Both files have the same stored grid, and the labels are the declared ones.
fn same_place(written: &Nifti, scan: &Path, labels: &Path) {
    let [scan, labels] = [scan, labels].map(|path| Source::File(path.into()));
    let headers = [&scan, &labels].map(|source| read_header(source).unwrap());
    assert_eq!((&headers[0].dims, headers[0].grid), (&headers[1].dims, headers[1].grid));
    assert_eq!(headers[1].dims, written.dim[1..4].iter().map(|&side| side as usize).collect::<Vec<_>>());
    let image = Volume::read(&scan, Axes::Stored).unwrap();
    let labels = Labels::read(&labels, Axes::Stored).unwrap();
    assert_eq!(image.shape, labels.shape);
    assert_eq!(image.geometry.affine, labels.geometry.affine);
    assert!(labels.voxels.iter().all(|&value| value <= 1));
}
