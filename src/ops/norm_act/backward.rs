//! The backward pass: which buffer holds what, and when.

use super::{Fused, cpu, cuda};
use crate::device::{Backend, Device, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::activation::{BoundActivation, write_coefficient_gradients};
use crate::ops::tiling_cpu::CpuTiling;
use crate::ops::{Op, workspace};
use crate::tape::Backward;
use crate::tensor::{Shape, Tensor};

/// What the passes share.
struct Shared {
    device: Device,
    layout: CpuTiling,
    /// How CUDA cuts it.
    cut: cuda::Cut,
    /// Values of statistics, scale and shift.
    vectors: [Option<Tensor>; 3],
    scratch: Tensor,
}

impl Shared {
    fn norm(&self, op: &Fused) -> cpu::NormArgs<'_> {
        op.norm(self.layout, self.vectors.each_ref().map(Option::as_ref))
    }
}

/// What all CUDA kernels of a backward pass read.
fn inputs<'a>(op: &Fused, cut: cuda::Cut, vectors: &'a [Option<Tensor>; 3]) -> cuda::Inputs<'a> {
    let vectors = vectors.each_ref().map(Option::as_ref);
    cuda::Inputs { cut, x: None, vectors, before: None, activation: op.activation, parameters: &[] }
}

/// See the page of the op.
pub(super) fn backward(op: &Fused, backward: &mut Backward<'_>) -> Result<()> {
    let device = backward.device().clone();
    let shapes: Vec<Shape> = (0..op.parameters).map(|i| backward.shape(i).to_vec()).collect();
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    let layout = op.layout(&shapes)?;
    let cut = op.cut(&layout, &shapes);
    if let Some(residual) = op.residual
        && !op.before
    {
        let dy = backward.gradient().clone();
        backward.accumulate(residual, dy)?;
    }
    let mut vectors = [None, None, None];
    for (value, position) in vectors.iter_mut().zip(op.vectors()) {
        *value = position.map(|i| backward.value(i)).transpose()?;
    }
    let x = op.needs().input(0).then(|| backward.value(0)).transpose()?;
    let sums = [op.gamma, op.beta].into_iter().flatten().any(|i| backward.wants(i))
        || op.through_statistics && backward.wants(0);
    let coefficients = op.activation.coefficients();
    let size = match device.target() {
        Target::Cpu { .. } => cpu::backward_workspace(&layout, op.is_affine(), coefficients),
        Target::Cuda(_) => cut.workspace(coefficients),
    };
    let mut shared = Shared { layout, cut, vectors, scratch: workspace(&device, size)?, device };
    let g = first_pass(op, backward, &mut shared, x.as_ref(), sums)?;
    match shared.device.target() {
        Target::Cpu { .. } => write_gradients(op, backward, &shared)?,
        Target::Cuda(_) => {
            let inputs = inputs(op, cut, &shared.vectors);
            let of = cuda::Summed { beta: op.beta, gamma: op.gamma, parameters: op.parameters };
            cuda::write_gradients(&inputs, backward, &shared.device, of, sums, &mut shared.scratch)?;
        }
    }
    if let Some(residual) = op.residual
        && op.before
    {
        backward.accumulate(residual, g.clone())?;
    }
    match op.statistics.or(op.gamma) {
        Some(_) if backward.wants(0) => second_pass(op, backward, shared, x, g),
        _ => backward.accumulate(0, g),
    }
}

/// The gradients of coefficients, scale and shift from the sums, on the CPU.
fn write_gradients(op: &Fused, backward: &mut Backward<'_>, shared: &Shared) -> Result<()> {
    let norm = shared.norm(op);
    let sums = if shared.device.is_plan() { &[] } else { cpu::coefficient_gradients(&norm, shared.scratch.data()) };
    write_coefficient_gradients(backward, op.activation, op.parameters, sums)?;
    for (position, sum) in [(op.beta, cpu::Sum::Gradient), (op.gamma, cpu::Sum::GradientTimesInput)] {
        let Some(position) = position else { continue };
        backward.write_gradient(position, |device, gradient, accumulate| {
            if !device.is_plan() {
                cpu::vector_gradient(&norm, sum, shared.scratch.data(), gradient.data_mut(), accumulate);
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// `g = dy·act'(v)`, and the sums.
fn first_pass(
    op: &Fused,
    backward: &mut Backward<'_>,
    shared: &mut Shared,
    x: Option<&Tensor>,
    sums: bool,
) -> Result<Tensor> {
    let learnt = op.activation.parameter_lengths().len();
    let parameters = (0..learnt).map(|i| backward.value(op.parameters + i)).collect::<Result<Vec<_>>>()?;
    let residual = op.residual.filter(|_| op.before && op.activates()).map(|i| backward.value(i)).transpose()?;
    // The gradient's own buffer becomes g. If others hold it, g gets a buffer of its own, unless it is dy itself.
    let (mut g, dy) = if backward.gradient().is_unique() {
        (backward.take_gradient()?, None)
    } else if op.activates() {
        let dy = backward.gradient().clone();
        (Tensor::empty(&shared.device, dy.shape(), dy.dtype(), Role::Transient)?, Some(dy))
    } else {
        (backward.gradient().clone(), None)
    };
    match shared.device.backend() {
        Backend::Cpu { pool, .. } => {
            let norm = op.norm(shared.layout, shared.vectors.each_ref().map(Option::as_ref));
            let function = BoundActivation::new(op.activation, parameters.iter().map(Tensor::data));
            let first = cpu::First {
                function: &function,
                coefficients: op.activation.coefficients(),
                x: x.map_or(&[], Tensor::data),
                residual: residual.as_ref().map(Tensor::data),
                sums,
            };
            let scratch = shared.scratch.data_mut();
            match op.activates() {
                true => cpu::first(pool, &norm, first, dy.as_ref().map(Tensor::data), Some(g.data_mut()), scratch),
                false => cpu::first(pool, &norm, first, Some(g.data()), None, scratch),
            }
        }
        Backend::Cuda(cuda) => {
            let parameters: Vec<&Tensor> = parameters.iter().collect();
            let inputs = cuda::Inputs {
                x,
                before: residual.as_ref(),
                parameters: &parameters,
                ..inputs(op, shared.cut, &shared.vectors)
            };
            match op.activates() {
                true => inputs.first(cuda, dy.as_ref(), Some(&mut g), sums, &mut shared.scratch)?,
                false => inputs.first(cuda, Some(&g), None, sums, &mut shared.scratch)?,
            }
        }
        Backend::Plan { .. } => {}
    }
    Ok(g)
}

/// `dx` from `g`, in whichever buffer is free.
fn second_pass(
    op: &Fused,
    backward: &mut Backward<'_>,
    mut shared: Shared,
    x: Option<Tensor>,
    mut g: Tensor,
) -> Result<()> {
    let through = op.through_statistics;
    // `None` stands for what lies in `out`.
    let mut run = |g: Option<&Tensor>, x: Option<&Tensor>, out: &mut Tensor, accumulate: bool| {
        match shared.device.backend() {
            Backend::Cpu { pool, .. } => {
                let norm = op.norm(shared.layout, shared.vectors.each_ref().map(Option::as_ref));
                let source = cpu::Second { g: g.map(Tensor::data), x: x.map(Tensor::data) };
                cpu::second(pool, &norm, through, source, accumulate, shared.scratch.data_mut(), out.data_mut());
            }
            Backend::Cuda(cuda) => {
                let [g, x] = [g, x].map(|source| source.map_or(out.address(), Tensor::address));
                let inputs = inputs(op, shared.cut, &shared.vectors);
                cuda::second(&inputs, cuda, through, cuda::Second { g, x }, accumulate, &shared.scratch, out)?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(())
    };
    if g.is_unique() {
        run(None, x.as_ref(), &mut g, false)?;
        return backward.accumulate(0, g);
    }
    // g is the residual's gradient as well. So dx goes into x's own buffer, if this is its last use.
    drop(x);
    if let Some(mut x) = backward.take_value(0)? {
        run(Some(&g), None, &mut x, false)?;
        return backward.accumulate(0, x);
    }
    let x = if through { Some(backward.value(0)?) } else { None };
    backward.write_gradient(0, |_, dx, accumulate| run(Some(&g), x.as_ref(), dx, accumulate))
}
