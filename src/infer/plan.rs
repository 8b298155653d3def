//! What segmenting a scan will take, told by its header.

use super::segmenter::{Segmenter, SegmenterOptions, Shape};
use super::sliding_window::{self, Decision, Destination};
use crate::data::Geometry;
use crate::data::preprocess::GridTransform;
use crate::device::Target;
use crate::error::Result;
use crate::infer::occupancy::MOST_POINTS;
use crate::memory::size::host_budget;
use crate::ops::lattice::BLOCK;

/// What segmenting a scan takes.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct InferencePlan {
    /// Voxels of the scan along the axes in memory.
    pub shape: [usize; 3],
    /// Voxels that the network sees, padding included.
    pub network_shape: [usize; 3],
    /// Times that a U-Net is asked, or an occupancy network for all points where the memory is ample; 0 for a search, whose
    /// points depend on what is found.
    pub passes: u64,
    /// Strips of rows that a U-Net's answer is made in, so that it fits the budget; in one strip there are fewest passes.
    pub strips: usize,
    /// Most bytes of the engine: weights, activations, sums.
    pub engine_bytes: u64,
    /// Bytes on the host beside the engine while the network runs: the volume, the answer.
    pub host_bytes: u64,
    /// Most bytes while the scan is read, and while it is brought to the network's grid.
    pub reading_bytes: u64,
    /// Bytes of the scan between the two.
    pub scan_bytes: u64,
    /// Most bytes while the answer is written, the answer included.
    pub writing_bytes: u64,
}

impl InferencePlan {
    /// Most bytes at a time, of one scan on its own.
    pub fn peak_bytes(&self) -> u64 {
        self.running_bytes().max(self.reading_bytes).max(self.writing_bytes)
    }

    /// Bytes while the network runs.
    pub fn running_bytes(&self) -> u64 {
        self.engine_bytes.saturating_add(self.host_bytes)
    }
}

impl Segmenter<'_> {
    /// What a scan of `shape` along the axes in memory will take.
    ///
    /// # Errors
    /// A spacing that cannot be applied, a scan that does not fit the network.
    pub fn plan(&self, shape: Shape, geometry: Geometry) -> Result<InferencePlan> {
        let preprocessing = &self.task.preprocessing;
        let resampled = preprocessing.resampled(shape, &geometry)?;
        let padding = self.padding(resampled)?;
        let way = GridTransform { shape, geometry, resampled, padding };
        let network_shape = way.padding.outer(resampled);
        let strips = self.strips(network_shape, geometry, &way)?;
        let passes = match self.network.occupancy() {
            Some(_) if self.options.search.is_dense() => {
                let at_once = match self.options.most_points {
                    0 => MOST_POINTS,
                    points => points,
                };
                self.grid(network_shape, &way).len().div_ceil(at_once) as u64
            }
            Some(_) => 0,
            None => {
                let destination = self.destination(&way, strips);
                sliding_window::cost_of(self.network, network_shape, &self.options.windows, destination)?.0
            }
        };
        let channels = preprocessing.channels.len();
        let image = |shape: Shape| bytes(&[shape[0], shape[1], shape[2], channels, 4]);
        // As read and as turned; of several files all, and one as read, turned and kept.
        let files = bytes(&[shape[0], shape[1], shape[2], channels.saturating_add(3), 4]);
        let read = image(shape).saturating_mul(2).max(if channels > 1 { files } else { 0 });
        let prepared = match (resampled == shape, network_shape == resampled) {
            (true, true) => image(shape),
            (false, true) => image(shape).saturating_add(image(resampled)),
            (true, false) => image(resampled).saturating_add(image(network_shape)),
            (false, false) => image(shape).max(image(network_shape)).saturating_add(image(resampled)),
        };
        let answer = self.options.shape.unwrap_or(shape);
        let kept =
            if self.options.probabilities { bytes(&[answer[0], answer[1], answer[2], self.outputs(), 4]) } else { 0 };
        Ok(InferencePlan {
            shape,
            network_shape,
            passes,
            strips,
            engine_bytes: self.engine_bytes(network_shape, &way, strips)?,
            host_bytes: self.host_bytes(network_shape, &way),
            reading_bytes: read.max(prepared),
            scan_bytes: image(shape),
            // In memory's order and in the file's.
            writing_bytes: bytes(&[answer[0], answer[1], answer[2], 2]).saturating_add(kept.saturating_mul(2)),
        })
    }

    fn outputs(&self) -> usize {
        self.network.architecture().classes()
    }

    fn destination<'b>(&self, way: &'b GridTransform, strips: usize) -> Destination<'b> {
        let decision = Decision { threshold: self.options.threshold, keep: false };
        Destination { decision, way: self.interpolated(way), strips }
    }

    /// Bytes that the engine reserves.
    fn engine_bytes(&self, shape: Shape, way: &GridTransform, strips: usize) -> Result<u64> {
        let device = self.parameters.device();
        let (target, precision) = (device.target(), self.network.precision());
        let (work, beside) = (self.work(shape, way.geometry, way, 1), self.beside.device);
        let of = |most_points| {
            let options = SegmenterOptions { most_points, ..self.options.clone() };
            work.needs(target, &options, precision)
        };
        match (self.network.occupancy(), self.options.most_points) {
            // As many points as the memory admits.
            (Some(_), 0) => {
                let (most, least) = (of(MOST_POINTS)? + beside, of(BLOCK)? + beside);
                Ok(most.min(device.budget().max(least)))
            }
            (Some(_), points) => Ok(of(points)? + beside),
            (None, _) => {
                let held = |strips| {
                    let destination = self.destination(way, strips);
                    sliding_window::cost_of(self.network, shape, &self.options.windows, destination).map(|cost| cost.1)
                };
                // The widest strip, wherever it is. On CUDA sums are the host's.
                let (whole, widest) = (held(1)?, held(strips)?);
                match target {
                    Target::Cpu { .. } => Ok(of(0)?.saturating_sub(whole).saturating_add(widest) + beside),
                    Target::Cuda(_) => Ok(of(0)? + beside),
                }
            }
        }
    }

    /// Bytes on the host beside the engine while the network runs.
    fn host_bytes(&self, shape: Shape, way: &GridTransform) -> u64 {
        let outputs = self.outputs();
        let kept = if self.options.probabilities { 4 * outputs } else { 0 };
        let of = |shape: Shape, each: usize| bytes(&[shape[0], shape[1], shape[2], each]);
        let (beside, answer) = (self.beside, self.options.shape.unwrap_or(way.shape));
        let others =
            of(way.shape, beside.scan as usize).saturating_add(of(answer, beside.answer as usize) + beside.fixed);
        let own = match self.network.occupancy() {
            Some(_) => of(answer, 1 + kept),
            None => {
                let volume = of(shape, 4 * self.task.preprocessing.channels.len());
                let answer = match self.interpolated(way) {
                    Some(way) => of(way.shape, 1 + kept),
                    // On the network's grid and on the scan's.
                    None => of(shape, 1 + kept).saturating_add(of(way.shape, 1 + kept)),
                };
                volume.saturating_add(answer)
            }
        };
        own.saturating_add(others)
    }

    /// The fewest strips in which a U-Net's answer fits the memory budget, for a volume of `shape` on the network's grid.
    ///
    /// # Errors
    /// Settings that make no sense.
    pub(super) fn strips(&self, shape: Shape, geometry: Geometry, way: &GridTransform) -> Result<usize> {
        if self.network.occupancy().is_some() {
            return Ok(1);
        }
        let held = |strips| {
            let destination = self.destination(way, strips);
            Ok::<u64, crate::Error>(sliding_window::cost_of(self.network, shape, &self.options.windows, destination)?.1)
        };
        let whole = held(1)?;
        if whole == 0 {
            return Ok(1);
        }
        let device = self.parameters.device();
        let needs = |strips| {
            self.work(shape, geometry, way, strips).needs(device.target(), &self.options, self.network.precision())
        };
        let host = self.host_bytes(shape, way);
        let (others, budget) = match device.target() {
            Target::Cpu { .. } => (needs(1)?.saturating_sub(whole) + self.beside.device, device.budget()),
            // Sums are on the host, and nothing else of the engine is.
            Target::Cuda(_) => (0, host_budget()),
        };
        let rows = self.destination(way, 1).rows(shape);
        // With the host's bytes inside the budget, or at least without.
        for limit in [budget.saturating_sub(host), budget] {
            for strips in 1..=rows {
                if others.saturating_add(held(strips)?) <= limit {
                    return Ok(strips);
                }
            }
        }
        // No strip is narrow enough: the error says what would help.
        Ok(1)
    }
}

/// A product that does not wrap.
fn bytes(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor as u64))
}
