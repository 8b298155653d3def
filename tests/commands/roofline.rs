//! `ossnet roofline`: a model of a step's time, in text and JSON.
#![cfg(feature = "train")]

use crate::support::cli::Place;
use serde_json::Value;

fn json(place: &Place, flags: &str) -> Value {
    let text = place.run(&format!("roofline --model o-net --volume 32x32x32 --points 64 --json {flags}")).succeeded();
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
    assert!(seconds("--device h100 --step infer") < kernels);
    assert_eq!(number(&json(&place, "--launch 0")["step"]["launch_seconds"]), 0.0);
}

#[test]
fn text_and_errors() {
    let place = Place::new();
    let text = place.run("roofline --model unet3d --volume 32x32x32 --device rtx4090").succeeded();
    assert!(text.contains("not a measurement") && text.contains("conv3d, backward"), "{text}");
    place.refuses("roofline --device nothing", 2, &["nothing", "h100", "rtx4090"]);
    place.refuses("roofline --model nothing", 2, &["nothing", "o-net"]);
    place.refuses("roofline --model unet3d --volume 33x32x32", 2, &["--volume", "33"]);
    place.refuses("roofline --launch=-1", 2, &["--launch"]);
}
