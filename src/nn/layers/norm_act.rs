//! Normalisations with what follows them, in one op.

use super::{Act, Builder, EPSILON, Linear, MOMENTUM, exact};
use crate::error::Result;
use crate::nn::{BufferId, ParamId, ParameterKind, Parameters};
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::linear::WithStats;
use crate::ops::moments::Grouping;
use crate::ops::norm_act::{self, ResidualPlace};
use crate::tape::{Precision, SyncGroup, Tape, Var};
use crate::tensor::Tensor;

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
    pub(in crate::nn) fn channel_affine(&self) -> Option<[ParamId; 2]> {
        match self.affine {
            Affine::Channel { scale, shift } => Some([scale, shift]),
            Affine::None | Affine::Conditional { .. } => None,
        }
    }

    /// Scale and shift `[batch, features]` of a conditional normalisation.
    pub(in crate::nn) fn conditional_affine(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        latent: &Var,
    ) -> Result<[Var; 2]> {
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

    /// The passes whose statistics are one, if those of this norm are.
    fn sync_group<'a>(&self, tape: &'a Tape) -> Option<&'a dyn SyncGroup> {
        tape.sync_group().filter(|_| self.running.is_some() && tape.is_training())
    }

    /// True if the statistics are those of the input itself, and gradients flow through them.
    pub(in crate::nn) fn is_through(&self, tape: &Tape) -> bool {
        tape.is_training() || self.running.is_none()
    }

    /// The running statistics, or those that `make` takes of the input, exact over all passes; in training the running ones are to
    /// follow them. `count` elements of this pass are behind each.
    pub(in crate::nn) fn statistics(
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
        let statistics = match self.sync_group(tape) {
            Some(others) => tape.constant(others.moments(statistics.tensor())?),
            None => statistics,
        };
        self.note(tape, &statistics, count);
        Ok(statistics)
    }

    /// Lets the running statistics follow those of all passes, once a process.
    pub(in crate::nn) fn note(&self, tape: &Tape, statistics: &Var, count: usize) {
        let Some(running) = self.running.filter(|_| tape.is_training()) else { return };
        match self.sync_group(tape) {
            None => tape.update_buffer(running, statistics, count, MOMENTUM),
            Some(others) if others.is_leader() => {
                tape.update_buffer(running, statistics, count * others.passes(), MOMENTUM);
            }
            Some(_) => {}
        }
    }

    /// The running statistics `[2, groups]`.
    pub(in crate::nn) fn running<'a>(&self, parameters: &'a Parameters) -> Result<&'a Tensor> {
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
    pub(super) fn grouping(&self, x: &Var) -> Grouping {
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
        self.with_parts(tape, parameters, &x, condition, act, |x, parts| {
            ops::norm_act(tape, x, &norm_act::NormActArgs { residual, ..*parts })
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
        self.with_parts(tape, parameters, &x, None, Some(act), |x, parts| ops::norm_act_pool(tape, x, parts))
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
        self.with_parts(tape, parameters, &x, condition, Some(act), |x, parts| {
            ops::norm_act_linear(tape, x, parts, layer.each_ref(), tape.is_training())
        })
    }

    /// Runs `body` with the op's input and what else it needs, but for a residual.
    fn with_parts<T>(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        x: &WithStats,
        condition: Option<&Var>,
        act: Option<&Act>,
        body: impl FnOnce(&Var, &norm_act::NormActArgs<'_>) -> Result<T>,
    ) -> Result<T> {
        let WithStats { value: x, statistics } = x;
        let grouping = self.grouping(x);
        let groups = grouping.groups(x.shape().last().copied().unwrap_or(1));
        let count = x.shape().iter().product::<usize>() / groups.max(1);
        let measure = || statistics.clone().map_or_else(|| ops::moments(tape, x, grouping), Ok);
        let statistics = self.statistics(tape, parameters, count, measure)?;
        let synced = self.sync_group(tape).is_some();
        let x = match synced {
            true => &exact::in_front(tape, x, &statistics, grouping)?,
            false => x,
        };
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
        let parts = norm_act::NormActArgs {
            statistics: Some((&statistics, grouping)),
            through_statistics: self.is_through(tape) && !synced,
            epsilon: EPSILON,
            gamma: scale.as_ref(),
            beta: shift.as_ref(),
            residual: None,
            activation: act.map_or(Activation::Identity, |act| act.activation),
            parameters: &coefficients.iter().collect::<Vec<_>>(),
        };
        body(x, &parts)
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
