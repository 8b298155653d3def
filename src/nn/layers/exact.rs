//! What flows through a normalisation's statistics where they are those of several passes.
//!
//! The norm's own op takes them for constants then, and leaves `d = s·γ·g` as the gradient of its input. This op stands in front of
//! that input, which it hands on as it is, and turns `d` into `d − mean(d) − x̂·mean(d·x̂)`, with means over all passes. So every
//! fused op can stay what it is.
//! Work: five FLOPs an element backward, and `x` and `d` once more.

use crate::device::Device;
use crate::error::Result;
use crate::nn::chunked::StatsGradient;
use crate::ops::{Cost, Grouping, Needs, Op};
use crate::tape::{Backward, Tape, Var};
use crate::tensor::{Shape, Tensor};

/// `x`, for a norm with the `statistics` of all passes.
///
/// # Errors
/// What the device's driver says.
pub(super) fn in_front(tape: &Tape, x: &Var, statistics: &Var, grouping: Grouping) -> Result<Var> {
    tape.apply_made(InFront { grouping }, &[x, statistics], x.tensor())
}

struct InFront {
    grouping: Grouping,
}

impl Op for InFront {
    fn name(&self) -> &'static str {
        "exact_norm"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        Ok(inputs[0].to_vec())
    }

    fn forward(&self, _: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        output.copy_from(inputs[0])
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let (x, statistics, direct) = (backward.value(0)?, backward.value(1)?, backward.take_gradient()?);
        let count = x.len() / self.grouping.groups(x.channels());
        let through =
            StatsGradient::of_direct(&x, &direct, (&statistics, self.grouping), count, backward.sync_group())?;
        let dx = through.add(x, direct)?;
        backward.accumulate(0, dx)
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&[0, 1])
    }

    fn forward_cost(&self, _: &[&[usize]]) -> Cost {
        Cost::default()
    }

    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = inputs[0].iter().product::<usize>() as u64;
        Cost { flops: 5 * elements, bytes: 4 * 5 * elements }
    }
}
