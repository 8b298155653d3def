//! Channels first: `y[b, c, v] = x[b, v, c]`, voxels `v` in the order of memory.
//!
//! * `x` `[batch, spatial…, C]` → `y` `[batch, C, Πspatial]`: the order in which the official code, whose volumes are
//!   `[batch, C, D, H, W]`, flattens latents.
//! * Gradient: `dx[b, v, c] = dy[b, c, v]`.
//! * Work: no FLOPs, bytes `8·|x|` either way. Written for latents (a few thousand elements): one of its sides is read with
//!   a stride.

mod cuda;

use super::par_loops::{by_rows, put};
use crate::device::cpu::Pool;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct TransposeChannels;

/// `[batch, spatial…, C]` → `[batch, C, Πspatial]`.
///
/// # Errors
/// Fewer than two axes, or no memory.
pub fn transpose_channels(tape: &Tape, x: &Var) -> Result<Var> {
    tape.apply(TransposeChannels, &[x])
}

/// `to[b, j, i] (+)= from[b, i, j]` for `from` `[batch, rows, columns]`.
fn transpose(pool: &Pool, [rows, columns]: [usize; 2], from: &[f32], to: &mut [f32], accumulate: bool) {
    by_rows(pool, to, rows, |first, piece| {
        for (i, to) in piece.chunks_exact_mut(rows).enumerate() {
            let (batch, column) = ((first + i) / columns, (first + i) % columns);
            let from = from[batch * rows * columns + column..].iter().step_by(columns);
            to.iter_mut().zip(from).for_each(|(to, &from)| put(to, from, accumulate));
        }
    });
}

impl Op for TransposeChannels {
    fn name(&self) -> &'static str {
        "transpose_channels"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match inputs[0] {
            [batch, spatial @ .., channels] => Ok(vec![*batch, *channels, spatial.iter().product()]),
            shape => {
                Err(Error::shape("transpose_channels", format!("expected [batch, spatial…, channels], got {shape:?}")))
            }
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let sizes = [output.shape()[2], output.shape()[1]];
                transpose(pool, sizes, inputs[0].data(), output.data_mut(), false);
            }
            Backend::Cuda(cuda) => cuda::transpose(cuda, inputs[0], output, false)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let dy = backward.gradient().clone();
        backward.write_gradient(0, |device, dx, accumulate| {
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let sizes = [dy.shape()[1], dy.shape()[2]];
                    transpose(pool, sizes, dy.data(), dx.data_mut(), accumulate);
                }
                Backend::Cuda(cuda) => cuda::untranspose(cuda, &dy, dx, accumulate)?,
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::nothing()
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        Cost { flops: 0, bytes: 8 * inputs[0].iter().product::<usize>() as u64 }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        self.forward_cost(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::transpose_channels;
    use crate::ops::testing::{Array, Tolerance, check_op, refused};

    #[test]
    fn volumes_become_channels_first() {
        for shape in [vec![2, 3, 4, 5, 6], vec![3, 7], vec![1, 50, 60, 9]] {
            let twin = |a: &[Array]| {
                let (batch, channels) = (a[0].shape[0], *a[0].shape.last().unwrap());
                let voxels = a[0].data.len() / batch / channels;
                let element = |i: usize| {
                    let (b, c, v) = (i / voxels / channels, i / voxels % channels, i % voxels);
                    a[0].data[(b * voxels + v) * channels + c]
                };
                Array { shape: vec![batch, channels, voxels], data: (0..a[0].data.len()).map(element).collect() }
            };
            // Copies only; the twin's gradient is a finite difference.
            let tolerance = Tolerance { forward: 0.0, backward: 1e-6 };
            check_op(&[Array::random(&shape, 1)], &[0], tolerance, |tape, v| transpose_channels(tape, &v[0]), twin);
        }
    }

    #[test]
    fn one_axis_is_an_error() {
        refused("transpose_channels", &[&[5]], |tape, v| transpose_channels(tape, &v[0]));
    }
}
