//! Nothing takes the device to be number 0: the work of a second device is done on it, and on no other.

use crate::emulator;
use crate::support::cli::{Outcome, Place, data_set};
use ossnet::device::Device;
use ossnet::models::{NetworkConfig, OssNetConfig};
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

#[test]
fn a_step_on_the_second_device() {
    let Some(emulator) = emulator() else { return eprintln!("skipped: a GPU has no second one") };
    let config = OssNetConfig::sample("full", 2, [16; 3]).unwrap();
    let config = NetworkConfig::OssNet(OssNetConfig { width: 8, blocks: 2, ..config });
    let gradients = |ordinal: usize| {
        let device = Device::cuda(ordinal, 64 << 20).unwrap();
        let mut stage = SyntheticStep::new(&device, &config, StepSizes::new([16; 3], 1, 20)).unwrap();
        let found = (stage.loss().unwrap(), stage.gradients().unwrap());
        stage.step().unwrap();
        let held = [0, 1].map(|ordinal| emulator.memory(ordinal).0);
        assert_eq!(held[ordinal], device.reserved());
        assert_eq!(held[1 - ordinal], 0, "memory of a device that was not asked for");
        found
    };
    assert!(gradients(1) == gradients(0), "both devices are of one kind");
}

/// The program on the device that its flags name; the official option takes a list, of which one device computes.
#[test]
fn flags_name_the_device() {
    let Some(emulator) = emulator() else { return eprintln!("skipped: a GPU has no second one") };
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    let run = |arguments: &str| -> Outcome {
        let mut command = place.command(arguments);
        command.env("LD_PRELOAD", cuemu::library().unwrap()).env("CUEMU_DEVICES", "2");
        command.output().unwrap().into()
    };
    let train =
        "train --preset sample --quiet --model o-net-small --points 32 --epochs 1 --data data --memory-budget 64MiB";
    run(&format!("{train} --cuda-devices 1 --out second")).succeeded();
    run(&format!("{train} --device cuda:0 --out first")).succeeded();
    let weights = |folder: &str| std::fs::read(place.at(folder).join("o-net-small.safetensors")).unwrap();
    assert!(weights("first") == weights("second"), "both devices are of one kind");
    run(&format!("{train} --cuda-devices 2 --out third")).refused(1, &["no CUDA device 2"]);
    drop(emulator);
}
