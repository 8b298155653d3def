//! Optimisers: SGD, Adam, AdamW, RAdam, and Lookahead around any.
//!
//! A [`UpdateRule`] says how one step moves one weight; [`Optimizer`] holds the state of all parameters in the device's
//! ledger. Padé coefficients have a rate of their own (OSS-Net's authors meant 1e-2; their code moves them with the
//! common rate, which `activation_rate: None` reproduces). Nothing else takes it: at 1e-2 the slopes of a U-Net's
//! PReLUs run away.

mod cuda;
mod rule;
mod schedule;

use serde::{Deserialize, Serialize};

pub use rule::UpdateRule;
pub use schedule::Schedule;

use crate::device::cpu::{Pool, SharedMut};
use crate::device::{Backend, LaunchConfig};
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::nn::{ParameterKind, Parameters};
use crate::ops::PIECE;
use crate::tensor::Tensor;

/// Lookahead (Zhang et al., NeurIPS 2019): every `every` steps the weights go `alpha` of the way from a slow copy to where
/// the inner optimiser took them, and the slow copy follows. As in the official code the copy is made *after* the first
/// inner step and the weights are drawn back at steps 6, 11, … (for `every` 5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookahead {
    /// Inner steps between two corrections.
    pub every: u64,
    /// Share of the way that is kept.
    pub alpha: f32,
}

impl Default for Lookahead {
    fn default() -> Self {
        Self { every: 5, alpha: 0.8 }
    }
}

/// What an optimiser is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    /// How a step moves a weight.
    pub rule: UpdateRule,
    /// Slow weights around it.
    pub lookahead: Option<Lookahead>,
    /// Learning rate of weights.
    pub rate: f32,
    /// Learning rate of Padé coefficients; `None`: the common one.
    pub activation_rate: Option<f32>,
}

impl Default for OptimizerSettings {
    /// The official training's: Lookahead around RAdam, 3e-4, and 1e-2 for Padé coefficients as its authors meant.
    fn default() -> Self {
        Self {
            rule: UpdateRule::radam(),
            lookahead: Some(Lookahead::default()),
            rate: 3e-4,
            activation_rate: Some(1e-2),
        }
    }
}

/// An optimiser and its state.
pub struct Optimizer {
    settings: OptimizerSettings,
    /// `[slots, length]` of each parameter, in the parameters' order, one piece of weights after the other.
    state: Vec<Tensor>,
    steps: u64,
}

impl Optimizer {
    /// An optimiser at rest.
    ///
    /// # Errors
    /// No memory for its state.
    pub fn new(settings: OptimizerSettings, parameters: &Parameters) -> Result<Self> {
        let slots = settings.slots();
        let state = parameters
            .iter()
            .map(|parameter| {
                let device = parameters.device();
                let shape = [slots, parameter.value().len()];
                device.in_layer(parameter.module(), || {
                    device.in_op("optimizer", || Tensor::zeros(device, &shape, Role::OptimizerState))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { settings, state, steps: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps after this one were guarded, and have changed nothing.
    pub(crate) fn forget_steps_after(&mut self, step: u64) {
        self.steps = self.steps.min(step);
    }

    /// State of each parameter `[slots, length]`, in the parameters' order.
    pub fn state(&self) -> &[Tensor] {
        &self.state
    }

    /// Goes on from a stored state.
    ///
    /// # Errors
    /// [`Error::Model`] if it belongs to other parameters or settings.
    pub fn restore(&mut self, steps: u64, state: &[Vec<f32>]) -> Result<()> {
        let fits = state.len() == self.state.len() && state.iter().zip(&self.state).all(|(a, b)| a.len() == b.len());
        if !fits {
            return Err(Error::Model("the stored optimiser state belongs to another network or optimiser".into()));
        }
        for (tensor, values) in self.state.iter_mut().zip(state) {
            tensor.write(values)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// Moves every parameter that has a gradient; `factor` multiplies the rates (see [`Schedule`]).
    ///
    /// # Errors
    /// What the device's driver says.
    pub fn step(&mut self, parameters: &mut Parameters, factor: f32) -> Result<()> {
        self.guarded_step(parameters, factor, None)
    }

    /// The same, but a CUDA device leaves all as it is unless the one number of `guard`, if it is given, is finite.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn guarded_step(&mut self, parameters: &mut Parameters, factor: f32, guard: Option<&Tensor>) -> Result<()> {
        self.steps += 1;
        let device = parameters.device().clone();
        let common = self.settings.rate;
        let rates = [common, self.settings.activation_rate.unwrap_or(common)].map(|rate| rate * factor);
        let mut parts = Vec::with_capacity(self.state.len());
        for (parameter, state) in parameters.iter_mut().zip(&mut self.state) {
            let activation = parameter.kind() == ParameterKind::Pade;
            let (value, gradient) = parameter.value_and_gradient();
            parts.extend(gradient.map(|gradient| Part { value, gradient, state, activation }));
        }
        device.in_phase(Phase::Optimizer, || match device.backend() {
            Backend::Cpu { pool, .. } => {
                parts.iter_mut().for_each(|part| {
                    let rate = rates[usize::from(part.activation)];
                    update(pool, &self.settings, self.steps, rate, part);
                });
                Ok(())
            }
            Backend::Cuda(cuda) => cuda::step(cuda, &self.settings, self.steps, rates, &mut parts, guard),
            Backend::Plan { .. } => Ok(()),
        })
    }
}

/// Has a CUDA device note whether `loss`, of one element, is finite: `guard`, of one element, becomes NaN if not, and stays if so.
///
/// # Errors
/// What the driver says.
pub fn note_loss(loss: &Tensor, guard: &mut Tensor) -> Result<()> {
    match loss.device().backend() {
        Backend::Cuda(cuda) => cuda.kernel("guard_loss").input(loss).output(guard).launch(LaunchConfig::new(1, 32)),
        Backend::Cpu { .. } | Backend::Plan { .. } => Ok(()),
    }
}

/// One tensor of a step.
struct Part<'a> {
    value: &'a mut Tensor,
    gradient: &'a Tensor,
    /// Each piece of weights has its piece of state.
    state: &'a mut Tensor,
    /// Padé coefficients have a rate of their own.
    activation: bool,
}

/// One step of one tensor on the CPU.
fn update(pool: &Pool, settings: &OptimizerSettings, step: u64, rate: f32, part: &mut Part<'_>) {
    let (len, slots, gradient) = (part.value.len(), settings.slots(), part.gradient.data());
    let (value, state) = (SharedMut::new(part.value.data_mut()), SharedMut::new(part.state.data_mut()));
    pool.for_each(len.div_ceil(PIECE), |piece| {
        let start = piece * PIECE;
        let count = PIECE.min(len - start);
        // SAFETY: pieces are disjoint ranges of the weights.
        let weights = unsafe { value.slice(start, count) };
        // SAFETY: and of the state.
        let state = unsafe { state.slice(start * slots, count * slots) };
        settings.step(step, rate, weights, &gradient[start..start + count], state);
    });
}

impl OptimizerSettings {
    /// Numbers remembered a weight.
    pub fn slots(&self) -> usize {
        self.rule.slots() + usize::from(self.lookahead.is_some())
    }

    /// Step `step` (from 1) of some weights at learning rate `rate`; `state` holds [`OptimizerSettings::slots`] numbers a
    /// weight, zero before the first step.
    pub fn step(&self, step: u64, rate: f32, weights: &mut [f32], gradient: &[f32], state: &mut [f32]) {
        let count = weights.len();
        let (inner, slow) = state.split_at_mut(self.rule.slots() * count);
        let (first, second) = inner.split_at_mut(count);
        self.rule.apply(&self.rule.prepare(rate, step), weights, gradient, first, second);
        let Some(Lookahead { every, alpha }) = self.lookahead else { return };
        if step == 1 {
            slow.copy_from_slice(weights);
        } else if (step - 1).is_multiple_of(every.max(1)) {
            for (slow, weight) in slow.iter_mut().zip(weights) {
                *slow += (*weight - *slow) * alpha;
                *weight = *slow;
            }
        }
    }
}
