//! The planes of a volume that windows still add to, and what became of those before.
//!
//! Probabilities of one voxel sum to one, so that those of the first class need no sums of their own: `outputs − 1` maps are
//! held, one if there is a single output, as thick as a window. They lie in the ledger of the device if that is the CPU,
//! else in the host's memory.

use super::{Axis, Decision, lines};
use crate::device::cpu::SimdLevel;
use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::{Role, default_cpu_budget};
use crate::ops::lattice;
use crate::tensor::Tensor;

/// Weighted sums of probabilities, plane by plane.
pub(super) struct Accumulator<'a> {
    axes: &'a [Axis; 3],
    shape: [usize; 3],
    outputs: usize,
    /// Weighted sums `[sides[0], Y, Z, maps]` of the planes from `first` on.
    sums: Tensor,
    first: usize,
    /// Sums of weights along each axis.
    totals: [Vec<f32>; 3],
    threshold: f32,
    pub(super) classes: Vec<u8>,
    pub(super) probabilities: Option<Vec<f32>>,
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

impl<'a> Accumulator<'a> {
    /// Sums of windows that stand as `axes` say in a volume of `shape`.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn new(
        device: &Device,
        shape: [usize; 3],
        outputs: usize,
        axes: &'a [Axis; 3],
        Decision { threshold, keep }: Decision,
    ) -> Result<Self> {
        let host = match device.target() {
            Target::Cpu { .. } => device.clone(),
            Target::Cuda(_) if device.is_plan() => Device::plan(1, SimdLevel::Portable, default_cpu_budget()),
            Target::Cuda(_) => Device::cpu(1, default_cpu_budget())?,
        };
        let (voxels, maps) = (shape.iter().product::<usize>(), (outputs - 1).max(1));
        let held = [axes[0].weights.len(), shape[1], shape[2], maps];
        Ok(Self {
            axes,
            shape,
            outputs,
            sums: host.in_op("window sums", || Tensor::zeros(&host, &held, Role::Output))?,
            first: 0,
            totals: [0, 1, 2].map(|k| axes[k].sums(shape[k])),
            threshold,
            classes: Vec::with_capacity(voxels),
            probabilities: keep.then(|| Vec::with_capacity(voxels * outputs)),
        })
    }

    /// Adds a part of a window's probabilities `[part's sides…, outputs]`.
    pub(super) fn add(&mut self, place: Place, part: Part, found: &[f32]) {
        let ([_, h, w], outputs, maps) = (self.shape, self.outputs, self.sums.channels());
        if self.sums.device().is_plan() {
            return;
        }
        let sides = [0, 1, 2].map(|k| self.axes[k].weights.len());
        let depth = part.sides[2];
        let sums = self.sums.data_mut();
        for (line, [x, y]) in found.chunks_exact(depth * outputs).zip(lines(sides, place.mirror, part)) {
            let weight = place.share * self.axes[0].weights[x] * self.axes[1].weights[y];
            let plane = place.start[0] + x - self.first;
            let sums = &mut sums[((plane * h + place.start[1] + y) * w + place.start[2]) * maps..][..sides[2] * maps];
            for (z, values) in line.chunks_exact(outputs).enumerate() {
                let z = part.start[2] + z;
                let z = if place.mirror[2] { sides[2] - 1 - z } else { z };
                let weight = weight * self.axes[2].weights[z];
                let values = &values[outputs - maps..];
                sums[z * maps..][..maps].iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }

    /// The planes before `to` are complete.
    pub(super) fn advance(&mut self, to: usize) {
        let ([_, h, w], outputs, maps) = (self.shape, self.outputs, self.sums.channels());
        let planes = self.first..to;
        self.first = to;
        if self.sums.device().is_plan() {
            self.classes.resize(to * h * w, 0);
            return;
        }
        let sums = self.sums.data_mut();
        let complete = planes.len() * h * w * maps;
        let mut row = vec![0.0; outputs];
        for (voxel, sums) in sums[..complete].chunks_exact(maps).enumerate() {
            let [x, y, z] = [planes.start + voxel / (h * w), voxel / w % h, voxel % w];
            let total = self.totals[0][x] * self.totals[1][y] * self.totals[2][z];
            row[outputs - maps..].iter_mut().zip(sums).for_each(|(value, sum)| *value = sum / total);
            if outputs > maps {
                row[0] = (1.0 - row[1..].iter().sum::<f32>()).max(0.0);
            }
            self.classes.push(lattice::class_of(&row, self.threshold));
            if let Some(kept) = &mut self.probabilities {
                kept.extend_from_slice(&row);
            }
        }
        sums.copy_within(complete.., 0);
        let rest = sums.len() - complete;
        sums[rest..].fill(0.0);
    }
}
