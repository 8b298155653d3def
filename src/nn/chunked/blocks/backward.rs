//! The three passes of the backward pass over the chunks: see the page of the block.

use super::{Chunk, ChunkedBlock, FIRST, FIRST_NORM, Leaves, NAME, OPTIONAL, SECOND, SECOND_NORM, Values, X};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::chunked::StatsGradient;
use crate::nn::layers::EPSILON;
use crate::ops::norm_act::{self, norm_act};
use crate::ops::{self, Grouping, copy_range};
use crate::tape::{Backward, Mode, SyncGroup, Tape, Var};
use crate::tensor::Tensor;

/// See the page of the block.
pub(super) fn backward(op: &ChunkedBlock, backward: &mut Backward<'_>) -> Result<()> {
    let device = backward.device().clone();
    let at = op.coefficients()[1].end;
    let all = (0..at + 2).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
    let statistics = [&all[at], &all[at + 1]];
    let values = op.values(&device, &all);
    let mut gradient = backward.take_gradient()?;
    let mut totals = Totals { values: &values, sums: vec![None; at], sync_group: backward.sync_group() };
    let mut h = Tensor::empty(&device, gradient.shape(), gradient.dtype(), Role::Transient)?;
    for chunk in values.chunks() {
        let tape = op.tape(&device, Mode::Eval);
        let x = tape.constant(values.rows(X, &chunk)?);
        let rows = values.product(&tape, FIRST, &chunk, &x)?.tensor();
        values.put(&mut h, &chunk, &rows)?;
    }
    op.first_pass(&mut totals, &mut gradient, &h, statistics)?;
    op.second_pass(&mut totals, &gradient, &mut h, statistics)?;
    let mut dx = match op.residual && backward.wants(X) {
        true => Some(Tensor::empty(&device, all[X].shape(), all[X].dtype(), Role::Transient)?),
        false => None,
    };
    op.third_pass(&mut totals, &mut gradient, dx.as_mut(), &h, statistics[0])?;
    drop(h);
    for (input, sum) in totals.sums.into_iter().enumerate() {
        if let Some(sum) = sum {
            backward.accumulate(input, sum)?;
        }
    }
    // Without a product the residual's gradient has become that of x.
    backward.accumulate(X, if op.residual { dx.unwrap_or(gradient) } else { gradient })
}

/// Gradients of the inputs, summed chunk by chunk.
struct Totals<'a> {
    values: &'a Values<'a>,
    sums: Vec<Option<Tensor>>,
    /// The other passes, whose statistics are the same.
    sync_group: Option<&'a dyn SyncGroup>,
}

impl Totals<'_> {
    /// Adds what a chunk's tape left at a leaf: the gradient of an input, or of its row for the chunk's volume.
    fn add(&mut self, tape: &Tape, input: usize, chunk: &Chunk, leaf: &Var) -> Result<()> {
        let Some(part) = tape.take_gradient(leaf) else { return Ok(()) };
        let whole = &self.values.all[input];
        let total = match self.sums[input].take() {
            None if part.len() == whole.len() => part.reshaped(whole.shape())?,
            former => {
                let zeros = || Tensor::zeros(self.values.device, whole.shape(), Role::Transient);
                let mut total = former.map_or_else(zeros, Ok)?;
                let at = if part.len() == whole.len() { 0 } else { chunk.item * part.len() };
                copy_range::put(self.values.device, &mut total, at, &part, 0..part.len(), true)?;
                total
            }
        };
        self.sums[input] = Some(total);
        Ok(())
    }

    /// Adds the gradients of scale, shift and coefficients of the first (0) or second (1) norm.
    fn add_norm(&mut self, tape: &Tape, which: usize, chunk: &Chunk, leaves: &Leaves) -> Result<()> {
        let norm = [FIRST_NORM, SECOND_NORM][which];
        self.add(tape, norm, chunk, &leaves.norm[1])?;
        self.add(tape, norm + 1, chunk, &leaves.norm[2])?;
        let coefficients = self.values.coefficients[which].clone().zip(&leaves.coefficients);
        coefficients.into_iter().try_for_each(|(input, leaf)| self.add(tape, input, chunk, leaf))
    }

    /// What flows through a norm's statistics, once the sums over all chunks are there.
    fn through(&self, which: usize, statistics: &Tensor, count: usize) -> Result<StatsGradient> {
        let norm = [FIRST_NORM, SECOND_NORM][which];
        match (&self.sums[norm], &self.sums[norm + 1]) {
            (Some(products), Some(sums)) => {
                let (gamma, statistics) = (&self.values.all[norm], (statistics, Grouping::Scalar));
                StatsGradient::new(self.values.device, statistics, gamma, [products, sums], count, self.sync_group)
            }
            _ => Err(Error::shape(NAME, "there are no points")),
        }
    }
}

impl ChunkedBlock {
    /// `k` of a chunk from its rows of `h`.
    fn second_again(&self, values: &Values<'_>, chunk: &Chunk, h: &Tensor, statistics: &Tensor) -> Result<Tensor> {
        let tape = self.tape(values.device, Mode::Eval);
        let h = tape.constant(values.rows_of(h, chunk)?);
        let leaves = values.leaves(&tape, chunk, 0, statistics, Tape::constant)?;
        Ok(self.middle(&tape, chunk, &h, &leaves)?.tensor())
    }

    /// `s·γ·g` of the second norm from `g`, its argument's gradient.
    fn second_direct(
        &self,
        values: &Values<'_>,
        chunk: &Chunk,
        k: Tensor,
        statistics: &Tensor,
        g: Tensor,
    ) -> Result<Tensor> {
        let tape = self.tape(values.device, Mode::EvalWithGradients);
        let (k, statistics) = (tape.input(k), tape.constant(statistics.clone()));
        let gamma = tape.constant(values.row(SECOND_NORM, chunk)?);
        let parts = norm_act::NormActArgs {
            statistics: Some((&statistics, Grouping::Scalar)),
            epsilon: EPSILON,
            gamma: Some(&gamma),
            ..norm_act::NormActArgs::default()
        };
        let y = norm_act(&tape, &k, &parts)?;
        tape.pull(vec![(y, g)])?;
        tape.take_gradient(&k).ok_or_else(|| Error::shape(NAME, "a chunk without a gradient"))
    }

    /// The first pass: `gradient` becomes that of the residual.
    fn first_pass(
        &self,
        totals: &mut Totals<'_>,
        gradient: &mut Tensor,
        h: &Tensor,
        statistics: [&Tensor; 2],
    ) -> Result<()> {
        let values = totals.values;
        for chunk in values.chunks() {
            let tape = self.tape(values.device, Mode::EvalWithGradients);
            let k = tape.constant(self.second_again(values, &chunk, h, statistics[0])?);
            let residual = self.residual_of(&self.tape(values.device, Mode::Eval), values, &chunk)?;
            let residual = tape.input(residual.tensor());
            let leaves = values.leaves(&tape, &chunk, 1, statistics[1], Tape::input)?;
            let y = self.norm_act(&tape, &k, leaves.norm.each_ref(), Some(&residual), &leaves.coefficients)?;
            tape.pull(vec![(y, values.rows_of(gradient, &chunk)?)])?;
            totals.add_norm(&tape, 1, &chunk, &leaves)?;
            if let Some(rows) = tape.take_gradient(&residual) {
                values.put(gradient, &chunk, &rows)?;
            }
        }
        Ok(())
    }

    /// The second pass: `h` becomes the direct part of its gradient.
    fn second_pass(
        &self,
        totals: &mut Totals<'_>,
        gradient: &Tensor,
        h: &mut Tensor,
        statistics: [&Tensor; 2],
    ) -> Result<()> {
        let values = totals.values;
        let through = totals.through(1, statistics[1], h.len())?;
        for chunk in values.chunks() {
            let tape = self.tape(values.device, Mode::EvalWithGradients);
            let rows = tape.input(values.rows_of(h, &chunk)?);
            let leaves = values.leaves(&tape, &chunk, 0, statistics[0], Tape::input)?;
            let k = self.middle(&tape, &chunk, &rows, &leaves)?;
            let g = values.rows_of(gradient, &chunk)?;
            let direct = self.second_direct(values, &chunk, k.tensor(), statistics[1], g)?;
            let dk = through.add(k.tensor(), direct)?;
            tape.pull(vec![(k, dk)])?;
            totals.add_norm(&tape, 0, &chunk, &leaves)?;
            totals.add(&tape, SECOND, &chunk, &leaves.weight)?;
            totals.add(&tape, SECOND + 1, &chunk, &leaves.bias)?;
            if let Some(direct) = tape.take_gradient(&rows) {
                values.put(h, &chunk, &direct)?;
            }
        }
        Ok(())
    }

    /// The third pass: the gradient of `x` from that of the residual, in `gradient` itself or, behind a product, in `dx`.
    fn third_pass(
        &self,
        totals: &mut Totals<'_>,
        gradient: &mut Tensor,
        mut dx: Option<&mut Tensor>,
        h: &Tensor,
        statistics: &Tensor,
    ) -> Result<()> {
        let values = totals.values;
        let through = totals.through(0, statistics, h.len())?;
        for chunk in values.chunks() {
            let tape = self.tape(values.device, Mode::EvalWithGradients);
            let x = values.rows(X, &chunk)?;
            let x = if self.residual && dx.is_none() { tape.constant(x) } else { tape.input(x) };
            let product = |at: usize| {
                let (weight, bias) = (tape.input(values.all[at].clone()), tape.input(values.row(at + 1, &chunk)?));
                let y = ops::linear(&tape, &x, &weight, Some(0..x.shape()[1]), Some(&bias))?;
                Ok::<_, Error>((y, [weight, bias]))
            };
            let (again, first) = product(FIRST)?;
            let dh = through.add(again.tensor(), values.rows_of(h, &chunk)?)?;
            let mut outputs = vec![(again, dh)];
            let mut leaves = vec![(FIRST, first)];
            if self.residual {
                let (residual, own) = product(OPTIONAL)?;
                outputs.push((residual, values.rows_of(gradient, &chunk)?));
                leaves.push((OPTIONAL, own));
            }
            tape.pull(outputs)?;
            for (at, [weight, bias]) in &leaves {
                totals.add(&tape, *at, &chunk, weight)?;
                totals.add(&tape, at + 1, &chunk, bias)?;
            }
            let Some(rows) = tape.take_gradient(&x) else { continue };
            match &mut dx {
                Some(dx) => values.put(dx, &chunk, &rows)?,
                None => {
                    let at = chunk.rows.start * rows.channels();
                    copy_range::put(values.device, gradient, at, &rows, 0..rows.len(), true)?;
                }
            }
        }
        Ok(())
    }
}
