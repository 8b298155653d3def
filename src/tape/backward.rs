//! What an op's backward pass works with: the gradients of its outputs, the values it asked for, the gradients to write.

use super::{Node, SyncGroup, Tape};
use crate::device::Device;
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// What an op's backward works with.
pub struct Backward<'a> {
    tape: &'a Tape,
    node: &'a Node,
    gradients: Vec<Option<Tensor>>,
}

impl<'a> Backward<'a> {
    pub(super) fn new(tape: &'a Tape, node: &'a Node, gradients: Vec<Option<Tensor>>) -> Self {
        Self { tape, node, gradients }
    }
}

impl Backward<'_> {
    /// The device to run on.
    pub fn device(&self) -> &Device {
        &self.tape.device
    }

    /// The other passes of the step, if statistics are those of all.
    pub fn sync_group(&self) -> Option<&dyn SyncGroup> {
        self.tape.sync_group()
    }

    /// The gradient of an op's only output.
    pub fn gradient(&self) -> &Tensor {
        self.gradients[0].as_ref().expect("the gradient was already taken")
    }

    /// The gradient of output `k` of an op with several; `None` if none flows to it.
    pub fn gradient_of(&mut self, k: usize) -> Option<Tensor> {
        self.gradients.get_mut(k)?.take()
    }

    /// The gradient of an op's only output, to be overwritten or handed on. It is unshared: copied if it was not.
    ///
    /// # Errors
    /// No memory for the copy.
    pub fn take_gradient(&mut self) -> Result<Tensor> {
        let gradient = self.gradients[0].take().expect("the gradient was already taken");
        if gradient.is_unique() {
            return Ok(gradient);
        }
        gradient.copied(Role::Transient)
    }

    /// The value of input `i` (which [`Op::needs`](super::Op::needs) must name).
    ///
    /// # Errors
    /// No memory to make it anew.
    pub fn value(&self, i: usize) -> Result<Tensor> {
        self.tape.materialise(&self.node.inputs[i])
    }

    /// The value of the first output (which [`Op::needs`](super::Op::needs) must name).
    ///
    /// # Errors
    /// No memory to make it anew.
    pub fn output(&self) -> Result<Tensor> {
        if let Some(value) = self.node.outputs[0].value.borrow().as_ref() {
            return Ok(value.clone());
        }
        let inputs = self.node.inputs.iter().map(|slot| self.tape.materialise(slot)).collect::<Result<Vec<_>>>()?;
        self.tape.run_one(self.node.op.as_ref(), &inputs, 0)
    }

    /// Input `i`'s own buffer, to be overwritten, if nobody will read it again; `None` if somebody will.
    ///
    /// # Errors
    /// No memory to make it anew.
    pub fn take_value(&mut self, i: usize) -> Result<Option<Tensor>> {
        let slot = &self.node.inputs[i];
        if slot.producer.is_none() || slot.held.get() || slot.pending.get() != 1 {
            return Ok(None);
        }
        let value = self.tape.materialise(slot)?;
        slot.value.take();
        if value.is_unique() {
            value.retag(Role::Transient);
            return Ok(Some(value));
        }
        *slot.value.borrow_mut() = Some(value);
        Ok(None)
    }

    /// Shape of input `i`.
    pub fn shape(&self, i: usize) -> &[usize] {
        &self.node.inputs[i].shape
    }

    /// What input `i` is stored in.
    pub fn dtype(&self, i: usize) -> DType {
        self.node.inputs[i].dtype
    }

    /// True if a gradient flows to input `i`.
    pub fn wants(&self, i: usize) -> bool {
        self.node.inputs[i].needs_gradient
    }

    /// Adds `gradient` to that of input `i`, or hands it over if it is the first.
    ///
    /// # Errors
    /// No memory for the sum.
    pub fn accumulate(&mut self, i: usize, gradient: Tensor) -> Result<()> {
        let slot = &self.node.inputs[i];
        if !slot.needs_gradient {
            return Ok(());
        }
        debug_assert_eq!(gradient.dtype(), slot.dtype, "a gradient is stored as its value");
        let former = slot.gradient.take();
        let mut sum = match former {
            None => gradient.reshaped(&slot.shape)?,
            Some(former) => former.plus(&gradient)?,
        };
        sum.imitate_bf16();
        if slot.parameter.is_some() {
            sum.retag(Role::Gradient);
        }
        *slot.gradient.borrow_mut() = Some(sum);
        Ok(())
    }

    /// Lets `write` fill the gradient of input `i`, if one is wanted. Its second argument says whether the tensor holds
    /// an earlier part that must be added to (`true`) or unspecified contents that must be overwritten (`false`).
    ///
    /// # Errors
    /// No memory, or what `write` returns.
    pub fn write_gradient(
        &mut self,
        i: usize,
        write: impl FnOnce(&Device, &mut Tensor, bool) -> Result<()>,
    ) -> Result<()> {
        if let Some((mut tensor, accumulate)) = self.open_gradient(i)? {
            write(self.device(), &mut tensor, accumulate)?;
            self.close_gradient(i, tensor);
        }
        Ok(())
    }

    /// The gradient of input `i`, unshared, and whether it must be added to, as [`Backward::write_gradient`] has it; `None` if
    /// none is wanted. For work that writes several at once, of different vars; [`Backward::close_gradient`] takes it back.
    ///
    /// # Errors
    /// No memory.
    pub fn open_gradient(&mut self, i: usize) -> Result<Option<(Tensor, bool)>> {
        let slot = &self.node.inputs[i];
        if !slot.needs_gradient {
            return Ok(None);
        }
        let role = if slot.parameter.is_some() { Role::Gradient } else { Role::Transient };
        let former = slot.gradient.take();
        Ok(Some(match former {
            Some(former) if former.is_unique() => (former, true),
            Some(former) => (former.copied(role)?, true),
            None => (Tensor::empty(self.device(), &slot.shape, slot.dtype, role)?, false),
        }))
    }

    /// Hands back what [`Backward::open_gradient`] gave.
    pub fn close_gradient(&mut self, i: usize, mut gradient: Tensor) {
        gradient.imitate_bf16();
        *self.node.inputs[i].gradient.borrow_mut() = Some(gradient);
    }
}
