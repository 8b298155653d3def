//! Several networks as one: the mean of their probabilities.
//!
//! Members answer one after the other on the scan's own grid, each by its own preprocessing: all weights are held, and the
//! activations of one network at a time. Where all members give a voxel one class that is the answer. The class of the mean is
//! the same there but for rounding, so that a network given twice answers to the bit as given once. Elsewhere the class is that
//! of the mean. A U-Net's probabilities are kept and averaged; occupancy networks are asked a second time, at those voxels alone.

use super::Search;
use super::plan::InferencePlan;
use super::segmenter::{Beside, Segmentation, Segmenter, Shape};
use crate::data::{Geometry, Labels, Volume};
use crate::error::{Error, Result};
use crate::memory::GRANULE;
use crate::nn::Parameters;
use crate::ops::lattice::class_of;
use crate::text::plural;

/// Voxels that occupancy networks are asked about a second time at once: they bound what is held of them.
const TOGETHER: usize = 1 << 20;

/// Networks that answer together.
pub struct Ensemble<'a> {
    /// The first, which tells what all have in common.
    first: Segmenter<'a>,
    others: Vec<Segmenter<'a>>,
    /// Probabilities are part of the answer.
    keep: bool,
}

impl<'a> Ensemble<'a> {
    /// Of several members, U-Nets among them, each keeps its probabilities, for which occupancy networks evaluate every voxel.
    ///
    /// # Errors
    /// [`Error::Usage`] if tasks or thresholds differ, and for several members with `verify`.
    pub fn new(first: Segmenter<'a>, others: Vec<Segmenter<'a>>) -> Result<Self> {
        let keep = first.options.probabilities;
        let mut all = Self { first, others, keep };
        if all.others.is_empty() {
            return Ok(all);
        }
        let Self { first, others, .. } = &all;
        for (number, other) in (2..).zip(others) {
            if let Some(problem) = first.task.mismatch(other.task) {
                return Err(Error::Usage(format!("network {number} {problem}; average networks of one task")));
            }
            let outputs = [first, other].map(|member| member.network.architecture().classes());
            if outputs[0] != outputs[1] {
                let problem =
                    format!("network {number} has {}, the first {}", plural(outputs[1], "output"), outputs[0]);
                return Err(Error::Usage(format!("{problem}; average networks of one task")));
            }
            if (other.options.threshold, other.options.shape) != (first.options.threshold, first.options.shape) {
                return Err(Error::Usage(format!(
                    "network {number} has other settings than the first; give all the same"
                )));
            }
        }
        if all.members().any(|member| member.options.verify) {
            return Err(Error::Usage(
                "--verify compares one network with itself; name one checkpoint, or omit it".into(),
            ));
        }
        let dense = keep || all.members().any(|member| member.network.occupancy().is_none());
        let weights: Vec<u64> = all.members().map(|member| bytes(member.parameters)).collect();
        let held = weights.iter().sum::<u64>();
        // Bytes of the probabilities of a voxel.
        let outputs = 4 * all.first.network.architecture().classes() as u64;
        for (member, own) in std::iter::once(&mut all.first).chain(&mut all.others).zip(weights) {
            if dense {
                member.options.probabilities = true;
                member.options.search = Search::dense();
            }
            // The scan, the classes so far and which of them differ; and the mean, of all voxels or of some at a time.
            let image = 4 * member.task.preprocessing.channels.len() as u64;
            let (answer, fixed) = if dense { (2 + outputs, 0) } else { (2, TOGETHER as u64 * (2 * outputs + 8)) };
            member.beside = Beside { device: held - own, scan: image, answer, fixed };
        }
        Ok(all)
    }

    fn members(&self) -> impl Iterator<Item = &Segmenter<'a>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// As [`Segmenter::segment`], by all members. Points and passes are sums over them, bytes the most that was held.
    ///
    /// # Errors
    /// As there.
    pub fn segment(&self, name: &str, image: Volume, tick: &mut dyn FnMut() -> Result<()>) -> Result<Segmentation> {
        let Self { first, others, .. } = self;
        if others.is_empty() {
            return first.segment(name, image, tick);
        }
        let mut answer = first.segment(name, image.clone(), tick)?;
        let mut differ = vec![false; answer.labels.len()];
        for (number, member) in (2..).zip(others) {
            let found = member.segment(name, image.clone(), tick)?;
            let classes = answer.labels.voxels.iter().zip(&found.labels.voxels);
            differ.iter_mut().zip(classes).for_each(|(differ, (own, other))| *differ |= own != other);
            if let (Some(mean), Some(found)) = (&mut answer.probabilities, &found.probabilities) {
                average(&mut mean.voxels, &found.voxels, number);
            }
            answer.add(&found);
        }
        match answer.probabilities.take() {
            Some(mean) => {
                let differing = (0..differ.len()).filter(|&at| differ[at]);
                let rows = differing.map(|at| (at, &mean.voxels[at * mean.channels..][..mean.channels]));
                self.decide(&mut answer.labels, rows);
                answer.probabilities = self.keep.then_some(mean);
            }
            None => {
                let points = self.settle(name, &image, &differ, &mut answer, tick)?;
                answer.evaluated.push(points);
            }
        }
        Ok(answer)
    }

    /// Asks occupancy networks about the voxels on which they differ. Returns the points evaluated.
    fn settle(
        &self,
        name: &str,
        image: &Volume,
        differ: &[bool],
        answer: &mut Segmentation,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<u64> {
        let (mut begin, mut asked) = (0, 0);
        loop {
            let differing = (begin..differ.len()).filter(|&at| differ[at]);
            let voxels: Vec<usize> = differing.take(TOGETHER).collect();
            let Some(last) = voxels.last() else { return Ok(asked) };
            begin = last + 1;
            let mut mean = Vec::new();
            for (number, member) in (1..).zip(self.members()) {
                let (found, seconds, bytes) = member.probabilities_at(name, image.clone(), &voxels, tick)?;
                answer.seconds += seconds;
                answer.peak_bytes = answer.peak_bytes.max(bytes);
                if number == 1 {
                    mean = found
                } else {
                    average(&mut mean, &found, number)
                }
                asked += voxels.len() as u64;
            }
            let outputs = mean.len() / voxels.len();
            self.decide(&mut answer.labels, voxels.iter().copied().zip(mean.chunks_exact(outputs)));
        }
    }

    /// Enters the classes of voxels by their mean probabilities.
    fn decide<'r>(&self, labels: &mut Labels, rows: impl Iterator<Item = (usize, &'r [f32])>) {
        let Segmenter { task, options, .. } = &self.first;
        for (at, row) in rows {
            let class = usize::from(class_of(row, options.threshold));
            labels.voxels[at] = task.preprocessing.classes.get(class).copied().unwrap_or(0);
        }
    }

    /// As [`Segmenter::plan`], of all members: the most that any of them takes, with the others' weights beside it.
    ///
    /// # Errors
    /// As there.
    pub fn plan(&self, shape: Shape, geometry: Geometry) -> Result<InferencePlan> {
        let mut all = self.first.plan(shape, geometry)?;
        if self.others.is_empty() {
            return Ok(all);
        }
        for other in &self.others {
            let plan = other.plan(shape, geometry)?;
            all.passes += plan.passes;
            all.strips = all.strips.max(plan.strips);
            all.engine_bytes = all.engine_bytes.max(plan.engine_bytes);
            all.host_bytes = all.host_bytes.max(plan.host_bytes);
            all.reading_bytes = all.reading_bytes.max(plan.reading_bytes);
            all.writing_bytes = all.writing_bytes.max(plan.writing_bytes);
        }
        // Each network is given a copy of the scan.
        all.reading_bytes += all.scan_bytes;
        if !self.keep {
            let answer: Shape = self.first.options.shape.unwrap_or(shape);
            all.writing_bytes = answer.iter().fold(2u64, |product, &side| product.saturating_mul(side as u64));
        }
        Ok(all)
    }
}

/// The mean of `number` rows of values, of which `found` is the last. A value that comes again changes nothing.
fn average(mean: &mut [f32], found: &[f32], number: usize) {
    mean.iter_mut().zip(found).for_each(|(mean, found)| *mean += (found - *mean) / number as f32);
}

/// Bytes of weights on their device.
fn bytes(parameters: &Parameters) -> u64 {
    let tensors =
        parameters.iter().map(|parameter| parameter.value()).chain(parameters.buffers().map(|(_, value, _)| value));
    tensors.map(|tensor| (4 * tensor.len() as u64).next_multiple_of(GRANULE)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mean does not drift: of equal values it is the value, whatever its last bit and however often it comes; of others it
    /// is their mean to one unit in the last place a step.
    #[test]
    fn the_mean_of_one_value_is_the_value() {
        let values: Vec<f32> = (1..1000).map(|i| 1.0 / i as f32).collect();
        let mut mean = values.clone();
        (2..30).for_each(|number| average(&mut mean, &values, number));
        assert_eq!(mean, values);
        let mut mean = vec![0.25];
        [0.5f32, 0.125, 0.875].iter().zip(2..).for_each(|(value, number)| average(&mut mean, &[*value], number));
        assert!((mean[0] - 0.4375).abs() <= 3.0 * f32::EPSILON, "{}", mean[0]);
    }
}
