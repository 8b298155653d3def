//! What inference holds: figures of the ledger, and of the whole process.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::Nifti;
use crate::support::cli::{PROGRAM, Place};
use ossnet::checkpoint::model::Model;
use ossnet::data::preprocess::GridTransform;
use ossnet::data::{Padding, Preprocessing, Volume};
use ossnet::device::Device;
use ossnet::device::cpu::SimdLevel;
use ossnet::infer::{Occupancy, QueryGrid, Segmenter, SegmenterOptions};
use ossnet::memory::Role;
use ossnet::models::{Architecture, Family, NetworkConfig, OssNet, OssNetConfig};
use ossnet::nn::Parameters;
use ossnet::ops::lattice::{self, Lattice};
use ossnet::rng::Rng;
use ossnet::task::Task;
use ossnet::tensor::{DType, Tensor};

/// What the official code takes at most for a volume of 128×128×80 voxels (resident bytes): 2.2 GiB.
const OFFICIAL: u64 = 22 * (1 << 30) / 10;

/// `full` at its official size on that volume: everything, weights and volume included, in a tenth of the official memory.
/// No voxel is inside, so that only the coarsest lattice is evaluated: two and a half of the largest chunks.
#[test]
fn a_tenth_of_the_official_memory() {
    let shape = [128, 128, 80];
    let device = Device::cpu(2, 4 << 30).unwrap();
    let mut parameters = Parameters::new(&device);
    let config = NetworkConfig::official("full", Family::Brats).unwrap().adapted(4, 1, shape);
    let network = config.build(&mut parameters, &mut Rng::new(1)).unwrap();
    let official = Task::official_brats();
    let task = Task { preprocessing: Preprocessing { multiple: [2; 3], ..official.preprocessing }, ..official };
    let voxels: Vec<f32> = (0..shape.iter().product::<usize>() * 4).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect();
    let volume = Volume::new(shape, 4, voxels);
    let way = GridTransform { shape, geometry: volume.geometry, resampled: shape, padding: Padding::default() };
    let options = SegmenterOptions { threshold: 1.0, ..SegmenterOptions::default() };
    let segmenter = Segmenter::new(&*network, &parameters, &task, options).unwrap();
    let found = segmenter.prepared(volume, &way, &mut || Ok(())).unwrap();
    assert_eq!(found.evaluated, [20_480, 0, 0]);
    println!("peak {} MiB", found.peak_bytes >> 20);
    assert!(found.peak_bytes < OFFICIAL / 10, "{} MiB", found.peak_bytes >> 20);
}

/// Runs the program to its end, which must be a good one; returns the most resident bytes it had. Told by the kernel while it
/// runs: what `wait4` says is no less than what this process, which other tests fill, had when it started the other.
pub(crate) fn resident(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let (own, mut most) = (PathBuf::from(PROGRAM).canonicalize().unwrap(), 0);
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        // Before it has become the program it is a copy of this process.
        let begun = std::fs::read_link(format!("/proc/{}/exe", child.id())).is_ok_and(|program| program == own);
        most = kilobytes.filter(|_| begun).map_or(most, |kilobytes: u64| most.max(1024 * kilobytes));
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success() && most > 0, "{status}, {most} bytes");
            return most;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The program as a process, from reading checkpoint and scan to writing the answer, in that tenth as well.
#[test]
fn a_tenth_of_the_official_memory_as_a_process() {
    let place = Place::new();
    let shape = [128, 128, 80];
    let device = Device::cpu(2, 4 << 30).unwrap();
    let mut parameters = Parameters::new(&device);
    let config = NetworkConfig::official("full", Family::Brats).unwrap().adapted(4, 1, shape);
    let network = config.build(&mut parameters, &mut Rng::new(1)).unwrap();
    Model::save(&*network, &parameters, &Task::official_brats(), &place.at("full.safetensors")).unwrap();
    for channel in ["flair", "t1", "t1ce", "t2"] {
        Nifti::new(shape.map(|side| side as i64)).write(&place.at(&format!("scan/scan_{channel}.nii.gz")));
    }
    let infer = "infer --quiet --threads 2 --load-model full.safetensors --input scan --out out --threshold 1";
    let bytes = resident(&mut place.command(infer));
    println!("resident {} MiB", bytes >> 20);
    assert!(bytes < OFFICIAL / 10, "{} MiB", bytes >> 20);
    let summary = std::fs::read_to_string(place.at("out/inference.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["cases"][0]["points"], 20_480);
}

/// Bytes beside the volume that inference takes of a scan of `shape`, as planned.
fn planned(config: OssNetConfig, budget: u64) -> u64 {
    let shape = config.volume_shape;
    let plan = Device::plan(2, SimdLevel::detect(), budget);
    let mut parameters = Parameters::new(&plan);
    let network = OssNet::new(config, &mut parameters, &mut Rng::new(0)).unwrap();
    let full = [1, shape[0], shape[1], shape[2], network.config().image_channels];
    let volume = Tensor::empty(&plan, &full, DType::F32, Role::Data).unwrap();
    let bytes = 4 * volume.len() as u64;
    let occupancy = Occupancy::new(&network, &parameters, volume, 0).unwrap();
    let (coarse, fine) = (Lattice::new(&plan, shape.map(|n| n / 2)).unwrap(), Lattice::new(&plan, shape).unwrap());
    let indices = Tensor::empty(&plan, &[occupancy.most_points(), 3], DType::F32, Role::Data).unwrap();
    let logits = occupancy.logits(&QueryGrid::voxels(shape), indices).unwrap();
    lattice::classify(&logits.tensor(), 0.5).unwrap();
    drop((coarse, fine));
    plan.ledger(|ledger| ledger.peak().by_role.total()) - bytes
}

#[test]
fn a_gibibyte_beside_a_volume_of_512_cubed() {
    for name in ["o-net", "oss-net-c", "oss-net-d"] {
        let config = OssNetConfig::official(name, Family::Lits).unwrap();
        let bytes = planned(config, 8 << 30);
        println!("{name}: {} MiB", bytes >> 20);
        assert!(bytes <= 1 << 30, "{name}: {} MiB", bytes >> 20);
    }
}
