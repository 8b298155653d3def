//! Concatenation along the last axis: `y[r] = [x₀[r] | x₁[r] | …]`.
//!
//! * `xᵢ` `[rows…, Cᵢ]` with equal leading axes → `y` `[rows…, ΣCᵢ]`, stored in f32 if any of them is.
//! * Gradient: each input gets its columns of `dy`.
//! * Work: no FLOPs; bytes `8·|y|` either way. The output is recomputed rather than kept: its inputs are all there is in it.

#[cfg(test)]
mod tests;

use super::cuda::columns::{self, Columns};
use super::par_loops::{by_rows, put_all};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

struct Concat {
    inputs: usize,
}

/// Joins `inputs` along the last axis.
///
/// # Errors
/// No input, more than 32, or leading axes that differ; or no memory.
pub fn concat(tape: &Tape, inputs: &[&Var]) -> Result<Var> {
    // 32 is what the tape can keep books of for one op.
    if inputs.is_empty() || inputs.len() > 32 {
        return Err(Error::shape("concat", format!("{} inputs, expected 1 to 32", inputs.len())));
    }
    tape.apply(Concat { inputs: inputs.len() }, inputs)
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let leading = |shape: &[usize]| shape.split_last().map(|(_, leading)| leading.to_vec());
        let mut shape = leading(inputs[0]);
        if shape.is_none() || inputs.iter().any(|input| leading(input) != shape) {
            return Err(Error::shape("concat", format!("all axes but the last must be equal, got {inputs:?}")));
        }
        let channels = inputs.iter().filter_map(|input| input.last()).sum();
        Ok(shape.take().into_iter().flatten().chain([channels]).collect())
    }

    fn output_dtype(&self, inputs: &[DType]) -> DType {
        if inputs.contains(&DType::F32) { DType::F32 } else { inputs[0] }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let channels = output.channels();
                by_rows(pool, output.data_mut(), channels, |first, piece| {
                    let mut column = 0;
                    for input in inputs {
                        let (width, x) = (input.channels(), input.data());
                        for (row, y) in piece.chunks_exact_mut(channels).enumerate() {
                            y[column..column + width].copy_from_slice(&x[(first + row) * width..][..width]);
                        }
                        column += width;
                    }
                });
            }
            Backend::Cuda(cuda) => {
                let (channels, mut column) = (output.channels(), 0);
                for input in inputs {
                    let width = input.channels();
                    let from = Columns { stride: width, first: 0 };
                    let to = Columns { stride: channels, first: column };
                    columns::copy(cuda, (input, from), (output, to), [input.rows(), width], false)?;
                    column += width;
                }
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dy = backward.gradient().clone();
        let (channels, mut column) = (dy.channels(), 0);
        for i in 0..self.inputs {
            let (start, width) = (column, backward.shape(i).last().copied().unwrap_or(0));
            backward.write_gradient(i, |device, dx, accumulate| {
                match device.backend() {
                    Backend::Cpu { pool, .. } => by_rows(pool, dx.data_mut(), width, |first, piece| {
                        for (row, dx) in piece.chunks_exact_mut(width).enumerate() {
                            put_all(dx, &dy.data()[(first + row) * channels + start..][..width], accumulate);
                        }
                    }),
                    Backend::Cuda(cuda) => {
                        let from = Columns { stride: channels, first: start };
                        let (to, rows) = (Columns { stride: width, first: 0 }, dx.rows());
                        columns::copy(cuda, (&dy, from), (dx, to), [rows, width], accumulate)?;
                    }
                    Backend::Plan { .. } => {}
                }
                Ok(())
            })?;
            column += width;
        }
        Ok(())
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        Cost { flops: 0, bytes: 8 * inputs.iter().map(|shape| shape.iter().product::<usize>() as u64).sum::<u64>() }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}
