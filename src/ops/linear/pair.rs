//! Two linear layers of the same few rows.

use std::ops::Range;

use super::small_batch::{self, Pulled};
use super::{Besides, Linear, NAME, cuda, linear};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// [`linear`] of `x` with `[weight, bias]` of one layer and of another of the same sizes: scale and shift of a norm. On CUDA few
/// rows are one launch each way.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn linear_pair(tape: &Tape, x: &Var, layers: [[&Var; 2]; 2], columns: Option<Range<usize>>) -> Result<[Var; 2]> {
    let [[w, b], [other_w, other_b]] = layers;
    let columns = columns.unwrap_or(0..w.shape().last().copied().unwrap_or(0));
    let op =
        || Linear { columns: columns.clone(), bias: true, precision: tape.precision(), besides: Besides::default() };
    let (device, shapes) = (tape.device(), [x, w, b].map(Var::shape));
    let shape = op().output_shape(&shapes)?;
    let dims = op().dims_of(&shapes);
    let twins = [w, b].map(Var::shape) == [other_w, other_b].map(Var::shape);
    // Of one launch that writes all gradients each has to be another's.
    let distinct = !w.is(other_w) && !b.is(other_b);
    if !twins || !distinct || !small_batch::is_few(device, (dims, tape.precision()), x.dtype()) {
        let layer = |[w, b]: [&Var; 2]| linear(tape, x, w, Some(columns.clone()), Some(b));
        return Ok([layer(layers[0])?, layer(layers[1])?]);
    }
    let (y, other_y) = device.in_op(NAME, || {
        let empty = || Tensor::empty(device, &shape, DType::F32, Role::Transient);
        let (mut y, mut other_y) = (empty()?, empty()?);
        if let Backend::Cuda(cuda) = device.backend() {
            let [[w, b], [other_w, other_b]] = layers.map(|layer| layer.map(Var::tensor));
            let first = cuda::LayerOperands { weight: &w, bias: Some(&b), y: &mut y };
            let second = cuda::LayerOperands { weight: &other_w, bias: Some(&other_b), y: &mut other_y };
            small_batch::forward(cuda, dims, &x.tensor(), (first, Some(second)))?;
        }
        Ok::<_, Error>((y, other_y))
    })?;
    for _ in layers {
        device.record_cost(NAME, || op().forward_cost(&shapes).into());
    }
    let first = tape.apply_made(op(), &[x, w, b], y)?;
    let second = tape.apply_made(Second(op()), &[x, other_w, other_b, w, b, &first], other_y)?;
    Ok([first, second])
}

// Positions of the first layer's parameters and result among the second's inputs.
const WEIGHT: usize = 3;
const BIAS: usize = 4;
const RESULT: usize = 5;

/// The second layer. It is played back before the first and after all that reads either, and takes the first's gradient along.
struct Second(Linear);

impl Op for Second {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.0.output_shape(&inputs[..WEIGHT])
    }

    fn output_dtype(&self, dtypes: &[DType]) -> DType {
        self.0.output_dtype(dtypes)
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        self.0.forward(device, &inputs[..WEIGHT], output)
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dims = self.0.dims_of(&[0, 1, 2].map(|i| backward.shape(i)));
        let first = backward.absorb_gradient(RESULT).map(|dy| Pulled { dy, weight: WEIGHT, bias: Some(BIAS) });
        let own = Pulled { dy: backward.gradient().clone(), weight: 1, bias: Some(2) };
        small_batch::backward(backward, dims, (own, first))
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1, WEIGHT])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.0.forward_cost(&inputs[..WEIGHT])
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Cost { flops, bytes } = self.0.backward_cost(&inputs[..WEIGHT]);
        Cost { flops: 2 * flops, bytes: 2 * bytes }
    }
}
