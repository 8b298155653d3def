//! Damaged, diverged and hostile checkpoints: an error that names what is wrong, never an answer.

use std::fs;
use std::sync::OnceLock;

use crate::support::cli::{Place, ball, data_set};
use ossnet::checkpoint::{self, Array, Checkpoint, Data, StateDict, safetensors};
use serde_json::{Value, json};

/// Side of the cubes: what four pooling blocks of a U-Net admit.
const SIDE: i64 = 16;

/// A folder with a data set in `data`, a scan, and checkpoints of two networks that were trained on it for one step.
fn place() -> Place {
    static CHECKPOINTS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let place = Place::new();
    data_set(&place.at("data"), SIDE, &["a", "b"], &["v"]);
    ball(SIDE, 7)[0].write(&place.at("scan.nii.gz"));
    let stored = CHECKPOINTS.get_or_init(|| {
        ["o-net-small", "unet3d"].map(|model| {
            let train = "train --preset sample --quiet --threads 1 --points 64 --epochs 1 --data data";
            place.run(&format!("{train} --model {model} --out {model}")).succeeded();
            let bytes = fs::read(place.at(&format!("{model}/{model}.safetensors"))).unwrap();
            fs::remove_dir_all(place.at(model)).unwrap();
            bytes
        })
    });
    for (model, bytes) in ["o-net-small", "unet3d"].iter().zip(stored) {
        fs::write(place.at(&format!("{model}.safetensors")), bytes).unwrap();
    }
    place
}

/// Writes `model`'s checkpoint to `bad.safetensors`, with one tensor changed and right checksums.
fn with_changed(place: &Place, model: &str, name: &str, change: impl Fn(&mut [f32])) {
    let Checkpoint { state, metadata, .. } = checkpoint::load(place.at(&format!("{model}.safetensors"))).unwrap();
    let mut touched = false;
    let state: StateDict = state
        .into_iter()
        .map(|(own, array)| {
            let mut values = array.to_f32().into_owned();
            if own == name {
                change(&mut values);
                touched = true;
            }
            (own, Array::new(array.shape(), Data::F32(values)).unwrap())
        })
        .collect();
    assert!(touched, "{name}");
    safetensors::write(place.at("bad.safetensors"), &state.views(), &metadata).unwrap();
}

const INFER: &str = "infer --quiet --threads 1 --input scan.nii.gz --out out --load-model bad.safetensors";
const EVALUATE: &str = "evaluate --quiet --threads 1 --data data --load-model bad.safetensors";

/// Names of an O-Net's and a U-Net's tensors of which something is made impossible.
const LAST: &str = "decoder.final_mapping.0.weight";
const VARIANCE: &str = "encoder.blocks.0.main_mapping.1.running_var";
const UNET: &str = "model.0.conv.unit0.conv.weight";

#[test]
fn weights_that_are_no_numbers_are_named() {
    let place = place();
    let names = checkpoint::load(place.at("o-net-small.safetensors")).unwrap().state;
    let last = names.iter().map(|(name, _)| name).filter(|name| name.starts_with("decoder.")).last().unwrap();
    let cases: [(&str, &str, f32); 4] = [
        ("o-net-small", last, f32::NAN),
        ("o-net-small", VARIANCE, -0.25),
        ("unet3d", UNET, f32::INFINITY),
        ("o-net-small", "optimizer.0", f32::NAN),
    ];
    for (model, name, value) in cases {
        with_changed(&place, model, name, |values| values[0] = value);
        let parts = ["bad.safetensors", name, &value.to_string()];
        if !name.starts_with("optimizer") {
            place.refuses(INFER, 1, &parts);
            place.refuses(EVALUATE, 1, &parts);
            place.refuses("convert bad.safetensors bad.pt", 1, &parts);
        }
        // A run does not go on from it either.
        fs::create_dir_all(place.at("run")).unwrap();
        fs::copy(place.at("bad.safetensors"), place.at(&format!("run/{model}.safetensors"))).unwrap();
        let resume = format!(
            "train --preset sample --quiet --threads 1 --points 64 --epochs 1 --data data --model {model} --resume run"
        );
        place.refuses(&resume, 1, &[name, &value.to_string()]);
        fs::remove_dir_all(place.at("run")).unwrap();
    }
}

/// Weights can be finite and their products not: the scan is named, and nothing is written for it.
#[test]
fn answers_that_are_no_numbers_are_errors() {
    let place = place();
    for (model, name) in [("o-net-small", LAST), ("unet3d", UNET)] {
        with_changed(&place, model, name, |values| values.iter_mut().for_each(|value| *value = 3e38));
        place.refuses(INFER, 1, &["scan", "NaN or infinity"]);
        place.refuses(&format!("{INFER} --probabilities"), 1, &["scan", "NaN or infinity"]);
        place.refuses(EVALUATE, 1, &["v: ", "NaN or infinity"]);
    }
    place.refuses(&format!("{INFER} --window 16x16x16 --tta"), 1, &["scan", "NaN or infinity"]);
}

/// A file of every part that a checkpoint has, as bytes.
fn small_checkpoint() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let array = Array::f32([2, 3], [1.0, -0.5, 0.25, 1e-3, 7.0, 0.0]).unwrap();
    let count = Array::new([], Data::I64(vec![3])).unwrap();
    let metadata = [("network".to_string(), "{\"a\": 1}".to_string())].into();
    let tensors = [("a.weight", array.view()), ("a.num_batches_tracked", count.view())];
    safetensors::write(&path, &tensors, &metadata).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = small_checkpoint();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    fs::write(&path, &bytes).unwrap();
    let whole = checkpoint::load(&path).unwrap();
    assert_eq!((whole.state.len(), whole.metadata.len()), (2, 1));
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        assert!(checkpoint::load(&path).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
    }
}

/// The header of a safetensors file and what lies behind it.
fn parts(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn joined(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Files from before there were checksums load; files that should have them and have none, or that are newer, do not.
#[test]
fn versions_of_the_format() {
    let (header, data) = parts(&small_checkpoint());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let load = |metadata: Value| {
        let mut header = header.clone();
        header["__metadata__"] = metadata;
        fs::write(&path, joined(&header, &data)).unwrap();
        checkpoint::load(&path).map_err(|error| error.to_string())
    };
    assert_eq!(header["__metadata__"]["format"], "2");
    for old in [json!({"format": "1", "network": "x"}), json!({"format": "pt"}), json!({})] {
        assert_eq!(load(old).unwrap().state.len(), 2);
    }
    let error = load(json!({"format": "2", "network": "x"})).unwrap_err();
    assert!(error.contains("checksum") && error.contains("copy or download it again"), "{error}");
    let error = load(json!({"format": "3"})).unwrap_err();
    assert!(error.contains("format 3") && error.contains("update ossnet"), "{error}");
}

/// The checksums are what the documentation says, so that any tool can verify or make them.
#[test]
fn checksums_are_crc32_of_type_shape_and_bytes() {
    let (header, data) = parts(&small_checkpoint());
    let stored: Value = serde_json::from_str(header["__metadata__"]["checksums"].as_str().unwrap()).unwrap();
    let entry = &header["a.weight"];
    let place = |at: usize| entry["data_offsets"][at].as_u64().unwrap() as usize;
    let covered = [b"F32[2,3]", &data[place(0)..place(1)]].concat();
    // Bit by bit, as the polynomial is written in IEEE 802.3.
    let crc = covered.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    assert_eq!(stored["a.weight"], format!("{:08x}", !crc));
}
