//! A linear layer of a normalised activation, `y = a·Wᵀ + b` with `a = act(γ·x̂ + β)`: the second layer of a decoder block.
//!
//! `x` `[rows…, C]`, one mean and variance for all of it, `γ`, `β` `[C]` or `[batch, C]`, `W` `[outputs, C]`, `b` `[outputs]` or
//! `[batch, outputs]`, `y` `[rows…, outputs]`.
//!
//! One op on CUDA, with Padé units of orders 5/4 (those of every published configuration) and up to 1024 features and outputs:
//!
//! * In f32 `a` does not exist in any pass: the products make it on the way. In bf16 and tf32 it exists for the time of one
//!   product each way (`kernels/norm_act_linear_mma.cu` says why).
//! * The product measures `y` for the norm behind it, and the gradient's product writes `g = (dy·W)·act'(γ·x̂ + β)` with the sums
//!   that other gradients need.
//!
//! Elsewhere this is [`norm_act()`] and [`linear()`]. The CPU keeps them apart on purpose: its product packs its operands anyway, and
//! the pass over `a` runs from the cache.
//!
//! Gradients are those of the two ops: `dW = dyᵀ·a`, `db = Σ dy`, and of `g` those of [`norm_act()`].
//! Kept are `x` and the small inputs.
//! Work: that of both ops, and the activation once more for `dW`. Bytes: `x`, `W` and `y` once; backward `x` three times (the
//! statistics' gradient needs all of `g` first), `dy` twice, `g` twice, `dx` once.

mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::cuda::gemm::BiasGradient;
use crate::ops::linear::cuda::CHAIN;
use crate::ops::linear::{self, WithStats, linear, linear_with_stats};
use crate::ops::{Activation, Cost, Grouping, Needs, NormActArgs, Op, OutputSpec, norm_act, workspace};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

const NAME: &str = "norm_act_linear";

/// `W·act(norm(x)) + b` for `parts` of the norm and `[W, b]`, with the result's statistics if it is to `measure` them.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn norm_act_linear(
    tape: &Tape,
    x: &Var,
    parts: &NormActArgs<'_>,
    layer: [&Var; 2],
    measure: bool,
) -> Result<WithStats> {
    let Some((op, inputs)) = fused(tape, x, parts, layer)? else {
        let a = norm_act(tape, x, parts)?;
        return match measure {
            true => Ok(linear_with_stats(tape, &a, layer, 0..a.shape()[a.shape().len() - 1], None)?.0),
            false => Ok(linear(tape, &a, layer[0], None, Some(layer[1]))?.into()),
        };
    };
    let mut outputs = tape.apply_several(Fused { measure, ..op }, &inputs)?.into_iter();
    Ok(WithStats { value: outputs.next().expect("an op has an output"), statistics: outputs.next() })
}

/// The op and its inputs, if there are kernels for it.
fn fused<'a>(
    tape: &Tape,
    x: &'a Var,
    parts: &NormActArgs<'a>,
    [weight, bias]: [&'a Var; 2],
) -> Result<Option<(Fused, [&'a Var; 8])>> {
    let (Some((statistics, Grouping::Scalar)), Some(gamma), Some(beta), None) =
        (parts.statistics, parts.gamma, parts.beta, parts.residual)
    else {
        return Ok(None);
    };
    let (&[numerator, denominator], Target::Cuda(_)) = (parts.parameters, tape.device().target()) else {
        return Ok(None);
    };
    let precision = tape.precision();
    let known = parts.activation == Activation::Pade { numerator: 5, denominator: 4 };
    let fits = weight.shape().iter().all(|&length| length <= CHAIN);
    if !known || !fits || x.dtype() != precision.storage() {
        return Ok(None);
    }
    let op = Fused {
        activation: parts.activation,
        epsilon: parts.epsilon,
        through_statistics: parts.through_statistics,
        precision,
        measure: false,
    };
    let inputs = [x, statistics, gamma, beta, numerator, denominator, weight, bias];
    let dims = op.dims(&inputs.map(Var::shape))?;
    Ok((op.is_exact() || dims.product().is_measurable()).then_some((op, inputs)))
}

// Positions of the inputs.
const X: usize = 0;
const STATISTICS: usize = 1;
const GAMMA: usize = 2;
const BETA: usize = 3;
/// Numerator, then denominator.
const COEFFICIENTS: usize = 4;
const WEIGHT: usize = 6;
const BIAS: usize = 7;

struct Fused {
    activation: Activation,
    epsilon: f32,
    /// Gradients flow through the statistics of `x`.
    through_statistics: bool,
    precision: Precision,
    /// The second output: the result's statistics.
    measure: bool,
}

/// Sizes, all of them checked.
#[derive(Clone, Copy, Debug)]
struct Dims {
    /// Items that scale, shift or bias tell apart.
    items: usize,
    /// Rows of an item.
    rows: usize,
    features: usize,
    outputs: usize,
    /// Whether each item has a scale, a shift, a bias of its own.
    per_item: [bool; 3],
}

impl Dims {
    /// The product alone.
    fn product(self) -> linear::Dims {
        let Dims { items, rows, features, outputs, per_item } = self;
        let rows_per_bias = if per_item[2] { rows } else { items * rows };
        linear::Dims { rows: items * rows, features, outputs, stride: features, first: 0, rows_per_bias }
    }
}

impl Fused {
    fn is_exact(&self) -> bool {
        self.precision == Precision::F32
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Dims> {
        let (x, weight) = (inputs[X], inputs[WEIGHT]);
        let misfit = |what: &str, shape: &[usize]| {
            Error::shape(NAME, format!("{what} {shape:?} does not fit input {x:?}, weight {weight:?}"))
        };
        let (Some((&features, leading)), &[outputs, columns]) = (x.split_last(), weight) else {
            return Err(misfit("weight", weight));
        };
        if columns != features {
            return Err(misfit("weight", weight));
        }
        if inputs[STATISTICS] != [2, 1] {
            return Err(misfit("statistics", inputs[STATISTICS]));
        }
        let all: usize = leading.iter().product();
        let mut items = 1;
        let mut per_item = [false; 3];
        let lengths = [features, features, outputs];
        for ((own, position), length) in per_item.iter_mut().zip([GAMMA, BETA, BIAS]).zip(lengths) {
            let shape = inputs[position];
            let batch: usize = shape[..shape.len().saturating_sub(1)].iter().product();
            if shape.last() != Some(&length) || batch == 0 || batch > 1 && items > 1 && batch != items {
                return Err(misfit("scale, shift or bias", shape));
            }
            *own = batch > 1;
            items = items.max(batch);
        }
        match all.is_multiple_of(items) {
            true => Ok(Dims { items, rows: all / items, features, outputs, per_item }),
            false => Err(Error::shape(NAME, format!("{items} scales, shifts or biases do not divide {x:?}"))),
        }
    }

    fn layer<'a>(&self, dims: Dims, inputs: &[&'a Tensor]) -> cuda::PassInputs<'a> {
        cuda::PassInputs {
            dims,
            precision: self.precision,
            epsilon: self.epsilon,
            activation: self.activation,
            x: inputs[X],
            vectors: [inputs[STATISTICS], inputs[GAMMA], inputs[BETA]],
            parameters: [inputs[COEFFICIENTS], inputs[COEFFICIENTS + 1]],
            weight: inputs[WEIGHT],
        }
    }

    /// Fills `output`, and its statistics if they are asked for.
    fn run(
        &self,
        device: &Device,
        inputs: &[&Tensor],
        output: &mut Tensor,
        statistics: Option<&mut Tensor>,
    ) -> Result<()> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let layer = self.layer(self.dims(&shapes)?, inputs);
        let mut a = self.activations(device, inputs[X])?;
        let mut parts = workspace(device, if statistics.is_some() { layer.measured_workspace() } else { 0 })?;
        if let Backend::Cuda(cuda) = device.backend() {
            let measured = statistics.map(|statistics| [statistics, &mut parts]);
            match &mut a {
                None => layer.forward(cuda, inputs[BIAS], output, measured)?,
                Some(a) => layer.forward_of(cuda, a, inputs[BIAS], output, measured)?,
            }
        }
        Ok(())
    }

    /// Where `a` goes, unless the products make it on the way.
    fn activations(&self, device: &Device, x: &Tensor) -> Result<Option<Tensor>> {
        let empty = || Tensor::empty(device, x.shape(), x.dtype(), Role::Workspace);
        (!self.is_exact()).then(empty).transpose()
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let dims = self.dims(inputs)?;
        self.activation.check(NAME, &inputs[COEFFICIENTS..WEIGHT])?;
        let mut shape = inputs[X].to_vec();
        *shape.last_mut().unwrap_or(&mut 0) = dims.outputs;
        Ok(shape)
    }

    fn further_outputs(&self, _: &[&[usize]]) -> Vec<OutputSpec> {
        self.measure.then(linear::statistics).into_iter().collect()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        self.run(device, inputs, output, None)
    }

    fn forward_several(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        match outputs {
            [Some(output)] => self.run(device, inputs, output, None),
            [Some(output), statistics] => self.run(device, inputs, output, statistics.as_mut()),
            _ => Ok(()),
        }
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let device = backward.device().clone();
        let values = (X..BIAS).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
        let (values, bias): (Vec<&Tensor>, _) = (values.iter().collect(), backward.shape(BIAS).to_vec());
        let shapes: Vec<&[usize]> = values.iter().map(|value| value.shape()).chain([bias.as_slice()]).collect();
        let layer = self.layer(self.dims(&shapes)?, &values);
        let (x, dy) = (values[X], backward.gradient().clone());
        let splits = if backward.wants(WEIGHT) { layer.bias_splits(dy.dtype()) } else { None };
        let mut db = splits.map(|_| backward.open_gradient(BIAS)).transpose()?.flatten();
        if backward.wants(WEIGHT) {
            let mut a = self.activations(&device, x)?;
            backward.write_gradient(WEIGHT, |device, dw, accumulate| {
                let mut scratch = workspace(device, layer.weight_gradient_workspace(db.is_some()))?;
                let (dw, bias) = ((dw, accumulate), BiasGradient::of(&mut db, splits));
                match (device.backend(), &mut a) {
                    (Backend::Cuda(cuda), None) => layer.weight_gradient(cuda, &dy, dw, bias, &mut scratch),
                    (Backend::Cuda(cuda), Some(a)) => layer.weight_gradient_of(cuda, a, &dy, dw, bias, &mut scratch),
                    _ => Ok(()),
                }
            })?;
        }
        match db {
            Some((db, _)) => backward.close_gradient(BIAS, db),
            None => backward.write_gradient(BIAS, |device, db, accumulate| {
                let product = layer.dims.product();
                let mut scratch = workspace(device, linear::cuda::bias_gradient_workspace(product))?;
                match device.backend() {
                    Backend::Cuda(cuda) => {
                        linear::cuda::bias_gradient(cuda, product, &dy, db, accumulate, &mut scratch)
                    }
                    _ => Ok(()),
                }
            })?,
        }
        let mut scratch = workspace(&device, layer.input_gradient_workspace())?;
        let mut g = Tensor::empty(&device, x.shape(), x.dtype(), Role::Transient)?;
        if let Backend::Cuda(cuda) = device.backend() {
            layer.input_gradient(cuda, &dy, &mut g, &mut scratch)?;
        }
        drop(dy);
        layer.write_gradients(backward, &device, &mut scratch)?;
        if let Backend::Cuda(cuda) = device.backend() {
            layer.through_statistics(cuda, self.through_statistics, &mut g, &scratch)?;
        }
        backward.accumulate(X, g)
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&(X..BIAS).collect::<Vec<_>>())
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Ok(Dims { items, rows, features, outputs, .. }) = self.dims(inputs) else { return Cost::default() };
        let (all, features, outputs) = ((items * rows) as u64, features as u64, outputs as u64);
        let activations = if self.is_exact() { 0 } else { 2 * all * features };
        Cost {
            flops: all * features * (2 * outputs + 4 + self.activation.flops()),
            bytes: 4 * (all * (features + outputs) + features * outputs + activations),
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Ok(Dims { items, rows, features, outputs, .. }) = self.dims(inputs) else { return Cost::default() };
        let (all, features, outputs) = ((items * rows) as u64, features as u64, outputs as u64);
        let activations = if self.is_exact() { 0 } else { 2 * all * features };
        Cost {
            flops: all * features * (4 * outputs + 16 + 3 * self.activation.flops()),
            bytes: 4 * (all * (6 * features + 2 * outputs) + 2 * features * outputs + activations),
        }
    }
}
