//! How long does a training step take: loss, gradients and update of each network on made-up data?
//!
//! Throughput counts answers, points of occupancy networks and voxels of U-Nets. `small` compares the networks with each
//! other; `headline` holds the sizes that are compared with other implementations.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use ossnet::device::Device;
use ossnet::memory::default_cpu_budget;
use ossnet::models::{Architecture, Family, NetworkConfig};
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

/// Times a step of the official network `name`.
fn step(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, sizes: StepSizes) {
    let device = Device::cpu(0, default_cpu_budget()).expect("address range");
    let official = NetworkConfig::official(name, Family::Brats).expect("a known name");
    let (channels, classes) = (official.image_channels(), official.classes());
    let config = official.adapted(channels, classes, sizes.volume);
    let answers = match config {
        NetworkConfig::OssNet(_) => sizes.points,
        NetworkConfig::UNet(_) => sizes.volume.iter().product(),
    };
    group.throughput(Throughput::Elements((sizes.batch * answers) as u64));
    let [d, h, w] = sizes.volume;
    let mut stage = SyntheticStep::new(&device, &config, sizes).expect("sizes that fit");
    group.bench_function(format!("{name}/{d}x{h}x{w}"), |bencher| {
        bencher.iter(|| stage.step().expect("memory"));
    });
}

fn small(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");
    group.measurement_time(Duration::from_secs(2));
    for name in ["o-net", "oss-net-a", "oss-net-b", "oss-net-c", "oss-net-d"] {
        step(&mut group, name, StepSizes::new([64, 64, 40], 1, 4096));
    }
    step(&mut group, "unet3d", StepSizes::new([64; 3], 1, 0));
    step(&mut group, "unet2d", StepSizes::new([128, 128, 1], 16, 0));
    group.finish();
}

fn headline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headline");
    // Steps take seconds: one a sample.
    group.sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(1));
    step(&mut group, "full", StepSizes::new([256, 256, 160], 1, 1 << 14));
    step(&mut group, "unet3d", StepSizes::new([96; 3], 1, 0));
    group.finish();
}

/// A step varies little: few samples, no plots, so that all ends within minutes.
fn short() -> Criterion {
    Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).nresamples(10_000).without_plots()
}

criterion_group! { name = all; config = short(); targets = small, headline }
criterion_main!(all);
