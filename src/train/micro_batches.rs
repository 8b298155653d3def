//! The passes of a run: which cases each takes, and its batch, drawn on whatever thread asks for it.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::models::Supervision;
use crate::task::PreparedCase;
use crate::train::batch::{self, HostBatch};
use crate::train::case_source::CaseSource;
use crate::train::settings::TrainSettings;

/// Everything that the batches of a run depend on.
pub struct MicroBatches<'a> {
    /// Where the network learns.
    pub supervision: Supervision,
    /// What the run was told.
    pub settings: TrainSettings,
    /// The cases.
    pub cases: &'a dyn CaseSource,
    /// Cases a pass.
    pub size: usize,
    /// Passes a step, of all ranks together.
    pub parts: usize,
    /// This rank, and how many take their turns at the passes of a step.
    pub share: (usize, usize),
    /// Steps an epoch.
    pub per_epoch: u64,
}

impl MicroBatches<'_> {
    /// The passes of this rank that steps consist of, by its own count.
    pub fn of_steps(&self, steps: Range<u64>) -> Range<u64> {
        let own = (self.parts / self.share.1) as u64;
        steps.start * own..steps.end * own
    }

    /// The batch of this rank's own pass `own` (from 0).
    ///
    /// # Errors
    /// As [`MicroBatches::draw`].
    pub fn draw_own(&self, own: u64) -> Result<HostBatch> {
        let (rank, ranks) = self.share;
        // A step is a multiple of the ranks, so that turns go on from step to step.
        self.draw(own * ranks as u64 + rank as u64)
    }

    /// The batch of pass `pass` (from 0).
    ///
    /// # Errors
    /// A case that cannot be read, has no labels, or has another shape than the others.
    pub fn draw(&self, pass: u64) -> Result<HostBatch> {
        let (step, part) = (pass / self.parts as u64, (pass % self.parts as u64) as usize);
        let (epoch, within) = (step / self.per_epoch, (step % self.per_epoch) as usize);
        let order = batch::order(self.cases.len(), self.settings.seed, epoch);
        let first = (within * self.parts + part) * self.size;
        let chosen: Vec<Cow<'_, PreparedCase>> =
            (first..first + self.size).map(|i| self.cases.case(order[i % order.len()])).collect::<Result<_>>()?;
        batch::draw(self.supervision, &self.settings, &chosen.iter().map(Cow::as_ref).collect::<Vec<_>>(), pass)
    }

    /// The most bytes that a batch and its making take: the changed cases, the batch that is put together from them, what
    /// one change needs for a moment, and cases that are read for it. Slices are drawn of cases that are all there; others are
    /// changed on their way into the batch.
    pub fn bytes(&self) -> u64 {
        let (size, case) = (self.size as u64, self.cases.case_bytes());
        let changed = if matches!(self.supervision, Supervision::Slices { .. }) { size } else { 0 };
        (size + changed + 2) * case + size * self.cases.reading_bytes() + size * 16 * self.settings.points as u64
    }
}
