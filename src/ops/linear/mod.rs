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
mod pair;
mod small_batch;
#[cfg(test)]
mod tests;
mod with_stats;

use std::ops::Range;

pub(crate) use cpu::{Matrix, product};
pub use pair::linear_pair;
pub use with_stats::{WithStats, linear_with_stats};

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::cuda::gemm::BiasGradient;
use crate::ops::{Cost, Needs, Op, workspace_for};
use crate::tape::{Backward, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};
use with_stats::Besides;

/// The name of the op.
const NAME: &str = "linear";

struct Linear {
    columns: Range<usize>,
    bias: bool,
    precision: Precision,
    /// What else its first run makes (CUDA).
    besides: Besides,
}

/// `y = x·W[:, columns]ᵀ + b`; see the module's page for shapes. `columns: None` means all.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn linear(tape: &Tape, x: &Var, weight: &Var, columns: Option<Range<usize>>, bias: Option<&Var>) -> Result<Var> {
    let columns = columns.unwrap_or(0..weight.shape().last().copied().unwrap_or(0));
    let op = Linear { columns, bias: bias.is_some(), precision: tape.precision(), besides: Besides::default() };
    match bias {
        Some(bias) => tape.apply(op, &[x, weight, bias]),
        None => tape.apply(op, &[x, weight]),
    }
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
        if let Some(bias) = inputs.get(2) {
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

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let dims = self.dims(inputs[0].shape(), inputs[1].shape(), inputs.get(2).map(|bias| bias.shape()));
        if let Some(besides) = self.besides.borrow_mut().as_mut() {
            return besides.forward(device, (dims, self.precision), inputs, output);
        }
        let few = small_batch::is_few(device, (dims, self.precision), inputs[0].dtype());
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

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let bias = self.bias.then(|| backward.shape(2).to_vec());
        let dims = self.dims(backward.shape(0), backward.shape(1), bias.as_deref());
        if small_batch::is_few(backward.device(), (dims, self.precision), backward.dtype(0)) {
            let dy = backward.gradient().clone();
            let layer = small_batch::Pulled { dy, weight: 1, bias: self.bias.then_some(2) };
            return small_batch::backward(backward, dims, (layer, None));
        }
        let dy = backward.gradient().clone();
        // On CUDA the weight's gradient may bring the bias's along.
        let beside = matches!(backward.device().target(), Target::Cuda(_)) && self.bias && backward.wants(1);
        let splits = beside.then(|| dims.bias_splits(self.precision, [dy.dtype(), backward.dtype(0)])).flatten();
        let mut db = splits.map(|_| backward.open_gradient(2)).transpose()?.flatten();
        if backward.wants(1) {
            // Nobody but this op may need x any more: then it goes before the gradient of x comes.
            let x = match backward.take_value(0)? {
                Some(x) => x,
                None => backward.value(0)?,
            };
            backward.write_gradient(1, |device, dw, accumulate| {
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
        if let Some((db, _)) = db {
            backward.close_gradient(2, db);
        } else if self.bias {
            backward.write_gradient(2, |device, db, accumulate| {
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
            let weight = backward.value(1)?;
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

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let Dims { rows, features, outputs, .. } = self.dims_of(inputs);
        let (rows, features, outputs) = (rows as u64, features as u64, outputs as u64);
        Cost {
            flops: 2 * rows * features * outputs,
            bytes: 4 * (rows * features + features * outputs + rows * outputs),
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 2 * forward.flops, bytes: 2 * forward.bytes }
    }
}
