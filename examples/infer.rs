//! Segments a scan with a checkpoint, then asks the network at one point between the scan's voxels.
//!
//! `cargo run --release --example infer CHECKPOINT SCAN SEGMENTATION`

use std::path::Path;

use ossnet::Error;
use ossnet::checkpoint::model::{self, Model};
use ossnet::data::{Padding, Source, Volume};
use ossnet::device::Device;
use ossnet::infer::occupancy::fitting_shape;
use ossnet::infer::{Occupancy, QueryGrid, Segmenter, SegmenterOptions};
use ossnet::memory::{Role, default_cpu_budget, format_bytes};
use ossnet::tensor::Tensor;

/// The program; a test runs what it does.
pub fn main() -> ossnet::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [checkpoint, scan, out] => infer(checkpoint.as_ref(), scan.as_ref(), out.as_ref()),
        _ => Err(Error::Usage("give a checkpoint, a scan and the name of the segmentation".into())),
    }
}

/// Segments `scan` with `checkpoint` into `out`.
pub fn infer(checkpoint: &Path, scan: &Path, out: &Path) -> ossnet::Result<()> {
    let device = Device::cpu(0, default_cpu_budget())?;
    let Model { network, parameters, task } = model::load(&device, checkpoint)?;
    let image = Volume::read(&Source::File(scan.into()), task.preprocessing.axes)?;

    // The whole way: normalised, padded, evaluated where it is worth it, brought back to the scan's own grid.
    let options = SegmenterOptions { verify: true, ..SegmenterOptions::default() };
    let segmenter = Segmenter::new(&*network, &parameters, &task, options)?;
    let found = segmenter.segment("scan", image.clone(), &mut || Ok(()))?;
    found.labels.write(out)?;
    println!("points at each stage: {:?} of {} voxels", found.evaluated, found.labels.len());
    println!("{:.2} s, at most {}", found.seconds, format_bytes(found.peak_bytes));
    println!("against every point evaluated: {:?}", found.verification);

    // The network itself, as a function of space.
    let Some(network) = network.occupancy() else { return Ok(()) };
    let (volume, way) =
        task.image("scan", image, |shape| Padding::to_shape(shape, fitting_shape(network.config(), shape)))?;
    let [x, y, z] = volume.shape;
    let volume = Tensor::from_slice(&device, &[1, x, y, z, volume.channels], Role::Data, &volume.voxels)?;
    let occupancy = Occupancy::new(network, &parameters, volume, 0)?;
    // One cell as large as the scan: its centre.
    let grid = QueryGrid::over(&way, [1; 3]);
    let index = Tensor::from_slice(&device, &[1, 3], Role::Data, &[0.0; 3])?;
    let probabilities = occupancy.probabilities(&occupancy.logits(&grid, index)?)?;
    println!("at the centre of the scan, network coordinates {:?}: {probabilities:?}", grid.at([0; 3]));
    Ok(())
}
