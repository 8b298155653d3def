//! Tapes whose batch statistics are those of all of them: the passes of one step, in one process or in several.

use std::rc::Rc;

use super::{ParamId, Tape, Var};
use crate::error::Result;
use crate::memory::{Phase, Role};
use crate::tensor::Tensor;

/// What joins the passes of a step. Each of them records the same ops, and so all meet at the same places in the same order.
pub trait Together {
    /// How many passes there are.
    fn passes(&self) -> usize;

    /// True for one pass of each process: what all find alike, it keeps.
    fn keeps(&self) -> bool;

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
    /// The same tape as one of several passes.
    pub fn with_others(mut self, together: Rc<dyn Together>) -> Self {
        self.together = Some(together);
        self
    }

    /// The other passes of the step, if statistics are those of all.
    pub fn together(&self) -> Option<&dyn Together> {
        self.together.as_deref()
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
