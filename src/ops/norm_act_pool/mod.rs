//! Normalisation, affine map, activation and average pool in one op: what an encoder block does behind its first convolution.
//!
//! `y = mean over each 2×2×2 window of act(γ·x̂ + β)`, `x̂ = (x − μ)/√(σ² + ε)`
//!
//! `x` `[batch, D, H, W, C]`, `μ`, `σ²`, `γ`, `β` a channel, `y` `[batch, D/2, H/2, W/2, C]`; the last voxels of an odd axis belong to
//! no window. The activation at the full resolution never exists, nor does its gradient.
//!
//! One op on the CPU, and on CUDA for Padé units of orders 5/4 (those of every published configuration) and channels in
//! fours; elsewhere this is [`norm_act()`] and [`avg_pool()`].
//!
//! Only `x` is kept. Gradients, with `g = dy/8·act'(γ·x̂ + β)` where a window is, else 0: those of [`norm_act()`] of `g`. Two
//! passes, each of which makes `g` anew: the first for the sums `Σ g`, `Σ g·(x − μ)` and the coefficients' gradients; the second
//! writes `dx`, into `x`'s own buffer if nobody reads `x` again.
//! Work: `5 + a` FLOPs an element of `x` forward (`a`: the activation's), `14 + 4a` backward. Bytes: `x` and `y` once; backward
//! `x` and `dy` twice, `dx` once.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::ops::activation::{Activation, BoundActivation, write_coefficient_gradients};
use crate::ops::moments::Grouping;
use crate::ops::norm_act::cpu::NormArgs;
use crate::ops::{Cost, Needs, NormActArgs, Op, avg_pool, norm_act, workspace};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

const NAME: &str = "norm_act_pool";

/// Side of the windows.
const SIDE: usize = 2;

/// `pool(act(norm(x)))` for `parts` without a residual.
///
/// # Errors
/// Shapes that do not fit, sides shorter than 2, or no memory.
pub fn norm_act_pool(tape: &Tape, x: &Var, parts: &NormActArgs<'_>) -> Result<Var> {
    match fused(tape, x, parts) {
        Some((op, inputs)) => tape.apply(op, &inputs),
        None => avg_pool(tape, &norm_act(tape, x, parts)?, [SIDE; 3], [SIDE; 3]),
    }
}

/// The op and its inputs, if there is one for them.
fn fused<'a>(tape: &Tape, x: &'a Var, parts: &NormActArgs<'a>) -> Option<(Fused, Vec<&'a Var>)> {
    let (Some((statistics, Grouping::Channel)), Some(gamma), Some(beta), None) =
        (parts.statistics, parts.gamma, parts.beta, parts.residual)
    else {
        return None;
    };
    let channels = *x.shape().last()?;
    let known = match tape.device().target() {
        // In bf16 the CPU is what fused kernels are compared with: op by op.
        Target::Cpu { .. } => channels <= cpu::CHANNELS && x.dtype() == DType::F32,
        Target::Cuda(_) => {
            parts.activation == Activation::PADE
                && channels.is_multiple_of(4)
                && x.dtype() == tape.precision().storage()
        }
    };
    let op =
        Fused { activation: parts.activation, epsilon: parts.epsilon, through_statistics: parts.through_statistics };
    known.then(|| (op, [x, statistics, gamma, beta].into_iter().chain(parts.parameters.iter().copied()).collect()))
}

// Positions of the inputs; the activation's parameters follow.
const X: usize = 0;
const STATISTICS: usize = 1;
const GAMMA: usize = 2;
const BETA: usize = 3;
const COEFFICIENTS: usize = 4;

struct Fused {
    activation: Activation,
    epsilon: f32,
    /// Gradients flow through the statistics of `x`.
    through_statistics: bool,
}

/// A volume `[batch, D, H, W, channels]` and its windows.
#[derive(Clone, Copy, Debug)]
struct Volume {
    batch: usize,
    sides: [usize; 3],
    channels: usize,
}

impl Volume {
    fn of(x: &[usize]) -> Result<Self> {
        match *x {
            [batch, d, h, w, channels] if batch > 0 && channels > 0 && d.min(h).min(w) >= SIDE => {
                Ok(Self { batch, sides: [d, h, w], channels })
            }
            _ => Err(Error::shape(NAME, format!("{x:?} are no volumes with sides of {SIDE} or more"))),
        }
    }

    fn voxels(&self) -> usize {
        self.batch * self.sides.iter().product::<usize>()
    }

    /// Windows along each axis, a last one that is cut short among them.
    fn windows(&self) -> [usize; 3] {
        self.sides.map(|side| side.div_ceil(SIDE))
    }

    /// Those that are whole: sides of the result.
    fn pooled(&self) -> [usize; 3] {
        self.sides.map(|side| side / SIDE)
    }
}

impl Fused {
    /// Statistics, scale and shift.
    fn vectors<'a>(&self, inputs: &[&'a Tensor]) -> [&'a Tensor; 3] {
        [inputs[STATISTICS], inputs[GAMMA], inputs[BETA]]
    }

    /// The numbers of `vectors` for the CPU.
    fn norm<'a>(&self, volume: Volume, vectors: [&'a Tensor; 3]) -> NormArgs<'a> {
        let [statistics, gamma, beta] = vectors.map(Tensor::data);
        NormArgs::of_channels([volume.voxels(), volume.channels], statistics, self.epsilon, [gamma, beta])
    }

    fn workspace(&self, device: &Device, volume: Volume, backward: bool) -> Result<Tensor> {
        let coefficients = self.activation.coefficients();
        workspace(
            device,
            match (device.target(), backward) {
                (Target::Cpu { .. }, false) => cpu::tiles(&volume),
                (Target::Cpu { .. }, true) => cpu::backward_workspace(&volume, coefficients),
                (Target::Cuda(_), false) => 0,
                (Target::Cuda(_), true) => cuda::cut(&volume, self.epsilon).workspace(coefficients),
            },
        )
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let volume = Volume::of(inputs[X])?;
        let channels = volume.channels;
        for (position, expected) in [(STATISTICS, &[2, channels][..]), (GAMMA, &[channels]), (BETA, &[channels])] {
            if inputs[position] != expected {
                let problem = format!("statistics, scale or shift {:?} for input {:?}", inputs[position], inputs[X]);
                return Err(Error::shape(NAME, problem));
            }
        }
        self.activation.check(NAME, &inputs[COEFFICIENTS..])?;
        let [d, h, w] = volume.pooled();
        Ok(vec![volume.batch, d, h, w, channels])
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let volume = Volume::of(inputs[X].shape())?;
        let mut scratch = self.workspace(device, volume, false)?;
        let (x, vectors, parameters) = (inputs[X], self.vectors(inputs), &inputs[COEFFICIENTS..]);
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let function =
                    BoundActivation::new(self.activation, parameters.iter().map(|parameter| parameter.data()));
                let norm = self.norm(volume, vectors);
                cpu::forward(pool, &volume, &norm, &function, x.data(), scratch.data_mut(), output.data_mut());
            }
            Backend::Cuda(cuda) => {
                let layer = cuda::PassInputs { volume, epsilon: self.epsilon, vectors, parameters };
                layer.forward(cuda, x, output)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let device = backward.device().clone();
        let inputs = COEFFICIENTS + self.activation.parameter_lengths().len();
        let volume = Volume::of(backward.shape(X))?;
        let values = (STATISTICS..inputs).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
        let values: Vec<&Tensor> = values.iter().collect();
        let (vectors, parameters) = ([values[0], values[1], values[2]], &values[COEFFICIENTS - STATISTICS..]);
        let function = || BoundActivation::new(self.activation, parameters.iter().map(|parameter| parameter.data()));
        let layer = cuda::PassInputs { volume, epsilon: self.epsilon, vectors, parameters };
        let dy = backward.gradient().clone();
        let mut scratch = self.workspace(&device, volume, true)?;
        let through = self.through_statistics;
        if through || (GAMMA..inputs).any(|i| backward.wants(i)) {
            let x = backward.value(X)?;
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (norm, coefficients) = (self.norm(volume, vectors), self.activation.coefficients());
                    let sources = [x.data(), dy.data()];
                    cpu::first(pool, &volume, &norm, (&function(), coefficients), sources, scratch.data_mut());
                }
                Backend::Cuda(cuda) => layer.first(cuda, &x, &dy, &mut scratch)?,
                Backend::Plan { .. } => {}
            }
            drop(x);
            match device.target() {
                Target::Cpu { .. } => self.write_gradients(backward, volume, &scratch)?,
                Target::Cuda(_) => layer.write_gradients(backward, &device, &mut scratch)?,
            }
        }
        if !backward.wants(X) {
            return Ok(());
        }
        // `None`: x lies where dx goes.
        let mut second = |x: Option<&Tensor>, dx: &mut Tensor, accumulate: bool| {
            match device.backend() {
                Backend::Cpu { pool, .. } => {
                    let (norm, scratch) = (self.norm(volume, vectors), scratch.data_mut());
                    let flow = cpu::Flow { x: x.map(Tensor::data), dy: dy.data(), through, accumulate };
                    cpu::second(pool, &volume, &norm, &function(), &flow, scratch, dx.data_mut());
                }
                Backend::Cuda(cuda) => {
                    let x = x.map_or(dx.address(), Tensor::address);
                    layer.second(cuda, (x, &dy), through, accumulate, &scratch, dx)?;
                }
                Backend::Plan { .. } => {}
            }
            Ok(())
        };
        if let Some(mut x) = backward.take_value(X)? {
            second(None, &mut x, false)?;
            return backward.accumulate(X, x);
        }
        let x = backward.value(X)?;
        backward.write_gradient(X, |_, dx, accumulate| second(Some(&x), dx, accumulate))
    }

    fn needs(&self) -> Needs {
        let inputs = COEFFICIENTS + self.activation.parameter_lengths().len();
        Needs::inputs(&(0..inputs).collect::<Vec<_>>())
    }

    /// One pass over `x`, which is kept in any case.
    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[X].iter().product::<usize>() as u64;
        Cost { flops: elements * (5 + self.activation.flops()), bytes: 4 * (elements + elements / 8) }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[X].iter().product::<usize>() as u64;
        Cost { flops: elements * (14 + 4 * self.activation.flops()), bytes: 4 * (3 * elements + elements / 4) }
    }
}

impl Fused {
    /// The gradients of coefficients, scale and shift from the sums, on the CPU.
    fn write_gradients(&self, backward: &mut Backward<'_>, volume: Volume, scratch: &Tensor) -> Result<()> {
        let is_plan = backward.device().is_plan();
        let sums = if is_plan { &[] } else { cpu::coefficient_sums(&volume, scratch.data()) };
        write_coefficient_gradients(backward, self.activation, COEFFICIENTS, sums)?;
        for (which, position) in [BETA, GAMMA].into_iter().enumerate() {
            backward.write_gradient(position, |_, gradient, accumulate| {
                if !is_plan {
                    let sums = cpu::channel_sums(&volume, scratch.data())[which];
                    for (gradient, &sum) in gradient.data_mut().iter_mut().zip(sums) {
                        *gradient = if accumulate { *gradient + sum } else { sum };
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
