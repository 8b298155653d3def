//! Layers: parameters with official names, and the ops that use them.
//!
//! A layer holds ids; the weights live in [`Parameters`]. Initial values follow PyTorch's defaults.

use crate::error::Result;
use crate::nn::{BufferId, ParamId, ParameterKind, Parameters};
use crate::ops::activation::{self, Activation};
use crate::ops::conv3d::ConvGeometry;
use crate::ops::linear::WithStats;
use crate::ops::moments::Grouping;
use crate::ops::norm_act::{self, ResidualPlace};
use crate::ops::{self};
use crate::rng::Rng;
use crate::tape::{Precision, Tape, Var};
use crate::tensor::Tensor;

/// ε of every normalisation.
pub const EPSILON: f32 = 1e-5;

/// Share of a batch's statistics in the running ones.
pub const MOMENTUM: f32 = 0.1;

/// Adds parameters below one path of the module tree.
pub struct Builder<'a> {
    parameters: &'a mut Parameters,
    rng: &'a mut Rng,
    path: String,
}

impl<'a> Builder<'a> {
    /// A builder at the root.
    pub fn new(parameters: &'a mut Parameters, rng: &'a mut Rng) -> Self {
        Self { parameters, rng, path: String::new() }
    }

    /// A builder for the module `name` below this one.
    pub fn child(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        let path = self.name(name);
        Builder { parameters: self.parameters, rng: self.rng, path }
    }

    /// The official name of `leaf` here.
    fn name(&self, leaf: impl std::fmt::Display) -> String {
        match self.path.is_empty() {
            true => leaf.to_string(),
            false => format!("{}.{leaf}", self.path),
        }
    }

    /// A parameter drawn uniformly from `[-bound, bound)`.
    fn uniform(&mut self, leaf: &str, shape: &[usize], bound: f32) -> Result<ParamId> {
        let (name, rng) = (self.name(leaf), &mut *self.rng);
        let draw = || (rng.uniform() * 2.0 - 1.0) * bound;
        self.parameters.add(name, ParameterKind::Weight, shape, |values| values.fill_with(draw))
    }

    /// A parameter with one value everywhere.
    fn constant(&mut self, leaf: &str, kind: ParameterKind, shape: &[usize], value: f32) -> Result<ParamId> {
        self.parameters.add(self.name(leaf), kind, shape, |values| values.fill(value))
    }

    /// A fixed table of normal numbers.
    ///
    /// # Errors
    /// No memory.
    pub fn normal_buffer(&mut self, leaf: &str, shape: &[usize], deviation: f32) -> Result<BufferId> {
        let (name, rng) = (self.name(leaf), &mut *self.rng);
        self.parameters.add_buffer(name, shape, |values| values.fill_with(|| rng.normal() * deviation))
    }
}

/// `y = x·Wᵀ + b`.
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: ParamId,
    /// `[outputs]`.
    pub bias: Option<ParamId>,
}

impl Linear {
    /// Kaiming-uniform weights and biases, as PyTorch's `nn.Linear`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(builder: &mut Builder<'_>, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = builder.uniform("weight", &[outputs, inputs], bound)?;
        let bias = bias.then(|| builder.uniform("bias", &[outputs], bound)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// Zero weights and a constant bias: the start of a conditional normalisation's γ (1) and β (0).
    ///
    /// # Errors
    /// No memory.
    pub fn constant(builder: &mut Builder<'_>, inputs: usize, outputs: usize, bias: f32) -> Result<Self> {
        let weight = builder.constant("weight", ParameterKind::Weight, &[outputs, inputs], 0.0)?;
        let bias = Some(builder.constant("bias", ParameterKind::Weight, &[outputs], bias)?);
        Ok(Self { weight, bias })
    }

    /// `x` `[rows…, inputs]` → `[rows…, outputs]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let weight = tape.parameter(parameters, self.weight);
        let bias = self.bias.map(|bias| tape.parameter(parameters, bias));
        ops::linear(tape, x, &weight, None, bias.as_ref())
    }

    /// The same for an input that is `[x | shared]`, where `shared` `[batch, features]`, if there is one, is equal for all rows
    /// of a batch item: its share is one product an item. In training with the statistics that a conditional normalisation
    /// behind it takes of the result, and with the result of a layer of the same sizes `beside` it.
    ///
    /// # Errors
    /// Shapes that do not fit, a layer without bias, or no memory.
    pub fn forward_with_stats(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &Var,
        shared: Option<&Var>,
        beside: Option<&Linear>,
    ) -> Result<(WithStats, Option<Var>)> {
        let (own, beside) = self.weights_and_biases(tape, parameters, shared, beside)?;
        let columns = 0..x.shape()[x.shape().len() - 1];
        if !tape.is_training() {
            let product = |[weight, bias]: &[Var; 2]| ops::linear(tape, x, weight, Some(columns.clone()), Some(bias));
            let (beside, value) = (beside.as_ref().map(product).transpose()?, product(&own)?);
            return Ok((value.into(), beside));
        }
        ops::linear_with_stats(tape, x, own.each_ref(), columns, beside.as_ref().map(|layer| layer.each_ref()))
    }

    /// [`Linear::weight_and_bias`] of this layer and of one of the same sizes `beside` it.
    pub(super) fn weights_and_biases(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        shared: Option<&Var>,
        beside: Option<&Linear>,
    ) -> Result<([Var; 2], Option<[Var; 2]>)> {
        let (Some(other), Some(shared)) = (beside, shared) else {
            let layer = |linear: &Linear| linear.weight_and_bias(tape, parameters, shared);
            return Ok((layer(self)?, beside.map(layer).transpose()?));
        };
        let [own, other] = [self, other].map(|linear| linear.weight_and_bias(tape, parameters, None));
        let ([weight, bias], [other_weight, other_bias]) = (own?, other?);
        let all = weight.shape()[1];
        let columns = all.saturating_sub(shared.shape().last().copied().unwrap_or(0))..all;
        let layers = [[&other_weight, &other_bias], [&weight, &bias]];
        let [other_bias, bias] = tape.at(Precision::F32, || ops::linear_pair(tape, shared, layers, Some(columns)))?;
        Ok(([weight, bias], Some([other_weight, other_bias])))
    }

    /// The weight, and the bias or what becomes of it with the product of a `shared` `[batch, features]` end of the input.
    pub(super) fn weight_and_bias(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        shared: Option<&Var>,
    ) -> Result<[Var; 2]> {
        let weight = tape.parameter(parameters, self.weight);
        let bias = self.bias.map(|bias| tape.parameter(parameters, bias));
        let bias = match (shared, bias) {
            (Some(shared), bias) => {
                let all = weight.shape()[1];
                let own = all.saturating_sub(shared.shape().last().copied().unwrap_or(0));
                tape.at(Precision::F32, || ops::linear(tape, shared, &weight, Some(own..all), bias.as_ref()))?
            }
            (None, Some(bias)) => bias,
            (None, None) => return Err(crate::Error::Model("a layer without bias where one is needed".into())),
        };
        Ok([weight, bias])
    }
}

/// A convolution, or a transposed one.
pub struct Conv {
    /// `[outputs, inputs, kernel…]`, transposed `[inputs, outputs, kernel…]`.
    pub weight: ParamId,
    /// `[outputs]`.
    pub bias: Option<ParamId>,
    geometry: ConvGeometry,
    /// Extra length at the far end of each axis, of a transposed convolution.
    transposed: Option<[usize; 3]>,
}

impl Conv {
    /// Kaiming-uniform weights and biases, as PyTorch's `nn.Conv3d`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        builder: &mut Builder<'_>,
        inputs: usize,
        outputs: usize,
        kernel: [usize; 3],
        stride: [usize; 3],
        padding: [usize; 3],
        bias: bool,
    ) -> Result<Self> {
        let bound = 1.0 / ((inputs * kernel.iter().product::<usize>()) as f32).sqrt();
        let weight = builder.uniform("weight", &[outputs, inputs, kernel[0], kernel[1], kernel[2]], bound)?;
        let bias = bias.then(|| builder.uniform("bias", &[outputs], bound)).transpose()?;
        Ok(Self { weight, bias, geometry: ConvGeometry { stride, padding }, transposed: None })
    }

    /// The same for `nn.ConvTranspose3d`.
    ///
    /// # Errors
    /// No memory.
    pub fn transposed(
        builder: &mut Builder<'_>,
        inputs: usize,
        outputs: usize,
        kernel: [usize; 3],
        stride: [usize; 3],
        padding: [usize; 3],
        output_padding: [usize; 3],
    ) -> Result<Self> {
        // PyTorch computes the fan-in of a transposed convolution from its second axis.
        let bound = 1.0 / ((outputs * kernel.iter().product::<usize>()) as f32).sqrt();
        let weight = builder.uniform("weight", &[inputs, outputs, kernel[0], kernel[1], kernel[2]], bound)?;
        let bias = Some(builder.uniform("bias", &[outputs], bound)?);
        Ok(Self { weight, bias, geometry: ConvGeometry { stride, padding }, transposed: Some(output_padding) })
    }

    /// Stride and padding.
    pub(super) fn geometry(&self) -> ConvGeometry {
        self.geometry
    }

    /// `x` `[batch, D, H, W, inputs]` → `[batch, D', H', W', outputs]`.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let weight = tape.parameter(parameters, self.weight);
        let bias = self.bias.map(|bias| tape.parameter(parameters, bias));
        match self.transposed {
            None => ops::conv3d(tape, x, &weight, bias.as_ref(), self.geometry),
            Some(extra) => ops::conv_transpose3d(tape, x, &weight, bias.as_ref(), self.geometry, extra),
        }
    }

    /// The same for the normalisation `norm`, with the statistics that it takes of the result, if it does.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward_with_stats(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &Var,
        norm: &NormAct,
    ) -> Result<WithStats> {
        if self.transposed.is_some() || !norm.is_through(tape) {
            return self.forward(tape, parameters, x).map(WithStats::from);
        }
        let weight = tape.parameter(parameters, self.weight);
        let bias = self.bias.map(|bias| tape.parameter(parameters, bias));
        ops::conv3d_with_stats(tape, x, &weight, bias.as_ref(), self.geometry, norm.grouping(x))
    }
}

/// Dropout in training, the identity otherwise.
///
/// # Errors
/// No memory.
pub fn dropout(tape: &Tape, x: Var, probability: f32) -> Result<Var> {
    ops::dropout(tape, &x, probability, tape.next_seed())
}

/// An activation with its own coefficients, if it has any.
pub struct Act {
    activation: Activation,
    parameters: Vec<ParamId>,
}

impl Act {
    /// Coefficients at their initial values, under the official names.
    ///
    /// # Errors
    /// No memory.
    pub fn new(builder: &mut Builder<'_>, activation: Activation) -> Result<Self> {
        let (names, kind): (&[&str], ParameterKind) = match activation {
            Activation::Pade { .. } => (&["weight_numerator", "weight_denominator"], ParameterKind::Pade),
            _ => (&["weight"], ParameterKind::Weight),
        };
        let values = activation.initial_parameters()?;
        let parameters = names
            .iter()
            .zip(&values)
            .map(|(name, initial)| {
                let (name, shape) = (builder.name(name), [initial.len()]);
                builder.parameters.add(name, kind, &shape, |values| values.copy_from_slice(initial))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { activation, parameters })
    }

    /// The function and the values of its coefficients, for [`Activation::taylor`].
    ///
    /// # Errors
    /// The device cannot be read.
    pub fn taylor(&self, parameters: &Parameters) -> Result<(Activation, Vec<f32>)> {
        let values = self.parameters.iter().map(|id| parameters.get(*id).value().to_vec());
        Ok((self.activation, values.collect::<Result<Vec<_>>>()?.concat()))
    }

    /// Which function.
    pub(super) fn activation(&self) -> Activation {
        self.activation
    }

    /// Its coefficients.
    pub(super) fn vars(&self, tape: &Tape, parameters: &Parameters) -> Vec<Var> {
        self.parameters.iter().map(|id| tape.parameter(parameters, *id)).collect()
    }

    /// Element-wise.
    ///
    /// # Errors
    /// No memory.
    pub fn forward(&self, tape: &Tape, parameters: &Parameters, x: &Var) -> Result<Var> {
        let vars = self.vars(tape, parameters);
        activation::activation(tape, x, self.activation, &vars.iter().collect::<Vec<_>>())
    }
}

/// Where a normalisation's scale and shift come from.
enum Affine {
    /// None: instance normalisation.
    None,
    /// A scale and a shift a channel.
    Channel { scale: ParamId, shift: ParamId },
    /// Linear functions of a latent: conditional normalisation.
    Conditional { scale: Linear, shift: Linear },
}

/// Normalisation, affine map, optional residual and activation, fused.
pub struct NormAct {
    affine: Affine,
    running: Option<BufferId>,
}

impl NormAct {
    /// Batch normalisation with a scale and a shift a channel.
    ///
    /// # Errors
    /// No memory.
    pub fn batch(builder: &mut Builder<'_>, channels: usize) -> Result<Self> {
        let scale = builder.constant("weight", ParameterKind::Weight, &[channels], 1.0)?;
        let shift = builder.constant("bias", ParameterKind::Weight, &[channels], 0.0)?;
        let running = Some(running_statistics(builder, channels)?);
        Ok(Self { affine: Affine::Channel { scale, shift }, running })
    }

    /// The reference's conditional normalisation: one scalar mean and variance, scale and shift from a latent.
    ///
    /// # Errors
    /// No memory.
    pub fn conditional(builder: &mut Builder<'_>, latent: usize, features: usize) -> Result<Self> {
        let scale = Linear::constant(&mut builder.child("linear_gamma"), latent, features, 1.0)?;
        let shift = Linear::constant(&mut builder.child("linear_beta"), latent, features, 0.0)?;
        let running = Some(running_statistics(&mut builder.child("normalization"), 1)?);
        Ok(Self { affine: Affine::Conditional { scale, shift }, running })
    }

    /// Instance normalisation without affine map: statistics of the input in training and evaluation.
    pub fn instance() -> Self {
        Self { affine: Affine::None, running: None }
    }

    /// Scale and shift of a batch normalisation.
    pub(super) fn channel_affine(&self) -> Option<[ParamId; 2]> {
        match self.affine {
            Affine::Channel { scale, shift } => Some([scale, shift]),
            Affine::None | Affine::Conditional { .. } => None,
        }
    }

    /// Scale and shift `[batch, features]` of a conditional normalisation.
    pub(super) fn conditional_affine(&self, tape: &Tape, parameters: &Parameters, latent: &Var) -> Result<[Var; 2]> {
        match &self.affine {
            Affine::Conditional { scale, shift } => {
                let [scale, shift] = [scale, shift].map(|layer| layer.weight_and_bias(tape, parameters, None));
                let (scale, shift) = (scale?, shift?);
                let layers = [scale.each_ref(), shift.each_ref()];
                tape.at(Precision::F32, || ops::linear_pair(tape, latent, layers, None))
            }
            Affine::None | Affine::Channel { .. } => {
                Err(crate::Error::Model("a block in chunks needs a conditional normalisation".into()))
            }
        }
    }

    /// True if the statistics are those of the input itself, and gradients flow through them.
    pub(super) fn is_through(&self, tape: &Tape) -> bool {
        tape.is_training() || self.running.is_none()
    }

    /// The running statistics, or those that `make` takes of the input; in training the running ones are to follow them.
    /// `count` elements are behind each.
    pub(super) fn statistics(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        count: usize,
        make: impl FnOnce() -> Result<Var>,
    ) -> Result<Var> {
        let statistics = match (self.running, self.is_through(tape)) {
            (Some(running), false) => tape.constant(parameters.buffer(running).clone()),
            _ => make()?,
        };
        if let (Some(running), true) = (self.running, tape.is_training()) {
            tape.update_buffer(running, &statistics, count, MOMENTUM);
        }
        Ok(statistics)
    }

    /// The running statistics `[2, groups]`.
    pub(super) fn running<'a>(&self, parameters: &'a Parameters) -> Result<&'a Tensor> {
        let none = || crate::Error::Model("a normalisation without running statistics cannot be folded".into());
        self.running.map(|running| parameters.buffer(running)).ok_or_else(none)
    }

    /// What a conditional normalisation does to each feature in evaluation, `scale·x + shift`, for one latent
    /// `[1, latent]`.
    ///
    /// # Errors
    /// Another kind of normalisation, or no memory.
    pub fn folded(&self, tape: &Tape, parameters: &Parameters, latent: &Var) -> Result<(Vec<f32>, Vec<f32>)> {
        let (Affine::Conditional { scale, shift }, Some(running)) = (&self.affine, self.running) else {
            return Err(crate::Error::Model("only a conditional normalisation can be folded for a latent".into()));
        };
        let [mut scale, mut shift] = [
            scale.forward(tape, parameters, latent)?.tensor().to_vec()?,
            shift.forward(tape, parameters, latent)?.tensor().to_vec()?,
        ];
        let running = parameters.buffer(running).to_vec()?;
        let (mean, deviation) = (running[0], (running[1] + EPSILON).sqrt());
        for (scale, shift) in scale.iter_mut().zip(&mut shift) {
            *scale /= deviation;
            *shift -= *scale * mean;
        }
        Ok((scale, shift))
    }

    /// Which elements share statistics.
    fn grouping(&self, x: &Var) -> Grouping {
        match self.affine {
            Affine::None => Grouping::Instance { batch: x.shape()[0] },
            Affine::Channel { .. } => Grouping::Channel,
            Affine::Conditional { .. } => Grouping::Scalar,
        }
    }

    /// `act(norm(x) [+ residual])`, or `act(norm(x)) [+ residual]`, for an `x` whose statistics may be known. `condition`
    /// `[batch, latent]` is for the conditional kind.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: impl Into<WithStats>,
        condition: Option<&Var>,
        residual: Option<(&Var, ResidualPlace)>,
        act: Option<&Act>,
    ) -> Result<Var> {
        let x = x.into();
        self.with_parts(tape, parameters, &x, condition, act, |parts| {
            ops::norm_act(tape, &x.value, &norm_act::NormActArgs { residual, ..*parts })
        })
    }

    /// The mean of `act(norm(x))` over each 2×2×2 window.
    ///
    /// # Errors
    /// Shapes that do not fit, or no memory.
    pub fn forward_pool(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: impl Into<WithStats>,
        act: &Act,
    ) -> Result<Var> {
        let x = x.into();
        self.with_parts(tape, parameters, &x, None, Some(act), |parts| ops::norm_act_pool(tape, &x.value, parts))
    }

    /// The layer `next` of `act(norm(x))`, and in training the statistics of its result.
    ///
    /// # Errors
    /// Shapes that do not fit, a layer without bias, or no memory.
    pub fn forward_linear(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: impl Into<WithStats>,
        condition: Option<&Var>,
        act: &Act,
        next: &Linear,
    ) -> Result<WithStats> {
        let (x, layer) = (x.into(), next.weight_and_bias(tape, parameters, None)?);
        self.with_parts(tape, parameters, &x, condition, Some(act), |parts| {
            ops::norm_act_linear(tape, &x.value, parts, layer.each_ref(), tape.is_training())
        })
    }

    /// Runs `body` with what the op needs, but for a residual.
    fn with_parts<T>(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &WithStats,
        condition: Option<&Var>,
        act: Option<&Act>,
        body: impl FnOnce(&norm_act::NormActArgs<'_>) -> Result<T>,
    ) -> Result<T> {
        let WithStats { value: x, statistics } = x;
        let grouping = self.grouping(x);
        let groups = grouping.groups(x.shape().last().copied().unwrap_or(1));
        let count = x.shape().iter().product::<usize>() / groups.max(1);
        let measure = || statistics.clone().map_or_else(|| ops::moments(tape, x, grouping), Ok);
        let statistics = self.statistics(tape, parameters, count, measure)?;
        let (scale, shift) = match (&self.affine, condition) {
            (Affine::None, _) => (None, None),
            (Affine::Channel { scale, shift }, _) => {
                (Some(tape.parameter(parameters, *scale)), Some(tape.parameter(parameters, *shift)))
            }
            (Affine::Conditional { .. }, Some(latent)) => {
                let [scale, shift] = self.conditional_affine(tape, parameters, latent)?;
                (Some(scale), Some(shift))
            }
            (Affine::Conditional { .. }, None) => {
                return Err(crate::Error::Model("a conditional normalisation needs a latent".into()));
            }
        };
        let coefficients = act.map(|act| act.vars(tape, parameters)).unwrap_or_default();
        body(&norm_act::NormActArgs {
            statistics: Some((&statistics, grouping)),
            through_statistics: self.is_through(tape),
            epsilon: EPSILON,
            gamma: scale.as_ref(),
            beta: shift.as_ref(),
            residual: None,
            activation: act.map_or(Activation::Identity, |act| act.activation),
            parameters: &coefficients.iter().collect::<Vec<_>>(),
        })
    }
}

/// Running mean 0 and variance 1 for `groups` groups.
fn running_statistics(builder: &mut Builder<'_>, groups: usize) -> Result<BufferId> {
    let name = builder.name("running");
    builder.parameters.add_buffer(name, &[2, groups], |values| {
        let (mean, variance) = values.split_at_mut(groups);
        mean.fill(0.0);
        variance.fill(1.0);
    })
}
