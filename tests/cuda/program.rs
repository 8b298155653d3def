//! The program and the engine on a CUDA device: under the emulator where there is no GPU.

use std::process::Command;

use crate::support::cli::{Outcome, Place, data_set};
use ossnet::device::Device;
use ossnet::models::NetworkConfig;
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

/// A command that finds a CUDA device: the machine's, or the emulator's.
fn command(place: &Place, arguments: &str) -> Command {
    let mut command = place.command(arguments);
    if !cuemu::gpu_present() {
        command.env("LD_PRELOAD", cuemu::library().expect("cargo builds the emulator with the tests"));
        command.env("CUEMU_THREADS", "2");
    }
    command
}

fn run(place: &Place, arguments: &str) -> String {
    Outcome::from(command(place, arguments).output().unwrap()).succeeded()
}

/// The model of a step beside what the device's events say (under the emulator, how long that took).
#[test]
fn roofline_measures() {
    let place = Place::new();
    let flags = "roofline --model o-net --volume 32x32x32 --points 32 --measure";
    let step = run(&place, &format!("{flags} --json"));
    let step: serde_json::Value = serde_json::from_str(&step).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let ops = step["ops"].as_array().unwrap();
    // The update is no op of the tape, so that its time is part of the rest.
    let timed: Vec<_> = ops.iter().filter(|op| op["op"] != "optimizer").collect();
    assert!(timed.iter().all(|op| number(&op["measured_seconds"]) > 0.0), "{step:#}");
    let sum: f64 = timed.iter().map(|op| number(&op["measured_seconds"])).sum();
    let measured = &step["measured_step"];
    assert!(sum <= number(&measured["seconds"]), "{step:#}");
    // Events lie within what the host waits for.
    assert!(number(&measured["seconds"]) <= number(&measured["host_seconds"]) + 0.1, "{step:#}");
    assert!(run(&place, flags).contains("ms measured"));
}

#[test]
fn devices_are_listed() {
    let place = Place::new();
    let text = run(&place, "devices");
    assert!(text.contains("cpu ") && text.contains("cuda:0 ") && text.contains("compute capability"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&place, "devices --json")).unwrap();
    assert!(json["cuda"][0]["memory"].as_u64().unwrap() > 1 << 30 && json["no_cuda"].is_null(), "{json}");
}

/// What goes wrong before a kernel runs says what to do, whoever asks.
#[test]
fn a_driver_that_refuses() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU's driver fails when it wants to");
        return;
    }
    let place = Place::new();
    let flags = "memory --model o-net --volume 32x32x32 --points 16 --steps 1 --memory-budget 256MiB --device cuda";
    for (fault, parts) in [
        ("cuInit=34", ["starting the driver", "stub"]),
        ("cuInit=803", ["starting the driver", "reboot"]),
        ("cuInit=804", ["starting the driver", "LD_LIBRARY_PATH"]),
        ("cuDevicePrimaryCtxRetain=46", ["opening device 0", "exclusive mode"]),
        ("cuModuleLoadData=221", ["loading", "libnvidia-ptxjitcompiler"]),
        ("cuModuleLoadData=222", ["loading", "r530"]),
        ("cuLaunchKernel=701", ["kernel ", "registers"]),
    ] {
        let outcome = command(&place, flags).env("CUEMU_FAIL", fault).output().unwrap();
        Outcome::from(outcome).refused(1, &parts);
    }
    let old = |arguments: &str| -> Outcome {
        command(&place, arguments).env("CUEMU_DRIVER", "12000").output().unwrap().into()
    };
    old(flags).refused(1, &["CUDA 12.0, and 12.1 is needed", "r530"]);
    let text = old("devices").succeeded();
    assert!(text.contains("driver for CUDA 12.0 (too old)") && text.contains("CUDA 12.1 (r530)"), "{text}");
}

/// A driver without virtual memory management, one that says it has it and refuses, and an allocation a buffer: the same
/// training, with the plan's bytes.
#[test]
fn arenas_of_every_kind_train_alike() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    let weights = |out: &str, variable: (&str, &str)| {
        let flags = "train --preset sample --data data --model o-net-small --points 32 --epochs 2 --quiet --memory-budget 64MiB --device cuda";
        let mut command = command(&place, &format!("{flags} --out {out}"));
        Outcome::from(command.env(variable.0, variable.1).output().unwrap()).succeeded();
        std::fs::read(place.at(out).join("o-net-small.safetensors")).unwrap()
    };
    let mapped = weights("mapped", ("OSSNET_ARENA", "mapped"));
    assert!(mapped == weights("one", ("OSSNET_ARENA", "one")));
    assert!(mapped == weights("separate", ("OSSNET_ARENA", "separate")));
    if !cuemu::gpu_present() {
        assert!(mapped == weights("unmanaged", ("CUEMU_VMM", "0")));
        assert!(mapped == weights("refused", ("CUEMU_FAIL", "cuMemAddressReserve=801")));
    }
    let unknown = command(&place, "roofline --measure").env("OSSNET_ARENA", "two").output().unwrap();
    Outcome::from(unknown).refused(2, &["OSSNET_ARENA=two", "separate"]);
}

/// A driver that compiles slowly: the user is told, and several kernels are compiled at a time.
#[test]
fn compiling_is_said() {
    if cuemu::gpu_present() {
        eprintln!("skipped: how long a GPU's driver compiles depends on its cache");
        return;
    }
    let place = Place::new();
    let outcome = command(&place, "devices --kernels").env("CUEMU_DELAY", "cuModuleLoadData=5").output().unwrap();
    let outcome = Outcome::from(outcome);
    assert!(outcome.err.contains("compiled 2") && outcome.err.contains("docs/cuda.md"), "{}", outcome.err);
    let text = outcome.succeeded();
    assert!(text.contains("kernels loaded in") && text.contains("slowest kernels"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&place, "devices --kernels --json")).unwrap();
    let kernels = json["kernels"].as_array().unwrap();
    assert!(kernels.len() > 200 && kernels.iter().all(|kernel| kernel["problem"].is_null()), "{json:#}");
    assert!(kernels.iter().all(|kernel| kernel["ptxas_registers"].as_u64().is_some()), "{json:#}");
    let fails = command(&place, "devices --kernels").env("CUEMU_FAIL", "cuModuleLoadData=222").output().unwrap();
    let fails = Outcome::from(fails);
    assert!(fails.code == Some(1) && fails.err.contains("r530"), "{}", fails.err);
}

/// No driver: every command that names a CUDA device says what is missing, and the CPU works.
#[test]
fn a_machine_without_a_driver() {
    if cuemu::gpu_present() {
        eprintln!("skipped: this machine has a driver");
        return;
    }
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    place.refuses("compare --preset sample --data data --device cuda --out x", 1, &["libcuda.so", "--device cpu"]);
    place.refuses("compare --preset sample --data data --device cudA --out x", 2, &["cudA", "cuda:1"]);
    place.refuses("roofline --measure", 1, &["libcuda.so", "--measure needs a GPU"]);
    let text = place.run("devices").succeeded();
    assert!(text.contains("none: no CUDA driver"), "{text}");
}

/// Another number than there are devices.
#[test]
fn a_device_that_is_not_there() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    let outcome = command(&place, "compare --preset sample --data data --device cuda:63 --out x").output().unwrap();
    Outcome::from(outcome).refused(1, &["no CUDA device 63"]);
}

/// The main job from data to report, with one network of each family.
#[test]
fn a_comparison() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    let text = run(
        &place,
        "compare --preset sample --data data --models o-net-small,unet3d --epochs 1 --device cuda --memory-budget 1GiB --out result --quiet",
    );
    assert!(text.contains("O-Net small") && text.contains("3D residual U-Net"), "{text}");
    let results = std::fs::read_to_string(place.at("result/results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert!(results["device"].as_str().unwrap().starts_with("cuda"), "{}", results["device"]);
    assert!(place.at("result/report.html").exists() && place.at("result/o-net-small.safetensors").exists());
}

/// What a step costs on the device, launches included; its bytes are the plan's.
#[test]
fn a_step_is_measured() {
    let place = Place::new();
    let flags = "--model o-net-small --volume 32x32x32 --points 64 --steps 1 --memory-budget 1GiB --json";
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let measured = json(run(&place, &format!("memory {flags} --device cuda")));
    let planned = json(place.run(&format!("memory {flags} --plan-for sm_80")).succeeded());
    assert!(measured["launches"].as_u64().unwrap() > 100, "{measured}");
    for key in ["peak_bytes", "reserved_bytes", "peak_op", "by_role"] {
        assert_eq!(measured[key], planned[key], "{key}");
    }
}

/// A profile by events: each op that was run has a time, and all times are the whole.
#[test]
fn a_step_is_profiled() {
    let place = Place::new();
    let flags = "--model o-net-small --volume 32x32x32 --points 64 --steps 1 --memory-budget 1GiB --device cuda";
    run(&place, &format!("memory {flags} --profile step.json"));
    let profile: serde_json::Value = serde_json::from_slice(&std::fs::read(place.at("step.json")).unwrap()).unwrap();
    let rows = profile["rows"].as_array().unwrap();
    let ops = |phase: &str| rows.iter().filter(|row| row["phase"] == phase && row["op"] != "").count();
    assert!(ops("forward") > 10 && ops("backward") > 10, "{profile:#}");
    let seconds: f64 = rows.iter().map(|row| row["seconds"].as_f64().unwrap()).sum();
    assert!((seconds - profile["seconds"].as_f64().unwrap()).abs() <= 1e-9 * seconds, "{profile:#}");
    assert!(rows.iter().all(|row| row["seconds"].as_f64().unwrap() >= 0.0), "{profile:#}");
}

/// A scan is segmented and meshed on the device, and the mesh refined: the answer is the CPU's, where a network that has
/// hardly been trained is at no voxel so undecided that rounding could tell.
#[test]
fn a_scan_is_segmented() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    place
        .run("train --preset sample --data data --model o-net-small --points 64 --epochs 3 --quiet --out run")
        .succeeded();
    let infer = "infer --quiet --load-model run/o-net-small.safetensors --input data/imagesTr/a.nii.gz --memory-budget 256MiB \
                 --resolution 6x5x7 --dense --threshold 0.3 --mesh obj --smallest 0 --refine 1 --json";
    let json = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let cpu = json(place.run(&format!("{infer} --out cpu")).succeeded());
    let cuda = json(run(&place, &format!("{infer} --out cuda --device cuda")));
    for key in ["ml_by_class", "points", "shape"] {
        assert_eq!(cpu["cases"][0][key], cuda["cases"][0][key], "{key}");
    }
    assert_eq!(cpu["cases"][0]["meshes"][0]["triangles"], cuda["cases"][0]["meshes"][0]["triangles"]);
    let read = |folder: &str| std::fs::read(place.at(folder).join("a.nii.gz")).unwrap();
    assert!(read("cpu") == read("cuda"));
}

/// Border maps are the CPU's, byte by byte.
#[test]
fn border_maps() {
    let place = Place::new();
    data_set(&place.at("data"), 16, &["a"], &["v"]);
    place.run("borders data --out cpu").succeeded();
    run(&place, "borders data --out cuda --device cuda --memory-budget 64MiB");
    let names: Vec<_> = std::fs::read_dir(place.at("cpu")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2);
    for name in names {
        let read = |folder: &str| std::fs::read(place.at(folder).join(&name)).unwrap();
        assert!(read("cpu") == read("cuda"), "{name:?}");
    }
}

/// A training step copies nothing to the host.
#[test]
fn a_step_copies_nothing_to_the_host() {
    if cuemu::gpu_present() {
        eprintln!("skipped: a GPU's driver does not count copies");
        return;
    }
    let emulator = cuemu::exclusive(cuemu::Config::default()).unwrap();
    let device = Device::cuda(0, 256 << 20).unwrap();
    for name in ["unet3d", "full"] {
        let config = NetworkConfig::sample(name, 1, 1, [16; 3]).unwrap();
        let mut stage = SyntheticStep::new(&device, &config, StepSizes::new([16; 3], 1, 30)).unwrap();
        stage.step().unwrap();
        // Launches of a first step wait for their kernels.
        device.synchronize().unwrap();
        let before = emulator.host_counters();
        stage.step().unwrap();
        let after = emulator.host_counters();
        assert_eq!(after.bytes_to_host, before.bytes_to_host, "{name}: bytes to the host");
        assert!(after.launches > before.launches, "{name}");
    }
}

/// Losses of the first `epochs` passes over the embedded heads.
fn losses(place: &Place, device: &str, epochs: usize) -> Vec<f64> {
    let flags = "--model o-net-small --points 64 --quiet --memory-budget 1GiB";
    run(place, &format!("train {flags} --epochs {epochs} --device {device} --out {device}"));
    let log = std::fs::read_to_string(place.at(device).join("log.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

/// Ten steps on the embedded heads. The first loss differs by rounding only. Every step then multiplies differences: early
/// steps of RAdam move each weight by up to its rate (3e-3) in the direction of a gradient whose sign, where it is nearly
/// nothing, is rounding. A hundredth of the loss is what ten such steps may add up to; a wrong gradient is off by tenths.
#[test]
fn ten_steps_track_the_cpus_loss() {
    let place = Place::new();
    let (cpu, cuda) = (losses(&place, "cpu", 10), losses(&place, "cuda", 10));
    assert_eq!((cpu.len(), cuda.len()), (10, 10));
    assert!((cpu[0] - cuda[0]).abs() <= 1e-5 * cpu[0], "first losses {} and {}", cpu[0], cuda[0]);
    for (step, (cpu, cuda)) in cpu.iter().zip(&cuda).enumerate() {
        assert!((cpu - cuda).abs() <= 1e-2 * cpu, "step {step}: losses {cpu} and {cuda}");
    }
    assert!(cpu[9] < cpu[0], "{cpu:?}");
}
