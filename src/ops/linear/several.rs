//! Linear layers of several outputs: a second layer of the same sizes on the same input, and the first result's statistics.

use std::ops::Range;

use super::{Linear, cuda, linear, small_batch};
use crate::device::{Backend, Device, Target};
use crate::error::Result;
use crate::ops::{Grouping, OutputSpec, moments, workspace};
use crate::tape::{Tape, Var};
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

/// Mean and biased variance of a whole result.
pub(crate) fn statistics() -> OutputSpec {
    OutputSpec { shape: vec![2, 1], dtype: DType::F32, constant: true }
}

/// True if weights and biases of two layers have the same sizes.
fn are_twins(layers: [[&Var; 2]; 2]) -> bool {
    layers[0].map(Var::shape) == layers[1].map(Var::shape)
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
    layer: [&Var; 2],
    columns: Range<usize>,
    beside: Option<[&Var; 2]>,
) -> Result<(WithStats, Option<Var>)> {
    let op = Linear { measure: true, twin: beside.is_some(), ..Linear::new(tape, columns.clone(), true) };
    let one_kernel = matches!(tape.device().target(), Target::Cuda(_))
        && op.checked_dims(&[x, layer[0], layer[1]].map(Var::shape))?.is_measurable()
        && beside.is_none_or(|other| are_twins([layer, other]));
    if !one_kernel {
        let product = |[weight, bias]: [&Var; 2]| linear(tape, x, weight, Some(columns.clone()), Some(bias));
        let (beside, value) = (beside.map(product).transpose()?, product(layer)?);
        let statistics = moments(tape, &value, Grouping::Scalar)?;
        return Ok((WithStats { value, statistics: Some(statistics) }, beside));
    }
    let inputs: Vec<&Var> = [x].into_iter().chain(layer).chain(beside.into_iter().flatten()).collect();
    let mut outputs = tape.apply_several(op, &inputs)?;
    let statistics = outputs.pop();
    Ok((WithStats { value: outputs.remove(0), statistics }, outputs.pop()))
}

/// [`linear`] of `x` with `[weight, bias]` of one layer and of another of the same sizes: scale and shift of a norm. On CUDA few
/// rows are one launch each way.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn linear_pair(tape: &Tape, x: &Var, layers: [[&Var; 2]; 2], columns: Option<Range<usize>>) -> Result<[Var; 2]> {
    let [[w, b], [other_w, other_b]] = layers;
    let columns = columns.unwrap_or(0..w.shape().last().copied().unwrap_or(0));
    let op = Linear { twin: true, ..Linear::new(tape, columns.clone(), true) };
    let dims = op.checked_dims(&[x, w, b].map(Var::shape))?;
    // Of one launch that writes all gradients each has to be another's.
    let distinct = !w.is(other_w) && !b.is(other_b);
    if !are_twins(layers) || !distinct || !small_batch::is_few(tape.device(), (dims, tape.precision()), x.dtype()) {
        let layer = |[w, b]: [&Var; 2]| linear(tape, x, w, Some(columns.clone()), Some(b));
        return Ok([layer(layers[0])?, layer(layers[1])?]);
    }
    let mut outputs = tape.apply_several(op, &[x, w, b, other_w, other_b])?;
    let second = outputs.swap_remove(1);
    Ok([outputs.swap_remove(0), second])
}

/// Positions of the second layer's weight and bias among the inputs.
pub(super) const TWIN: [usize; 2] = [3, 4];

impl Linear {
    /// The outputs beside the first.
    pub(super) fn specs(&self, first: OutputSpec) -> Vec<OutputSpec> {
        self.twin.then_some(first).into_iter().chain(self.measure.then(statistics)).collect()
    }

    /// Fills the outputs that are there, by one kernel if all are.
    pub(super) fn run(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        let (first, further) = outputs.split_first_mut().expect("an op has an output");
        let (twin, statistics) = further.split_at_mut(usize::from(self.twin));
        let (y, twin) = (first.as_mut(), twin.iter_mut().flatten().next());
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let (x, dims) = (inputs[0], self.dims_of(&shapes));
        let layer = |at: [usize; 2], y| cuda::LayerOperands { weight: inputs[at[0]], bias: Some(inputs[at[1]]), y };
        match (y, twin, statistics.iter_mut().flatten().next()) {
            (Some(y), twin, Some(statistics)) => {
                let mut parts = workspace(device, dims.measured_workspace())?;
                if let Backend::Cuda(cuda) = device.backend() {
                    let layers = (layer([1, 2], y), twin.map(|y| layer(TWIN, y)));
                    cuda::measured(cuda, (dims, self.precision), x, layers, statistics, &mut parts)?;
                }
                Ok(())
            }
            (Some(y), Some(twin), None) if self.is_few(device, dims, x.dtype()) => match device.backend() {
                Backend::Cuda(cuda) => small_batch::forward(cuda, dims, x, (layer([1, 2], y), Some(layer(TWIN, twin)))),
                _ => Ok(()),
            },
            (y, twin, _) => {
                twin.map_or(Ok(()), |y| self.product(device, &[x, inputs[TWIN[0]], inputs[TWIN[1]]], y))?;
                y.map_or(Ok(()), |y| self.product(device, &inputs[..inputs.len().min(3)], y))
            }
        }
    }
}
