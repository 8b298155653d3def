//! How fast are meshes? Marching cubes of a 256³ probability field, on one core and on all, and what follows it: dropping small
//! components, smoothing, simplification to the official 10,000 triangles.
//!
//! The field is a ball of radius 95 voxels with waves on it (587,000 triangles), about what a brain has at that size; noise
//! is the worst case (54 million).

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use ossnet::device::Device;
use ossnet::memory::{Role, default_cpu_budget};
use ossnet::mesh::{Mesh, drop_small, simplify, smooth};
use ossnet::ops::marching_cubes;
use ossnet::rng::Rng;
use ossnet::tensor::Tensor;

const SIDE: usize = 256;

fn organ() -> Vec<f32> {
    let wave = |[x, y, z]: [f32; 3]| (0.2 * x).sin() + (0.23 * y).sin() + (0.17 * z).sin();
    let value = |p: [f32; 3]| 0.5 + 0.02 * (95.0 - p.iter().map(|x| x * x).sum::<f32>().sqrt() + 6.0 * wave(p));
    let middle = SIDE as f32 / 2.0;
    let place = |i: usize| [i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE].map(|index| index as f32 - middle);
    (0..SIDE.pow(3)).map(|i| value(place(i))).collect()
}

fn field(device: &Device, values: &[f32]) -> Tensor {
    Tensor::from_slice(device, &[SIDE; 3], Role::Data, values).expect("memory")
}

fn meshes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    let mut rng = Rng::new(1);
    let noise: Vec<f32> = (0..SIDE.pow(3)).map(|_| rng.uniform()).collect();
    for (threads, name) in [(1, "one core"), (0, "all cores")] {
        let device = Device::cpu(threads, default_cpu_budget()).expect("address range");
        for (what, values) in [("organ", &organ()), ("noise", &noise)] {
            let field = field(&device, values);
            group.bench_function(format!("marching cubes, {what}, {name}"), |bencher| {
                bencher.iter(|| marching_cubes(black_box(&field), 0.5, 0.0).expect("memory"));
            });
        }
    }
    let device = Device::cpu(0, default_cpu_budget()).expect("address range");
    let values = organ();
    group.bench_function("small components", |bencher| {
        bencher.iter_batched(
            || values.clone(),
            |mut values| drop_small(&mut values, [SIDE; 3], 0.5, 1728),
            BatchSize::LargeInput,
        );
    });
    let surface = marching_cubes(&field(&device, &values), 0.5, 0.0).expect("memory");
    let mesh = Mesh::from_surface(&surface).expect("a CPU");
    group.bench_function("smoothing, 20 iterations", |bencher| {
        bencher.iter_batched(|| mesh.clone(), |mut mesh| smooth(&mut mesh, 20), BatchSize::LargeInput);
    });
    group.bench_function("simplification to 10,000 triangles", |bencher| {
        bencher.iter(|| simplify(black_box(&mesh), 10_000));
    });
    group.finish();
}

criterion_group!(benches, meshes);
criterion_main!(benches);
