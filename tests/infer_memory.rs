//! What inference holds: figures of the ledger.

use ossnet::data::preprocess::Way;
use ossnet::data::{Padding, Preprocessing, Volume};
use ossnet::device::Device;
use ossnet::infer::{Options, Segmenter};
use ossnet::models::{Family, Network, NetworkConfig};
use ossnet::nn::Parameters;
use ossnet::rng::Rng;
use ossnet::task::Task;

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
    let network = Network::new(&config, &mut parameters, &mut Rng::new(1)).unwrap();
    let official = Task::official_brats();
    let task = Task { preprocessing: Preprocessing { multiple: [2; 3], ..official.preprocessing }, ..official };
    let voxels: Vec<f32> = (0..shape.iter().product::<usize>() * 4).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect();
    let volume = Volume::new(shape, 4, voxels);
    let way = Way { shape, geometry: volume.geometry, resampled: shape, padding: Padding::default() };
    let options = Options { threshold: 1.0, ..Options::default() };
    let segmenter = Segmenter::new(&network, &parameters, &task, options).unwrap();
    let found = segmenter.prepared(volume, &way, &mut || Ok(())).unwrap();
    assert_eq!(found.evaluated, [20_480, 0, 0]);
    println!("peak {} MiB", found.peak_bytes >> 20);
    assert!(found.peak_bytes < OFFICIAL / 10, "{} MiB", found.peak_bytes >> 20);
}
