//! What the tape asks of an op.

use super::Backward;
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{DType, Shape, Tensor};

/// What a backward pass reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Bit `i`: the value of input `i`.
    pub inputs: u32,
    /// The value of the output.
    pub output: bool,
}

impl Needs {
    /// The values of the inputs `which`.
    pub fn inputs(which: &[usize]) -> Self {
        Self { inputs: which.iter().fold(0, |bits, i| bits | 1 << i), output: false }
    }

    /// Nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The value of the output.
    pub fn output() -> Self {
        Self { inputs: 0, output: true }
    }

    /// True if the value of input `i` is read.
    pub fn input(self, i: usize) -> bool {
        self.inputs >> i & 1 == 1
    }
}

/// Work of one pass: floating-point operations (a fused multiply-add counts two) and the bytes that must move whatever
/// the implementation (each input once, each output once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Compulsory bytes.
    pub bytes: u64,
}

impl From<Cost> for [u64; 2] {
    fn from(cost: Cost) -> Self {
        [cost.flops, cost.bytes]
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |sum, cost| Self { flops: sum.flops + cost.flops, bytes: sum.bytes + cost.bytes })
    }
}

/// A differentiable function of tensors.
pub trait Op {
    /// Name in the ledger and in errors.
    fn name(&self) -> &'static str;

    /// Shape of the output.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] that names the op and the shapes.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;

    /// Storage type of the output, by default that of the first input.
    fn output_dtype(&self, inputs: &[DType]) -> DType {
        inputs[0]
    }

    /// Fills `output`, whose contents are unspecified.
    ///
    /// # Errors
    /// No memory for a workspace.
    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()>;

    /// Hands on the gradient.
    ///
    /// # Errors
    /// No memory.
    fn backward(&self, backward: &mut Backward<'_>) -> Result<()>;

    /// What the backward pass reads.
    fn needs(&self) -> Needs;

    /// True if the output is cheaper to make again than to keep.
    fn recompute(&self) -> bool {
        false
    }

    /// Work of the forward pass for these input shapes.
    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost;

    /// Work of the backward pass for these input shapes, if all gradients are wanted.
    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost;
}
