//! What a U-Net says of a volume, as a whole or in overlapping windows, upright or mirrored as well.
//!
//! Windows of one size stand at equal distances. Where they overlap, probabilities are averaged with weights
//! `w(i) = Π_a exp(−½((i_a − c_a)/σ_a)²)` around the window's centre `c`, `σ` an eighth of its sides (Isensee et al. 2021).
//! The weights are products over the axes and so are their sums, which are never stored for a volume. Windows are taken in
//! the order of the first axis, and a plane is classified as soon as no window will touch it any more: what is held is a
//! slab as thick as one window.
//!
//! Mirroring averages over all reflections of the network's axes (eight in 3D, four in 2D). A 2D network sees slices
//! across one axis; its windows are as deep as the volume there.

use std::borrow::Cow;

use super::occupancy::probabilities;
use crate::data::{Plane, Volume};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::UNet;
use crate::nn::Parameters;
use crate::ops::lattice;
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// Slices that a 2D network takes at once.
const SLICES: usize = 16;

/// How a volume is gone through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Windows {
    /// Sides of a window, raised to the network's multiple and cut to the volume; `None` for the whole volume at once.
    pub size: Option<[usize; 3]>,
    /// Least share of a window's side that two neighbours have in common, below 1.
    pub overlap: f64,
    /// Average over reflections.
    pub mirror: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self { size: None, overlap: 0.5, mirror: false }
    }
}

/// A U-Net's answer for a volume.
pub struct Prediction {
    /// The class of each voxel.
    pub classes: Vec<u8>,
    /// `[voxels, outputs]`, if they were wanted.
    pub probabilities: Option<Vec<f32>>,
    /// Times the network was asked.
    pub passes: u64,
}

impl Windows {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn check(&self) -> Result<()> {
        if !(0.0..=0.9).contains(&self.overlap) {
            return Err(Error::Usage(format!(
                "an overlap of {} is out of range; give a share from 0 to 0.9",
                self.overlap
            )));
        }
        if self.size.is_some_and(|size| size.contains(&0)) {
            return Err(Error::Usage("a window has no voxels; give for example 96x96x96".into()));
        }
        Ok(())
    }

    /// Sides of a window in a volume of `shape`, whose sides are multiples of the network's `multiple`.
    fn sides(&self, network: &UNet, shape: [usize; 3]) -> [usize; 3] {
        let config = network.config();
        let Some(size) = self.size else { return shape };
        let own = [0, 1, 2].map(|k| size[k].next_multiple_of(config.multiple()).min(shape[k]));
        [0, 1, 2].map(|k| if config.dimensions == 2 && k == config.slice_axis { shape[k] } else { own[k] })
    }
}

/// Starts of windows of `side` along an axis of `length`, and a window's weights.
struct Axis {
    starts: Vec<usize>,
    weights: Vec<f32>,
}

impl Axis {
    fn new(length: usize, side: usize, overlap: f64) -> Self {
        let room = length - side;
        if room == 0 {
            return Self { starts: vec![0], weights: vec![1.0; side] };
        }
        let stride = (side as f64 * (1.0 - overlap)).max(1.0);
        let steps = (room as f64 / stride).ceil() as usize;
        let starts = (0..=steps).map(|i| (i as f64 * room as f64 / steps as f64).round() as usize).collect();
        let (centre, sigma) = ((side as f64 - 1.0) / 2.0, side as f64 / 8.0);
        let weights = (0..side).map(|i| (-0.5 * ((i as f64 - centre) / sigma).powi(2)).exp() as f32).collect();
        Self { starts, weights }
    }

    /// Sum of the weights of all windows at each position.
    fn sums(&self, length: usize) -> Vec<f32> {
        let mut sums = vec![0.0; length];
        for &start in &self.starts {
            self.weights.iter().zip(&mut sums[start..]).for_each(|(weight, sum)| *sum += weight);
        }
        sums
    }
}

/// What becomes of a voxel's probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Of one output the class is 1 if its probability exceeds this.
    pub threshold: f32,
    /// Keep all probabilities as well.
    pub keep: bool,
}

/// Segments `volume`, normalised and with sides that the network admits. `tick` is called after each pass and may stop the
/// work.
///
/// # Errors
/// Settings that make no sense, a volume that does not fit, what `tick` reports, or no memory.
pub fn predict(
    network: &UNet,
    parameters: &Parameters,
    volume: &Volume,
    windows: &Windows,
    decision: Decision,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Prediction> {
    windows.check()?;
    let (shape, device) = (volume.shape, parameters.device());
    let sides = windows.sides(network, shape);
    let axes = [0, 1, 2].map(|k| Axis::new(shape[k], sides[k], windows.overlap));
    let planar = (network.config().dimensions == 2).then_some(network.config().slice_axis);
    let mirrors: Vec<[bool; 3]> = (0..if windows.mirror { 8 } else { 1 })
        .map(|bits: usize| [0, 1, 2].map(|k| bits >> k & 1 == 1))
        .filter(|mirror| planar.is_none_or(|axis| !mirror[axis]))
        .collect();
    let whole = sides == shape && mirrors.len() == 1 && network.config().dimensions == 3;
    if whole && !decision.keep {
        let classes =
            classify(network, parameters, volume, decision.threshold).map_err(|error| hint(error, windows))?;
        return Ok(Prediction { classes, probabilities: None, passes: 1 });
    }
    let mut slab = Slab::new(shape, network.config().classes, &axes, decision);
    let mut passes = 0;
    for &x in &axes[0].starts {
        slab.advance(x);
        for &y in &axes[1].starts {
            for &z in &axes[2].starts {
                for &mirror in &mirrors {
                    let block = cut(volume, [x, y, z], sides, mirror);
                    let found =
                        ask(device, network, parameters, &block, sides).map_err(|error| hint(error, windows))?;
                    slab.add(&axes, [x, y, z], mirror, &found, 1.0 / mirrors.len() as f32);
                    passes += 1;
                    tick()?;
                }
            }
        }
    }
    slab.advance(shape[0]);
    Ok(Prediction { classes: slab.classes, probabilities: slab.probabilities, passes })
}

/// The classes of a whole volume, whose logits never leave the device.
fn classify(network: &UNet, parameters: &Parameters, volume: &Volume, threshold: f32) -> Result<Vec<u8>> {
    let (device, [x, y, z]) = (parameters.device(), volume.shape);
    let tape = Tape::new(device, Mode::Eval);
    let shape = [1, x, y, z, volume.channels];
    let logits = {
        let voxels = device.in_op("volume", || Tensor::from_slice(device, &shape, Role::Data, &volume.voxels))?;
        network.forward(&tape, parameters, &tape.constant(voxels))?
    };
    lattice::classify(&logits.tensor(), threshold)?.to_typed()
}

/// What helps when a whole volume needs too much memory.
fn hint(error: Error, windows: &Windows) -> Error {
    match error {
        Error::OutOfMemory(error) if windows.size.is_none() => {
            Error::Model(format!("{error}, or go through the volume in windows with --window"))
        }
        error => error,
    }
}

/// The voxels `[sides…, channels]` from `start` on, mirrored along some axes.
fn cut(volume: &Volume, start: [usize; 3], sides: [usize; 3], mirror: [bool; 3]) -> Cow<'_, [f32]> {
    let ([_, h, w], channels) = (volume.shape, volume.channels);
    if sides == volume.shape && mirror == [false; 3] {
        return Cow::Borrowed(&volume.voxels);
    }
    let mut block = Vec::with_capacity(sides.iter().product::<usize>() * channels);
    for [x, y] in lines(sides, mirror) {
        let row = &volume.voxels[((start[0] + x) * h + start[1] + y) * w * channels..][..w * channels];
        let row = &row[start[2] * channels..][..sides[2] * channels];
        match mirror[2] {
            false => block.extend_from_slice(row),
            true => row.chunks_exact(channels).rev().for_each(|voxel| block.extend_from_slice(voxel)),
        }
    }
    Cow::Owned(block)
}

/// The first two indices of a block's lines in the order in which a mirrored block has them.
fn lines(sides: [usize; 3], mirror: [bool; 3]) -> impl Iterator<Item = [usize; 2]> {
    let place = move |k: usize, i: usize| if mirror[k] { sides[k] - 1 - i } else { i };
    (0..sides[0]).flat_map(move |x| (0..sides[1]).map(move |y| [place(0, x), place(1, y)]))
}

/// Probabilities `[sides…, outputs]` of a block `[sides…, channels]`.
fn ask(device: &Device, network: &UNet, parameters: &Parameters, block: &[f32], sides: [usize; 3]) -> Result<Vec<f32>> {
    let config = network.config();
    let channels = config.image_channels;
    let pass = |shape: &[usize], voxels: &[f32]| -> Result<Vec<f32>> {
        let tape = Tape::new(device, Mode::Eval);
        let x = device.in_op("window", || Tensor::from_slice(device, shape, Role::Data, voxels))?;
        let logits = network.forward(&tape, parameters, &tape.constant(x))?;
        probabilities(&tape, &logits)
    };
    if config.dimensions == 3 {
        return pass(&[1, sides[0], sides[1], sides[2], channels], block);
    }
    let (plane, depth, outputs) = (Plane::new(sides, config.slice_axis), sides[config.slice_axis], config.classes);
    let mut found = vec![0.0; block.len() / channels * outputs];
    for first in (0..depth).step_by(SLICES) {
        let range = first..(first + SLICES).min(depth);
        let slices: Vec<f32> = range.clone().flat_map(|slice| plane.cut(block, channels, slice)).collect();
        let part = pass(&[range.len(), 1, plane.sides[0], plane.sides[1], channels], &slices)?;
        for (values, slice) in part.chunks_exact(plane.len() * outputs).zip(range) {
            plane.put(values, outputs, slice, &mut found);
        }
    }
    Ok(found)
}

/// The planes that windows still add to, and what became of those before.
struct Slab {
    shape: [usize; 3],
    outputs: usize,
    /// Weighted sums `[sides[0], Y, Z, outputs]` of the planes from `first` on.
    sums: Vec<f32>,
    first: usize,
    /// Sums of weights along each axis.
    totals: [Vec<f32>; 3],
    threshold: f32,
    classes: Vec<u8>,
    probabilities: Option<Vec<f32>>,
}

impl Slab {
    fn new(shape: [usize; 3], outputs: usize, axes: &[Axis; 3], Decision { threshold, keep }: Decision) -> Self {
        let (voxels, thickness) = (shape.iter().product::<usize>(), axes[0].weights.len());
        Self {
            shape,
            outputs,
            sums: vec![0.0; thickness * shape[1] * shape[2] * outputs],
            first: 0,
            totals: [0, 1, 2].map(|k| axes[k].sums(shape[k])),
            threshold,
            classes: Vec::with_capacity(voxels),
            probabilities: keep.then(|| Vec::with_capacity(voxels * outputs)),
        }
    }

    /// Adds a window's probabilities, `share` of them.
    fn add(&mut self, axes: &[Axis; 3], start: [usize; 3], mirror: [bool; 3], found: &[f32], share: f32) {
        let ([_, h, w], outputs) = (self.shape, self.outputs);
        let sides = [0, 1, 2].map(|k| axes[k].weights.len());
        for (line, [x, y]) in found.chunks_exact(sides[2] * outputs).zip(lines(sides, mirror)) {
            let weight = share * axes[0].weights[x] * axes[1].weights[y];
            let plane = start[0] + x - self.first;
            let sums = &mut self.sums[((plane * h + start[1] + y) * w + start[2]) * outputs..][..sides[2] * outputs];
            for (z, values) in line.chunks_exact(outputs).enumerate() {
                let z = if mirror[2] { sides[2] - 1 - z } else { z };
                let weight = weight * axes[2].weights[z];
                sums[z * outputs..][..outputs].iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// The planes before `to` are complete.
    fn advance(&mut self, to: usize) {
        let ([_, h, w], outputs) = (self.shape, self.outputs);
        let plane = h * w * outputs;
        let complete = (to - self.first) * plane;
        let mut row = vec![0.0; outputs];
        for (voxel, sums) in self.sums[..complete].chunks_exact(outputs).enumerate() {
            let [x, y, z] = [self.first + voxel / (h * w), voxel / w % h, voxel % w];
            let total = self.totals[0][x] * self.totals[1][y] * self.totals[2][z];
            row.iter_mut().zip(sums).for_each(|(value, sum)| *value = sum / total);
            self.classes.push(lattice::class_of(&row, self.threshold));
            if let Some(kept) = &mut self.probabilities {
                kept.extend_from_slice(&row);
            }
        }
        self.sums.copy_within(complete.., 0);
        let rest = self.sums.len() - complete;
        self.sums[rest..].fill(0.0);
        self.first = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_an_axis_and_overlap_as_asked() {
        for (length, side, overlap) in [(64, 64, 0.5), (100, 32, 0.5), (65, 64, 0.5), (200, 48, 0.25), (40, 16, 0.0)] {
            let axis = Axis::new(length, side, overlap);
            assert_eq!((axis.starts[0], *axis.starts.last().unwrap()), (0, length - side));
            for pair in axis.starts.windows(2) {
                // Rounding moves a start by half a voxel at most.
                let common = side as f64 - (pair[1] - pair[0]) as f64;
                assert!(common >= side as f64 * overlap - 1.0, "{length} {side} {overlap}: {pair:?}");
            }
            assert!(axis.sums(length).iter().all(|&sum| sum > 0.0));
        }
    }

    /// A "network" that answers with the voxels themselves: whatever the windows, the volume comes back.
    #[test]
    fn averages_of_equal_answers_are_the_answers() {
        let shape = [20, 17, 9];
        let voxels: Vec<f32> =
            (0..2 * shape.iter().product::<usize>()).map(|i| (i * 37 % 101) as f32 / 101.0).collect();
        let volume = Volume::new(shape, 2, voxels);
        for (sides, overlap) in [([8, 8, 4], 0.5), ([20, 5, 9], 0.3), ([7, 17, 3], 0.0), (shape, 0.5)] {
            let axes = [0, 1, 2].map(|k| Axis::new(shape[k], sides[k], overlap));
            let mut slab = Slab::new(shape, 2, &axes, Decision { threshold: 0.5, keep: true });
            for &x in &axes[0].starts {
                slab.advance(x);
                for &y in &axes[1].starts {
                    for &z in &axes[2].starts {
                        for mirror in [[false; 3], [true, false, true], [false, true, true], [true; 3]] {
                            let block = cut(&volume, [x, y, z], sides, mirror);
                            slab.add(&axes, [x, y, z], mirror, &block, 0.25);
                        }
                    }
                }
            }
            slab.advance(shape[0]);
            let kept = slab.probabilities.unwrap();
            let worst = kept.iter().zip(&volume.voxels).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            // Sums of up to 4·27 positive products, each rounded, of values up to 1: 108 · 6e-8.
            assert!(kept.len() == volume.voxels.len() && worst < 7e-6, "{sides:?} {worst}");
            for (class, row) in slab.classes.iter().zip(kept.chunks_exact(2)) {
                assert_eq!(*class, u8::from(row[1] > row[0]));
            }
        }
    }
}
