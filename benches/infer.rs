//! How fast is inference? Points that the official `full` network's decoder answers a second, on all cores, and how long
//! the program takes to start.
//!
//! The official code evaluates about 4,000 points a second on two threads (PyTorch 2.9.1; 614,094 points of a volume of
//! 128×128×80 voxels in 218 s less the coarser stages').

use std::process::Command;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use ossnet::device::Device;
use ossnet::infer::{Occupancy, QueryGrid};
use ossnet::memory::{Role, default_cpu_budget};
use ossnet::models::{Encoding, Family, OssNet, OssNetConfig};
use ossnet::nn::Parameters;
use ossnet::ops::lattice;
use ossnet::ops::patch_conv::PatchSource;
use ossnet::rng::Rng;
use ossnet::tape::{Mode, Tape};
use ossnet::tensor::Tensor;

/// The volume that the official code was timed on.
const SHAPE: [usize; 3] = [128, 128, 80];

fn decoder(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decoder");
    for (name, shape) in [("full", SHAPE), ("full2", SHAPE), ("o-net", SHAPE)] {
        let device = Device::cpu(0, default_cpu_budget()).expect("address range");
        let mut config = OssNetConfig::official(name, Family::Brats).expect("a known name");
        config.volume_shape = shape;
        let mut parameters = Parameters::new(&device);
        let network = OssNet::new(config, &mut parameters, &mut Rng::new(0)).expect("memory");
        let mut rng = Rng::new(1);
        let voxels: Vec<f32> = (0..shape.iter().product::<usize>() * 4).map(|_| rng.uniform() * 2.0 - 1.0).collect();
        let [x, y, z] = shape;
        let volume = Tensor::from_slice(&device, &[1, x, y, z, 4], Role::Data, &voxels).expect("memory");
        for points in [1024, 2048, 4096, 8192, 16384] {
            let occupancy = Occupancy::new(&network, &parameters, volume.clone(), points).expect("memory");
            let indices: Vec<f32> = (0..points * 3).map(|_| rng.below(z as u64) as f32).collect();
            let indices = Tensor::from_slice(&device, &[points, 3], Role::Data, &indices).expect("memory");
            group.throughput(Throughput::Elements(points as u64));
            group.bench_function(format!("{name}/{points}"), |bencher| {
                bencher.iter(|| {
                    let logits = occupancy.logits(&QueryGrid::voxels(shape), indices.clone()).expect("memory");
                    lattice::classify(&logits.tensor(), 0.5).expect("memory")
                });
            });
        }
    }
    group.finish();
}

/// The decoder of `full` layer by layer and folded for the volume, as [`Occupancy`] uses it.
fn ways(criterion: &mut Criterion) {
    const POINTS: usize = 8192;
    let mut group = criterion.benchmark_group("ways");
    let device = Device::cpu(0, default_cpu_budget()).expect("address range");
    let config = OssNetConfig::official("full", Family::Brats).expect("a known name");
    let mut parameters = Parameters::new(&device);
    let network = OssNet::new(config.clone(), &mut parameters, &mut Rng::new(0)).expect("memory");
    let mut rng = Rng::new(1);
    let tape = Tape::new(&device, Mode::Eval);
    let mut noise = |shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform()).collect();
        tape.constant(Tensor::from_slice(&device, shape, Role::Data, &values).expect("memory"))
    };
    let latents = noise(&[1, config.latents(), config.latent_features()]);
    let patches = noise(&[POINTS, 4, 343]);
    let coordinates = noise(&[POINTS, 3]);
    let encoding = Encoding { latents, auxiliary: None };
    let folded = network.fold(&tape, &parameters, &encoding).expect("memory").expect("one volume");
    let source = || Some(PatchSource::Patches(&patches));
    group.throughput(Throughput::Elements(POINTS as u64));
    group.bench_function("layers", |bencher| {
        bencher.iter(|| network.decode(&tape, &parameters, &encoding, &coordinates, source()).expect("memory"));
    });
    group.bench_function("folded", |bencher| {
        bencher.iter(|| network.decode_folded(&tape, &parameters, &folded, &coordinates, source()).expect("memory"));
    });
    group.finish();
}

/// Needs the program built with the same profile: `cargo bench` does so.
fn start(criterion: &mut Criterion) {
    criterion.bench_function("start/version", |bencher| {
        bencher
            .iter(|| Command::new(env!("CARGO_BIN_EXE_ossnet")).arg("--version").output().expect("the program runs"));
    });
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .nresamples(10_000)
        .without_plots()
}

criterion_group! { name = all; config = short(); targets = decoder, ways, start }
criterion_main!(all);
