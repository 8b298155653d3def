//! Normalisation, affine map, residual and activation in one op:
//!
//! `v = γ·x̂ + β [+ r]`, `x̂ = (x − μ)/√(σ² + ε)`, `y = act(v) [+ r]`
//!
//! * `x`, `y`, `r` `[batch, …, C]`; `μ`, `σ²` one a group ([`Grouping`]), as [`moments`](crate::ops::moments()) makes them, or running
//!   statistics; `γ`, `β` `[C]`, or `[batch, C]` with the rows divided evenly among the batch (conditional normalisation).
//! * The residual `r` is added before the activation (OSS-Net's blocks) or after it (MONAI's residual units).
//! * Each part may be absent; what is absent costs nothing.
//!
//! Only the pre-activation `x` is kept (with `r` if the activation's argument contains it); `y` is recomputed when a
//! backward pass asks for it.
//!
//! Gradients, with `g = dy·act'(v)` and means over each group: `dr = g` (before) or `dy` (after), `dβ = Σ g`,
//! `dγ = Σ g·x̂`, and with `u = γ·g`, `s = 1/√(σ² + ε)`:
//!
//! * statistics of the batch: `dx = s·(u − mean(u) − x̂·mean(u·x̂))`,
//! * given statistics: `dx = s·u`.
//!
//! Two passes: the first recomputes `v`, turns the gradient's buffer into `g` and leaves sums over fixed pieces; the
//! second writes `dx` into `g`'s buffer, or, if that one is handed on as `dr`, into `x`'s own if nobody reads `x` again.
//! Work: about `4 + a` FLOPs an element forward (`a`: the activation's), `12 + 2a` backward.

mod backward;
pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use std::iter::once;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::ops::activation::{Activation, BoundActivation};
use crate::ops::moments::Grouping;
use crate::ops::tiling_cpu::CpuTiling;
use crate::ops::{Cost, Needs, Op, workspace};
use crate::tape::{Backward, Mode, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// Where the residual is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResidualPlace {
    /// To the activation's argument.
    BeforeActivation,
    /// To its result.
    AfterActivation,
}

/// The parts of [`norm_act`]; [`Default`] has none of them.
#[derive(Clone, Copy)]
pub struct NormActArgs<'a> {
    /// Means and biased variances `[2, groups]`, and which elements they belong to.
    pub statistics: Option<(&'a Var, Grouping)>,
    /// True if the statistics are those of `x` itself (training): gradients flow through them. False for constants.
    pub through_statistics: bool,
    /// Added to the variance.
    pub epsilon: f32,
    /// Scale `[C]` or `[batch, C]`.
    pub gamma: Option<&'a Var>,
    /// Shift `[C]` or `[batch, C]`.
    pub beta: Option<&'a Var>,
    /// A tensor of `x`'s shape to be added.
    pub residual: Option<(&'a Var, ResidualPlace)>,
    /// The activation.
    pub activation: Activation,
    /// Its learnt parameters; see [`Activation::initial_parameters`].
    pub parameters: &'a [&'a Var],
}

impl Default for NormActArgs<'_> {
    fn default() -> Self {
        Self {
            statistics: None,
            through_statistics: false,
            epsilon: 1e-5,
            gamma: None,
            beta: None,
            residual: None,
            activation: Activation::Identity,
            parameters: &[],
        }
    }
}

/// Normalises `x`, maps it, adds the residual and activates; see the module's page.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn norm_act(tape: &Tape, x: &Var, parts: &NormActArgs<'_>) -> Result<Var> {
    let (op, inputs) = op_of(x, parts);
    tape.apply(op, &inputs)
}

/// `Σ dy·x̂` and `Σ dy` of each channel of `x`, for given `statistics`.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub(crate) fn gradient_sums(
    x: &Tensor,
    (statistics, grouping): (&Tensor, Grouping),
    epsilon: f32,
    dy: &Tensor,
) -> Result<[Tensor; 2]> {
    let (device, channels) = (x.device(), [x.channels()]);
    let tape = Tape::new(device, Mode::EvalWithGradients);
    let [x, statistics] = [x, statistics].map(|tensor| tape.constant(tensor.clone()));
    let zeros = || Tensor::zeros(device, &channels, Role::Transient);
    let [gamma, beta] = [tape.input(zeros()?), tape.input(zeros()?)];
    let parts = NormActArgs {
        statistics: Some((&statistics, grouping)),
        epsilon,
        gamma: Some(&gamma),
        beta: Some(&beta),
        ..NormActArgs::default()
    };
    let (op, inputs) = op_of(&x, &parts);
    // Its backward pass reads no output: what stands for it is never looked at.
    let y = tape.apply_made(op, &inputs, dy.clone())?;
    tape.pull(vec![(y, dy.clone())])?;
    let sum = |leaf: &Var| tape.take_gradient(leaf).ok_or_else(|| Error::shape("norm_act", "a norm without sums"));
    Ok([sum(&gamma)?, sum(&beta)?])
}

/// The op, and its inputs.
fn op_of<'a>(x: &'a Var, parts: &NormActArgs<'a>) -> (Fused, Vec<&'a Var>) {
    let statistics = parts.statistics.map(|(var, _)| var);
    let residual = parts.residual.map(|(var, _)| var);
    let optional = [statistics, parts.gamma, parts.beta, residual];
    let inputs: Vec<&Var> =
        once(x).chain(optional.into_iter().flatten()).chain(parts.parameters.iter().copied()).collect();
    // Positions of the optional inputs that are there.
    let mut next = 1;
    let [statistics, gamma, beta, residual] = optional.map(|var| {
        let position = var.map(|_| next);
        next += usize::from(var.is_some());
        position
    });
    let op = Fused {
        statistics,
        gamma,
        beta,
        residual,
        parameters: next,
        grouping: parts.statistics.map(|(_, grouping)| grouping),
        through_statistics: parts.through_statistics && statistics.is_some(),
        epsilon: parts.epsilon,
        before: parts.residual.is_some_and(|(_, place)| place == ResidualPlace::BeforeActivation),
        activation: parts.activation,
    };
    (op, inputs)
}

/// The op: which input is what, and the constants.
struct Fused {
    statistics: Option<usize>,
    gamma: Option<usize>,
    beta: Option<usize>,
    residual: Option<usize>,
    /// The first of the activation's parameters.
    parameters: usize,
    grouping: Option<Grouping>,
    through_statistics: bool,
    epsilon: f32,
    /// The residual is added before the activation.
    before: bool,
    activation: Activation,
}

impl Fused {
    /// True if there is a map between `x` and the residual's addition.
    fn is_affine(&self) -> bool {
        self.statistics.or(self.gamma).or(self.beta).is_some()
    }

    /// Positions of statistics, scale and shift.
    fn vectors(&self) -> [Option<usize>; 3] {
        [self.statistics, self.gamma, self.beta]
    }

    /// True if the activation changes its argument.
    fn activates(&self) -> bool {
        self.activation != Activation::Identity
    }

    fn layout(&self, inputs: &[&[usize]]) -> Result<CpuTiling> {
        let x = inputs[0];
        let grouping = self.grouping.unwrap_or(Grouping::Scalar);
        let (rows, channels) = grouping.check(self.name(), x)?;
        let mut items = grouping.items();
        for vector in [self.gamma, self.beta].into_iter().flatten() {
            let shape = inputs[vector];
            let batch: usize = shape[..shape.len().saturating_sub(1)].iter().product();
            if shape.last() != Some(&channels) || batch == 0 || batch > 1 && items > 1 && batch != items {
                return Err(Error::shape(self.name(), format!("scale or shift {shape:?} does not fit input {x:?}")));
            }
            items = items.max(batch);
        }
        let split = matches!(grouping, Grouping::Instance { batch } if batch != items) || !rows.is_multiple_of(items);
        if split {
            return Err(Error::shape(
                self.name(),
                format!("{items} scales or shifts do not divide {x:?} ({grouping:?})"),
            ));
        }
        if let Some(statistics) = self.statistics
            && inputs[statistics] != [2, grouping.groups(channels)]
        {
            let problem = format!("statistics {:?} do not fit input {x:?} ({grouping:?})", inputs[statistics]);
            return Err(Error::shape(self.name(), problem));
        }
        Ok(CpuTiling::new(items, rows / items, channels))
    }

    /// How CUDA cuts it.
    fn cut(&self, layout: &CpuTiling, inputs: &[&[usize]]) -> cuda::Cut {
        let CpuTiling { items, rows, channels, .. } = *layout;
        if !self.is_affine() {
            return cuda::Cut::flat(items * rows * channels);
        }
        let per_item =
            [self.gamma, self.beta].map(|i| i.is_some_and(|i| inputs[i].iter().product::<usize>() > channels));
        cuda::Cut::affine([items, rows, channels], self.grouping, self.epsilon, per_item)
    }

    /// The op's numbers for the CPU, from the values of statistics, scale and shift.
    fn norm<'a>(&self, layout: CpuTiling, [statistics, gamma, beta]: [Option<&'a Tensor>; 3]) -> cpu::NormArgs<'a> {
        cpu::NormArgs {
            layout,
            statistics: statistics.map(Tensor::data).zip(self.grouping),
            epsilon: self.epsilon,
            gamma: gamma.map(Tensor::data),
            beta: beta.map(Tensor::data),
        }
    }
}

impl Op for Fused {
    fn name(&self) -> &'static str {
        "norm_act"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        self.layout(inputs)?;
        self.activation.check(self.name(), &inputs[self.parameters..])?;
        match self.residual {
            Some(i) if inputs[i] != inputs[0] => {
                Err(Error::shape(self.name(), format!("residual {:?} for input {:?}", inputs[i], inputs[0])))
            }
            _ => Ok(inputs[0].to_vec()),
        }
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let layout = self.layout(&shapes)?;
        let size = match device.target() {
            Target::Cpu { .. } if self.is_affine() => cpu::tiles(&layout),
            Target::Cpu { .. } | Target::Cuda(_) => 0,
        };
        let mut tiles = workspace(device, size)?;
        let vectors = self.vectors().map(|i| i.map(|i| inputs[i]));
        let residual = self.residual.map(|i| inputs[i]);
        let parameters = &inputs[self.parameters..];
        match device.backend() {
            Backend::Cpu { pool, .. } => {
                let function =
                    BoundActivation::new(self.activation, parameters.iter().map(|parameter| parameter.data()));
                let norm = self.norm(layout, vectors);
                let residual = residual.map(|residual| (residual.data(), self.before));
                cpu::forward(pool, &norm, &function, inputs[0].data(), residual, tiles.data_mut(), output.data_mut());
            }
            Backend::Cuda(cuda) => {
                let (x, cut, activation) = (Some(inputs[0]), self.cut(&layout, &shapes), self.activation);
                let (before, after) = if self.before { (residual, None) } else { (None, residual) };
                cuda::Inputs { cut, x, vectors, before, activation, parameters }.forward(cuda, after, output)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        backward::backward(self, backward)
    }

    fn needs(&self) -> Needs {
        let x = self.activates() || self.is_affine();
        let learnt = self.activation.parameter_lengths().len();
        let residual = self.residual.filter(|_| self.before && self.activates());
        let optional = [x.then_some(0), self.statistics, self.gamma, self.beta, residual];
        Needs::inputs(
            &optional.into_iter().flatten().chain(self.parameters..self.parameters + learnt).collect::<Vec<_>>(),
        )
    }

    fn recompute(&self) -> bool {
        true
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        let tensors = 2 + u64::from(self.residual.is_some());
        let affine = if self.is_affine() { 3 } else { 0 };
        let flops = elements * (affine + self.activation.flops() + u64::from(self.residual.is_some()));
        Cost { flops, bytes: 4 * elements * tensors }
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        // x and dy are read, dx is written; the residual is read if it is part of the activation's argument, and its
        // gradient is a buffer of its own.
        let tensors = 3 + u64::from(self.residual.is_some()) + u64::from(self.before);
        let affine = if self.is_affine() { 11 } else { 0 };
        Cost { flops: elements * (affine + 2 * self.activation.flops()), bytes: 4 * elements * tensors }
    }
}
