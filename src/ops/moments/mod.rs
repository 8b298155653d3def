//! Mean and biased variance of groups of elements: the statistics of batch, instance and conditional normalisation.
//!
//! `x` `[batch, …, C]` gives `[2, groups]`: means, then variances; see [`Grouping`]. They are constants: the op that
//! normalises ([`norm_act`](crate::ops::norm_act())) accounts for the derivative through the statistics.
//!
//! Each piece of `x` is read twice while it is in the cache (mean, then corrected sum of squares about it), and pieces
//! are combined in f64 (Chan, Golub, LeVeque 1983), so that a large mean costs no accuracy.
//! Work: four FLOPs an element; `x` moves once.

mod cpu;
pub(crate) mod cuda;
mod merge;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use merge::Merged;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::tiling_cpu::CpuTiling;
use crate::ops::{Cost, Needs, Op, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Which elements share a mean and a variance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// All of them: OSS-Net's conditional normalisation.
    Scalar,
    /// Those of a channel, over the batch: batch normalisation.
    Channel,
    /// Those of a channel of a batch item: instance normalisation. Group `item·C + channel`.
    Instance {
        /// Number of items that the rows are divided among.
        batch: usize,
    },
}

impl Grouping {
    /// Number of groups.
    pub fn groups(self, channels: usize) -> usize {
        match self {
            Grouping::Scalar => 1,
            Grouping::Channel => channels,
            Grouping::Instance { batch } => batch * channels,
        }
    }

    /// Items that have groups of their own.
    pub(crate) fn items(self) -> usize {
        match self {
            Grouping::Scalar | Grouping::Channel => 1,
            Grouping::Instance { batch } => batch,
        }
    }

    /// The group of a channel of an item.
    pub(crate) fn group(self, item: usize, channel: usize, channels: usize) -> usize {
        match self {
            Grouping::Scalar => 0,
            Grouping::Channel => channel,
            Grouping::Instance { .. } => item * channels + channel,
        }
    }

    /// The items and the channels that make up a group of `items` items.
    pub(crate) fn members(self, group: usize, items: usize, channels: usize) -> (Range<usize>, Range<usize>) {
        match self {
            Grouping::Scalar => (0..items, 0..channels),
            Grouping::Channel => (0..items, group..group + 1),
            Grouping::Instance { .. } => {
                let (item, channel) = (group / channels, group % channels);
                (item..item + 1, channel..channel + 1)
            }
        }
    }

    /// Rows and channels of `x`, if it can be grouped so.
    pub(crate) fn check(self, op: &'static str, x: &[usize]) -> Result<(usize, usize)> {
        let (channels, leading) = x.split_last().map_or((1, &[][..]), |(last, rest)| (*last, rest));
        let rows: usize = leading.iter().product();
        match self {
            _ if rows == 0 || channels == 0 => Err(Error::shape(op, format!("{x:?} has no elements"))),
            Grouping::Instance { batch } if batch == 0 || !rows.is_multiple_of(batch) => {
                Err(Error::shape(op, format!("the rows of {x:?} do not divide among {batch} items")))
            }
            _ => Ok((rows, channels)),
        }
    }
}

/// Mean and biased variance of each group of `x`: `[2, groups]`, a constant.
///
/// # Errors
/// An empty `x`, rows that do not divide among the batch, or no memory.
pub fn moments(tape: &Tape, x: &Var, grouping: Grouping) -> Result<Var> {
    tape.apply(Moments { grouping }, &[x])
}

struct Moments {
    grouping: Grouping,
}

impl Op for Moments {
    fn name(&self) -> &'static str {
        "moments"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let (_, channels) = self.grouping.check(self.name(), inputs[0])?;
        Ok(vec![2, self.grouping.groups(channels)])
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        DType::F32
    }

    fn is_constant(&self) -> bool {
        true
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let (rows, channels) = self.grouping.check(self.name(), inputs[0].shape())?;
        let items = self.grouping.items();
        let layout = CpuTiling::new(items, rows / items, channels);
        let tiling = cuda::tiling(self.grouping, rows, channels);
        let size = match device.target() {
            Target::Cpu { .. } => cpu::workspace(&layout, self.grouping),
            Target::Cuda(_) => cuda::workspace(&tiling, items),
        };
        let mut scratch = workspace(device, size)?;
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                cpu::moments(pool, &layout, self.grouping, inputs[0].data(), scratch.data_mut(), output.data_mut());
            }
            Backend::Cuda(cuda) => cuda::moments(cuda, tiling, items, inputs[0], &mut scratch, output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, _: &mut Backward<'_>) -> Result<()> {
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 4 * elements, bytes: 4 * elements }
    }

    fn backward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }
}
