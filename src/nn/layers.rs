//! Layers: parameters with official names, and the ops that use them.
//!
//! A layer holds ids; the weights live in [`Parameters`]. Initial values follow PyTorch's defaults.

mod exact;
mod norm_act;

use crate::error::Result;
use crate::nn::{BufferId, ParamId, ParameterKind, Parameters};
use crate::ops;
use crate::ops::activation::{self, Activation};
use crate::ops::conv3d::ConvGeometry;
use crate::ops::linear::WithStats;
use crate::rng::Rng;
use crate::tape::{Precision, Tape, Var};

pub use norm_act::NormAct;

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
