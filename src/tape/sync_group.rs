//! Synchronised batch statistics: the passes of a step, in one process or in several, that share means and variances.

use std::rc::Rc;

use super::{ParamId, Tape, Var};
use crate::error::Result;
use crate::memory::{Phase, Role};
use crate::tensor::Tensor;

/// The passes of a step that share batch statistics. Each records the same ops, so that all reach the same exchanges in the same order.
pub trait SyncGroup {
    /// How many passes there are.
    fn passes(&self) -> usize;

    /// True for one pass of each process, which alone updates the running statistics.
    fn is_leader(&self) -> bool;

    /// Means and biased variances of the elements of all passes, from those of this one's `[2, groups]`, which are as many.
    ///
    /// # Errors
    /// No memory, or the error of another pass.
    fn moments(&self, own: Tensor) -> Result<Tensor>;

    /// The sum of the tensors of all passes, added in the passes' order.
    ///
    /// # Errors
    /// As there.
    fn sum(&self, own: Tensor) -> Result<Tensor>;
}

impl Tape {
    /// The same tape, as that of a pass of `sync_group`.
    pub fn in_sync_group(mut self, sync_group: Rc<dyn SyncGroup>) -> Self {
        self.sync_group = Some(sync_group);
        self
    }

    /// The other passes of the step, if statistics are those of all.
    pub fn sync_group(&self) -> Option<&dyn SyncGroup> {
        self.sync_group.as_deref()
    }

    /// Plays the tape backwards from `loss` (one element); the gradients of the parameters, which are left as they are.
    ///
    /// # Errors
    /// No memory.
    pub fn gradients(&self, loss: Var) -> Result<Vec<(ParamId, Tensor)>> {
        self.device.in_phase(Phase::Backward, || {
            let seed = Tensor::from_slice(&self.device, loss.shape(), Role::Transient, &[1.0])?;
            self.pull(vec![(loss, seed)])?;
            let slots = self.parameters.take();
            Ok(slots.into_iter().filter_map(|slot| Some((slot.parameter?, slot.gradient.take()?))).collect())
        })
    }
}
