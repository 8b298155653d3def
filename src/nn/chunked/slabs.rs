//! The first half of an encoder block, `conv → batch norm → activation → average pool 2³`, slab by slab.
//!
//! A slab is a few planes of the first spatial axis, and reads a few more of its neighbours. The convolution's output never
//! exists whole: what remains is the pooled result, an eighth. Then the convolution runs once for the statistics, once for the
//! result, and in the backward pass once for the sums and once for the gradients. On CUDA the result needs no slabs where the
//! convolution's own kernel does everything ([`ConvNormActPool`]).

use std::ops::Range;

use super::{StatsGradient, Sum, skip_repeats};
use crate::device::{Backend, Device};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::nn::Parameters;
use crate::nn::layers::{Act, Conv, EPSILON, NormAct};
use crate::ops::activation::Activation;
use crate::ops::conv3d::{ConvGeometry, ConvNormActPool, Sizes};
use crate::ops::moments::Merged;
use crate::ops::norm_act;
use crate::ops::{self, Cost, Grouping, Needs, Op, copy_range, workspace};
use crate::tape::{Backward, Mode, Precision, Tape, Var};
use crate::tensor::{DType, Shape, Tensor};

/// Elements of the convolution's output that one slab has at most, if two planes are no more, for each volume of the batch:
/// a larger batch takes larger slabs, as it does of everything else, and not more of them.
const SLAB: usize = 1 << 20;

/// Slabs that a volume is cut into at most, so that slabs grow with very large volumes rather than their number.
const SLABS: usize = 128;

/// Side of the pool.
const POOL: usize = 2;

const NAME: &str = "slabs";

/// `pool(act(norm(conv(x))))` of `x` `[batch, D, H, W, channels]`, of which the convolution's output never exists whole. The
/// convolution has stride 1 and keeps the lengths of the axes.
///
/// # Errors
/// Shapes that do not fit, or no memory.
pub fn conv_norm_act_pool(
    tape: &Tape,
    parameters: &Parameters,
    (conv, norm, act): (&Conv, &NormAct, &Act),
    x: &Var,
) -> Result<Var> {
    let Some([gamma, beta]) = norm.channel_affine() else {
        return Err(Error::Model("a block in slabs needs a batch normalisation".into()));
    };
    let weight = tape.parameter(parameters, conv.weight);
    let (through, activation) = (norm.is_through(tape), act.activation());
    let op = Slabs { conv: conv.geometry(), through, activation, precision: tape.precision() };
    let count = x.shape().iter().rev().skip(1).product();
    let statistics = norm.statistics(tape, parameters, count, || {
        Ok(tape.constant(op.statistics(tape.device(), &x.tensor(), &weight.tensor())?))
    })?;
    let [gamma, beta] = [gamma, beta].map(|id| tape.parameter(parameters, id));
    let coefficients = act.vars(tape, parameters);
    let inputs: Vec<&Var> = [x, &weight, &statistics, &gamma, &beta].into_iter().chain(&coefficients).collect();
    tape.apply(op, &inputs)
}

// Positions of the inputs; scale, shift and the activation's coefficients follow.
const X: usize = 0;
const WEIGHT: usize = 1;
const STATISTICS: usize = 2;

struct Slabs {
    conv: ConvGeometry,
    /// Gradients flow through the statistics.
    through: bool,
    activation: Activation,
    precision: Precision,
}

/// Some planes of one volume of a batch.
#[derive(Clone, Copy)]
struct Slab {
    item: usize,
    first: usize,
    planes: usize,
}

/// Volumes that are cut into slabs.
struct Cut {
    batch: usize,
    depth: usize,
    planes: usize,
}

impl Cut {
    /// Of the convolution's output `[batch, D, H, W, C]`.
    fn of(shape: &[usize]) -> Self {
        let plane = shape[2..].iter().fold(1usize, |product, &length| product.saturating_mul(length));
        let (batch, depth) = (shape[0], shape[1]);
        let planes = (SLAB / plane.max(1)).max(depth.div_ceil(SLABS)).saturating_mul(batch.max(1)).min(depth.max(1));
        Self { batch, depth, planes: planes.next_multiple_of(POOL) }
    }

    /// Whole windows of the pool each; a last odd plane, which the pool drops, belongs to the last slab.
    fn slabs(&self, device: &Device) -> impl Iterator<Item = Slab> + use<> {
        let Self { batch, depth, planes } = *self;
        let pooled = depth / POOL * POOL;
        let slabs = (0..batch).flat_map(move |item| {
            (0..pooled).step_by(planes).map(move |first| {
                let planes = if first + planes >= pooled { depth - first } else { planes };
                Slab { item, first, planes }
            })
        });
        skip_repeats(device, slabs, |slab| slab.planes)
    }
}

/// Elements of a slab in a tensor of `depth` planes of `plane` elements.
fn stretch(slab: Slab, depth: usize, plane: usize) -> Range<usize> {
    let start = (slab.item * depth + slab.first) * plane;
    start..start + slab.planes * plane
}

/// Elements of a slab in the pooled tensor.
fn place_of(slab: Slab, output: &[usize]) -> Range<usize> {
    let slab = Slab { first: slab.first / POOL, planes: slab.planes / POOL, ..slab };
    stretch(slab, output[1], output[2..].iter().product())
}

impl Slabs {
    fn tape(&self, device: &Device, mode: Mode) -> Tape {
        Tape::new(device, mode).with_precision(self.precision)
    }

    /// Shape of the convolution's output.
    fn convolved(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let mut shape = inputs[X].to_vec();
        if let (&[outputs, ..], Some(channels)) = (inputs[WEIGHT], shape.last_mut()) {
            *channels = outputs;
        }
        match shape.len() == 5 && shape[1..4].iter().all(|&side| side >= POOL) {
            true => Ok(shape),
            false => Err(Error::shape(NAME, format!("{:?} are no volumes with sides of 2 or more", inputs[X]))),
        }
    }

    /// Number of inputs.
    fn inputs(&self) -> usize {
        STATISTICS + 3 + self.activation.parameter_lengths().len()
    }

    /// The slab of the input, with the neighbouring planes that a convolution reads (zeros outside the volume).
    fn source(&self, device: &Device, x: &Tensor, slab: Slab) -> Result<Tensor> {
        let shape = x.shape();
        let (depth, plane) = (shape[1], shape[2..].iter().product::<usize>());
        let halo = self.conv.padding[0];
        let (before, after) = (halo.min(slab.first), halo.min(depth - slab.first - slab.planes));
        let inside = Slab { first: slab.first - before, planes: before + slab.planes + after, ..slab };
        let planes = slab.planes + 2 * halo;
        let shape = [1, planes, shape[2], shape[3], shape[4]];
        copy_range::take(device, x, stretch(inside, depth, plane), (halo - before) * plane, &shape)
    }

    /// The convolution of a slab with its neighbouring planes.
    fn convolve(&self, tape: &Tape, source: &Var, weight: &Var) -> Result<Var> {
        ops::conv3d(tape, source, weight, None, self.of_slab())
    }

    /// The convolution's geometry where its neighbouring planes are given.
    fn of_slab(&self) -> ConvGeometry {
        ConvGeometry { padding: [0, self.conv.padding[1], self.conv.padding[2]], ..self.conv }
    }

    /// Means and biased variances of the channels of the convolution's output `[2, C]`: those of the slabs, put together.
    fn statistics(&self, device: &Device, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let shape = self.convolved(&[x.shape(), weight.shape()])?;
        let channels = shape[4];
        device.in_op(NAME, || {
            let mut merged = Merged::new(device, channels)?;
            for slab in Cut::of(&shape).slabs(device) {
                let tape = self.tape(device, Mode::Eval);
                let (source, weight) = (tape.constant(self.source(device, x, slab)?), tape.constant(weight.clone()));
                let made = ops::conv3d_with_stats(&tape, &source, &weight, None, self.of_slab(), Grouping::Channel)?;
                if let Some(own) = made.statistics {
                    merged.add(&own.tensor(), slab.planes * shape[2] * shape[3])?;
                }
            }
            Ok(merged.moments())
        })
    }

    /// The whole pass by a kernel that does not need slabs.
    fn in_one_launch(
        &self,
        device: &Device,
        pooled: ConvNormActPool<'_>,
        inputs: &[&Tensor],
        output: &mut Tensor,
    ) -> Result<()> {
        device.record_cost("conv3d", || pooled.cost().into());
        let mut scratch = workspace(device, pooled.workspace())?;
        if let Backend::Cuda(cuda) = device.backend() {
            let [statistics, gamma, beta] = [0, 1, 2].map(|i| inputs[STATISTICS + i]);
            let parameters = &inputs[STATISTICS + 3..];
            let vectors = ([statistics, gamma, beta], EPSILON);
            pooled.run(cuda, [inputs[X], inputs[WEIGHT]], vectors, parameters, output, &mut scratch)?;
        }
        Ok(())
    }

    /// `pool(act(norm(x)))` with given statistics.
    fn norm_act_pool(&self, tape: &Tape, x: &Var, rest: &[Var]) -> Result<Var> {
        let (statistics, gamma, beta, coefficients) = (&rest[0], &rest[1], &rest[2], &rest[3..]);
        let parts = norm_act::NormActArgs {
            statistics: Some((statistics, Grouping::Channel)),
            epsilon: EPSILON,
            gamma: Some(gamma),
            beta: Some(beta),
            activation: self.activation,
            parameters: &coefficients.iter().collect::<Vec<_>>(),
            ..norm_act::NormActArgs::default()
        };
        ops::norm_act_pool(tape, x, &parts)
    }
}

impl Op for Slabs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape> {
        let mut shape = self.convolved(inputs)?;
        shape[1..4].iter_mut().for_each(|side| *side /= POOL);
        Ok(shape)
    }

    fn output_dtype(&self, _: &[DType]) -> DType {
        self.precision.storage()
    }

    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape()).collect();
        let convolved = self.convolved(&shapes)?;
        let sizes = Sizes::of(NAME, shapes[X], shapes[WEIGHT], self.conv)?;
        let pooled = ConvNormActPool { sizes: &sizes, activation: self.activation, precision: self.precision };
        if pooled.exists(device, inputs[X].dtype()) {
            return self.in_one_launch(device, pooled, inputs, output);
        }
        for slab in Cut::of(&convolved).slabs(device) {
            let tape = self.tape(device, Mode::Eval);
            let constants: Vec<Var> = inputs[1..].iter().map(|&input| tape.constant(input.clone())).collect();
            let source = tape.constant(self.source(device, inputs[X], slab)?);
            let x = self.convolve(&tape, &source, &constants[0])?;
            drop(source);
            let result = self.norm_act_pool(&tape, &x, &constants[1..])?.tensor();
            let place = place_of(slab, output.shape());
            copy_range::put(device, output, place.start, &result, 0..place.len(), false)?;
        }
        Ok(())
    }

    fn backward(&self, backward: &mut Backward<'_>) -> Result<()> {
        let device = backward.device().clone();
        let shapes: Vec<Shape> = (0..self.inputs()).map(|i| backward.shape(i).to_vec()).collect();
        let convolved = self.convolved(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let weight = backward.value(WEIGHT)?;
        let rest = (STATISTICS..self.inputs()).map(|i| backward.value(i)).collect::<Result<Vec<_>>>()?;
        let dy = backward.gradient().clone();
        let pass = Pass { op: self, device: &device, convolved, weight: &weight, rest: &rest, dy: &dy };
        let sums = pass.sums(&backward.value(X)?)?;
        let through = match (self.through, &sums[1].0, &sums[2].0) {
            (true, Some(products), Some(sums)) => {
                let count = pass.convolved[..4].iter().product();
                let statistics = (&rest[0], Grouping::Channel);
                Some(StatsGradient::new(&device, statistics, &rest[1], [products, sums], count, backward.sync_group())?)
            }
            _ => None,
        };
        for (i, sum) in sums.into_iter().enumerate() {
            if let Some(sum) = sum.0 {
                backward.accumulate(STATISTICS + i, sum)?;
            }
        }
        if !backward.wants(X) && !backward.wants(WEIGHT) {
            return Ok(());
        }
        let x = backward.value(X)?;
        let dx = match backward.wants(X) {
            true => Some(Tensor::zeros_of(&device, x.shape(), x.dtype(), Role::Transient)?),
            false => None,
        };
        let (dx, dw) = pass.convolution_gradients(&x, dx, through.as_ref())?;
        dw.0.map_or(Ok(()), |dw| backward.accumulate(WEIGHT, dw))?;
        dx.map_or(Ok(()), |dx| backward.accumulate(X, dx))
    }

    fn needs(&self) -> Needs {
        Needs::inputs(&(0..self.inputs()).collect::<Vec<_>>())
    }

    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let elements = |shape: &[usize]| shape.iter().map(|&length| length as u64).product::<u64>();
        let convolved = self.convolved(inputs).map_or(0, |shape| elements(&shape));
        // A fused multiply-add a tap, four operations of norm and pool, the activation.
        let taps = elements(&inputs[WEIGHT][1..]);
        Cost {
            flops: convolved * (2 * taps + 4 + self.activation.flops()),
            bytes: 4 * (elements(inputs[X]) + convolved / POOL.pow(3) as u64),
        }
    }

    /// Twice the passes, each with twice the work.
    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost {
        let forward = self.forward_cost(inputs);
        Cost { flops: 4 * forward.flops, bytes: 2 * forward.bytes }
    }
}

/// What the backward pass over all slabs reads.
struct Pass<'a> {
    op: &'a Slabs,
    device: &'a Device,
    /// Shape of the convolution's output.
    convolved: Shape,
    weight: &'a Tensor,
    /// Statistics, scale, shift, coefficients.
    rest: &'a [Tensor],
    /// Gradient of the pooled result.
    dy: &'a Tensor,
}

impl Pass<'_> {
    fn tape(&self) -> Tape {
        self.op.tape(self.device, Mode::EvalWithGradients)
    }

    /// The slab's gradient of the result.
    fn dy(&self, slab: Slab) -> Result<Tensor> {
        let shape = self.dy.shape();
        let place = place_of(slab, shape);
        let shape = [1, slab.planes / POOL, shape[2], shape[3], shape[4]];
        copy_range::take(self.device, self.dy, place, 0, &shape)
    }

    /// Gradients of scale, shift and coefficients, in the order of the inputs; the statistics, which come first, have none.
    fn sums(&self, x: &Tensor) -> Result<Vec<Sum>> {
        let mut sums: Vec<Sum> = self.rest.iter().map(|_| Sum::default()).collect();
        for slab in Cut::of(&self.convolved).slabs(self.device) {
            let tape = self.tape();
            let weight = tape.constant(self.weight.clone());
            let source = tape.constant(self.op.source(self.device, x, slab)?);
            let convolved = self.op.convolve(&tape, &source, &weight)?;
            drop(source);
            let mut leaves = vec![tape.constant(self.rest[0].clone())];
            leaves.extend(self.rest[1..].iter().map(|value| tape.input(value.clone())));
            let result = self.op.norm_act_pool(&tape, &convolved, &leaves)?;
            drop(convolved);
            tape.pull(vec![(result, self.dy(slab)?)])?;
            for (sum, leaf) in sums.iter_mut().zip(&leaves) {
                sum.add(&tape, leaf)?;
            }
        }
        Ok(sums)
    }

    /// The gradient of a slab of the convolution's output, which is `x`.
    fn convolved_gradient(&self, x: &Tensor, slab: Slab, through: Option<&StatsGradient>) -> Result<Tensor> {
        let tape = self.tape();
        let leaf = tape.input(x.clone());
        let constants: Vec<Var> = self.rest.iter().map(|value| tape.constant(value.clone())).collect();
        let result = self.op.norm_act_pool(&tape, &leaf, &constants)?;
        tape.pull(vec![(result, self.dy(slab)?)])?;
        let direct = tape.take_gradient(&leaf).ok_or_else(|| Error::shape(NAME, "a slab without a gradient"))?;
        through.map_or(Ok(direct.clone()), |through| through.add(x.clone(), direct))
    }

    /// Gradients of the convolution's input, added to `dx` if it is given, and of its weight.
    fn convolution_gradients(
        &self,
        x: &Tensor,
        mut dx: Option<Tensor>,
        through: Option<&StatsGradient>,
    ) -> Result<(Option<Tensor>, Sum)> {
        let mut dw = Sum::default();
        let (depth, plane) = (x.shape()[1], x.shape()[2..].iter().product::<usize>());
        let halo = self.op.conv.padding[0];
        for slab in Cut::of(&self.convolved).slabs(self.device) {
            let tape = self.tape();
            let source = self.op.source(self.device, x, slab)?;
            let source = if dx.is_some() { tape.input(source) } else { tape.constant(source) };
            let weight = tape.input(self.weight.clone());
            let convolved = self.op.convolve(&tape, &source, &weight)?;
            let gradient = self.convolved_gradient(&convolved.tensor(), slab, through)?;
            tape.pull(vec![(convolved, gradient)])?;
            dw.add(&tape, &weight)?;
            if let (Some(dx), Some(part)) = (&mut dx, tape.take_gradient(&source)) {
                // Planes outside the volume have no place.
                let skipped = halo.saturating_sub(slab.first);
                let first = slab.first + skipped - halo;
                let planes = (depth - first).min(slab.planes + 2 * halo - skipped);
                let at = (slab.item * depth + first) * plane;
                copy_range::put(self.device, dx, at, &part, skipped * plane..(skipped + planes) * plane, true)?;
            }
        }
        Ok((dx, dw))
    }
}
