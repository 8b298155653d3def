//! What a dense network says of a volume, as a whole or in overlapping windows, upright or mirrored as well.
//!
//! Windows of one size stand at equal distances. Where they overlap, probabilities are averaged with weights
//! `w(i) = Π_a exp(−½((i_a − c_a)/σ_a)²)` around the window's centre `c`, `σ` an eighth of its sides (Isensee et al. 2021).
//! The weights are products over the axes and so are their sums, which are never stored for a volume. Windows are taken in
//! the order of the first axis, and a plane is classified as soon as no window will touch it any more: what is held is a
//! slab as thick as one window, of all classes but one (`sliding_window/accumulator.rs`). An answer on the scan's own grid is
//! made from complete planes as they come (`sliding_window/planes.rs`), and in strips of rows where a slab of all is too much.
//!
//! Mirroring averages over all reflections of the network's axes (eight in 3D, four in 2D). A 2D network sees slices
//! across one axis; its windows are as deep as the volume there.

mod accumulator;
mod planes;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use self::accumulator::{Accumulator, Part, Place, host_of, sum_bytes};
pub use self::planes::Destination;
use self::planes::Planes;
use super::occupancy::probabilities;
use super::{network_pass, sound};
use crate::data::{PlaneLayout, Volume};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::models::Network;
use crate::nn::Parameters;
use crate::ops::{copy_range, lattice};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// Slices that a 2D network takes at once.
pub(crate) const SLICES: usize = 16;

/// Voxels whose probabilities come to the host at once, if a plane is not larger.
const TOGETHER: usize = 1 << 16;

/// How a volume is gone through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlidingWindow {
    /// Sides of a window, raised to the network's multiple and cut to the volume; `None` for the whole volume at once.
    pub size: Option<[usize; 3]>,
    /// Least share of a window's side that two neighbours have in common, below 1.
    pub overlap: f64,
    /// Average over reflections.
    pub mirror: bool,
}

impl Default for SlidingWindow {
    fn default() -> Self {
        Self { size: None, overlap: 0.5, mirror: false }
    }
}

/// A dense network's answer for a volume.
pub struct VolumePrediction {
    /// The class of each voxel.
    pub classes: Vec<u8>,
    /// `[voxels, outputs]`, if they were wanted.
    pub probabilities: Option<Vec<f32>>,
    /// Times the network was asked.
    pub passes: u64,
    /// What followed its answers: probabilities, sums, interpolation, classes.
    pub after: Duration,
}

impl SlidingWindow {
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

    /// Sides of a window in a volume of `shape`, whose sides are multiples that the network admits.
    fn sides(&self, network: &dyn Network, shape: [usize; 3]) -> [usize; 3] {
        let (Some(size), architecture) = (self.size, network.architecture()) else { return shape };
        let (multiples, planar) = (architecture.multiples(), architecture.supervision().slice_axis());
        let own = [0, 1, 2].map(|k| size[k].next_multiple_of(multiples[k].max(1)).min(shape[k]));
        [0, 1, 2].map(|k| if planar == Some(k) { shape[k] } else { own[k] })
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

impl Decision {
    /// The class alone.
    fn class() -> Self {
        Self { threshold: 0.5, keep: false }
    }
}

/// Segments `volume`, normalised and with sides that the network admits, on its own grid. `tick` is called after each pass and
/// may stop the work.
///
/// # Errors
/// Settings that make no sense, a volume that does not fit, an answer that is not finite, what `tick` reports, or no memory.
pub fn predict(
    network: &dyn Network,
    parameters: &Parameters,
    volume: &Volume,
    windows: &SlidingWindow,
    decision: Decision,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<VolumePrediction> {
    predict_on(network, parameters, volume, windows, Destination { decision, way: None, strips: 1 }, tick)
}

/// As [`predict`], with the answer where `destination` says.
///
/// # Errors
/// As there.
pub fn predict_on(
    network: &dyn Network,
    parameters: &Parameters,
    volume: &Volume,
    windows: &SlidingWindow,
    destination: Destination<'_>,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<VolumePrediction> {
    let (shape, device) = (volume.shape, parameters.device());
    let course = Course::new(network, shape, windows)?;
    let Course { sides, axes, mirrors } = &course;
    let outputs = network.architecture().classes();
    let host = host_of(device)?;
    if course.is_whole(network, shape) {
        return at_once(network, parameters, volume, destination, &host);
    }
    let (mut planes, mut passes, mut after) = (Planes::new(shape, outputs, destination), 0, Duration::ZERO);
    for strip in planes.strips(destination.strips) {
        let mut slab = Accumulator::new(&host, shape, outputs, axes, planes.sources(&strip))?;
        planes.begin(&host, strip)?;
        for &x in &axes[0].starts {
            let started = Instant::now();
            slab.advance(x, &mut planes);
            after += started.elapsed();
            for &y in axes[1].starts.iter().filter(|&&y| slab.touches(y)).collect::<Vec<_>>() {
                for &z in &axes[2].starts {
                    for &mirror in mirrors {
                        let place = Place { start: [x, y, z], mirror, share: 1.0 / mirrors.len() as f32 };
                        let block = cut(volume, place.start, *sides, mirror);
                        ask(device, network, parameters, block, *sides, &mut |part, found| {
                            slab.add(place, part, found)
                        })?;
                        passes += 1;
                        tick()?;
                    }
                }
            }
        }
        let started = Instant::now();
        slab.advance(shape[0], &mut planes);
        after += started.elapsed();
    }
    Ok(VolumePrediction { classes: planes.classes, probabilities: planes.probabilities, passes, after })
}

/// The windows of a volume.
struct Course {
    sides: [usize; 3],
    axes: [Axis; 3],
    /// The axes along which each pass over a window is mirrored.
    mirrors: Vec<[bool; 3]>,
}

impl Course {
    fn new(network: &dyn Network, shape: [usize; 3], windows: &SlidingWindow) -> Result<Self> {
        windows.check()?;
        let sides = windows.sides(network, shape);
        let axes = [0, 1, 2].map(|k| Axis::new(shape[k], sides[k], windows.overlap));
        let planar = network.architecture().supervision().slice_axis();
        let mirrors = (0..if windows.mirror { 8 } else { 1 })
            .map(|bits: usize| [0, 1, 2].map(|k| bits >> k & 1 == 1))
            .filter(|mirror| planar.is_none_or(|axis| !mirror[axis]))
            .collect();
        Ok(Self { sides, axes, mirrors })
    }

    /// Whether there is one pass, over the whole volume.
    fn is_whole(&self, network: &dyn Network, shape: [usize; 3]) -> bool {
        self.sides == shape && self.mirrors.len() == 1 && network.architecture().supervision().slice_axis().is_none()
    }
}

/// What an answer in so many strips takes: times that the network is asked, and bytes of sums and planes that are held at most.
///
/// # Errors
/// Settings that make no sense.
pub fn cost_of(
    network: &dyn Network,
    shape: [usize; 3],
    windows: &SlidingWindow,
    destination: Destination<'_>,
) -> Result<(u64, u64)> {
    let course = Course::new(network, shape, windows)?;
    if course.is_whole(network, shape) {
        return Ok((1, 0));
    }
    let Course { sides, axes, mirrors } = &course;
    let planes = Planes::new(
        shape,
        network.architecture().classes(),
        Destination { decision: Decision::class(), ..destination },
    );
    let (mut passes, mut most) = (0, 0);
    for strip in planes.strips(destination.strips) {
        let rows = planes.sources(&strip);
        let starts = axes[1].starts.iter().filter(|&&y| y < rows.end && y + sides[1] > rows.start).count();
        passes += axes[0].starts.len() * starts * axes[2].starts.len() * mirrors.len();
        most =
            most.max(sum_bytes(shape, network.architecture().classes(), sides[0], &rows) + planes.held_bytes(&strip));
    }
    Ok((passes as u64, most))
}

/// The answer of one pass over a whole volume. Its logits never leave the device, its probabilities do some planes at a time.
fn at_once(
    network: &dyn Network,
    parameters: &Parameters,
    volume: &Volume,
    destination: Destination<'_>,
    host: &Device,
) -> Result<VolumePrediction> {
    let decision = destination.decision;
    if !decision.keep && destination.way.is_none() {
        let (classes, after) = classify(network, parameters, volume, decision.threshold)?;
        return Ok(VolumePrediction { classes, probabilities: None, passes: 1, after });
    }
    let (device, outputs) = (parameters.device(), network.architecture().classes());
    let [_, h, w] = volume.shape;
    let mut planes = Planes::new(volume.shape, outputs, destination);
    let rows = planes.strips(1).remove(0);
    planes.begin(host, rows)?;
    let after = ask(device, network, parameters, Cow::Borrowed(&volume.voxels), volume.shape, &mut |part, found| {
        for x in 0..part.sides[0] {
            let found = found.get(x * h * w * outputs..).unwrap_or_default();
            planes.take(host, part.start[0] + x, &|y, z, voxel| {
                voxel.copy_from_slice(&found[(y * w + z) * outputs..][..outputs]);
            });
        }
    })?;
    Ok(VolumePrediction { classes: planes.classes, probabilities: planes.probabilities, passes: 1, after })
}

/// The classes of a whole volume, whose logits never leave the device.
fn classify(
    network: &dyn Network,
    parameters: &Parameters,
    volume: &Volume,
    threshold: f32,
) -> Result<(Vec<u8>, Duration)> {
    let [x, y, z] = volume.shape;
    let shape = [1, x, y, z, volume.channels];
    network_pass::placed(network, parameters, ("classes", shape), |network, parameters| {
        let device = parameters.device();
        let tape = Tape::new(device, Mode::Eval);
        let logits = {
            let voxels = device.in_op("volume", || Tensor::from_slice(device, &shape, Role::Data, &volume.voxels))?;
            network.logits(&tape, parameters, &tape.constant(voxels), None)?
        };
        let started = Instant::now();
        sound::check(&logits.tensor())?;
        let classes = lattice::classify(&logits.tensor(), threshold)?.to_typed()?;
        Ok((classes, started.elapsed()))
    })
}

/// The voxels `[sides…, channels]` from `start` on, mirrored along some axes.
fn cut(volume: &Volume, start: [usize; 3], sides: [usize; 3], mirror: [bool; 3]) -> Cow<'_, [f32]> {
    let ([_, h, w], channels) = (volume.shape, volume.channels);
    if sides == volume.shape && mirror == [false; 3] {
        return Cow::Borrowed(&volume.voxels);
    }
    let mut block = Vec::with_capacity(sides.iter().product::<usize>() * channels);
    for index in 0..sides[0] * sides[1] {
        let [x, y] = line(sides, mirror, Part { start: [0; 3], sides }, index);
        let row = &volume.voxels[((start[0] + x) * h + start[1] + y) * w * channels..][..w * channels];
        let row = &row[start[2] * channels..][..sides[2] * channels];
        match mirror[2] {
            false => block.extend_from_slice(row),
            true => row.chunks_exact(channels).rev().for_each(|voxel| block.extend_from_slice(voxel)),
        }
    }
    Cow::Owned(block)
}

/// The first two indices of a line of a block's part, by its number, in the order in which a mirrored block has them.
fn line(sides: [usize; 3], mirror: [bool; 3], part: Part, index: usize) -> [usize; 2] {
    let place = |k: usize, i: usize| {
        let i = part.start[k] + i;
        if mirror[k] { sides[k] - 1 - i } else { i }
    };
    [place(0, index / part.sides[1]), place(1, index % part.sides[1])]
}

/// Asks the network about a block `[sides…, channels]` and hands on its probabilities `[part's sides…, outputs]`, a part at
/// a time. Returns how long what follows the network took.
fn ask(
    device: &Device,
    network: &dyn Network,
    parameters: &Parameters,
    block: Cow<'_, [f32]>,
    sides: [usize; 3],
    found: &mut dyn FnMut(Part, &[f32]),
) -> Result<Duration> {
    let foreseen = network_pass::foreseen(network, parameters, ("window", sides), |network, parameters| {
        let block = Cow::Borrowed(block.as_ref());
        network_pass::rehearsed(parameters, || pass(network, parameters, block, sides, &mut |_, _| {}).map(drop))
    });
    device.place_ahead(&foreseen, 0, || pass(network, parameters, block, sides, found))
}

/// See [`ask`].
fn pass(
    network: &dyn Network,
    parameters: &Parameters,
    block: Cow<'_, [f32]>,
    sides: [usize; 3],
    found: &mut dyn FnMut(Part, &[f32]),
) -> Result<Duration> {
    let device = parameters.device();
    let architecture = network.architecture();
    let (channels, outputs) = (architecture.image_channels(), architecture.classes());
    let tape = Tape::new(device, Mode::Eval);
    let pass = |shape: &[usize], voxels: Cow<'_, [f32]>| {
        let x = device.in_op("window", || Tensor::from_slice(device, shape, Role::Data, &voxels))?;
        drop(voxels);
        network.logits(&tape, parameters, &tape.constant(x), None)
    };
    let Some(axis) = architecture.supervision().slice_axis() else {
        let logits = pass(&[1, sides[0], sides[1], sides[2], channels], block)?.tensor();
        let started = Instant::now();
        let plane = sides[1] * sides[2];
        let planes = (TOGETHER / plane).max(1);
        for first in (0..sides[0]).step_by(planes) {
            let part = Part { start: [first, 0, 0], sides: [planes.min(sides[0] - first), sides[1], sides[2]] };
            let voxels = first * plane..(first + part.sides[0]) * plane;
            let own = [voxels.len(), outputs];
            let logits = copy_range::take(device, &logits, voxels.start * outputs..voxels.end * outputs, 0, &own)?;
            found(part, &probabilities(&tape, &tape.constant(logits))?);
        }
        return Ok(started.elapsed());
    };
    let depth = sides[axis];
    let (plane, mut after) = (PlaneLayout::new(sides, axis), Duration::ZERO);
    for first in (0..depth).step_by(SLICES) {
        let range = first..(first + SLICES).min(depth);
        let slices: Vec<f32> = range.clone().flat_map(|slice| plane.cut(&block, channels, slice)).collect();
        let logits = pass(&[range.len(), 1, plane.sides[0], plane.sides[1], channels], slices.into())?;
        let started = Instant::now();
        let values = probabilities(&tape, &logits)?;
        let mut part = Part { start: [0; 3], sides };
        (part.start[axis], part.sides[axis]) = (first, range.len());
        let (own, mut ordered) = (PlaneLayout::new(part.sides, axis), vec![0.0; values.len()]);
        for (slice, values) in values.chunks_exact(plane.len() * outputs).enumerate() {
            own.put(values, outputs, slice, &mut ordered);
        }
        found(part, &ordered);
        after += started.elapsed();
    }
    Ok(after)
}
