//! `ossnet roofline`: a model of a step's time, in text and JSON.
#![cfg(feature = "train")]

use crate::support::cli::Place;
#[cfg(feature = "report")]
use crate::support::cli::keep_page;
use serde_json::Value;

fn json(place: &Place, flags: &str) -> Value {
    let flags = if flags.contains("--volume") { flags.to_string() } else { format!("--volume 32x32x32 {flags}") };
    let text = place.run(&format!("roofline --model o-net --points 64 --json {flags}")).succeeded();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_model_adds_up() {
    let place = Place::new();
    let step = json(&place, "--device h100");
    let number = |value: &Value| value.as_f64().unwrap();
    let kernels: f64 = step["ops"].as_array().unwrap().iter().map(|op| number(&op["seconds"])).sum();
    let total = &step["step"];
    assert!((kernels - number(&total["kernel_seconds"])).abs() < 1e-12, "{step:#}");
    let launches = number(&total["launches"]) * 2.5e-6;
    assert!((number(&total["seconds"]) - kernels - launches).abs() < 1e-12, "{step:#}");
    assert!(number(&step["unfused_step"]["kernel_seconds"]) > kernels, "{step:#}");
    // A GPU with less of everything is slower; half the bytes are faster; twice the batch is not.
    let seconds = |flags: &str| number(&json(&place, flags)["step"]["kernel_seconds"]);
    assert!(seconds("--device a100") > kernels && seconds("--device L4") > seconds("--device a100"));
    assert!(seconds("--device h100 --precision bf16") < kernels);
    assert!(seconds("--device h100 --batch 2") > kernels);
    // At worst each voxel of a scan is decoded, by ten hidden layers of 256 × 256 weights.
    let decoded = |volume: &str| {
        let step = json(&place, &format!("--step infer --volume {volume}"));
        let ops = step["ops"].as_array().unwrap().iter();
        ops.filter(|op| op["op"] == "occupancy").map(|op| number(&op["flops"])).sum::<f64>()
    };
    for side in [32u64, 64] {
        let least = (side.pow(3) * 10 * 2 * 256 * 256) as f64;
        assert!(decoded(&format!("{side}x{side}x{side}")) >= least, "{side}");
    }
    assert_eq!(number(&json(&place, "--launch 0")["step"]["launch_seconds"]), 0.0);
    // On two GPUs each sends as many bytes as there are gradients; nobody sums what no step has made.
    let sums = &step["all_reduce"];
    assert_eq!(number(&sums["bytes"]), 4.0 * number(&step["parameters"]));
    for link in sums["links"].as_array().unwrap() {
        let seconds = number(&sums["bytes"]) / number(&link["bandwidth"]) + 2.0 * number(&link["latency"]);
        assert!((number(&link["seconds"]["2"]) - seconds).abs() < 1e-12, "{link}");
    }
    assert!(json(&place, "--step infer")["all_reduce"].is_null());
}

/// A page has a mark for each op that computes, and the ceilings that its precision uses.
#[test]
#[cfg(feature = "report")]
fn a_page_is_written() {
    let place = Place::new();
    let step = json(&place, "--device h100 --precision bf16 --html page.html");
    let page = std::fs::read_to_string(place.at("page.html")).unwrap();
    let computing = step["ops"].as_array().unwrap().iter().filter(|op| op["flops"].as_f64().unwrap() > 0.0).count();
    // Once for wide screens and once for narrow ones, in the network's colour.
    assert_eq!(page.matches("<circle class=\"dot faint m2\"").count(), 2 * computing);
    for part in ["bf16 on tensor cores, 989", "f32, 67 TFLOP/s", "memory, 3350 GB/s", "not on measurements"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script src") && !page.contains("http://") && !page.contains("https://"));
    keep_page("roofline", &page);
}

#[test]
fn text_and_errors() {
    let place = Place::new();
    let text = place.run("roofline --model unet3d --volume 32x32x32 --device rtx4090").succeeded();
    assert!(text.contains("not a measurement") && text.contains("conv3d, backward"), "{text}");
    assert!(
        text.contains("ms on 8 GPUs") && text.contains("NVLink 4") && text.contains("Ethernet 100 Gbit/s"),
        "{text}"
    );
    place.refuses("roofline --device nothing", 2, &["nothing", "h100", "rtx4090"]);
    place.refuses("roofline --model nothing", 2, &["nothing", "o-net"]);
    place.refuses("roofline --model unet3d --volume 33x32x32", 2, &["--volume", "33"]);
    place.refuses("roofline --launch=-1", 2, &["--launch"]);
}
