//! Fourier features of coordinates: `y = [cos(2π·c·b) | sin(2π·c·b)]`.
//!
//! * `c` `[points, 3]` (any number of axes), `b` `[3, F]` fixed frequencies in cycles a unit of `c` → `y` `[points, 2F]`.
//! * The phase `c·b` is computed in f64 and reduced to half a cycle: coordinates may be whole voxel indices in the
//!   hundreds and frequencies of several cycles a voxel, where an f32 phase is wrong by 1e-4.
//! * Gradient: `dc_j = 2π·Σ_f b_jf·(cos_f·dsin_f − sin_f·dcos_f)`; none flows to `b`.
//! * Work: `2·points·F·(axes + 1)` FLOPs forward (sine and cosine count one each), `points·F·(4·axes + 6)` backward;
//!   bytes `4·(|c| + |b| + |y|)`, backward `4·(2|c| + |b| + |y|)`. The output is recomputed rather than kept: it is up to
//!   ten times its input.

mod cuda;

use std::f64::consts::TAU;

use super::par_loops::{by_rows, put};
use crate::device::cpu::Pool;
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::ops::{Cost, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

struct FourierFeatures;

/// `[cos(2π·c·b) | sin(2π·c·b)]` for `coordinates` `[points, axes]` and `frequencies` `[axes, F]`.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn fourier_features(tape: &Tape, coordinates: &Var, frequencies: &Var) -> Result<Var> {
    tape.apply(FourierFeatures, &[coordinates, frequencies])
}

/// Sine and cosine of `2π·c·b` for the frequency `f`.
fn sin_cos(c: &[f32], b: &[f32], features: usize, f: usize) -> (f64, f64) {
    let phase: f64 = c.iter().enumerate().map(|(j, &c)| f64::from(c) * f64::from(b[j * features + f])).sum();
    (TAU * (phase - phase.round())).sin_cos()
}

fn forward(pool: &Pool, axes: usize, features: usize, c: &[f32], b: &[f32], y: &mut [f32]) {
    by_rows(pool, y, 2 * features, |first, piece| {
        let points = c[first * axes..].chunks_exact(axes);
        for (y, c) in piece.chunks_exact_mut(2 * features).zip(points) {
            for f in 0..features {
                let (sin, cos) = sin_cos(c, b, features, f);
                (y[f], y[features + f]) = (cos as f32, sin as f32);
            }
        }
    });
}

/// Reads `c`, `b` and `dy`, writes `dc`.
fn backward(pool: &Pool, [axes, features]: [usize; 2], [c, b, dy]: [&[f32]; 3], dc: &mut [f32], accumulate: bool) {
    by_rows(pool, dc, axes, |first, piece| {
        for (i, dc) in piece.chunks_exact_mut(axes).enumerate() {
            let point = first + i;
            let (c, dy) = (&c[point * axes..][..axes], &dy[point * 2 * features..][..2 * features]);
            if !accumulate {
                dc.fill(0.0);
            }
            for f in 0..features {
                let (sin, cos) = sin_cos(c, b, features, f);
                let slope = TAU * (cos * f64::from(dy[features + f]) - sin * f64::from(dy[f]));
                for (j, dc) in dc.iter_mut().enumerate() {
                    put(dc, (slope * f64::from(b[j * features + f])) as f32, true);
                }
            }
        }
    });
}

impl Op for FourierFeatures {
    fn name(&self) -> &'static str {
        "fourier_features"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match (inputs[0], inputs[1]) {
            ([points, axes], [rows, features]) if axes == rows && *axes > 0 => Ok(vec![*points, 2 * features]),
            (c, b) => {
                let problem = format!("coordinates {c:?} and frequencies {b:?}; expected [points, axes], [axes, F]");
                Err(Error::shape("fourier_features", problem))
            }
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let (c, b) = (inputs[0], inputs[1]);
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                forward(pool, c.channels(), b.channels(), c.data(), b.data(), output.data_mut())
            }
            Backend::Cuda(cuda) => cuda::forward(cuda, c, b, output)?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, pass: &mut Backward<'_>) -> Result<()> {
        if !pass.wants(0) {
            return Ok(());
        }
        let (c, b, dy) = (pass.value(0)?, pass.value(1)?, pass.gradient().clone());
        pass.write_gradient(0, |device, dc, accumulate| {
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let sizes = [c.channels(), b.channels()];
                    backward(pool, sizes, [c.data(), b.data(), dy.data()], dc.data_mut(), accumulate);
                }
                Backend::Cuda(cuda) => cuda::backward(cuda, [&c, &b, &dy], dc, accumulate)?,
                Backend::Plan { .. } => {}
            }
            Ok(())
        })
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [points, axes, features] = [inputs[0][0], inputs[0][1], inputs[1][1]].map(|n| n as u64);
        Cost {
            flops: 2 * points * features * (axes + 1),
            bytes: 4 * (points * axes + axes * features + 2 * points * features),
        }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [points, axes, features] = [inputs[0][0], inputs[0][1], inputs[1][1]].map(|n| n as u64);
        Cost { flops: points * features * (4 * axes + 6), bytes: self.forward_cost(inputs).bytes + 4 * points * axes }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::fourier_features;
    use crate::ops::testing::{Array, Tolerance, check_op, refused};

    fn twin(a: &[Array]) -> Array {
        let (c, b, features) = (&a[0], &a[1], a[1].shape[1]);
        let mut data = Vec::new();
        for c in c.data.chunks(3) {
            let phase = |f: usize| TAU * (0..3).map(|j| c[j] * b.data[j * features + f]).sum::<f64>();
            data.extend((0..features).map(|f| phase(f).cos()));
            data.extend((0..features).map(|f| phase(f).sin()));
        }
        Array { shape: vec![c.shape[0], 2 * features], data }
    }

    #[test]
    fn small_coordinates() {
        let inputs = [Array::random(&[50, 3], 1), Array::random(&[3, 16], 2)];
        // Results of f64 rounded once; the gradient rounds each of 16 terms.
        let tolerance = Tolerance { forward: 1e-7, backward: 1e-6 };
        check_op(&inputs, &[0], tolerance, |tape, v| fourier_features(tape, &v[0], &v[1]), twin);
    }

    #[test]
    fn voxel_indices_lose_nothing() {
        // Up to 512 voxels times 12 cycles: phases up to 4e4 radians, where even f64 twins keep 1e-11 only. Their central
        // difference of step 1e-5 over slopes of 2π·12 cycles is right to (2π·12·1e-5)²/6 = 1e-7.
        let inputs = [
            Array::random(&[700, 3], 1).map(|x| (256.0 * (x + 1.0)).floor()),
            Array::random(&[3, 16], 2).map(|x| 12.0 * x),
        ];
        let tolerance = Tolerance { forward: 1e-7, backward: 2e-6 };
        check_op(&inputs, &[0], tolerance, |tape, v| fourier_features(tape, &v[0], &v[1]), twin);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let op = |tape: &crate::tape::Tape, v: &[crate::tape::Var]| fourier_features(tape, &v[0], &v[1]);
        refused("fourier_features", &[&[5, 3], &[2, 16]], op);
        refused("fourier_features", &[&[5, 3], &[1, 3, 16]], op);
        refused("fourier_features", &[&[15], &[3, 16]], op);
    }
}
