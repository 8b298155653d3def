//! Batches: augmented cases and sampled points, first on the host, then as tensors.
//!
//! Every random choice depends on the seed and the pass's number alone, so that a resumed run goes on exactly as an
//! uninterrupted one would, and any thread may draw any batch ahead of its time.

use std::ops::Range;

use crate::data::augment::Change;
use crate::data::point_sampling::Reach;
use crate::data::{BorderPoints, Labels, Padding, PlaneLayout, Volume};
use crate::device::{Backend, Device, LaunchConfig};
use crate::error::{Error, Result};
use crate::memory::{Role, size};
use crate::models::Supervision;
use crate::models::loss::{Batch, IGNORED, Targets};
use crate::rng::Rng;
use crate::task::PreparedCase;
use crate::tensor::{DType, Tensor};
use crate::text::plural;
use crate::train::settings::TrainSettings;

/// Bytes that the arrays of a packed batch begin at multiples of.
const ALIGNMENT: usize = 16;

/// The order of the training cases in an epoch.
pub fn order(cases: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cases).collect();
    Rng::named(seed, "order").split(epoch).shuffle(&mut order);
    order
}

/// A batch on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostBatch {
    /// `[batch, D, H, W, channels]`.
    pub volumes: HostArray,
    /// What the network answers.
    pub targets: HostTargets,
    /// See [`Batch::known`].
    pub known: Option<f32>,
}

/// Questions and answers on the host; see [`Targets`].
#[derive(Clone, Debug, PartialEq)]
pub enum HostTargets {
    /// Voxel indices `[batch·points, 3]`, classes `[batch·points, 1]`, label volumes `[batch, D, H, W, 1]`.
    Points(HostArray, HostArray, Option<HostArray>),
    /// Classes `[batch, D, H, W, 1]`.
    Dense(HostArray),
}

/// Numbers in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostArray {
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f32>,
}

impl HostArray {
    fn upload(&self, device: &Device) -> Result<Tensor> {
        Tensor::from_slice(device, &self.shape, Role::Data, &self.values)
    }

    fn bytes(&self) -> u64 {
        4 * self.values.len() as u64
    }
}

impl HostBatch {
    /// A batch with a label for every voxel.
    fn dense(volumes: HostArray, labels: HostArray, ignoring: bool) -> Self {
        let known = labels.values.iter().filter(|&&label| label != IGNORED).count();
        let share = known as f32 / labels.values.len().max(1) as f32;
        Self { volumes, targets: HostTargets::Dense(labels), known: ignoring.then_some(share) }
    }

    /// As tensors of role data.
    ///
    /// # Errors
    /// No memory.
    pub fn upload(&self, device: &Device) -> Result<Batch> {
        let targets = match &self.targets {
            HostTargets::Points(coordinates, labels, label_volumes) => Targets::Points {
                label_volumes: label_volumes.as_ref().map(|labels| labels.upload(device)).transpose()?,
                coordinates: coordinates.upload(device)?,
                labels: labels.upload(device)?,
            },
            HostTargets::Dense(labels) => Targets::Dense(labels.upload(device)?),
        };
        Ok(Batch { volumes: self.volumes.upload(device)?, targets, known: self.known })
    }

    /// Its arrays: volumes, coordinates (of points), labels, label volumes; and whether each holds classes.
    pub fn arrays(&self) -> impl Iterator<Item = (&HostArray, bool)> {
        let targets = match &self.targets {
            HostTargets::Points(coordinates, labels, volumes) => {
                [Some((coordinates, false)), Some((labels, true)), volumes.as_ref().map(|labels| (labels, true))]
            }
            HostTargets::Dense(labels) => [Some((labels, true)), None, None],
        };
        [Some((&self.volumes, false))].into_iter().chain(targets).flatten()
    }

    /// The shapes of its arrays, and whether some voxels are ignored: what the memory of a step depends on.
    pub fn shapes(&self) -> (Vec<&[usize]>, bool) {
        (self.arrays().map(|(array, _)| array.shape.as_slice()).collect(), self.known.is_some())
    }

    /// Bytes on the host.
    pub fn bytes(&self) -> u64 {
        self.arrays().map(|(array, _)| array.bytes()).sum()
    }

    /// Where [`HostBatch::pack`] puts each array.
    pub fn parts(&self) -> Vec<Range<usize>> {
        let mut end = 0usize;
        let part = |(array, is_class): (&HostArray, bool)| {
            let (begin, elements) = (end.next_multiple_of(ALIGNMENT), array.shape.iter().product::<usize>());
            end = begin + elements * if is_class { 1 } else { size_of::<f32>() };
            begin..end
        };
        self.arrays().map(part).collect()
    }

    /// Writes the arrays to `bytes`, classes as bytes each: [`Labels::IGNORED`] where nobody has looked.
    pub fn pack(&self, bytes: &mut [u8]) {
        for ((array, is_class), part) in self.arrays().zip(self.parts()) {
            let to = &mut bytes[part];
            match is_class {
                false => to.copy_from_slice(bytemuck::cast_slice(&array.values)),
                true => to.iter_mut().zip(&array.values).for_each(|(byte, &class)| *byte = packed(class)),
            }
        }
    }

    /// The batch without its numbers.
    #[must_use]
    pub fn emptied(mut self) -> Self {
        let targets = match &mut self.targets {
            HostTargets::Points(coordinates, labels, volumes) => [Some(coordinates), Some(labels), volumes.as_mut()],
            HostTargets::Dense(labels) => [Some(labels), None, None],
        };
        targets.into_iter().flatten().chain([&mut self.volumes]).for_each(|array| array.values = Vec::new());
        self
    }
}

/// Classes as losses take them, of the bytes that [`HostBatch::pack`] made of them, on a CUDA device or its plan.
///
/// # Errors
/// No memory, or what the driver says.
pub fn widened(bytes: &Tensor) -> Result<Tensor> {
    let (device, count) = (bytes.device(), bytes.len());
    let mut classes = Tensor::empty(device, bytes.shape(), DType::F32, Role::Data)?;
    if let Backend::Cuda(cuda) = device.backend() {
        let kernel = cuda.kernel("widen_labels").input(bytes).output(&mut classes).value(count as u64);
        kernel.launch(LaunchConfig::cover(count.div_ceil(4)))?;
    }
    Ok(classes)
}

/// The batch of training pass `pass` (from 0; [`TrainSettings::accumulate`] passes make a step) from `cases`.
///
/// # Errors
/// Cases without labels or of different shapes.
pub fn draw(
    supervision: Supervision,
    settings: &TrainSettings,
    cases: &[&PreparedCase],
    pass: u64,
) -> Result<HostBatch> {
    afford(settings, cases)?;
    let cut = settings.patch.filter(|_| supervision == Supervision::Voxels);
    let shape = cases[0].volume.shape;
    if let Some(odd) = cases.iter().find(|case| cut.is_none() && case.volume.shape != shape) {
        return Err(Error::Model(format!(
            "cases of shapes {shape:?} and {:?} cannot share a batch; use --batch-size 1 or resample {}",
            odd.volume.shape, odd.name
        )));
    }
    let changed = cases.iter().copied().enumerate().map(|(i, case)| Changed::of(settings, case, pass, i));
    let changed = changed.collect::<Result<Vec<_>>>()?;
    let ignoring = cases.iter().any(|case| case.ignore.is_some());
    let mut rng = Rng::named(settings.seed, "points").split(pass);
    match supervision {
        Supervision::Points { label_volumes, last_index } => {
            let mut sampling = settings.sampling.sampling(settings.points, settings.border_share);
            if !last_index {
                sampling.reach = Reach::Reference;
            }
            let mut all = Gathered::new(cases, shape, label_volumes);
            let (mut coordinates, mut classes) = (Vec::new(), Vec::new());
            for case in &changed {
                all.push_volume(&case.change, case.volume);
                let labels = case.change.apply_labels(case.labels);
                let border = case.change.apply_border(case.border, &labels);
                let points = sampling.draw(shape, Some(&border), Some(&labels), &mut rng);
                classes.extend(labels.at(&points).into_iter().map(f32::from));
                coordinates.extend(points.into_iter().flatten().map(|index| index as f32));
                if label_volumes {
                    all.push_labels(&labels);
                }
            }
            let count = settings.points * cases.len();
            let (volumes, labels) = all.arrays();
            let targets = HostTargets::Points(
                HostArray { shape: vec![count, 3], values: coordinates },
                HostArray { shape: vec![count, 1], values: classes },
                label_volumes.then_some(labels),
            );
            Ok(HostBatch { volumes, targets, known: ignoring.then_some(1.0) })
        }
        Supervision::Slices { axis } => {
            let items =
                changed.iter().map(|case| (case.change.apply(case.volume), case.change.apply_labels(case.labels)));
            Ok(slices(axis, settings.slices, &items.collect::<Vec<_>>(), ignoring, &mut rng))
        }
        Supervision::Voxels => {
            let mut all = Gathered::new(cases, cut.unwrap_or(shape), true);
            for (i, case) in changed.iter().enumerate() {
                let Some(patch) = cut else {
                    all.push_volume(&case.change, case.volume);
                    all.push_labels(&case.change.apply_labels(case.labels));
                    continue;
                };
                let mut rng = Rng::named(settings.seed, "patches").split(pass).split(i as u64);
                let share = settings.foreground_share;
                let (volume, labels) = changed_patch(&case.change, (case.volume, case.labels), patch, share, &mut rng);
                all.push_volume(&Change::default(), &volume);
                all.push_labels(&labels);
            }
            let (volumes, labels) = all.arrays();
            Ok(HostBatch::dense(volumes, labels, ignoring))
        }
    }
}

/// A case, and what happens to it in one pass.
struct Changed<'a> {
    volume: &'a Volume,
    labels: &'a Labels,
    border: &'a BorderPoints,
    change: Change,
}

impl<'a> Changed<'a> {
    /// `case` as the case `i` of pass `pass`.
    fn of(settings: &TrainSettings, case: &'a PreparedCase, pass: u64, i: usize) -> Result<Self> {
        let mut rng = Rng::named(settings.seed, "augment").split(pass).split(i as u64);
        let change = settings.augmentation.draw(&mut rng);
        let (Some(labels), Some(border)) = (&case.labels, &case.border) else {
            return Err(Error::Model(format!("case {} has no labels to train on", case.name)));
        };
        if case.ignore.is_some() && labels.voxels.iter().all(|&class| class == Labels::IGNORED) {
            let problem = format!("case {} has no voxel that somebody has looked at", case.name);
            return Err(Error::Model(format!("{problem}; leave it out, or annotate a part of it")));
        }
        Ok(Self { volume: &case.volume, labels, border, change })
    }
}

/// Volumes and labels of a batch, put together case by case, so that one case at most is held beside them.
struct Gathered {
    /// Of both arrays but for the last axis.
    shape: [usize; 4],
    channels: usize,
    voxels: Vec<f32>,
    classes: Vec<f32>,
}

impl Gathered {
    /// Room for `cases` of `shape`, for their labels too if those are learned from.
    fn new(cases: &[&PreparedCase], shape: [usize; 3], with_labels: bool) -> Self {
        let ([d, h, w], channels) = (shape, cases[0].volume.channels);
        let room = cases.len() * d * h * w;
        let (voxels, classes) =
            (Vec::with_capacity(room * channels), Vec::with_capacity(if with_labels { room } else { 0 }));
        Self { shape: [cases.len(), d, h, w], channels, voxels, classes }
    }

    /// The next volume, changed on its way to its place.
    fn push_volume(&mut self, change: &Change, volume: &Volume) {
        let begin = self.voxels.len();
        self.voxels.resize(begin + volume.voxels.len(), 0.0);
        change.apply_to(volume, &mut self.voxels[begin..]);
    }

    fn push_labels(&mut self, labels: &Labels) {
        self.classes.extend(labels.voxels.iter().map(|&class| target(class)));
    }

    /// `[batch, D, H, W, channels]` and `[batch, D, H, W, 1]`.
    fn arrays(self) -> (HostArray, HostArray) {
        let with = |last: usize| [&self.shape[..], &[last]].concat();
        let labels = HostArray { shape: with(1), values: self.classes };
        (HostArray { shape: with(self.channels), values: self.voxels }, labels)
    }
}

/// Refuses a batch that the memory for data does not hold, before it is made.
fn afford(settings: &TrainSettings, cases: &[&PreparedCase]) -> Result<()> {
    let Some(volume) = cases.first().map(|case| &case.volume) else { return Ok(()) };
    let [x, y, z] = settings.patch.unwrap_or(volume.shape);
    let voxels = [x, y, z, volume.channels + 1, size_of::<f32>(), cases.len()];
    let points = [settings.points, 4 * size_of::<f32>(), cases.len()];
    let told = [&voxels[..], &points].iter().find_map(|factors| size::within_host_budget(factors).err());
    told.map_or(Ok(()), |told| {
        let problem = format!("a batch of {} on the host {told}", plural(cases.len(), "case"));
        Err(Error::Usage(format!(
            "{problem}; choose a smaller --patch, --batch-size or --training-samples, or raise --memory-budget"
        )))
    })
}

/// An augmented case, or a part of it: image and labels.
type Item = (Volume, Labels);

/// A class as losses take it; [`IGNORED`] where nobody has looked.
fn target(class: u8) -> f32 {
    if class == Labels::IGNORED { IGNORED } else { f32::from(class) }
}

/// The byte that [`target`] makes this of.
fn packed(class: f32) -> u8 {
    if class == IGNORED { Labels::IGNORED } else { class as u8 }
}

/// A random patch with `change`. What turns, scales and bends is done to the whole volume, since a patch comes from places
/// around it; then the patch is cut, and the rest is done to that alone: a flipped patch is a patch of a flipped volume, and a
/// shifted one is another patch, which is drawn anyway.
fn changed_patch(
    change: &Change,
    (volume, labels): (&Volume, &Labels),
    patch: [usize; 3],
    foreground_share: f32,
    rng: &mut Rng,
) -> Item {
    let (volume, labels) = match change.spatial {
        None => cut_patch(volume, labels, patch, foreground_share, rng),
        spatial => {
            let warp = Change { spatial, ..Change::default() };
            cut_patch(&warp.apply(volume), &warp.apply_labels(labels), patch, foreground_share, rng)
        }
    };
    let rest = Change { spatial: None, shift: [0; 3], ..*change };
    (rest.apply(&volume), rest.apply_labels(&labels))
}

/// A random patch of `patch` voxels; a share of them is centred on foreground, as far as the volume's faces allow.
/// Volumes that are smaller than the patch are padded first.
fn cut_patch(
    volume: &Volume,
    labels: &Labels,
    patch: [usize; 3],
    foreground_share: f32,
    rng: &mut Rng,
) -> (Volume, Labels) {
    let missing = [0, 1, 2].map(|k| patch[k].saturating_sub(volume.shape[k]));
    if missing != [0; 3] {
        let padding = Padding { before: missing.map(|n| n.div_ceil(2)), after: missing.map(|n| n / 2) };
        return cut_patch(&volume.pad(&padding, 0.0), &labels.pad(&padding), patch, foreground_share, rng);
    }
    let shape = volume.shape;
    let uniform = [0, 1, 2].map(|k| rng.below((shape[k] - patch[k]) as u64 + 1) as usize);
    let (centred, choice) = (rng.chance(foreground_share), rng.next_u64());
    let is_inside = |label: u8| label > 0 && label != Labels::IGNORED;
    let inside = labels.voxels.iter().filter(|&&label| is_inside(label)).count() as u64;
    let start = match inside {
        1.. if centred => {
            let chosen = (choice % inside) as usize;
            let voxel = (0..labels.len()).filter(|&voxel| is_inside(labels.voxels[voxel])).nth(chosen).unwrap_or(0);
            let place = [voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]];
            [0, 1, 2].map(|k| place[k].saturating_sub(patch[k] / 2).min(shape[k] - patch[k]))
        }
        _ => uniform,
    };
    let around = Padding { before: start, after: [0, 1, 2].map(|k| shape[k] - patch[k] - start[k]) };
    let (channels, geometry) = (volume.channels, volume.geometry);
    let voxels = around.crop(&volume.voxels, patch, channels);
    let classes = around.crop(&labels.voxels, patch, 1);
    (Volume { channels, shape: patch, voxels, geometry }, Labels { shape: patch, voxels: classes, geometry })
}

/// Random slices of random items across `axis`, as a batch of volumes with one plane; if some voxels are ignored, slices
/// of which some are not.
fn slices(axis: usize, count: usize, items: &[Item], ignoring: bool, rng: &mut Rng) -> HostBatch {
    let (shape, channels) = (items[0].0.shape, items[0].0.channels);
    let plane = PlaneLayout::new(shape, axis);
    let is_known =
        |labels: &Labels, slice: &usize| plane.cut(&labels.voxels, 1, *slice).iter().any(|&v| v != Labels::IGNORED);
    let known = |item: &Item| (0..shape[axis]).filter(|slice| is_known(&item.1, slice)).collect::<Vec<usize>>();
    let known: Vec<Vec<usize>> = if ignoring { items.iter().map(known).collect() } else { Vec::new() };
    let (mut voxels, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let item = rng.below(items.len() as u64) as usize;
        let (volume, labels) = &items[item];
        let slice = match known.get(item).filter(|known| !known.is_empty()) {
            Some(known) => known[rng.below(known.len() as u64) as usize],
            None => rng.below(shape[axis] as u64) as usize,
        };
        voxels.extend(plane.cut(&volume.voxels, channels, slice));
        classes.extend(plane.cut(&labels.voxels, 1, slice).into_iter().map(target));
    }
    let with = |last: usize| vec![count, 1, plane.sides[0], plane.sides[1], last];
    let (volumes, labels) =
        (HostArray { shape: with(channels), values: voxels }, HostArray { shape: with(1), values: classes });
    HostBatch::dense(volumes, labels, ignoring)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A patch holds the volume's own voxels and the labels of the same place, is centred on foreground when asked, and
    /// is padded where the volume ends.
    #[test]
    fn patches() {
        let shape = [8, 6, 10];
        let voxels: Vec<f32> = (0..480).map(|i| i as f32 + 1.0).collect();
        let volume = Volume::new(shape, 1, voxels);
        let mut labels = Labels::new(shape, vec![0; 480]);
        labels.voxels[(5 * 6 + 3) * 10 + 7] = 1;
        for seed in 0..50 {
            let (image, classes) = cut_patch(&volume, &labels, [4, 2, 4], 1.0, &mut Rng::new(seed));
            assert_eq!(image.shape, [4, 2, 4]);
            let found: Vec<usize> = (0..32).filter(|&i| classes.voxels[i] == 1).collect();
            assert_eq!(found.len(), 1, "centred on the only foreground voxel");
            assert_eq!(image.voxels[found[0]], ((5 * 6 + 3) * 10 + 7) as f32 + 1.0);
        }
        let (image, _) = cut_patch(&volume, &labels, [8, 8, 10], 0.0, &mut Rng::new(1));
        assert_eq!(image.voxels.iter().filter(|&&v| v == 0.0).count(), 8 * 2 * 10);
    }

    /// A changed patch is a patch of the changed volume: the same voxels, mirrored, with their labels, and nothing that moved in
    /// from outside; where the change knows no other voxel than its own it has the same values.
    #[test]
    fn patches_are_cut_before_they_are_changed() {
        let shape = [9, 7, 11];
        let volume = Volume::new(shape, 1, (0..693).map(|i| i as f32 + 1.0).collect());
        let labels = Labels::new(shape, (0..693).map(|i| (i % 5 == 0) as u8).collect());
        let change = Change { flips: [true, false, true], shift: [3, 3, 3], contrast: Some(2.0), ..Change::default() };
        for seed in 0..20 {
            let patch = [4, 3, 6];
            let (plain, classes) = cut_patch(&volume, &labels, patch, 0.5, &mut Rng::new(seed));
            let (found, answer) = changed_patch(&change, (&volume, &labels), patch, 0.5, &mut Rng::new(seed));
            for (at, value) in found.voxels.iter().enumerate() {
                let [x, y, z] = [at / 18, at / 6 % 3, at % 6];
                let from = ((3 - x) * 3 + y) * 6 + 5 - z;
                assert_eq!(
                    (*value, answer.voxels[at]),
                    (2.0 * plain.voxels[from], classes.voxels[from]),
                    "{seed} {at}"
                );
            }
        }
    }
}
