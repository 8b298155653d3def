//! A convolution whose second output is its result's statistics.

use super::cuda::{self, Measurement};
use super::{Conv3d, ConvGeometry};
use crate::device::{Backend, Device, Target};
use crate::error::Result;
use crate::ops::linear::WithStats;
use crate::ops::{Grouping, OutputSpec, moments, workspace};
use crate::tape::{Tape, Var};
use crate::tensor::{DType, Tensor};

/// The statistics of a result of so many channels.
pub(super) fn spec(grouping: Grouping, channels: usize) -> OutputSpec {
    OutputSpec { shape: vec![2, grouping.groups(channels)], dtype: DType::F32, constant: true }
}

impl Conv3d {
    /// The result and its statistics, by one kernel.
    pub(super) fn forward_measured(
        &self,
        device: &Device,
        inputs: &[&Tensor],
        y: &mut Tensor,
        to: (Measurement, &mut Tensor),
    ) -> Result<()> {
        let sizes = self.sizes(inputs[0].shape(), inputs[1].shape())?;
        let mut scratch = workspace(device, cuda::measured_workspace(&sizes, to.0))?;
        if let Backend::Cuda(cuda) = device.backend() {
            let (operands, bias) = ([inputs[0], inputs[1]], inputs.get(2).copied());
            cuda::measured(cuda, (&sizes, self.precision), operands, bias, y, to, &mut scratch)?;
        }
        Ok(())
    }
}

/// [`conv3d`](super::conv3d()), and the mean and biased variance of each channel of its result: over the batch, or of each item.
/// On CUDA its kernel takes them on the way where each sum is one block's from its first term to its last, and no tile has
/// voxels of two items: a launch less, and a pass less over the result.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn conv3d_with_stats(
    tape: &Tape,
    x: &Var,
    weight: &Var,
    bias: Option<&Var>,
    geometry: ConvGeometry,
    grouping: Grouping,
) -> Result<WithStats> {
    let op = Conv3d::new(tape, geometry, bias);
    let sizes = op.sizes(x.shape(), weight.shape())?;
    let measurement = match tape.device().target() {
        Target::Cuda(_) => Measurement::of(&sizes, tape.precision(), x.dtype(), grouping),
        Target::Cpu { .. } => None,
    };
    let statistics = measurement.map(|measurement| (grouping, measurement));
    let made = Conv3d { statistics, ..op }.apply(tape, x, weight, bias)?;
    let statistics = made.statistics.map_or_else(|| moments(tape, &made.value, grouping), Ok)?;
    Ok(WithStats { statistics: Some(statistics), ..made })
}
