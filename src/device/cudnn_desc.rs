//! Sizes of a convolution, as a library of convolutions is told of them.

use crate::tensor::Tensor;

/// `[batch, input, in_channels]` to `[batch, output, out_channels]`, channels last, weights `[out, in, kernel]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvDescriptor {
    /// Items.
    pub batch: usize,
    /// Input voxels along each axis.
    pub input: [usize; 3],
    /// Output voxels along each axis.
    pub output: [usize; 3],
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Taps along each axis.
    pub kernel: [usize; 3],
    /// Input voxels between neighbouring outputs.
    pub stride: [usize; 3],
    /// Zeros before and after each axis.
    pub padding: [usize; 3],
}

/// Which of a convolution's three products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// `y` of `x` and the weights.
    Forward,
    /// `dx` of `dy` and the weights.
    InputGradient,
    /// `dw` of `x` and `dy`.
    WeightGradient,
}

/// The operands of a pass, in the order of its description.
pub type Operands<'a> = [&'a Tensor; 2];
