//! A forward and backward pass as a CUDA graph: captured once, and launched in every later pass that would do the same.
//!
//! The arena gives the same sequence of requests the same addresses, so a pass that begins with the same holes and the same
//! long-lived buffers is the same pass. Whether it does is compared before each launch; if not, the pass is captured anew. What
//! changes from pass to pass lies in buffers: the batch, the weights, the running statistics. Gradients keep their buffers
//! from step to step, and the loss has one of its own.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::device::{Backend, Graph};
use crate::error::Result;
use crate::models::loss::{Batch, Targets};
use crate::nn::Parameters;
use crate::tensor::Tensor;

/// Passes of a process before one is captured: modules are then loaded, and what lives across steps exists.
const WARM: u64 = 2;

/// Captured passes that are kept: batches come to two places by turns (`trainer/feed.rs`).
const KEPT: usize = 2;

/// Captured passes, once there are some.
#[derive(Default)]
pub struct StepGraph {
    passes: u64,
    /// The newest last.
    captured: Vec<Captured>,
}

struct Captured {
    graph: Graph,
    /// Where everything lay.
    place: u64,
    /// How often the pass updates each running statistic.
    updates: Vec<u64>,
}

impl StepGraph {
    /// Does `pass`, which adds its gradients to those in `parameters` and leaves its loss in `loss`. Elsewhere than on CUDA it
    /// is done as it is.
    ///
    /// # Errors
    /// Those of the pass, or what the driver says.
    pub fn run(
        &mut self,
        parameters: &mut Parameters,
        batch: &Batch,
        loss: &mut Tensor,
        pass: impl FnOnce(&mut Parameters, &mut Tensor) -> Result<()>,
    ) -> Result<()> {
        self.passes += 1;
        let device = parameters.device().clone();
        let cuda = match device.backend() {
            Backend::Cuda(cuda) if self.passes > WARM && !cuda.waits() => cuda,
            _ => return pass(parameters, loss),
        };
        let place = place(parameters, batch, loss);
        if let Some(captured) = self.captured.iter().find(|captured| captured.place == place) {
            // SAFETY: the pass would ask for the same addresses, for its place is the same.
            unsafe { captured.graph.launch()? };
            let counts = parameters.buffers_mut().zip(&captured.updates);
            counts.for_each(|((_, _, count), updates)| *count += updates);
            return Ok(());
        }
        let before: Vec<u64> = parameters.buffers().map(|(_, _, count)| count).collect();
        let ((), graph) = cuda.capture(|| pass(parameters, loss))?;
        let updates = parameters.buffers().zip(before).map(|((_, _, count), before)| count - before).collect();
        // SAFETY: the buffers of the pass are where they were a moment ago; what it freed is still the arena's.
        unsafe { graph.launch()? };
        if self.captured.len() == KEPT {
            self.captured.remove(0);
        }
        self.captured.push(Captured { graph, place, updates });
        Ok(())
    }
}

/// A fingerprint of all that a pass's addresses depend on.
fn place(parameters: &Parameters, batch: &Batch, loss: &Tensor) -> u64 {
    let mut hash = DefaultHasher::new();
    parameters.device().layout().hash(&mut hash);
    loss.address().hash(&mut hash);
    let data = match &batch.targets {
        Targets::Points { coordinates, labels, label_volumes } => {
            [Some(coordinates), Some(labels), label_volumes.as_ref()]
        }
        Targets::Dense(labels) => [Some(labels), None, None],
    };
    let data = data.into_iter().flatten().chain([&batch.volumes]);
    data.for_each(|tensor| (tensor.address(), tensor.shape()).hash(&mut hash));
    for parameter in parameters.iter() {
        (parameter.value().address(), parameter.gradient().map(Tensor::address)).hash(&mut hash);
    }
    parameters.buffers().for_each(|(_, value, _)| value.address().hash(&mut hash));
    hash.finish()
}
