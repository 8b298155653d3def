//! The forward and backward passes of a training step.

use super::feed::Given;
use super::{InGraph, NextBatch, Trainer};
use crate::device::{Foreseen, Later};
use crate::error::{Error, Result};
use crate::memory::{Phase, Role};
use crate::models::Network;
use crate::models::loss::{Batch, Targets};
use crate::nn::optim::note_loss;
use crate::nn::{Parameter, Parameters};
use crate::ops;
use crate::rng::Rng;
use crate::tape::{Mode, RunningUpdate, Tape, Var};
use crate::tensor::Tensor;
use crate::train::batch::HostBatch;
use crate::train::case_source::CaseSource;
use crate::train::grad_clip;
use crate::train::settings::TrainSettings;

impl Trainer {
    /// The batches of the first `steps` steps over `cases`.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn batches(&self, cases: &dyn CaseSource, steps: u64) -> Result<Vec<HostBatch>> {
        let passes = self.passes(cases);
        passes.of_steps(0..steps).map(|pass| passes.draw_own(pass)).collect()
    }

    /// Takes `steps` steps on `batches`, for a plan's sake.
    ///
    /// # Errors
    /// As [`Trainer::train`].
    pub fn rehearse(&mut self, batches: &[HostBatch], steps: u64) -> Result<()> {
        let (device, mut rest) = (self.device.clone(), batches.iter());
        for number in 0..steps as usize {
            if let Some(first) = rest.as_slice().first() {
                self.prepare(first)?;
            }
            device.place_ahead(&Foreseen::default(), number, || {
                self.take(1.0, &mut |_| rest.next().map(|host| Ok(Given::Lent(host)))).map(drop)
            })?;
        }
        Ok(())
    }

    /// The passes of a step: gradients, shortened if that is asked for, in the parameters; the loss. Nothing else is changed
    /// until all of it has been done.
    pub(super) fn gradients<'a>(&mut self, next: &mut NextBatch<'_, 'a>) -> Result<f32> {
        self.begin_gradients()?;
        let own = self.accumulate() / self.settings.ranks.max(1);
        let (mut loss, mut updates) = (0.0, Vec::new());
        if self.settings.ranks > 1 || self.settings.deterministic_reduce || self.joins_statistics() {
            loss = self.reduced_gradients(own, next, &mut updates)?;
        } else {
            for _ in 0..own {
                loss += self.pass(next, &mut updates)?;
            }
            self.end_of_step();
        }
        if let Some(limit) = self.settings.clip_norm {
            let (step, device) = (self.optimizer.steps() + 1, self.device.clone());
            if let Err(error) = device.in_phase(Phase::Optimizer, || grad_clip::clip(&mut self.parameters, limit, step))
            {
                // A loss that is not finite says more than the gradients that it has made so.
                self.catch_up()?;
                return Err(error);
            }
        }
        self.update_running(&mut updates, own)?;
        Ok(loss)
    }

    /// One pass of this rank: see [`Trainer::forward_and_backward`]. Its share of the loss, or 0 where that is read late.
    pub(super) fn pass<'a>(&mut self, next: &mut NextBatch<'_, 'a>, updates: &mut Vec<RunningUpdate>) -> Result<f32> {
        let batch = self.arrive(next)?;
        let loss = self.forward_and_backward(&batch, updates)?;
        if self.late.is_some() {
            drop(batch);
            self.catch_up()?;
            self.expect_loss(loss, self.optimizer.steps() + 1);
            self.look_ahead(next)?;
            return Ok(0.0);
        }
        self.look_ahead(next)?;
        let value = loss.wait::<f32>()?.first().copied().unwrap_or(f32::NAN);
        self.waited += self.feed.waited(&self.device)?;
        if value.is_finite() { Ok(value) } else { Err(self.find_non_finite(&batch)) }
    }

    /// Gradients that the step's passes may be added to: none yet, or zeros where they keep their memory.
    fn begin_gradients(&mut self) -> Result<()> {
        if self.graph.is_none() {
            self.parameters.clear_gradients();
            return Ok(());
        }
        self.parameters.iter_mut().filter_map(Parameter::gradient_mut).try_for_each(Tensor::zero)
    }

    /// Launches what makes the share of the step's loss of `batch`, which comes later; its gradients are added to those in the
    /// parameters. The running statistics that it updates are added to `updates`; in a graph it does so itself.
    fn forward_and_backward(&mut self, batch: &Batch, updates: &mut Vec<RunningUpdate>) -> Result<Later> {
        let tape = self.tape();
        let Self { network, parameters, settings, graph, late, .. } = self;
        let loss = match graph {
            None => {
                let loss = share_of_loss(&tape, parameters, &**network, batch, settings)?;
                let value = loss.tensor();
                updates.extend(tape.take_buffer_updates());
                if late.is_none() {
                    // Known when the forward pass is done.
                    let value = value.fetch()?;
                    tape.backward(loss, parameters)?;
                    return Ok(value);
                }
                tape.backward(loss, parameters)?;
                value
            }
            // Nothing that the host would wait for may lie between the two.
            Some(_) if batch.known.is_some() && matches!(batch.targets, Targets::Dense(_)) => {
                let why = "each batch of a data set with ignored voxels is weighed by those that are known";
                return Err(Error::Usage(format!("--graph repeats one loss, and {why}; omit --graph")));
            }
            Some(InGraph { replay, loss }) => {
                replay.run(parameters, batch, loss, |parameters, loss| {
                    let share = share_of_loss(&tape, parameters, &**network, batch, settings)?;
                    loss.copy_from(&share.tensor())?;
                    tape.backward(share, parameters)
                })?;
                loss.clone()
            }
        };
        if let Some(late) = late {
            note_loss(&loss, &mut late.guard)?;
        }
        loss.fetch()
    }

    pub(super) fn tape(&self) -> Tape {
        Tape::new(&self.device, Mode::Train)
            .with_seed(Rng::named(self.settings.seed, "dropout").split(self.optimizer.steps()).next_u64())
    }

    /// Runs the forward pass again, looking at every op, to name the first whose output is not finite.
    pub(super) fn find_non_finite(&self, batch: &Batch) -> Error {
        let tape = self.tape();
        tape.check_finite();
        let again = self.network.loss(&tape, &self.parameters, batch, self.settings.loss);
        let op = match again {
            Ok(_) => tape.first_not_finite().unwrap_or_else(|| "the loss".into()),
            Err(error) => return error,
        };
        Error::NotFinite { what: "the loss".into(), step: self.optimizer.steps() + 1, op }
    }
}

pub(super) fn out_of_batches() -> Error {
    Error::Model("the batches ended before the run; report this".into())
}

/// The loss of `batch` over the number of passes that make a step.
pub(super) fn share_of_loss(
    tape: &Tape,
    parameters: &Parameters,
    network: &dyn Network,
    batch: &Batch,
    settings: &TrainSettings,
) -> Result<Var> {
    let device = tape.device();
    device.in_phase(Phase::Forward, || {
        let loss = network.loss(tape, parameters, batch, settings.loss)?;
        let parts = settings.accumulate.max(1);
        if parts == 1 {
            return Ok(loss);
        }
        let nothing = tape.constant(Tensor::from_slice(device, loss.shape(), Role::Transient, &[0.0])?);
        ops::scale_add(tape, &nothing, &loss, 1.0 / parts as f32)
    })
}
