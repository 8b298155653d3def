//! A linear layer that measures its result.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::{Dims, Linear, cuda, linear};
use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::{Grouping, Op, moments, workspace};
use crate::tape::{Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

/// A value, and its means and biased variances `[2, groups]`, constant as those of [`moments()`], if the op that made it took
/// them.
pub struct WithStats {
    /// The value.
    pub value: Var,
    /// Its statistics.
    pub statistics: Option<Var>,
}

impl From<Var> for WithStats {
    fn from(value: Var) -> Self {
        Self { value, statistics: None }
    }
}

impl From<&Var> for WithStats {
    fn from(value: &Var) -> Self {
        value.clone().into()
    }
}

/// What a product's kernel makes beside its result when it runs for the first time; whoever takes it gets the same product
/// without it from then on.
pub(super) type Besides = Rc<RefCell<Option<Made>>>;

pub(super) struct Made {
    statistics: Tensor,
    /// A second layer's weight, bias and result.
    second: Option<[Tensor; 3]>,
}

impl Made {
    pub(super) fn forward(
        &mut self,
        device: &Device,
        (dims, precision): (Dims, Precision),
        inputs: &[&Tensor],
        y: &mut Tensor,
    ) -> Result<()> {
        let mut parts = workspace(device, dims.measured_workspace())?;
        if let Backend::Cuda(cuda) = device.backend() {
            let second =
                self.second.as_mut().map(|[weight, bias, y]| cuda::LayerOperands { weight, bias: Some(bias), y });
            let first = cuda::LayerOperands { weight: inputs[1], bias: Some(inputs[2]), y };
            cuda::measured(cuda, (dims, precision), inputs[0], (first, second), &mut self.statistics, &mut parts)?;
        }
        Ok(())
    }
}

/// [`linear`] with `[weight, bias]`, its result's statistics, and the result of another layer of the same sizes `beside` it,
/// unmeasured. On CUDA one kernel makes all where each sum is one block's from its first term to its last: two launches less, one
/// pass less over the result and one over `x`.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn linear_with_stats(
    tape: &Tape,
    x: &Var,
    [weight, bias]: [&Var; 2],
    columns: Range<usize>,
    beside: Option<[&Var; 2]>,
) -> Result<(WithStats, Option<Var>)> {
    let device = tape.device();
    let op = |besides| Linear { columns: columns.clone(), bias: true, precision: tape.precision(), besides };
    let (own, none) = ([x, weight, bias], Besides::default());
    let shapes = own.map(Var::shape);
    let shape = op(none.clone()).output_shape(&shapes)?;
    let one_kernel = op(none.clone()).dims_of(&shapes).is_measurable();
    let twins = beside.is_none_or(|layer| layer.map(Var::shape) == [weight, bias].map(Var::shape));
    if !matches!(device.target(), Target::Cuda(_)) || !one_kernel || !twins {
        let product = |[weight, bias]: [&Var; 2]| linear(tape, x, weight, Some(columns.clone()), Some(bias));
        let (beside, value) = (beside.map(product).transpose()?, product([weight, bias])?);
        let statistics = moments(tape, &value, Grouping::Scalar)?;
        return Ok((WithStats { value, statistics: Some(statistics) }, beside));
    }
    let empty = |shape: &[usize], dtype| Tensor::empty(device, shape, dtype, Role::Transient);
    let stored = tape.precision().storage();
    let made = device.in_op("linear", || {
        let second =
            |[weight, bias]: [&Var; 2]| Ok::<_, Error>([weight.tensor(), bias.tensor(), empty(&shape, stored)?]);
        Ok::<_, Error>(Made { second: beside.map(second).transpose()?, statistics: empty(&[2, 1], DType::F32)? })
    })?;
    let besides = Besides::new(RefCell::new(Some(made)));
    let value = tape.apply(op(besides.clone()), &own)?;
    let made = besides.take();
    let statistics = made.as_ref().map(|made| tape.constant(made.statistics.clone()));
    let beside = match (beside, made.and_then(|made| made.second)) {
        (Some([weight, bias]), Some([.., y])) => {
            device.record_cost("linear", || op(none.clone()).forward_cost(&shapes).into());
            Some(tape.apply_made(op(none), &[x, weight, bias], y)?)
        }
        _ => None,
    };
    Ok((WithStats { value, statistics }, beside))
}
