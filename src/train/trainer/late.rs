//! Losses that are read one pass late.
//!
//! A CUDA device is behind its host: whoever reads the loss of a pass at once lets the device run dry. So the loss of a pass is
//! read when the next one was launched. Until then nobody knows whether it is finite; therefore the device itself decides: it
//! notes the first loss that is not in `guard`, and from then on leaves weights, state, averages and running statistics as they
//! are. Several ranks exchange their losses before they sum their gradients, and read them at once.

use super::Trainer;
use crate::device::{Device, Later, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::Tensor;
use crate::train::settings::TrainSettings;

/// What is between a pass and its loss.
pub(super) struct Late {
    /// `[1]`: finite as long as all losses are.
    pub(super) guard: Tensor,
    pending: Option<Pending>,
    /// Of the passes of a step whose losses were read.
    sum: f32,
}

/// A loss on its way.
struct Pending {
    loss: Later,
    /// The pass's step, from 1, and whether it is the last of it.
    step: u64,
    ends: bool,
    /// Where its batch lies.
    place: usize,
}

impl Late {
    /// What a trainer with `settings` on `device` needs, if it reads losses late.
    pub(super) fn of(device: &Device, settings: &TrainSettings) -> Result<Option<Self>> {
        let at_once = settings.ranks > 1 || settings.deterministic_reduce || settings.joins_statistics();
        if at_once || matches!(device.target(), Target::Cpu { .. }) {
            return Ok(None);
        }
        let guard = device.in_op("loss", || Tensor::zeros(device, &[1], Role::Output))?;
        Ok(Some(Self { guard, pending: None, sum: 0.0 }))
    }
}

impl Trainer {
    /// The loss of a pass of step `step` will be `loss`.
    pub(super) fn expect_loss(&mut self, loss: Later, step: u64) {
        let place = self.feed.last_place();
        if let Some(late) = &mut self.late {
            late.pending = Some(Pending { loss, step, ends: false, place });
        }
    }

    /// The pass that was launched last is the last of its step.
    pub(super) fn end_of_step(&mut self) {
        if let Some(pending) = self.late.as_mut().and_then(|late| late.pending.as_mut()) {
            pending.ends = true;
        }
    }

    /// A step has failed: the losses of its passes do not count.
    pub(super) fn forget_losses(&mut self) {
        if let Some(late) = &mut self.late {
            late.sum = 0.0;
        }
    }

    /// Reads the loss that was not read yet, if there is one: afterwards the loss of every step is known.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`] with step and op; the weights are those before that step. Or what the driver says.
    pub fn catch_up(&mut self) -> Result<()> {
        let Some(Pending { loss, step, ends, place }) = self.late.as_mut().and_then(|late| late.pending.take()) else {
            return Ok(());
        };
        let value = loss.wait::<f32>()?.first().copied().unwrap_or(f32::NAN);
        self.waited += self.feed.waited(&self.device)?;
        if !value.is_finite() {
            self.optimizer.forget_steps_after(step - 1);
            let error = self.find_non_finite(&self.feed.batch(place)?);
            if let Some(late) = &mut self.late {
                late.sum = 0.0;
                late.guard.zero()?;
            }
            return Err(error);
        }
        if let Some(late) = &mut self.late {
            late.sum += value;
            if ends {
                self.history.losses.push(std::mem::take(&mut late.sum));
            }
        }
        Ok(())
    }

    /// True if the loss of every step made so far is known.
    pub fn is_caught_up(&self) -> bool {
        self.late.as_ref().is_none_or(|late| late.pending.is_none())
    }
}
