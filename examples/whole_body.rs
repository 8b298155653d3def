//! Writes a checkpoint of a U-Net with 117 classes and made-up weights, which sees scans at 1.5 mm in cubes, and a CT-like scan of
//! 1 mm, to see what many classes take of a small machine (docs/inference.md).
//!
//! ```text
//! cargo run --release --example whole_body -- FOLDER 630x420x420 64
//! ```

use std::path::PathBuf;

use ossnet::checkpoint::model::Model;
use ossnet::data::{Axes, Preprocessing, Volume, nifti};
use ossnet::device::Device;
use ossnet::models::{Architecture, UNetConfig};
use ossnet::nn::Parameters;
use ossnet::quantities::parse_shape;
use ossnet::rng::Rng;
use ossnet::task::Task;
use ossnet::{Error, Result};

const CLASSES: usize = 117;

fn main() -> Result<()> {
    let usage = || Error::Usage("give a folder, the scan's shape and a window's side: FOLDER 630x420x420 64".into());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, shape, side] = &arguments[..] else { return Err(usage()) };
    let (folder, side) = (PathBuf::from(folder), side.parse::<usize>().map_err(|_| usage())?);
    let shape = parse_shape(shape).map_err(Error::Usage)?;
    std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;

    let device = Device::cpu(1, 1 << 30)?;
    let mut parameters = Parameters::new(&device);
    let config = UNetConfig { channels: vec![16, 32, 64], strides: vec![2; 2], ..UNetConfig::standard(3, 1, CLASSES) };
    let network = config.build(&mut parameters, &mut Rng::new(1))?;
    let preprocessing = Preprocessing {
        channels: vec!["CT".into()],
        classes: (0..CLASSES as u8).collect(),
        axes: Axes::Canonical,
        clip: Some([-1000.0, 1000.0]),
        spacing: Some([1.5; 3]),
        resize: None,
        merge: false,
        multiple: [4; 3],
        trained_spacing: None,
        trained_shape: Some([side; 3]),
    };
    let class_names = (0..CLASSES).map(|class| format!("class {class}")).collect();
    let task = Task { name: "whole body".into(), preprocessing, class_names };
    Model::save(&*network, &parameters, &task, &folder.join("body.safetensors"))?;

    // A body of two soft ellipsoids in air, with noise.
    let mut rng = Rng::new(2);
    let mut voxels = Vec::with_capacity(shape.iter().product());
    for x in 0..shape[0] {
        for y in 0..shape[1] {
            for z in 0..shape[2] {
                let at = [x, y, z].map(|i| i as f32);
                let from = |share: f32| (0..3).map(|k| ((at[k] / shape[k] as f32 - 0.5) / share).powi(2)).sum::<f32>();
                let tissue = if from(0.45) > 1.0 { -1000.0 } else { 40.0 + 400.0 * (1.0 - from(0.2)).max(0.0) };
                voxels.push((tissue + 20.0 * (rng.uniform() - 0.5)).round());
            }
        }
    }
    nifti::write_volume(&folder.join("scan.nii.gz"), &Volume::new(shape, 1, voxels))
}
