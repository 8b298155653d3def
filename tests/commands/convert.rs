//! Weights between PyTorch and the engine: nothing is lost on the way there and back.

use std::fs;
use std::path::Path;

use crate::support::cli::{Place, data_set};
use ossnet::checkpoint::{Dtype, StateDict, load, torch};

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Names, shapes, types and bits, whatever the order.
fn sorted(state: &StateDict) -> Vec<(String, ossnet::checkpoint::Array)> {
    let mut entries: Vec<_> = state.iter().map(|(name, array)| (name.to_owned(), array.clone())).collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    entries
}

#[test]
fn official_weights_come_back_as_they_were() {
    let place = Place::new();
    for name in ["tiny_full_brats", "tiny_unet2d", "tiny_unet3d"] {
        let original = fixture(&format!("{name}.pt"));
        place.run(&format!("convert {original} {name}.safetensors")).succeeded();
        place.run(&format!("convert {name}.safetensors {name}.pt")).succeeded();
        let (before, after) = (torch::read(&original).unwrap(), torch::read(place.at(&format!("{name}.pt"))).unwrap());
        assert_eq!(sorted(&before), sorted(&after), "{name}");
    }
}

/// A MONAI U-Net named by a flag describes itself afterwards; what a run adds to its checkpoint stays behind on the way to
/// PyTorch, averages take the weights' place, 2D kernels are 2D.
#[test]
fn networks_go_both_ways() {
    let place = Place::new();
    let original = fixture("tiny_unet2d.pt");
    place.run(&format!("convert {original} own.safetensors --model unet2d")).succeeded();
    assert!(load(place.at("own.safetensors")).unwrap().metadata["network"].contains(r#""channels":[4,6,8,10,12]"#));
    place.run("convert own.safetensors back.pt").succeeded();
    assert_eq!(sorted(&torch::read(&original).unwrap()), sorted(&torch::read(place.at("back.pt")).unwrap()));

    data_set(&place.at("data"), 16, &["a", "b"], &["v"]);
    let train = "train --preset sample --quiet --threads 1 --model o-net-small --points 64 --epochs 3 --data data --average-decay 0.5 --out run";
    place.run(train).succeeded();
    place.run("convert run/o-net-small.safetensors o-net-small.pt").succeeded();
    let (own, official) = (
        load(place.at("run/o-net-small.safetensors")).unwrap().state,
        torch::read(place.at("o-net-small.pt")).unwrap(),
    );
    let names: Vec<&str> = official.iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| !name.starts_with("optimizer.") && !name.starts_with("average.")), "{names:?}");
    let (weight, count) = ("decoder.final_mapping.0.weight", "encoder.blocks.0.main_mapping.1.num_batches_tracked");
    assert_eq!(official.get(weight), own.get(&format!("average.{weight}")));
    assert_ne!(official.get(weight), own.get(weight));
    assert_eq!(official.get(count).map(|array| array.dtype()), Some(Dtype::I64));
}

#[test]
fn what_cannot_be_converted() {
    let place = Place::new();
    let (original, o_net) = (fixture("tiny_unet2d.pt"), fixture("tiny_vanilla_o_net_brats.pt"));
    fs::write(place.at("there.pt"), "").unwrap();
    place.refuses(&format!("convert {original} there.pt"), 1, &["there.pt", "exists already"]);
    place.refuses(&format!("convert {original} weights.onnx"), 2, &["weights.onnx", ".safetensors or .pt"]);
    place.refuses("convert gone.pt x.safetensors", 1, &["gone.pt", "No such file"]);
    place.refuses(&format!("convert {o_net} x.safetensors --model unet3d"), 1, &["no MONAI U-Net"]);
    place.refuses(&format!("convert {o_net} x.safetensors --model full"), 1, &["another model"]);
    place.refuses(&format!("convert {original} x.pt --model unet2d"), 2, &["--model"]);
    assert!(Path::new(&original).exists());
}
