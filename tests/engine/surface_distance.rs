//! Surface distances against DeepMind's surface-distance: areas, averages, percentiles and overlaps of its golden file.

use ossnet::evaluate::surface::{Surfaces, area};
use serde_json::Value;

/// Sums of at most a thousand positive terms in another order than numpy's pairwise one: 1000 · 1.1e-16, and the rounding of
/// the file's 17 digits.
const TOLERANCE: f64 = 2e-13;

fn close(found: f64, golden: &Value, what: &str) {
    let golden = golden.as_f64().unwrap_or_else(|| panic!("{what} is no number: {golden}"));
    assert!((found - golden).abs() <= TOLERANCE * golden.abs().max(1.0), "{what}: {found} against {golden}");
}

#[test]
fn golden_numbers() {
    let text = include_str!("../fixtures/surface_distance.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 8);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let mask = |key: &str| case[key].as_str().unwrap().bytes().map(|byte| byte == b'1').collect::<Vec<_>>();
        let shape: [usize; 3] = serde_json::from_value(case["shape"].clone()).unwrap();
        let spacing: [f64; 3] = serde_json::from_value(case["spacing"].clone()).unwrap();
        let found = Surfaces::between(&mask("truth"), &mask("predicted"), shape, spacing);
        close(area(&found.truth), &case["area_truth"], name);
        close(area(&found.predicted), &case["area_predicted"], name);
        if found.predicted.is_empty() {
            assert!(found.hausdorff(0.95).is_infinite() && found.average().is_infinite(), "{name}");
            assert_eq!(found.dice(5.0), 0.0, "{name}");
            continue;
        }
        (0..2).for_each(|side| close(found.averages()[side], &case["average"][side], name));
        for (percent, distance) in case["hausdorff"].as_object().unwrap() {
            close(found.hausdorff(percent.parse::<f64>().unwrap() / 100.0), distance, &format!("{name}, {percent} %"));
        }
        for (tolerance, dice) in case["dice"].as_object().unwrap() {
            close(found.dice(tolerance.parse().unwrap()), dice, &format!("{name}, {tolerance} mm"));
        }
    }
}

#[test]
fn nothing_against_nothing() {
    let found = Surfaces::between(&[false; 27], &[false; 27], [3; 3], [1.0; 3]);
    assert_eq!((found.hausdorff(0.95), found.average(), found.dice(0.0)), (0.0, 0.0, 1.0));
}
