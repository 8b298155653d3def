//! What becomes of a volume's probabilities, plane by plane: classes on the network's own grid, or on the scan's.
//!
//! On the scan's grid each voxel's class is that of the trilinearly interpolated probabilities, as [`Volume::resample`] makes
//! them. Two planes of the network's grid are held for it, interpolated along the last axis already; the rest is interpolated
//! and decided voxel by voxel, so that the probabilities of all classes never exist for a volume of either grid.
//!
//! Where even a slab of planes is too much the answer is made in strips of rows, one after the other.
//!
//! [`Volume::resample`]: crate::data::Volume::resample

use std::ops::Range;

use super::Decision;
use crate::data::preprocess::GridTransform;
use crate::data::{CornerAlignment, Tap, taps_between};
use crate::device::Device;
use crate::device::cpu::SharedMut;
use crate::error::Result;
use crate::memory::{GRANULE, Role};
use crate::ops::lattice;
use crate::tensor::Tensor;

/// Where an answer is wanted.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// What is decided of each voxel.
    pub decision: Decision,
    /// From the network's grid to the scan's; `None` for the answer on the network's own.
    pub way: Option<&'a GridTransform>,
    /// Strips of rows in which a volume that is taken in windows is answered; 1 for all rows at once.
    pub strips: usize,
}

impl Destination<'_> {
    /// Shape of the answer of a volume of `shape` on the network's grid.
    pub(super) fn shape(&self, shape: [usize; 3]) -> [usize; 3] {
        self.way.map_or(shape, |way| way.shape)
    }

    /// Rows of that answer, each of which can be a strip of its own.
    pub fn rows(&self, shape: [usize; 3]) -> usize {
        self.shape(shape)[1]
    }
}

/// One value of each output for a voxel, by row and place in it.
pub(super) type Rows<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// The answer so far.
pub(super) struct Planes {
    outputs: usize,
    threshold: f32,
    /// Shape of the answer.
    shape: [usize; 3],
    /// Taps along each axis and voxels of padding before it, if the answer lies on another grid.
    resampling: Option<([Vec<Tap>; 3], [usize; 3])>,
    /// The planes before and at the current one, `[2, rows, shape[2], outputs]`.
    held: Option<Tensor>,
    /// Which half of `held` is the current one.
    current: usize,
    /// Rows of the answer that are being made, and the rows of the network's grid that they need.
    rows: Range<usize>,
    sources: Range<usize>,
    /// Planes of the answer that are done, of these rows.
    done: usize,
    pub(super) classes: Vec<u8>,
    pub(super) probabilities: Option<Vec<f32>>,
}

impl Planes {
    /// The answer for a volume of `shape` on the network's grid.
    pub(super) fn new(shape: [usize; 3], outputs: usize, destination: Destination<'_>) -> Self {
        let own = destination.shape(shape);
        let resampling = destination.way.map(|way| {
            let taps = [0, 1, 2].map(|k| taps_between(way.resampled[k], way.shape[k], CornerAlignment::Faces));
            (taps, way.padding.before)
        });
        let voxels = own.iter().product::<usize>();
        Self {
            outputs,
            threshold: destination.decision.threshold,
            shape: own,
            resampling,
            held: None,
            current: 0,
            rows: 0..0,
            sources: 0..0,
            done: 0,
            classes: vec![0; voxels],
            probabilities: destination.decision.keep.then(|| vec![0.0; voxels * outputs]),
        }
    }

    /// The answer's rows in so many strips of about the same height.
    pub(super) fn strips(&self, count: usize) -> Vec<Range<usize>> {
        let (rows, count) = (self.shape[1], count.clamp(1, self.shape[1].max(1)));
        (0..count).map(|i| i * rows / count..(i + 1) * rows / count).collect()
    }

    /// The rows of the network's grid that the answer's `rows` need.
    pub(super) fn sources(&self, rows: &Range<usize>) -> Range<usize> {
        match &self.resampling {
            Some(([_, taps, _], before)) if !rows.is_empty() => {
                before[1] + taps[rows.start].0..before[1] + taps[rows.end - 1].1 + 1
            }
            _ => rows.clone(),
        }
    }

    /// Bytes that are held for `rows` on the way.
    pub(super) fn held_bytes(&self, rows: &Range<usize>) -> u64 {
        match self.resampling {
            Some(_) => (8 * (self.sources(rows).len() * self.shape[2] * self.outputs) as u64).next_multiple_of(GRANULE),
            None => 0,
        }
    }

    /// Begins a strip of rows; planes come from the first one on again.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn begin(&mut self, host: &Device, rows: Range<usize>) -> Result<()> {
        (self.sources, self.done, self.current) = (self.sources(&rows), 0, 0);
        self.held = None;
        if self.resampling.is_some() {
            let shape = [2, self.sources.len(), self.shape[2], self.outputs];
            let held = host.in_op("resampled planes", || Tensor::zeros(host, &shape, Role::Workspace))?;
            self.held = Some(held);
        }
        self.rows = rows;
        Ok(())
    }

    /// Takes plane `x` of the network's grid.
    pub(super) fn take(&mut self, host: &Device, x: usize, values: Rows<'_>) {
        if host.is_plan() {
            return;
        }
        match self.resampling.take() {
            None => self.keep(host, x, values),
            Some((taps, before)) => {
                if let Some(x) = x.checked_sub(before[0]) {
                    self.resample(host, x, (&taps, before), values);
                }
                self.resampling = Some((taps, before));
            }
        }
    }

    /// The classes of a plane as it is.
    fn keep(&mut self, host: &Device, x: usize, values: Rows<'_>) {
        let Self { outputs, threshold, .. } = *self;
        let [_, h, w] = self.shape;
        let rows = self.rows.clone();
        let classes = SharedMut::new(&mut self.classes);
        let kept = self.probabilities.as_deref_mut().map(SharedMut::new);
        each(host, rows.len(), |row| {
            let y = rows.start + row;
            let line = (x * h + y) * w;
            // SAFETY: each row is taken once.
            let classes = unsafe { classes.slice(line, w) };
            let mut voxel = vec![0.0; outputs];
            for (z, class) in classes.iter_mut().enumerate() {
                values(y, z, &mut voxel);
                *class = class_of(&voxel, threshold);
                if let Some(kept) = &kept {
                    // SAFETY: as above.
                    unsafe { kept.slice((line + z) * outputs, outputs) }.copy_from_slice(&voxel);
                }
            }
        });
    }

    /// Takes plane `x` of the grid without padding, and makes all planes of the answer that it completes.
    fn resample(
        &mut self,
        host: &Device,
        x: usize,
        ([tx, ty, tz], before): (&[Vec<Tap>; 3], [usize; 3]),
        values: Rows<'_>,
    ) {
        let Some(held) = &mut self.held else { return };
        let Self { outputs, threshold, .. } = *self;
        let [_, h, w] = self.shape;
        let (rows, sources) = (self.rows.clone(), self.sources.clone());
        let (line, plane) = (w * outputs, sources.len() * w * outputs);
        self.current = 1 - self.current;
        let held = held.data_mut();
        {
            let own = SharedMut::new(&mut held[self.current * plane..][..plane]);
            each(host, sources.len(), |row| {
                // SAFETY: each row is taken once.
                let out = unsafe { own.slice(row * line, line) };
                along_last(out, outputs, tz, |z, voxel| values(sources.start + row, before[2] + z, voxel));
            });
        }
        let (held, classes) = (&*held, SharedMut::new(&mut self.classes));
        let kept = self.probabilities.as_deref_mut().map(SharedMut::new);
        while let Some(&(x0, x1, wx)) = tx.get(self.done).filter(|(_, x1, _)| *x1 <= x) {
            let halves = [x0, x1].map(|at| if at == x { self.current } else { 1 - self.current });
            let made = self.done;
            each(host, rows.len(), |row| {
                let y = rows.start + row;
                let (y0, y1, wy) = ty[y];
                let source =
                    |half: usize, y: usize| &held[half * plane + (before[1] + y - sources.start) * line..][..line];
                let lines = [(0, y0), (0, y1), (1, y0), (1, y1)].map(|(end, y)| source(halves[end], y));
                let place = (made * h + y) * w;
                // SAFETY: each row is taken once.
                let classes = unsafe { classes.slice(place, w) };
                let mut voxel = vec![0.0; outputs];
                for (z, class) in classes.iter_mut().enumerate() {
                    let [a, b, c, d] = lines.map(|line| &line[z * outputs..][..outputs]);
                    for (k, value) in voxel.iter_mut().enumerate() {
                        *value = (1.0 - wx) * ((1.0 - wy) * a[k] + wy * b[k]) + wx * ((1.0 - wy) * c[k] + wy * d[k]);
                    }
                    *class = class_of(&voxel, threshold);
                    if let Some(kept) = &kept {
                        // SAFETY: as above.
                        unsafe { kept.slice((place + z) * outputs, outputs) }.copy_from_slice(&voxel);
                    }
                }
            });
            self.done += 1;
        }
    }
}

/// Interpolates a row along itself; `values` gives the voxels, each asked at most twice.
fn along_last(out: &mut [f32], outputs: usize, taps: &[Tap], values: impl Fn(usize, &mut [f32])) {
    let (mut low, mut high) = (vec![0.0; outputs], vec![0.0; outputs]);
    let mut there = (usize::MAX, usize::MAX);
    for (out, &(z0, z1, wz)) in out.chunks_exact_mut(outputs).zip(taps) {
        if there.0 != z0 {
            match there.1 == z0 {
                true => low.copy_from_slice(&high),
                false => values(z0, &mut low),
            }
        }
        if there.1 != z1 {
            values(z1, &mut high);
        }
        there = (z0, z1);
        for ((out, low), high) in out.iter_mut().zip(&low).zip(&high) {
            *out = (1.0 - wz) * low + wz * high;
        }
    }
}

/// [`lattice::class_of`], many classes at a time.
fn class_of(row: &[f32], threshold: f32) -> u8 {
    const LANES: usize = 16;
    if row.len() < 2 * LANES {
        return lattice::class_of(row, threshold);
    }
    let mut most = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = row.as_chunks::<LANES>();
    for part in whole {
        most.iter_mut().zip(part).for_each(|(most, value)| *most = if value > most { *value } else { *most });
    }
    let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most });
    row.iter().position(|&value| value == most).unwrap_or(0) as u8
}

/// `work` for each of some rows, on the host's threads.
pub(super) fn each(host: &Device, rows: usize, work: impl Fn(usize) + Sync + Send) {
    match host.pool() {
        Some(pool) => pool.for_each(rows, work),
        None => (0..rows).for_each(work),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_largest_is_found_whatever_the_number_of_classes() {
        let mut rng = Rng::new(3);
        for outputs in [1, 2, 31, 32, 33, 64, 117, 255] {
            for _ in 0..50 {
                // Few values, so that many are equal.
                let row: Vec<f32> = (0..outputs).map(|_| rng.below(6) as f32 - 2.5).collect();
                assert_eq!(class_of(&row, 0.5), lattice::class_of(&row, 0.5), "{row:?}");
            }
        }
    }
}
