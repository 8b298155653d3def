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
    /// The value of the first output.
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

    /// The value of the first output.
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

/// An output of an op beside its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Lengths of the axes.
    pub shape: Shape,
    /// Storage type.
    pub dtype: DType,
    /// No gradient flows through it: the op that reads it accounts for its derivative. It is kept while it is read, and
    /// never recomputed.
    pub constant: bool,
}

/// A differentiable function of tensors, with one output or several.
pub trait Op {
    /// Name in the ledger and in errors.
    fn name(&self) -> &'static str;

    /// Shape of the first output.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] that names the op and the shapes.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Shape>;

    /// Storage type of the first output, by default that of the first input.
    fn output_dtype(&self, inputs: &[DType]) -> DType {
        inputs[0]
    }

    /// True if no gradient flows through the first output: see [`OutputSpec::constant`].
    fn is_constant(&self) -> bool {
        false
    }

    /// The outputs beside the first, for these input shapes that [`Op::output_shape`] took.
    fn further_outputs(&self, _inputs: &[&[usize]]) -> Vec<OutputSpec> {
        Vec::new()
    }

    /// Fills the first output, whose contents are unspecified.
    ///
    /// # Errors
    /// No memory for a workspace.
    fn forward(&self, device: &Device, inputs: &[&Tensor], output: &mut Tensor) -> Result<()>;

    /// Fills the outputs that are there: all of them at first, later those that are recomputed. For an op with several.
    ///
    /// # Errors
    /// No memory for a workspace.
    fn forward_several(&self, device: &Device, inputs: &[&Tensor], outputs: &mut [Option<Tensor>]) -> Result<()> {
        match outputs.first_mut() {
            Some(Some(output)) => self.forward(device, inputs, output),
            _ => Ok(()),
        }
    }

    /// Hands on the gradients of the outputs.
    ///
    /// # Errors
    /// No memory.
    fn backward(&self, backward: &mut Backward<'_>) -> Result<()>;

    /// What the backward pass reads.
    fn needs(&self) -> Needs;

    /// True if the outputs are cheaper to make again than to keep.
    fn recompute(&self) -> bool {
        false
    }

    /// Work of the forward pass for these input shapes.
    fn forward_cost(&self, inputs: &[&[usize]]) -> Cost;

    /// Work of the backward pass for these input shapes, if all gradients are wanted.
    fn backward_cost(&self, inputs: &[&[usize]]) -> Cost;
}
