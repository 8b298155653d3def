//! Passes launched as CUDA graphs change nothing but the number of launches: training ends with the same weights.

use crate::common::cuda::{assert_clean, cuda_device};
use crate::support::cli::{Place, data_set};
use ossnet::data::Dataset;
use ossnet::device::{Backend, Device};
use ossnet::memory::Role;
use ossnet::models::{NetworkConfig, OssNetConfig, UNetConfig};
use ossnet::task::{PreparedCase, Task};
use ossnet::tensor::Tensor;
use ossnet::train::presets;
use ossnet::train::settings::TrainSettings;
use ossnet::train::trainer::Trainer;

const SHAPE: [usize; 3] = [16; 3];

/// What a run ends with.
struct End {
    /// Loss of each step.
    losses: Vec<f32>,
    /// Weights, averages, running statistics.
    values: Vec<Vec<f32>>,
    /// Updates of each running statistic.
    updates: Vec<u64>,
    /// Calls of each step that made the device work; none known on a GPU.
    launches: Vec<u64>,
}

fn train(cases: &[PreparedCase], network: &NetworkConfig, settings: &TrainSettings, graphs: bool) -> Option<End> {
    let device = cuda_device(0)?;
    let mut trainer = Trainer::new(&device, network, settings.clone()).unwrap();
    if graphs {
        trainer.use_graphs().unwrap();
    }
    let emulator = (!cuemu::gpu_present()).then(|| cuemu::preload().unwrap());
    let launched = || emulator.map_or(0, |emulator| emulator.host_counters().launches);
    let (mut before, mut launches) = (launched(), Vec::new());
    trainer
        .train(&cases, |_| {
            launches.push(launched() - before);
            before = launched();
            Ok(())
        })
        .unwrap();
    assert_clean();
    let parameters = trainer.parameters();
    let weights = parameters.iter().map(|parameter| parameter.value().to_vec().unwrap());
    let averages = trainer.average().into_iter().flat_map(|average| average.weights());
    let statistics = parameters.buffers().map(|(_, value, _)| value.to_vec().unwrap());
    let values = weights.chain(averages.map(|average| average.to_vec().unwrap())).chain(statistics).collect();
    let updates = parameters.buffers().map(|(_, _, updates)| updates).collect();
    Some(End { losses: trainer.losses().to_vec(), values, updates, launches })
}

/// As many steps as it takes to capture a pass after the second and launch it once more at least.
fn check(network: &NetworkConfig, settings: &TrainSettings) {
    let place = Place::new();
    data_set(place.path(), 16, &["a", "b"], &["c"]);
    let dataset = Dataset::open(place.path(), 0).unwrap();
    let task = Task::of(&dataset, SHAPE);
    let read = |case| task.prepare(dataset.read(case, task.preprocessing.axes).unwrap(), None).unwrap();
    let cases: Vec<PreparedCase> = dataset.training.iter().map(read).collect();
    let Some(plain) = train(&cases, network, settings, false) else { return };
    let graphs = train(&cases, network, settings, true).unwrap();
    assert_eq!(plain.losses, graphs.losses);
    assert_eq!(plain.updates, graphs.updates);
    assert!(plain.values == graphs.values, "weights, averages or running statistics differ");
    if let (Some(&plain), Some(&graph)) = (plain.launches.last(), graphs.launches.last()) {
        // The batch's tensors (small ones are launches), gradients cleared, the passes, clipping, optimiser, average.
        let passes = settings.accumulate as u64;
        assert!(graph <= 6 + 4 * passes && plain > 10 * graph, "{graph} launches a step, {plain} without graphs");
    }
}

#[test]
fn an_occupancy_network() {
    let network = OssNetConfig { width: 24, blocks: 2, ..OssNetConfig::sample("oss-net-c", 1, SHAPE).unwrap() };
    let network = NetworkConfig::OssNet(network);
    let settings = TrainSettings {
        batch_size: 1,
        accumulate: 2,
        points: 40,
        clip_norm: Some(0.5),
        average_decay: Some(0.9),
        ..presets::sample(&network, 3, 1)
    };
    check(&network, &settings);
}

#[test]
fn a_u_net() {
    let network = UNetConfig { channels: vec![4, 8, 16], strides: vec![2, 2], ..UNetConfig::standard(3, 1, 1) };
    let network = NetworkConfig::UNet(network);
    let settings = TrainSettings { batch_size: 2, ..presets::sample(&network, 6, 1) };
    check(&network, &settings);
}

#[test]
fn what_no_graph_can_hold_is_refused() {
    let plain = NetworkConfig::sample("o-net", 1, 1, SHAPE).unwrap();
    let settings = presets::sample(&plain, 1, 1);
    let refusal = |device: &Device, network: &NetworkConfig| {
        Trainer::new(device, network, settings.clone()).unwrap().use_graphs().unwrap_err().to_string()
    };
    let text = refusal(&Device::cpu(1, 1 << 28).unwrap(), &plain);
    assert!(text.contains("CUDA device"), "{text}");
    let Some(device) = cuda_device(0) else { return };
    let dropping = OssNetConfig { dropout: 0.1, ..OssNetConfig::sample("o-net", 1, SHAPE).unwrap() };
    let text = refusal(&device, &NetworkConfig::OssNet(dropping));
    assert!(text.contains("dropout"), "{text}");
}

/// What the host's memory holds now is nothing that a graph can do again: copies inside a capture are errors, and the device goes
/// on.
#[test]
fn copies_inside_a_capture_are_errors() {
    let Some(device) = cuda_device(0) else { return };
    let Backend::Cuda(cuda) = device.backend() else { unreachable!("a CUDA device") };
    let values = vec![1.0f32; 1000];
    let mut large = Tensor::zeros(&device, &[1000], Role::Data).unwrap();
    let refusal = |work: &mut dyn FnMut() -> ossnet::Result<()>| match cuda.capture(work) {
        Ok(_) => panic!("a copy was captured"),
        Err(error) => error.to_string(),
    };
    let text = refusal(&mut || large.write(&values));
    assert!(text.contains("a copy to the device while a CUDA graph is captured"), "{text}");
    let text = refusal(&mut || large.to_vec().map(drop));
    assert!(text.contains("a copy to the host while a CUDA graph is captured"), "{text}");
    // What is small travels in a kernel's arguments, which the graph keeps.
    let (_, graph) = cuda.capture(|| large.write(&[2.0f32; 4])).unwrap();
    large.write(&values).unwrap();
    // SAFETY: the tensor lives.
    unsafe { graph.launch().unwrap() };
    let found = large.to_vec().unwrap();
    assert_eq!((found[3], found[4]), (2.0, 1.0));
    assert_clean();
}
