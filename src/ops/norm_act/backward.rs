//! The backward pass: which buffer holds what, and when.

use super::{Fused, cpu};
use crate::device::{Backend, Device};
use crate::error::Result;
use crate::memory::Role;
use crate::ops::activation::{Function, write_coefficient_gradients};
use crate::ops::layout::Layout;
use crate::ops::{Op, workspace};
use crate::tape::Backward;
use crate::tensor::{DType, Shape, Tensor};

/// What the passes share.
struct Shared {
    device: Device,
    layout: Layout,
    /// Values of statistics, scale and shift.
    vectors: [Option<Tensor>; 3],
    scratch: Tensor,
}

impl Shared {
    fn norm(&self, op: &Fused) -> cpu::Norm<'_> {
        op.norm(self.layout, self.vectors.each_ref().map(Option::as_ref))
    }
}

/// See the page of the op.
pub(super) fn backward(op: &Fused, backward: &mut Backward<'_>) -> Result<()> {
    let device = backward.device().clone();
    let shapes: Vec<Shape> = (0..op.parameters).map(|i| backward.shape(i).to_vec()).collect();
    let layout = op.layout(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
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
    let size = cpu::backward_workspace(&layout, op.is_affine(), op.activation.coefficients());
    let mut shared = Shared { layout, vectors, scratch: workspace(&device, size)?, device };
    let g = first_pass(op, backward, &mut shared, x.as_ref(), sums)?;
    if op.activates() {
        let sums = match shared.device.backend() {
            Backend::Cpu { .. } => cpu::coefficient_gradients(&shared.norm(op), shared.scratch.data()),
            Backend::Cuda(_) => return Err(crate::ops::no_kernel()),
            Backend::Plan { .. } => &[],
        };
        write_coefficient_gradients(backward, op.activation, op.parameters, sums)?;
    }
    for (position, sum) in [(op.beta, cpu::Sum::Gradient), (op.gamma, cpu::Sum::GradientTimesInput)] {
        let Some(position) = position else { continue };
        backward.write_gradient(position, |device, gradient, accumulate| {
            if let Backend::Cpu { .. } = device.backend() {
                cpu::vector_gradient(&shared.norm(op), sum, shared.scratch.data(), gradient.data_mut(), accumulate);
            }
            Ok(())
        })?;
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
        (Tensor::empty(&shared.device, dy.shape(), DType::F32, Role::Transient)?, Some(dy))
    } else {
        (backward.gradient().clone(), None)
    };
    let Backend::Cpu { pool, .. } = shared.device.backend() else { return Ok(g) };
    let norm = op.norm(shared.layout, shared.vectors.each_ref().map(Option::as_ref));
    let function = Function::new(op.activation, parameters.iter().map(Tensor::data));
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
    let mut run = |source: cpu::Second<'_>, out: &mut Tensor, accumulate: bool| {
        if let Backend::Cpu { pool, .. } = shared.device.backend() {
            let norm = op.norm(shared.layout, shared.vectors.each_ref().map(Option::as_ref));
            let scratch = shared.scratch.data_mut();
            cpu::second(pool, &norm, through, source, accumulate, scratch, out.data_mut());
        }
    };
    if g.is_unique() {
        run(cpu::Second { g: None, x: x.as_ref().map(Tensor::data) }, &mut g, false);
        return backward.accumulate(0, g);
    }
    // g is the residual's gradient as well. So dx goes into x's own buffer, if this is its last use.
    drop(x);
    if let Some(mut x) = backward.take_value(0)? {
        run(cpu::Second { g: Some(g.data()), x: None }, &mut x, false);
        return backward.accumulate(0, x);
    }
    let x = if through { Some(backward.value(0)?) } else { None };
    backward.write_gradient(0, |_, dx, accumulate| {
        run(cpu::Second { g: Some(g.data()), x: x.as_ref().map(Tensor::data) }, dx, accumulate);
        Ok(())
    })
}
