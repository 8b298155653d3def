//! From the metadata of a checkpoint to a segmentation. The input is two lines of JSON: a network and a task; the weights
//! are those of a small network, so that whatever the lines say is either refused or computed.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ossnet::checkpoint::model::{self, Model};
use ossnet::checkpoint::{self, Checkpoint};
use ossnet::data::Volume;
use ossnet::device::Device;
use ossnet::infer::{SegmenterOptions, Segmenter};
use ossnet::memory::size::set_host_budget;
use ossnet::models::{Architecture, NetworkConfig};
use ossnet::nn::Parameters;
use ossnet::rng::Rng;

/// A device of 64 MiB, and the checkpoints of the networks that the seeds describe.
fn fixtures() -> &'static (Device, Vec<Checkpoint>) {
    static FIXTURES: OnceLock<(Device, Vec<Checkpoint>)> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        set_host_budget(64 << 20);
        let device = Device::cpu(1, 64 << 20).expect("a device");
        let stored = ["o-net", "unet2d"].map(|seed| {
            let text = std::fs::read_to_string(format!("{}/seeds/checkpoint/{seed}", env!("CARGO_MANIFEST_DIR")));
            let text = text.expect("seeds are there");
            let (network, task) = text.split_once('\n').expect("two lines");
            let config: NetworkConfig = serde_json::from_str(network).expect("a network");
            let mut parameters = Parameters::new(&device);
            let network = config.build(&mut parameters, &mut Rng::new(0)).expect("a network");
            let file = tempfile::NamedTempFile::new().expect("a file");
            let task = serde_json::from_str(task).expect("a task");
            Model::save(&*network, &parameters, &task, file.path()).expect("saved");
            checkpoint::load(file.path()).expect("loaded")
        });
        (device, stored.into())
    })
}

fuzz_target!(|text: &str| {
    let Some((network, task)) = text.split_once('\n') else { return };
    let (device, stored) = fixtures();
    for checkpoint in stored {
        let mut checkpoint = checkpoint.clone();
        checkpoint.metadata.insert("network".into(), network.into());
        checkpoint.metadata.insert("task".into(), task.into());
        let Ok(model) = model::of(device, checkpoint, Path::new("net.safetensors")) else { continue };
        let channels = model.task.preprocessing.channels.len();
        let voxels = (0..4 * 5 * 6 * channels).map(|i| (i % 7) as f32).collect();
        let image = Volume::new([4, 5, 6], channels, voxels);
        let segmenter = Segmenter::new(&*model.network, &model.parameters, &model.task, SegmenterOptions::default());
        if let Ok(found) = segmenter.and_then(|segmenter| segmenter.segment("scan", image, &mut || Ok(()))) {
            assert_eq!(found.labels.shape, [4, 5, 6]);
        }
    }
});
