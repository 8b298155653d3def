//! Batches: augmented cases and sampled points, as tensors.
//!
//! Every random choice depends on the seed and the step's number alone, so that a resumed run goes on exactly as an
//! uninterrupted one would.

use crate::data::sampling::Reach;
use crate::data::{Augmentation, Labels, Sampling, Volume};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::NetworkConfig;
use crate::rng::Rng;
use crate::task::Case;
use crate::tensor::Tensor;
use crate::train::settings::{Augment, TrainSettings};
use crate::train::step::{Batch, Targets};

/// The order of the training cases in an epoch.
pub fn order(cases: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases).collect();
    Rng::named(seed, "order").split(epoch).shuffle(&mut order);
    order
}

/// The official code never draws the last index of an axis.
fn reach(reference: bool) -> Reach {
    if reference { Reach::Reference } else { Reach::Whole }
}

/// The changes that `augment` names.
fn augmentation(augment: Augment) -> Augmentation {
    match augment {
        Augment::None => Augmentation::NONE,
        Augment::Reference => Augmentation::REFERENCE,
        Augment::Sample => Augmentation::SAMPLE,
    }
}

/// The batch of training step `step` (from 0) from `cases`.
///
/// # Errors
/// Cases without labels or of different shapes, or no memory.
pub fn make(
    device: &Device,
    network: &NetworkConfig,
    settings: &TrainSettings,
    cases: &[&Case],
    step: u64,
) -> Result<Batch> {
    let mut items = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let mut rng = Rng::named(settings.seed, "augment").split(step).split(i as u64);
        let change = augmentation(settings.augment).draw(&mut rng);
        let (Some(labels), Some(border)) = (&case.labels, &case.border) else {
            return Err(Error::Model(format!("case {} has no labels to train on", case.name)));
        };
        let labels = change.apply_labels(labels);
        let border = change.apply_border(border, &labels);
        items.push((change.apply(&case.volume), labels, border));
    }
    let shape = items[0].0.shape;
    if let Some(odd) = items.iter().position(|item| item.0.shape != shape) {
        return Err(Error::Model(format!(
            "cases of shapes {shape:?} and {:?} cannot share a batch; use --batch-size 1 or resample {}",
            items[odd].0.shape, cases[odd].name
        )));
    }
    let mut rng = Rng::named(settings.seed, "points").split(step);
    match network {
        NetworkConfig::OssNet(config) => {
            let sampling = Sampling {
                points: settings.points,
                border_share: settings.border_share,
                reach: reach(config.reference),
                ..Sampling::default()
            };
            let (mut coordinates, mut classes) = (Vec::new(), Vec::new());
            for (_, labels, border) in &items {
                let points = sampling.draw(shape, Some(border), Some(labels), &mut rng);
                classes.extend(labels.at(&points).into_iter().map(f32::from));
                coordinates.extend(points.into_iter().flatten().map(|index| index as f32));
            }
            let count = settings.points * items.len();
            let label_volumes = match config.has_auxiliary() {
                true => Some(label_tensor(device, &items.iter().map(|item| &item.1).collect::<Vec<_>>())?),
                false => None,
            };
            let targets = Targets::Points {
                coordinates: Tensor::from_slice(device, &[count, 3], Role::Data, &coordinates)?,
                labels: Tensor::from_slice(device, &[count, 1], Role::Data, &classes)?,
                label_volumes,
            };
            Ok(Batch {
                volumes: volume_tensor(device, &items.iter().map(|item| &item.0).collect::<Vec<_>>())?,
                targets,
            })
        }
        NetworkConfig::UNet(config) if config.dimensions == 2 => slices(device, settings, &items, &mut rng),
        NetworkConfig::UNet(_) => Ok(Batch {
            volumes: volume_tensor(device, &items.iter().map(|item| &item.0).collect::<Vec<_>>())?,
            targets: Targets::Dense(label_tensor(device, &items.iter().map(|item| &item.1).collect::<Vec<_>>())?),
        }),
    }
}

/// `[batch, D, H, W, channels]`.
fn volume_tensor(device: &Device, volumes: &[&Volume]) -> Result<Tensor> {
    let ([d, h, w], channels) = (volumes[0].shape, volumes[0].channels);
    let voxels: Vec<f32> = volumes.iter().flat_map(|volume| volume.voxels.iter().copied()).collect();
    Tensor::from_slice(device, &[volumes.len(), d, h, w, channels], Role::Data, &voxels)
}

/// `[batch, D, H, W, 1]`.
fn label_tensor(device: &Device, labels: &[&Labels]) -> Result<Tensor> {
    let [d, h, w] = labels[0].shape;
    let voxels: Vec<f32> = labels.iter().flat_map(|labels| labels.voxels.iter().map(|&v| f32::from(v))).collect();
    Tensor::from_slice(device, &[labels.len(), d, h, w, 1], Role::Data, &voxels)
}

/// Random axial slices of random items, as a batch of volumes with one plane.
fn slices<B>(device: &Device, settings: &TrainSettings, items: &[(Volume, Labels, B)], rng: &mut Rng) -> Result<Batch> {
    let ([d, h, depth], channels) = (items[0].0.shape, items[0].0.channels);
    let (mut voxels, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..settings.slices {
        let (volume, labels, _) = &items[rng.below(items.len() as u64) as usize];
        let slice = rng.below(depth as u64) as usize;
        for pixel in 0..d * h {
            let voxel = pixel * depth + slice;
            voxels.extend_from_slice(&volume.voxels[voxel * channels..][..channels]);
            classes.push(f32::from(labels.voxels[voxel]));
        }
    }
    let shape = [settings.slices, 1, d, h];
    let with = |last: usize| [shape[0], shape[1], shape[2], shape[3], last];
    Ok(Batch {
        volumes: Tensor::from_slice(device, &with(channels), Role::Data, &voxels)?,
        targets: Targets::Dense(Tensor::from_slice(device, &with(1), Role::Data, &classes)?),
    })
}
