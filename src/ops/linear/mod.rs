//! Linear layer: `y = x·W[:, columns]ᵀ + b`.
//!
//! * `x` `[rows…, features]`, `W` `[outputs, inputs]` as PyTorch stores it, `y` `[rows…, outputs]`.
//! * `columns` selects `features` of the weight's `inputs` columns. A layer whose input is a concatenation is thereby one
//!   product a part, and a part that is equal for all rows of a volume (the latent) is multiplied once a volume.
//! * In bf16 and tf32 products are the tensor cores' (CUDA): of numbers of bf16 if `x` is stored so, else of f32 rounded to 11
//!   bits; weights stay f32 and are rounded on the way. Sums are f32.
//! * `b` is `[outputs]`, or `[batch, outputs]` with rows divided evenly among the batch: that shared part's result.
//!
//! Gradients: `dx = dy·W`, `dW = dyᵀ·x`, `db = Σ_rows dy` (within each batch item).
//! Work: `2·rows·features·outputs` FLOPs forward, twice that backward.

mod cpu;
pub(crate) mod cuda;
mod several;
mod small_batch;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use cpu::{Matrix, product};
use several::TWIN;
pub(crate) use several::statistics;
pub use several::{WithStats, linear_pair, linear_with_stats};

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::cuda::gemm::BiasGradient;
use crate::ops::{Cost, Needs, Op, OutputSpec, workspace_for};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};
use small_batch::Pulled;

/// The name of the op.
const NAME: &str = "linear";

struct Linear {
    columns: Range<usize>,
    bias: bool,
    precision: Precision,
    /// The second output: that of another layer of the same sizes, whose weight and bias are two more inputs (CUDA).
    twin: bool,
    /// The last output: the first one's statistics (CUDA).
    measure: bool,
}

/// `y = x·W[:, columns]ᵀ + b`; see the module's page for shapes. `columns: None` means all.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn linear(tape: &Tape, x: &Var, weight: &Var, columns: Option<Range<usize>>, bias: Option<&Var>) -> Result<Var> {
    let columns = columns.unwrap_or(0..weight.shape().last().copied().unwrap_or(0));
    let inputs: Vec<&Var> = [x, weight].into_iter().chain(bias).collect();
    tape.apply(Linear::new(tape, columns, bias.is_some()), &inputs)
}

/// Sizes of one product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    pub rows: usize,
    pub features: usize,
    pub outputs: usize,
    /// Distance between rows of the weight.
    pub stride: usize,
    /// First column of the weight.
    pub first: usize,
    /// Rows that share one row of the bias.
    pub rows_per_bias: usize,
}

impl Linear {
    fn new(tape: &Tape, columns: Range<usize>, bias: bool) -> Self {
        Self { columns, bias, precision: tape.precision(), twin: false, measure: false }
    }

    fn dims(&self, x: &[usize], weight: &[usize], bias: Option<&[usize]>) -> Dims {
        let (features, leading) = x.split_last().map_or((1, &[][..]), |(last, rest)| (*last, rest));
        let rows: usize = leading.iter().product();
        let batch: usize = bias.map_or(1, |shape| shape[..shape.len() - 1].iter().product());
        Dims {
            rows,
            features,
            outputs: weight[0],
            stride: weight[1],
            first: self.columns.start,
            rows_per_bias: (rows / batch.max(1)).max(1),
        }
    }

    fn dims_of(&self, inputs: &[&[usize]]) -> Dims {
        self.dims(inputs[0], inputs[1], inputs.get(2).copied())
    }

    /// Sizes of shapes that have to be looked at first.
    fn checked_dims(&self, inputs: &[&[usize]]) -> Result<Dims> {
        self.output_shape(inputs).map(|_| self.dims_of(inputs))
    }

    fn is_few(&self, device: &Device, dims: Dims, x: DType) -> bool {
        small_batch::is_few(device, (dims, self.precision), x)
    }

    /// One product, by its own kernel.
    fn product(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let dims = self.dims(inputs[0].shape(), inputs[1].shape(), inputs.get(2).map(|bias| bias.shape()));
        let few = self.is_few(device, dims, inputs[0].dtype());
        let mut scratch = workspace_for(device, 0, if few { 0 } else { cuda::forward_workspace(dims) })?;
        match device.backend() {
            Backend::Cuda(cuda) if few => {
                let layer = cuda::LayerOperands { weight: inputs[1], bias: inputs.get(2).copied(), y: output };
                small_batch::forward(cuda, dims, inputs[0], (layer, None))?;
            }
            Backend::Cpu { pool, .. } => {
                let bias = inputs.get(2).map(|bias| bias.data());
                cpu::forward(pool, dims, inputs[0].data(), inputs[1].data(), bias, output.data_mut());
            }
            Backend::Cuda(cuda) => {
                let bias = inputs.get(2).copied();
                cuda::forward(cuda, (dims, self.precision), [inputs[0], inputs[1]], bias, output, &mut scratch)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Hands on the gradient of one layer's result; `last`: no other layer of this op reads `x` after it.
    fn pull(&self, backward: &mut Backward<'_>, dims: Dims, layer: Pulled, last: bool) -> Result<()> {
        let Pulled { dy, weight, bias } = layer;
        // On CUDA the weight's gradient may bring the bias's along.
        let beside = matches!(backward.device().target(), Target::Cuda(_)) && bias.is_some() && backward.wants(weight);
        let splits = beside.then(|| dims.bias_splits(self.precision, [dy.dtype(), backward.dtype(0)])).flatten();
        let mut db = splits.zip(bias).map(|(_, bias)| backward.open_gradient(bias)).transpose()?.flatten();
        if backward.wants(weight) {
            // Nobody but this op may need x any more: then it goes before the gradient of x comes.
            let own = if last { backward.take_value(0)? } else { None };
            let x = match own {
                Some(x) => x,
                None => backward.value(0)?,
            };
            backward.write_gradient(weight, |device, dw, accumulate| {
                let (cpu, cuda) =
                    (cpu::weight_gradient_workspace(dims), cuda::weight_gradient_workspace(dims, db.is_some()));
                let mut scratch = workspace_for(device, cpu, cuda)?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        // A part of the columns leaves the others' gradient at zero.
                        if !accumulate && dims.features != dims.stride {
                            dw.data_mut().fill(0.0);
                        }
                        let add = accumulate || dims.features != dims.stride;
                        cpu::weight_gradient(pool, dims, x.data(), dy.data(), scratch.data_mut(), dw.data_mut(), add);
                    }
                    Backend::Cuda(cuda) => {
                        let bias = BiasGradient::of(&mut db, splits);
                        let (dims, dw) = ((dims, self.precision), (dw, accumulate));
                        cuda::weight_gradient(cuda, dims, [&x, &dy], dw, bias, &mut scratch)?
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        if let (Some(bias), Some((db, _))) = (bias, db.take()) {
            backward.close_gradient(bias, db);
        } else if let Some(bias) = bias {
            backward.write_gradient(bias, |device, db, accumulate| {
                let mut scratch = workspace_for(device, 0, cuda::bias_gradient_workspace(dims))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => cpu::bias_gradient(pool, dims, dy.data(), db.data_mut(), accumulate),
                    Backend::Cuda(cuda) => cuda::bias_gradient(cuda, dims, &dy, db, accumulate, &mut scratch)?,
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        if backward.wants(0) {
            let weight = backward.value(weight)?;
            backward.write_gradient(0, |device, dx, accumulate| {
                let mut scratch = workspace_for(device, 0, cuda::input_gradient_workspace(dims))?;
                match device.backend() {
                    Backend::Cpu { pool, .. } => {
                        cpu::input_gradient(pool, dims, dy.data(), weight.data(), dx.data_mut(), accumulate)
                    }
                    Backend::Cuda(cuda) => cuda::input_gradient(
                        cuda,
                        (dims, self.precision),
                        [&dy, &weight],
                        dx,
                        accumulate,
                        &mut scratch,
                    )?,
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let (x, weight) = (inputs[0], inputs[1]);
        let columns = &self.columns;
        let fits = weight.len() == 2
            && !x.is_empty()
            && columns.start <= columns.end
            && columns.end <= weight[1]
            && x[x.len() - 1] == columns.len();
        if !fits {
            let problem = format!("input {x:?} does not fit columns {columns:?} of weight {weight:?}");
            return Err(Error::shape(NAME, problem));
        }
        let rows: usize = x[..x.len() - 1].iter().product();
        if let (true, Some(bias)) = (self.bias, inputs.get(2)) {
            let batch: usize = bias[..bias.len().saturating_sub(1)].iter().product();
            if bias.last() != Some(&weight[0]) || batch == 0 || !rows.is_multiple_of(batch) {
                return Err(Error::shape(NAME, format!("bias {bias:?} does not fit input {x:?}, weight {weight:?}")));
            }
        }
        let mut shape = x.to_vec();
        shape[x.len() - 1] = weight[0];
        Ok(shape)
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn further_outputs(&self, inputs: &[&[usize]]) -> Vec<OutputSpec> {
        let mut shape = inputs[0].to_vec();
        *shape.last_mut().unwrap_or(&mut 0) = inputs[1][0];
        self.specs(OutputSpec { shape, dtype: self.precision.storage(), constant: false })
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        self.product(device, inputs, output)
    }

    fn forward_several(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        self.run(device, inputs, outputs)
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let bias = self.bias.then(|| backward.shape(2).to_vec());
        let dims = self.dims(backward.shape(0), backward.shape(1), bias.as_deref());
        // The second layer before the first, as if it had been recorded behind it.
        let layers = [(1, TWIN), (0, [1, 2])].map(|(output, [weight, bias])| {
            backward.gradient_of(output).map(|dy| Pulled { dy, weight, bias: self.bias.then_some(bias) })
        });
        let mut layers = layers.into_iter().flatten();
        let (Some(first), second) = (layers.next(), layers.next()) else { return Ok(()) };
        match self.is_few(backward.device(), dims, backward.dtype(0)) {
            // One launch writes all gradients: those of a pair are of different vars.
            true if !self.measure => small_batch::backward(backward, dims, (first, second)),
            true => {
                small_batch::backward(backward, dims, (first, None))?;
                second.map_or(Ok(()), |second| small_batch::backward(backward, dims, (second, None)))
            }
            false => {
                self.pull(backward, dims, first, second.is_none())?;
                second.map_or(Ok(()), |second| self.pull(backward, dims, second, true))
            }
        }
    }

    fn needs(&self) -> Needs {
        Needs::inputs(if self.twin { &[0, 1, TWIN[0]] } else { &[0, 1] })
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Dims { rows, features, outputs, .. } = self.dims_of(inputs);
        let (rows, features, outputs) = (rows as u64, features as u64, outputs as u64);
        let layers = 1 + u64::from(self.twin);
        Cost {
            flops: layers * 2 * rows * features * outputs,
            bytes: layers * 4 * (rows * features + features * outputs + rows * outputs),
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 2 * forward.flops, bytes: 2 * forward.bytes }
    }
}
