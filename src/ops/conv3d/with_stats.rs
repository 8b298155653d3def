//! A convolution that measures its result.

use std::cell::RefCell;
use std::rc::Rc;

use super::cuda::{self, Measurement};
use super::{Conv3d, ConvGeometry, NAME, Sizes};
use crate::device::{Backend, Device, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::linear::WithStats;
use crate::ops::{Grouping, moments, workspace};
use crate::tape::{Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

/// What a convolution's kernel makes beside its result when it runs for the first time; whoever takes it gets the same
/// convolution without it from then on.
pub(super) type Besides = Rc<RefCell<Option<Made>>>;

pub(super) struct Made {
    measurement: Measurement,
    statistics: Tensor,
}

impl Made {
    pub(super) fn forward(
        &mut self,
        device: &Device,
        (sizes, precision): (&Sizes, Precision),
        inputs: &[&Tensor],
        y: &mut Tensor,
    ) -> Result<()> {
        let mut scratch = workspace(device, cuda::measured_workspace(sizes, self.measurement))?;
        if let Backend::Cuda(cuda) = device.backend() {
            let (operands, bias) = ([inputs[0], inputs[1]], inputs.get(2).copied());
            let to = (self.measurement, &mut self.statistics);
            cuda::measured(cuda, (sizes, precision), operands, bias, y, to, &mut scratch)?;
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
    let (device, op) = (tape.device(), Conv3d::new(tape, geometry, bias));
    let sizes = op.sizes(x.shape(), weight.shape())?;
    let measurement = match device.target() {
        Target::Cuda(_) => Measurement::of(&sizes, tape.precision(), x.dtype(), grouping),
        Target::Cpu { .. } => None,
    };
    let Some(measurement) = measurement else {
        let value = op.apply(tape, x, weight, bias)?;
        let statistics = moments(tape, &value, grouping)?;
        return Ok(WithStats { value, statistics: Some(statistics) });
    };
    let shape = [2, grouping.groups(sizes.out_channels)];
    let statistics = device.in_op(NAME, || Tensor::empty(device, &shape, DType::F32, Role::Transient))?;
    let besides = Besides::new(RefCell::new(Some(Made { measurement, statistics })));
    let value = Conv3d { besides: besides.clone(), ..op }.apply(tape, x, weight, bias)?;
    let statistics = besides.take().map(|made| tape.constant(made.statistics));
    Ok(WithStats { value, statistics })
}
