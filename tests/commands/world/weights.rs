//! Weights as other programs save them: under the names of what wraps the network.

use ossnet::checkpoint::{self, Metadata, convert, safetensors};

use crate::support::cli::{Place, data_set};

#[test]
fn prefixes_of_weights_are_taken_off() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a", "b"], &["c"]);
    place.run("train --preset sample --quiet --threads 1 --data data --model unet3d --epochs 1 --out run").succeeded();
    let own = checkpoint::load(place.at("run/unet3d.safetensors")).unwrap();
    let plain = convert::to_torch(own);
    let scores = |file: &str| {
        let command =
            format!("evaluate --quiet --threads 1 --json --load-model {file} --model unet3d --data data --out scores");
        let scores: serde_json::Value = serde_json::from_str(&place.run(&command).succeeded()).unwrap();
        scores["dice"].as_f64().unwrap()
    };
    let mut expected = None;
    for prefix in ["", "module.", "_orig_mod.", "module._orig_mod.", "net.", "model.", "trainer.net._orig_mod."] {
        let named: Vec<(String, _)> =
            plain.iter().map(|(name, array)| (format!("{prefix}{name}"), array.view())).collect();
        let mut views: Vec<(&str, _)> = named.iter().map(|(name, view)| (name.as_str(), *view)).collect();
        let loss = checkpoint::Array::f32(vec![1], vec![1.0]).unwrap();
        if prefix == "net." {
            views.push(("loss.weight", loss.view()));
        }
        safetensors::write(place.at("w.safetensors"), &views, &Metadata::new()).unwrap();
        checkpoint::torch::write(place.at("w.pt"), &views).unwrap();
        for file in ["w.safetensors", "w.pt"] {
            let _ = std::fs::remove_dir_all(place.at("scores"));
            let dice = scores(file);
            assert_eq!(*expected.get_or_insert(dice), dice, "{prefix} in {file}");
        }
        place.run("convert w.safetensors out.safetensors --model unet3d").succeeded();
        std::fs::remove_file(place.at("out.safetensors")).unwrap();
    }
    // Nothing that fits is still an error.
    let names: Vec<(&str, _)> = plain.iter().take(1).map(|(_, array)| ("x.y", array.view())).collect();
    safetensors::write(place.at("other.safetensors"), &names, &Metadata::new()).unwrap();
    place.refuses("convert other.safetensors o.safetensors --model unet3d", 1, &["no MONAI U-Net"]);
}
