//! Inference on a CUDA device is the CPU's: the same points are asked, and every voxel has the same class.

use crate::common::cuda::{assert_clean, cuda_device};
use ossnet::data::preprocess::GridTransform;
use ossnet::data::{Axes, Padding, Preprocessing, Volume};
use ossnet::device::Device;
use ossnet::infer::{Search, SearchRule, Segmentation, Segmenter, SegmenterOptions, SlidingWindow};
use ossnet::mesh;
use ossnet::models::{Architecture, NetworkConfig, OssNetConfig, UNetConfig};
use ossnet::nn::Parameters;
use ossnet::rng::Rng;
use ossnet::task::Task;

const SIDE: usize = 16;

fn volume() -> Volume {
    let mut rng = Rng::new(5);
    let place = |at: usize| [at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE].map(|i| i as f32 - 7.0);
    let value = |[x, y, z]: [f32; 3], noise: f32| (6.0 - (x * x + y * y + 2.0 * z * z).sqrt()).tanh() + 0.3 * noise;
    Volume::new([SIDE; 3], 1, (0..SIDE.pow(3)).map(|at| value(place(at), rng.normal())).collect())
}

fn task(classes: usize) -> Task {
    let preprocessing = Preprocessing {
        channels: vec!["X".into()],
        classes: (0..classes as u8).collect(),
        axes: Axes::Stored,
        clip: None,
        spacing: None,
        resize: None,
        merge: false,
        multiple: [16; 3],
        trained_spacing: None,
        trained_shape: None,
    };
    let class_names = (0..classes).map(|class| format!("class {class}")).collect();
    Task { name: "made up".into(), preprocessing, class_names }
}

fn segment(device: &Device, config: &NetworkConfig, options: &SegmenterOptions) -> Segmentation {
    let mut parameters = Parameters::new(device);
    let network = config.build(&mut parameters, &mut Rng::new(3)).unwrap();
    let task = task(config.classes().max(2));
    let segmenter = Segmenter::new(&*network, &parameters, &task, options.clone()).unwrap();
    let volume = volume();
    let way = GridTransform {
        shape: volume.shape,
        geometry: volume.geometry,
        resampled: volume.shape,
        padding: Padding::default(),
    };
    let found = segmenter.prepared(volume, &way, &mut || Ok(())).unwrap();
    assert_clean();
    found
}

/// A threshold in the widest gap among the middle half of some probabilities, where rounding decides nothing.
fn between(probabilities: &[f32]) -> f32 {
    let mut sorted = probabilities.to_vec();
    sorted.sort_by(f32::total_cmp);
    let middle = &sorted[sorted.len() / 4..sorted.len() * 3 / 4];
    let widest = middle.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0]))).unwrap();
    // The devices differ by some roundings of numbers below 1.
    assert!(widest[1] - widest[0] > 2e-5, "{widest:?}");
    (widest[0] + widest[1]) / 2.0
}

#[test]
fn occupancy_networks() {
    let (cpu, Some(cuda)) = (Device::cpu(2, 1 << 30).unwrap(), cuda_device(1)) else { return };
    for outputs in [1, 3] {
        let config = OssNetConfig { classes: outputs, ..OssNetConfig::sample("full", 1, [SIDE; 3]).unwrap() };
        let config = NetworkConfig::OssNet(config);
        let dense = SegmenterOptions {
            search: Search::dense(),
            shape: Some([5, 4, 5]),
            probabilities: true,
            ..SegmenterOptions::default()
        };
        let [expected, found] = [&cpu, &cuda].map(|device| segment(device, &config, &dense).probabilities.unwrap());
        let worst = expected.voxels.iter().zip(&found.voxels).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-5, "{outputs} outputs: {worst}");
        let threshold = if outputs == 1 { between(&expected.voxels) } else { 0.5 };
        let mixed = SearchRule::Mixed { margin: 1 };
        let searches = [(mixed, false), (SearchRule::Reference, false), (mixed, true), (SearchRule::Reference, true)];
        for (rule, seeded) in searches.into_iter().take(if outputs == 1 { 4 } else { 1 }) {
            let search = Search { stages: vec![2, 1], rule, seeded };
            let options = SegmenterOptions {
                search,
                threshold,
                seed_threshold: 0.4,
                shape: dense.shape,
                verify: true,
                ..SegmenterOptions::default()
            };
            let [expected, found] = [&cpu, &cuda].map(|device| segment(device, &config, &options));
            assert_eq!(found.labels, expected.labels, "{outputs} outputs, {options:?}");
            assert_eq!(found.evaluated, expected.evaluated, "{outputs} outputs, {options:?}");
            let different = [&found, &expected].map(|found| found.verification.unwrap().different_voxels);
            assert_eq!(different[0], different[1]);
        }
        // What was found has a surface, the same from both devices.
        let options = mesh::MeshOptions { threshold, smallest: 0, triangles: 0, ..mesh::MeshOptions::default() };
        let meshed = |device: &Device| {
            let affine = &expected.geometry.affine;
            let channel: Vec<f32> = expected.voxels.iter().step_by(outputs).copied().collect();
            mesh::of_field(device, channel, expected.shape, affine, &options).unwrap().0
        };
        assert_eq!(meshed(&cuda), meshed(&cpu));
        assert_clean();
    }
}

#[test]
fn unets() {
    let (cpu, Some(cuda)) = (Device::cpu(2, 1 << 30).unwrap(), cuda_device(2)) else { return };
    let small = UNetConfig { channels: vec![8, 8, 16], strides: vec![2; 2], ..UNetConfig::standard(3, 1, 1) };
    let config = NetworkConfig::UNet(small);
    let windowed = SlidingWindow { size: Some([8, 16, 16]), ..SlidingWindow::default() };
    for windows in [windowed, SlidingWindow { mirror: true, ..SlidingWindow::default() }] {
        let options = SegmenterOptions { windows, probabilities: true, ..SegmenterOptions::default() };
        let [expected, found] = [&cpu, &cuda].map(|device| segment(device, &config, &options));
        assert_eq!(
            (expected.evaluated[0], &found.evaluated),
            (if windows.mirror { 8 } else { 3 }, &expected.evaluated)
        );
        let [expected, found] = [expected, found].map(|found| found.probabilities.unwrap());
        let worst = expected.voxels.iter().zip(&found.voxels).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < 1e-5, "{windows:?}: {worst}");
    }
    // The whole volume at once, whose classes are told on the device.
    let whole = segment(&cpu, &config, &SegmenterOptions { probabilities: true, ..SegmenterOptions::default() })
        .probabilities
        .unwrap();
    let options = SegmenterOptions { threshold: between(&whole.voxels), ..SegmenterOptions::default() };
    let [expected, found] = [&cpu, &cuda].map(|device| segment(device, &config, &options));
    assert_eq!(found.labels, expected.labels);
}
