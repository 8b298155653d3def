//! A decoder block in chunks of points, layer by layer:
//!
//! `h = W₁x + b₁`, `k = W₂·dropout(act(norm(h))) + b₂`, `y = act(norm(k) + r)`, `r = x` or `W_r·x + b_r`
//!
//! Forward, one array of the output's size holds `h`, then `k`, then `y`: a chunk of points is taken out, goes through a
//! layer and is put back, and the norms' scalar statistics are taken of the whole array, as without chunks. Backward, two
//! such arrays do: the gradient's own, which becomes that of `r` and then that of `x`, and one for `h`, which becomes that
//! of `norm(h)`. Three passes over the chunks, for each norm's gradient needs sums over all points:
//!
//! 1. `k` of each chunk anew; sums of the second norm; `dr` in place of `dy`.
//! 2. `k` of each chunk anew; `dk`, `dW₂`; sums of the first norm; the first norm's direct gradient in place of `h`.
//! 3. `h` of each chunk anew; `dh`, `dW₁`, `dW_r`; `dx` in place of `dr`.
//!
//! So both products run three times, each backward once: 1⅔ of the work of a step that keeps everything.

mod backward;

use std::ops::Range;

use super::skip_repeats;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::Parameters;
use crate::nn::layers::{Act, EPSILON, Linear, NormAct};
use crate::ops::activation::Activation;
use crate::ops::dropout::dropout_from;
use crate::ops::norm_act::{self, ResidualPlace, norm_act};
use crate::ops::{self, Cost, Grouping, Needs, Op, copy_range};
use crate::tape::{Backward, Mode, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Most points of a chunk. A chunk's handful of arrays of 512 features are then some 20 MiB.
const CHUNK: usize = 2048;

const NAME: &str = "chunked_block";

/// The layers of a block.
pub struct BlockLayers<'a> {
    /// `W₁`.
    pub first: &'a Linear,
    /// The norm of `h`, conditional.
    pub first_norm: &'a NormAct,
    /// The activation of `h`.
    pub first_act: &'a Act,
    /// Dropout of what `W₂` sees.
    pub dropout: f32,
    /// `W₂`.
    pub second: &'a Linear,
    /// The norm of `k`, conditional.
    pub second_norm: &'a NormAct,
    /// The activation of the sum.
    pub second_act: &'a Act,
    /// `W_r`, if the residual is not `x` itself.
    pub residual: Option<&'a Linear>,
}

/// The block's output `[points, width]` for `x` `[points, features]`, whose points are divided evenly among the rows of
/// `latent` `[batch, …]`; `shared` `[batch, …]` is what the first layer and the residual see beside `x`. In training only:
/// statistics are the batch's.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn chunked_block(
    tape: &Tape,
    parameters: &Parameters,
    layers: &BlockLayers<'_>,
    [x, latent]: [&Var; 2],
    shared: Option<&Var>,
) -> Result<Var> {
    let device = tape.device();
    let batch = latent.shape()[0];
    // Scale and shift of a norm, and a product's weight and bias, one row a volume.
    let affine = |norm: &NormAct| norm.conditional_affine(tape, parameters, latent);
    let [first_affine, second_affine] = [affine(layers.first_norm)?, affine(layers.second_norm)?];
    let (first, residual) = layers.first.weights_and_biases(tape, parameters, shared, layers.residual)?;
    let second = layers.second.weight_and_bias(tape, parameters, None)?;
    let (first_act, second_act) = (layers.first_act.vars(tape, parameters), layers.second_act.vars(tape, parameters));
    let op = ChunkedBlock {
        batch,
        residual: residual.is_some(),
        activation: layers.first_act.activation(),
        dropout: layers.dropout,
        seed: tape.next_seed(),
        precision: tape.precision(),
    };
    let mut inputs = vec![x];
    inputs.extend(first.iter().chain(&second).chain(&first_affine).chain(&second_affine));
    inputs.extend(residual.iter().flatten());
    inputs.extend(first_act.iter().chain(&second_act));
    let values: Vec<Tensor> = inputs.iter().map(|var| var.tensor()).collect();
    let (output, statistics) = device.in_op(NAME, || {
        let shape = [x.shape()[0], second[0].shape()[0]];
        let mut output = Tensor::empty(device, &shape, op.precision.storage(), Role::Transient)?;
        let exact = |own: Tensor| tape.sync_group().map_or(Ok(own.clone()), |others| others.moments(own));
        let statistics = op.run(&op.values(device, &values), Statistics::Taken(&exact), &mut output)?;
        Ok::<_, Error>((output, statistics))
    })?;
    let statistics = statistics.map(|statistics| tape.constant(statistics));
    let count = output.len();
    for (norm, statistics) in [layers.first_norm, layers.second_norm].into_iter().zip(&statistics) {
        norm.note(tape, statistics, count);
    }
    inputs.extend(&statistics);
    tape.apply_made(op, &inputs, output)
}

struct ChunkedBlock {
    batch: usize,
    /// The residual is a product of its own.
    residual: bool,
    activation: Activation,
    dropout: f32,
    seed: u64,
    precision: Precision,
}

// Positions of the inputs. Behind these: weight and bias of the residual, if it is a product; coefficients of both
// activations; statistics of both norms.
const X: usize = 0;
/// Weight, then bias.
const FIRST: usize = 1;
const SECOND: usize = 3;
/// Scale, then shift.
const FIRST_NORM: usize = 5;
const SECOND_NORM: usize = 7;
const OPTIONAL: usize = 9;

/// Some rows of one volume.
#[derive(Clone)]
struct Chunk {
    item: usize,
    rows: Range<usize>,
}

/// The values of the inputs.
struct Values<'a> {
    device: &'a Device,
    batch: usize,
    all: &'a [Tensor],
    coefficients: [Range<usize>; 2],
}

impl ChunkedBlock {
    fn tape(&self, device: &Device, mode: Mode) -> Tape {
        Tape::new(device, mode).with_precision(self.precision)
    }

    /// The coefficients of both activations among the inputs.
    fn coefficients(&self) -> [Range<usize>; 2] {
        let start = OPTIONAL + if self.residual { 2 } else { 0 };
        let len = self.activation.parameter_lengths().len();
        [start..start + len, start + len..start + 2 * len]
    }

    fn values<'a>(&self, device: &'a Device, all: &'a [Tensor]) -> Values<'a> {
        Values { device, batch: self.batch, all, coefficients: self.coefficients() }
    }

    /// A norm with given statistics, scale and shift, and the activation; `residual` is added before that.
    fn parts<'a>(
        &self,
        [statistics, gamma, beta]: [&'a Var; 3],
        residual: Option<&'a Var>,
        coefficients: &'a [&'a Var],
    ) -> norm_act::NormActArgs<'a> {
        norm_act::NormActArgs {
            statistics: Some((statistics, Grouping::Scalar)),
            epsilon: EPSILON,
            gamma: Some(gamma),
            beta: Some(beta),
            residual: residual.map(|residual| (residual, ResidualPlace::BeforeActivation)),
            activation: self.activation,
            parameters: coefficients,
            ..norm_act::NormActArgs::default()
        }
    }

    /// `norm(x)`, activated.
    fn norm_act(
        &self,
        tape: &Tape,
        x: &Var,
        norm: [&Var; 3],
        residual: Option<&Var>,
        coefficients: &[Var],
    ) -> Result<Var> {
        norm_act(tape, x, &self.parts(norm, residual, &coefficients.iter().collect::<Vec<_>>()))
    }

    /// The layers between `h` and `k`, of a chunk.
    fn middle(&self, tape: &Tape, chunk: &Chunk, h: &Var, leaves: &Leaves) -> Result<Var> {
        let Leaves { norm, coefficients, weight, bias } = leaves;
        if self.dropout == 0.0 {
            let coefficients: Vec<&Var> = coefficients.iter().collect();
            let parts = self.parts(norm.each_ref(), None, &coefficients);
            return Ok(ops::norm_act_linear(tape, h, &parts, [weight, bias], false)?.value);
        }
        let hidden = self.norm_act(tape, h, norm.each_ref(), None, coefficients)?;
        let first = chunk.rows.start * hidden.shape()[1];
        let hidden = dropout_from(tape, hidden, self.dropout, self.seed, first)?;
        ops::linear(tape, &hidden, weight, None, Some(bias))
    }

    /// Fills `output` layer by layer; the statistics are taken on the way unless they are given.
    fn run(&self, values: &Values<'_>, statistics: Statistics<'_>, output: &mut Tensor) -> Result<[Tensor; 2]> {
        let device = values.device;
        for chunk in values.chunks() {
            let tape = self.tape(device, Mode::Eval);
            let x = tape.constant(values.rows(X, &chunk)?);
            let h = values.product(&tape, FIRST, &chunk, &x)?.tensor();
            values.put(output, &chunk, &h)?;
        }
        let first = statistics.of(0, output)?;
        for chunk in values.chunks() {
            let tape = self.tape(device, Mode::Eval);
            let h = tape.constant(values.rows_of(output, &chunk)?);
            let leaves = values.leaves(&tape, &chunk, 0, &first, Tape::constant)?;
            let k = self.middle(&tape, &chunk, &h, &leaves)?.tensor();
            drop(h);
            values.put(output, &chunk, &k)?;
        }
        let second = statistics.of(1, output)?;
        for chunk in values.chunks() {
            let tape = self.tape(device, Mode::Eval);
            let k = tape.constant(values.rows_of(output, &chunk)?);
            let residual = self.residual_of(&tape, values, &chunk)?;
            let leaves = values.leaves(&tape, &chunk, 1, &second, Tape::constant)?;
            let y = self.norm_act(&tape, &k, leaves.norm.each_ref(), Some(&residual), &leaves.coefficients)?.tensor();
            values.put(output, &chunk, &y)?;
        }
        Ok([first, second])
    }

    fn residual_of(&self, tape: &Tape, values: &Values<'_>, chunk: &Chunk) -> Result<Var> {
        let x = tape.constant(values.rows(X, chunk)?);
        if self.residual { values.product(tape, OPTIONAL, chunk, &x) } else { Ok(x) }
    }
}

/// Where the norms' statistics come from.
enum Statistics<'a> {
    /// A pass that has been made before.
    Given([Tensor; 2]),
    /// The norms' inputs, and what makes those of all passes of them.
    Taken(&'a dyn Fn(Tensor) -> Result<Tensor>),
}

impl Statistics<'_> {
    /// Of the first (0) or second (1) norm, whose input `whole` is.
    fn of(&self, which: usize, whole: &Tensor) -> Result<Tensor> {
        match self {
            Self::Given(all) => Ok(all[which].clone()),
            Self::Taken(exact) => exact(scalar_statistics(whole)?),
        }
    }
}

/// Mean and biased variance of all elements.
fn scalar_statistics(whole: &Tensor) -> Result<Tensor> {
    let tape = Tape::new(whole.device(), Mode::Eval);
    let whole = tape.constant(whole.clone());
    Ok(ops::moments(&tape, &whole, Grouping::Scalar)?.tensor())
}

/// What a norm and the product after it read, as vars of a chunk's tape.
struct Leaves {
    /// Statistics, and scale and shift of the chunk's volume.
    norm: [Var; 3],
    coefficients: Vec<Var>,
    weight: Var,
    bias: Var,
}

impl Values<'_> {
    /// The points, volume by volume.
    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let rows = self.all[X].rows() / self.batch;
        let chunks = (0..self.batch).flat_map(move |item| {
            (0..rows).step_by(CHUNK).map(move |first| {
                let start = item * rows + first;
                Chunk { item, rows: start..start + CHUNK.min(rows - first) }
            })
        });
        skip_repeats(self.device, chunks, |chunk| chunk.rows.len())
    }

    /// The chunk's rows of a tensor.
    fn rows_of(&self, tensor: &Tensor, chunk: &Chunk) -> Result<Tensor> {
        let width = tensor.channels();
        let shape = [chunk.rows.len(), width];
        copy_range::take(self.device, tensor, chunk.rows.start * width..chunk.rows.end * width, 0, &shape)
    }

    /// The chunk's rows of an input.
    fn rows(&self, input: usize, chunk: &Chunk) -> Result<Tensor> {
        self.rows_of(&self.all[input], chunk)
    }

    /// The row of the chunk's volume of an input `[batch, features]`; the input itself if it has one row for all.
    fn row(&self, input: usize, chunk: &Chunk) -> Result<Tensor> {
        let (value, width) = (&self.all[input], self.all[input].channels());
        match value.rows() == self.batch && value.shape().len() == 2 {
            true => copy_range::take(self.device, value, chunk.item * width..(chunk.item + 1) * width, 0, &[1, width]),
            false => Ok(value.clone()),
        }
    }

    /// `x·Wᵀ + b` of a chunk, with weight and bias at `at`.
    fn product(&self, tape: &Tape, at: usize, chunk: &Chunk, x: &Var) -> Result<Var> {
        let (weight, bias) = (tape.constant(self.all[at].clone()), tape.constant(self.row(at + 1, chunk)?));
        let columns = 0..x.shape()[1];
        ops::linear(tape, x, &weight, Some(columns), Some(&bias))
    }

    /// What the first (0) or second (1) norm and the second product read; `leaf` makes vars of all but the statistics.
    fn leaves(
        &self,
        tape: &Tape,
        chunk: &Chunk,
        which: usize,
        statistics: &Tensor,
        leaf: impl Fn(&Tape, Tensor) -> Var,
    ) -> Result<Leaves> {
        let norm = [FIRST_NORM, SECOND_NORM][which];
        Ok(Leaves {
            norm: [
                tape.constant(statistics.clone()),
                leaf(tape, self.row(norm, chunk)?),
                leaf(tape, self.row(norm + 1, chunk)?),
            ],
            coefficients: self.coefficients[which].clone().map(|i| leaf(tape, self.all[i].clone())).collect(),
            weight: leaf(tape, self.all[SECOND].clone()),
            bias: leaf(tape, self.all[SECOND + 1].clone()),
        })
    }

    /// Puts a chunk's rows back.
    fn put(&self, into: &mut Tensor, chunk: &Chunk, rows: &Tensor) -> Result<()> {
        copy_range::put(self.device, into, chunk.rows.start * rows.channels(), rows, 0..rows.len(), false)
    }
}

impl Op for ChunkedBlock {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        match (inputs[X], inputs[SECOND]) {
            ([rows, _], [width, _]) if rows.is_multiple_of(self.batch) => Ok(vec![*rows, *width]),
            (x, weight) => {
                Err(Error::shape(NAME, format!("{x:?} with {weight:?} is no batch of {} volumes' points", self.batch)))
            }
        }
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let all: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
        let statistics = self.coefficients()[1].end;
        let given = [all[statistics].clone(), all[statistics + 1].clone()];
        self.run(&self.values(device, &all), Statistics::Given(given), output)?;
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        backward::backward(self, backward)
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&(0..self.coefficients()[1].end + 2).collect::<Vec<_>>())
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let [points, features] = [inputs[X][0] as u64, inputs[X][1] as u64];
        let width = inputs[SECOND][0] as u64;
        let products = features * width * (1 + u64::from(self.residual)) + width * width;
        let elementwise = 2 * width * (8 + self.activation.flops());
        Cost { flops: points * (2 * products + elementwise), bytes: 4 * points * (features + width) + 4 * products }
    }

    /// The gradients' products, and the forward pass's twice again.
    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 4 * forward.flops, bytes: 3 * forward.bytes }
    }
}
