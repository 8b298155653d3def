//! Layers that run piece by piece, so that the arrays between their ops never exist whole.
//!
//! A piecewise op is made of the ops of [`crate::ops`]: it copies a piece of its input out, runs them on a tape of its own
//! and copies the result in. Only normalisation couples the pieces. Its statistics are taken over all of them first; and
//! its gradient is split as
//!
//! `dx = s·γ·g − s·mean(γ·g) − s·x̂·mean(γ·g·x̂)`, `s = 1/√(σ² + ε)`
//!
//! into the first term, which a piece computes by itself with the statistics as constants, and the other two, for which a
//! pass over all pieces sums `Σ g` and `Σ g·x̂`: the gradients of the shift and of the scale. [`StatsGradient`] adds
//! them.

pub(super) mod blocks;
pub(super) mod slabs;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::device::{Backend, Device, LaunchConfig, THREADS, Target};
use crate::error::Result;
use crate::memory::{Role, RoleBytes};
use crate::nn::layers::EPSILON;
use crate::ops::Grouping;
use crate::ops::norm_act::{self, NormActArgs, ResidualPlace, norm_act};
use crate::tape::{Mode, SyncGroup, Tape, Var};
use crate::tensor::{DType, Tensor};

/// The terms of a normalisation's gradient that flow through its statistics.
pub(in crate::nn) struct StatsGradient {
    statistics: Tensor,
    grouping: Grouping,
    /// `−s·mean(γ·g·x̂)` of each channel's group: what `x̂` is multiplied by.
    slope: Tensor,
    /// `−s·mean(γ·g)`.
    offset: Tensor,
}

impl StatsGradient {
    /// From the scale `gamma` `[C]` or `[items, C]`, the sums `Σ g·x̂` and `Σ g` of its shape, and the number of elements
    /// behind each statistic. Groups are channels, or all elements. In a `sync_group` the statistics are those of all
    /// passes, and `count` is of one.
    fn new(
        device: &Device,
        statistics: (&Tensor, Grouping),
        gamma: &Tensor,
        sums: [&Tensor; 2],
        count: usize,
        sync_group: Option<&dyn SyncGroup>,
    ) -> Result<Self> {
        let mut own =
            Self::of_one(device, statistics, gamma, sums, count * sync_group.map_or(1, |others| others.passes()))?;
        let Some(others) = sync_group else { return Ok(own) };
        let bytes = own.slope.buffer().len();
        let mut both = Tensor::empty(device, &[2, gamma.channels()], DType::F32, Role::Transient)?;
        both.unshared().copy_part(0, own.slope.buffer(), 0..bytes)?;
        both.unshared().copy_part(bytes, own.offset.buffer(), 0..bytes)?;
        let all = others.sum(both)?;
        own.slope.unshared().copy_part(0, all.buffer(), 0..bytes)?;
        own.offset.unshared().copy_part(0, all.buffer(), bytes..2 * bytes)?;
        Ok(own)
    }

    /// The same for `direct`, the gradient of all of `x` with the statistics as constants.
    pub(in crate::nn) fn of_direct(
        x: &Tensor,
        direct: &Tensor,
        statistics: (&Tensor, Grouping),
        count: usize,
        sync_group: Option<&dyn SyncGroup>,
    ) -> Result<Self> {
        let (device, groups) = (x.device(), statistics.1.groups(x.channels()));
        let [products, sums] = norm_act::gradient_sums(x, statistics, EPSILON, direct)?;
        // `s·γ` is in `direct` already: here both are 1.
        let unit = [vec![0.0; groups], vec![1.0 - EPSILON; groups]].concat();
        let unit = Tensor::from_slice(device, &[2, groups], Role::Transient, &unit)?;
        let gamma = Tensor::from_slice(device, &[x.channels()], Role::Transient, &vec![1.0; x.channels()])?;
        let own = Self::new(device, (&unit, statistics.1), &gamma, [&products, &sums], count, sync_group)?;
        Ok(Self { statistics: statistics.0.clone(), ..own })
    }

    fn of_one(
        device: &Device,
        (statistics, grouping): (&Tensor, Grouping),
        gamma: &Tensor,
        [products, sums]: [&Tensor; 2],
        count: usize,
    ) -> Result<Self> {
        let channels = gamma.channels();
        let groups = grouping.groups(channels);
        if let Target::Cuda(_) = device.target() {
            let empty = || Tensor::empty(device, &[channels], DType::F32, Role::Transient);
            let (mut slope, mut offset) = (empty()?, empty()?);
            if let Backend::Cuda(cuda) = device.backend() {
                cuda.kernel("norm_through")
                    .input(gamma)
                    .input(statistics)
                    .input(products)
                    .input(sums)
                    .value([(gamma.len() / channels) as u32, channels as u32, groups as u32])
                    .value(EPSILON)
                    .value(count as f64)
                    .output(&mut slope)
                    .output(&mut offset)
                    .launch(LaunchConfig::new(1, THREADS))?;
            }
            return Ok(Self { slope, offset, statistics: statistics.clone(), grouping });
        }
        let (gamma, variances) = (gamma.to_vec()?, statistics.to_vec()?.split_off(groups));
        let of_channels = |sums: &Tensor| {
            let mut totals = vec![0.0f64; groups];
            for (i, (&gamma, sum)) in gamma.iter().zip(sums.to_vec()?).enumerate() {
                totals[grouping.group(0, i % channels, channels)] += f64::from(gamma) * f64::from(sum);
            }
            let values: Vec<f32> = (0..channels)
                .map(|channel| {
                    let group = grouping.group(0, channel, channels);
                    let scale = (f64::from(variances[group]) + f64::from(EPSILON)).sqrt().recip();
                    (-scale * totals[group] / count as f64) as f32
                })
                .collect();
            Tensor::from_slice(device, &[channels], Role::Transient, &values)
        };
        Ok(Self { slope: of_channels(products)?, offset: of_channels(sums)?, statistics: statistics.clone(), grouping })
    }

    /// `direct + slope·x̂ + offset` of a piece.
    pub(in crate::nn) fn add(&self, x: Tensor, direct: Tensor) -> Result<Tensor> {
        let tape = Tape::new(x.device(), Mode::Eval);
        let [x, direct, statistics, slope, offset] =
            [x, direct, self.statistics.clone(), self.slope.clone(), self.offset.clone()]
                .map(|part| tape.constant(part));
        let parts = NormActArgs {
            statistics: Some((&statistics, self.grouping)),
            epsilon: EPSILON,
            gamma: Some(&slope),
            beta: Some(&offset),
            residual: Some((&direct, ResidualPlace::BeforeActivation)),
            ..NormActArgs::default()
        };
        Ok(norm_act(&tape, &x, &parts)?.tensor())
    }
}

/// `pieces`, whose requests depend on their `size` alone, without those from which a plan would learn nothing: where a piece
/// has changed neither what is held nor where there is room, another of its size changes nothing either. A plan whose log is
/// read goes through them, and knows them for repetitions.
fn skip_repeats<P, I: Iterator<Item = P>, S: Fn(&P) -> usize>(device: &Device, pieces: I, size: S) -> Pieces<I, S> {
    device.loop_begins();
    Pieces { device: device.clone(), pieces, size, last: None, costs: 0..0 }
}

/// See [`skip_repeats`].
struct Pieces<I, S> {
    device: Device,
    pieces: I,
    size: S,
    /// Size of the last piece, and what was held where before it.
    last: Option<(usize, (RoleBytes, u64))>,
    /// Where the costs of the last piece that was gone through stand in the device's record; the end once it is known.
    costs: Range<usize>,
}

impl<P, I: Iterator<Item = P>, S: Fn(&P) -> usize> Iterator for Pieces<I, S> {
    type Item = P;

    fn next(&mut self) -> Option<P> {
        loop {
            let piece = self.pieces.next()?;
            let now = self.device.piece_state().map(|state| ((self.size)(&piece), state));
            let former = std::mem::replace(&mut self.last, now);
            let repeated = now.is_some() && now == former;
            let costs = self.device.cost_log(|log| log.len());
            if !(repeated && self.device.is_unread()) {
                self.device.piece_begins(repeated);
                self.costs = costs..costs;
                return Some(piece);
            }
            if self.costs.is_empty() {
                self.costs.end = costs;
            }
            self.device.cost_log(|log| log.repeat(self.costs.clone()));
        }
    }
}

impl<I, S> Drop for Pieces<I, S> {
    fn drop(&mut self) {
        self.device.loop_ends();
    }
}

/// A sum of tensors of one shape, built up piece by piece.
#[derive(Default)]
struct Sum(Option<Tensor>);

impl Sum {
    /// Adds the gradient that `tape` left at a leaf, if there is one.
    fn add(&mut self, tape: &Tape, leaf: &Var) -> Result<()> {
        if let Some(part) = tape.take_gradient(leaf) {
            self.0 = Some(match self.0.take() {
                None => part,
                Some(sum) => sum.plus(&part)?,
            });
        }
        Ok(())
    }
}
