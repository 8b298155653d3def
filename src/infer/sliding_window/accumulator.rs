//! The planes of a volume that windows still add to, and what became of those before.
//!
//! Probabilities of one voxel sum to one, so that those of the first class need no sums of their own: `outputs − 1` maps are
//! held, one if there is a single output, as thick as a window. They lie in the ledger of the device if that is the CPU,
//! else in the host's memory.

use std::ops::Range;

use super::planes::{Planes, each};
use super::{Axis, line};
use crate::device::cpu::{SharedMut, SimdLevel};
use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::{GRANULE, Role, default_cpu_budget};
use crate::tensor::Tensor;

/// Weighted sums of probabilities, plane by plane.
pub(super) struct Accumulator<'a> {
    axes: &'a [Axis; 3],
    shape: [usize; 3],
    outputs: usize,
    /// The rows of each plane that are summed.
    rows: Range<usize>,
    /// Weighted sums `[sides[0], rows, Z, maps]` of the planes from `first` on.
    sums: Tensor,
    first: usize,
    /// Sums of weights along each axis.
    totals: [Vec<f32>; 3],
}

/// A part of a window's answer: where it begins in the window and its sides.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) start: [usize; 3],
    pub(super) sides: [usize; 3],
}

/// Where a window stands, and which of its axes were mirrored before the network saw it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) start: [usize; 3],
    pub(super) mirror: [bool; 3],
    /// Share of one answer among all of this window.
    pub(super) share: f32,
}

/// The device that holds sums of what `device` finds, and works on them.
///
/// # Errors
/// No memory, no threads.
pub(super) fn host_of(device: &Device) -> Result<Device> {
    match device.target() {
        Target::Cpu { .. } => Ok(device.clone()),
        Target::Cuda(_) if device.is_plan() => Ok(Device::plan(1, SimdLevel::Portable, default_cpu_budget())),
        Target::Cuda(_) => {
            Device::cpu(std::thread::available_parallelism().map_or(1, usize::from), default_cpu_budget())
        }
    }
}

/// Maps that are held of so many outputs.
fn maps_of(outputs: usize) -> usize {
    (outputs - 1).max(1)
}

/// Bytes of the sums for some rows of planes of `shape`.
pub(super) fn sum_bytes(shape: [usize; 3], outputs: usize, thickness: usize, rows: &Range<usize>) -> u64 {
    (4 * (thickness * rows.len() * shape[2] * maps_of(outputs)) as u64).next_multiple_of(GRANULE)
}

impl<'a> Accumulator<'a> {
    /// Sums of windows that stand as `axes` say in a volume of `shape`, of some rows of each plane.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(
        host: &Device,
        shape: [usize; 3],
        outputs: usize,
        axes: &'a [Axis; 3],
        rows: Range<usize>,
    ) -> Result<Self> {
        let held = [axes[0].weights.len(), rows.len(), shape[2], maps_of(outputs)];
        Ok(Self {
            axes,
            shape,
            outputs,
            rows,
            sums: host.in_op("window sums", || Tensor::zeros(host, &held, Role::Output))?,
            first: 0,
            totals: [0, 1, 2].map(|k| axes[k].sums(shape[k])),
        })
    }

    /// Whether a window of these rows adds anything.
    pub(super) fn touches(&self, start: usize) -> bool {
        start < self.rows.end && start + self.axes[1].weights.len() > self.rows.start
    }

    /// Adds a part of a window's probabilities `[part's sides…, outputs]`.
    pub(super) fn add(&mut self, place: Place, part: Part, found: &[f32]) {
        let (w, outputs, maps) = (self.shape[2], self.outputs, self.sums.channels());
        let host = self.sums.device().clone();
        if host.is_plan() {
            return;
        }
        let sides = [0, 1, 2].map(|k| self.axes[k].weights.len());
        let depth = part.sides[2];
        let (axes, rows, first) = (self.axes, self.rows.clone(), self.first);
        let sums = SharedMut::new(self.sums.data_mut());
        each(&host, part.sides[0] * part.sides[1], |index| {
            let [x, y] = line(sides, place.mirror, part, index);
            let row = place.start[1] + y;
            if !rows.contains(&row) {
                return;
            }
            let values = &found[index * depth * outputs..][..depth * outputs];
            let weight = place.share * axes[0].weights[x] * axes[1].weights[y];
            let (plane, row) = (place.start[0] + x - first, row - rows.start);
            // SAFETY: each line of a part has a row of sums of its own.
            let sums = unsafe { sums.slice(((plane * rows.len() + row) * w + place.start[2]) * maps, sides[2] * maps) };
            for (z, values) in values.chunks_exact(outputs).enumerate() {
                let z = part.start[2] + z;
                let z = if place.mirror[2] { sides[2] - 1 - z } else { z };
                let weight = weight * axes[2].weights[z];
                let values = &values[outputs - maps..];
                sums[z * maps..][..maps].iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        });
    }

    /// The planes before `to` are complete: they go to `planes`.
    pub(super) fn advance(&mut self, to: usize, planes: &mut Planes) {
        let (w, outputs, maps) = (self.shape[2], self.outputs, self.sums.channels());
        let complete = self.first..to;
        self.first = to;
        let host = self.sums.device().clone();
        if host.is_plan() {
            return;
        }
        let (rows, totals) = (self.rows.clone(), &self.totals);
        let plane = rows.len() * w * maps;
        let sums = self.sums.data_mut();
        for x in complete.clone() {
            let sums = &sums[(x - complete.start) * plane..][..plane];
            planes.take(&host, x, &|y, z, voxel| {
                let sums = &sums[((y - rows.start) * w + z) * maps..][..maps];
                let total = totals[0][x] * totals[1][y] * totals[2][z];
                voxel[outputs - maps..].iter_mut().zip(sums).for_each(|(value, sum)| *value = sum / total);
                if outputs > maps {
                    voxel[0] = (1.0 - voxel[1..].iter().sum::<f32>()).max(0.0);
                }
            });
        }
        let done = complete.len() * plane;
        sums.copy_within(done.., 0);
        let rest = sums.len() - done;
        sums[rest..].fill(0.0);
    }
}
