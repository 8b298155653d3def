//! Memory is what the ledger says: a plan equals a run event by event, the headline step stays under its limit, and the
//! process holds no more than the ledger and a stated constant.

use std::process::Command;

use ossnet::device::Device;
use ossnet::models::{Family, NetworkConfig};
use ossnet::train::rehearsal::{Rehearsal, Sizes, rehearse};

const MIB: u64 = 1 << 20;

/// What the process needs beside the arena: the program itself, thread stacks, the GEMM crate's packing buffers.
const BESIDE: u64 = 64 * MIB;

fn configuration(name: &str, volume: [usize; 3]) -> NetworkConfig {
    let config = NetworkConfig::official(name, Family::Brats).unwrap();
    let (channels, classes) = (config.image_channels(), config.classes());
    config.adapted(channels, classes, volume)
}

fn planned(name: &str, volume: [usize; 3], points: usize) -> Rehearsal {
    let plan = Device::plan(2, ossnet::device::cpu::SimdLevel::detect(), 1 << 50);
    rehearse(&plan, &configuration(name, volume), Sizes::new(volume, 1, points), 2).unwrap()
}

#[test]
fn a_plan_equals_the_run_event_by_event() {
    let volume = [64, 64, 48];
    let names =
        ["vanilla_o_net", "o-net", "oss-net-a", "oss-net-b", "C1", "C2", "D1", "D2", "E1", "oss-net-c", "oss-net-d"];
    for name in names.into_iter().chain(["unet3d", "unet2d"]) {
        // The official encoders halve four times more than 48 voxels admit; a side of 64 is enough for all.
        let volume = if name.starts_with("unet") { volume } else { [64, 64, 64] };
        let sizes = Sizes::new(volume, 2, 100);
        let cpu = Device::cpu(2, 4 << 30).unwrap();
        let plan = Device::plan(2, cpu.simd(), 4 << 30);
        let config = configuration(name, volume);
        let (run, planned) = (rehearse(&cpu, &config, sizes, 2).unwrap(), rehearse(&plan, &config, sizes, 2).unwrap());
        assert_eq!(run.events.len(), planned.events.len(), "{name}");
        for (i, (a, b)) in run.events.iter().zip(&planned.events).enumerate() {
            assert_eq!(a, b, "{name}: event {i}");
        }
        assert_eq!(run.reserved, planned.reserved, "{name}");
    }
}

/// `full` at its true size, 16,384 points, batch 1: saved and transient activations and workspace.
#[test]
fn the_headline_step_stays_under_700_mib() {
    let planned = planned("oss-net-c", [256, 256, 160], 16384);
    assert!(planned.peak_activations < 700 * MIB, "{} bytes", planned.peak_activations);
    assert!(planned.seconds.iter().all(|&seconds| seconds < 1.0), "a plan computes nothing: {:?}", planned.seconds);
}

#[test]
fn plans_reach_any_size_without_overflow() {
    let large = planned("oss-net-c", [1024, 1024, 1024], 1 << 20);
    assert!(large.peak_activations > 30 * 1024 * MIB);
    let absurd = [1 << 30, 1 << 30, 1 << 30];
    let plan = Device::plan(2, ossnet::device::cpu::SimdLevel::detect(), 1 << 50);
    let sizes = Sizes::new(absurd, 1 << 20, 1 << 40);
    assert!(rehearse(&plan, &configuration("unet3d", absurd), sizes, 1).is_err());
}

#[test]
fn the_resident_set_agrees_with_the_ledger() {
    for model in [["--model", "oss-net-c", "--volume", "128x128x80"], ["--model", "unet3d", "--volume", "96x96x96"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ossnet"))
            .args(["memory", "--device", "cpu", "--steps", "1", "--threads", "2", "--json"])
            .args(model)
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (ledger, resident) = (json["peak_bytes"].as_u64().unwrap(), json["resident_peak_bytes"].as_u64().unwrap());
        let allowed = ledger + ledger * 15 / 100 + BESIDE;
        assert!(resident > ledger * 85 / 100 && resident <= allowed, "{model:?}: ledger {ledger}, resident {resident}");
    }
}
