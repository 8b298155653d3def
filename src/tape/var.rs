//! Values on the tape.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::ParamId;
use crate::memory::Role;
use crate::tensor::{DType, Shape, Tensor};

/// A tensor-to-be: see the module's page.
#[derive(Clone)]
pub struct Var(pub(super) Rc<Handle>);

/// Dropped when the user holds no more clones of a [`Var`].
pub(super) struct Handle(pub(super) Rc<Slot>);

/// Value and gradient of a var, which the tape reads after the user's last handle is gone.
pub(super) struct Slot {
    pub(super) shape: Shape,
    /// Of value and gradient.
    pub(super) dtype: DType,
    pub(super) value: RefCell<Option<Tensor>>,
    pub(super) gradient: RefCell<Option<Tensor>>,
    pub(super) needs_gradient: bool,
    /// The node that made this value, and as which of its outputs; `None` for leaves and for values that no gradient flows through.
    pub(super) producer: Option<(usize, usize)>,
    /// Backward passes (or recomputations) that will still read the value.
    pub(super) pending: Cell<usize>,
    /// Recompute the value instead of keeping it.
    pub(super) recompute: Cell<bool>,
    pub(super) held: Cell<bool>,
    pub(super) parameter: Option<ParamId>,
}

impl Var {
    /// Lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.0.0.shape
    }

    /// Storage type.
    pub fn dtype(&self) -> DType {
        self.0.0.dtype
    }

    /// The tensor.
    pub fn tensor(&self) -> Tensor {
        self.0.0.value.borrow().clone().expect("a var holds its tensor while its handle lives")
    }

    /// True if both are one var.
    pub fn is(&self, other: &Var) -> bool {
        Rc::ptr_eq(&self.0.0, &other.0.0)
    }

    /// True if gradients flow to this var.
    pub fn needs_gradient(&self) -> bool {
        self.0.0.needs_gradient
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.held.set(false);
        if self.0.pending.get() == 0 || self.0.recompute.get() {
            self.0.value.take();
        }
    }
}

impl Slot {
    /// One more backward pass will read the value.
    pub(super) fn add_reader(&self) {
        self.pending.set(self.pending.get() + 1);
        if !self.recompute.get() {
            self.mark_saved();
        }
    }

    pub(super) fn mark_saved(&self) {
        if self.parameter.is_none()
            && self.producer.is_some()
            && let Some(value) = self.value.borrow().as_ref()
        {
            value.retag(Role::Saved);
        }
    }

    /// One reader is done.
    pub(super) fn remove_reader(&self) {
        self.pending.set(self.pending.get() - 1);
        if self.pending.get() == 0 && !self.held.get() {
            self.value.take();
        }
    }
}
