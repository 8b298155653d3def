//! Sizes of a convolution.

use crate::error::{Error, Result};
use crate::ops::Cost;

/// How a convolution moves along the three spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Input voxels between neighbouring outputs.
    pub stride: [usize; 3],
    /// Zeros before and after each axis.
    pub padding: [usize; 3],
}

impl ConvGeometry {
    /// The geometry with its kernel's lengths.
    pub(crate) fn window(self, kernel: [usize; 3]) -> ConvWindow {
        ConvWindow { kernel, stride: self.stride, padding: self.padding }
    }
}

/// What a convolution does to the three spatial axes. Two-dimensional nets have depth 1 and a kernel of depth 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvWindow {
    /// Taps along each axis.
    pub kernel: [usize; 3],
    /// Input voxels between neighbouring outputs.
    pub stride: [usize; 3],
    /// Zeros before and after each axis.
    pub padding: [usize; 3],
}

impl ConvWindow {
    /// A cubic kernel with the same stride and padding along each axis.
    #[cfg(test)]
    pub fn cubic(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 3], stride: [stride; 3], padding: [padding; 3] }
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// `⌊(length + 2·padding − kernel) / stride⌋ + 1` along each axis; `None` if the kernel does not fit.
    pub fn output(&self, input: [usize; 3]) -> Option<[usize; 3]> {
        let mut output = [0; 3];
        for axis in 0..3 {
            let padded = input[axis].checked_add(self.padding[axis].checked_mul(2)?)?;
            if self.kernel[axis] == 0 || input[axis] == 0 {
                return None;
            }
            output[axis] = padded.checked_sub(self.kernel[axis])?.checked_div(self.stride[axis])? + 1;
        }
        Some(output)
    }
}

/// Sizes of one convolution: `[batch, input, in_channels]` to `[batch, output, out_channels]`.
///
/// A transposed convolution is described by the convolution whose adjoint it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Volumes.
    pub batch: usize,
    /// Lengths of the input's spatial axes.
    pub input: [usize; 3],
    /// Lengths of the output's spatial axes.
    pub output: [usize; 3],
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Kernel, stride and padding.
    pub window: ConvWindow,
}

impl Sizes {
    /// The sizes of `window` moved over `input` (`[batch, D, H, W, in_channels]`).
    ///
    /// # Errors
    /// [`Error::Shape`] in the name of `op` if the kernel does not fit into the padded input.
    pub fn new(op: &'static str, input: &[usize], out_channels: usize, window: ConvWindow) -> Result<Self> {
        let &[batch, d, h, w, in_channels] = input else {
            return Err(Error::shape(op, format!("input {input:?} is not [batch, D, H, W, channels]")));
        };
        if in_channels == 0 || out_channels == 0 {
            return Err(Error::shape(op, format!("no channels: input {input:?}, {out_channels} outputs")));
        }
        let Some(output) = window.output([d, h, w]) else {
            return Err(Error::shape(op, format!("{window:?} does not fit input {input:?}; enlarge the input")));
        };
        Ok(Self { batch, input: [d, h, w], output, in_channels, out_channels, window })
    }

    /// Those of an `x` `[batch, D, H, W, in]` and a `weight` `[out, in, kd, kh, kw]`.
    ///
    /// # Errors
    /// [`Error::Shape`] in the name of `op` if they do not fit each other.
    pub fn of(op: &'static str, x: &[usize], weight: &[usize], geometry: ConvGeometry) -> Result<Self> {
        let &[outputs, inputs, kd, kh, kw] = weight else {
            return Err(Error::shape(op, format!("weight {weight:?} is not [out, in, kd, kh, kw]")));
        };
        if x.last() != Some(&inputs) {
            let problem = format!("weight {weight:?} wants {inputs} channels, the input {x:?} has another number");
            return Err(Error::shape(op, problem));
        }
        Self::new(op, x, outputs, geometry.window([kd, kh, kw]))
    }

    /// Voxels of the input, all volumes together.
    pub fn input_voxels(&self) -> usize {
        self.batch * self.input.iter().product::<usize>()
    }

    /// Voxels of the output, all volumes together.
    pub fn output_voxels(&self) -> usize {
        self.batch * self.output.iter().product::<usize>()
    }

    /// Elements of the weight.
    pub fn weights(&self) -> usize {
        self.window.taps() * self.in_channels * self.out_channels
    }

    /// Work of one pass: `2·output voxels·taps·in·out` FLOPs (padding counted), each tensor's bytes once.
    pub fn cost(&self) -> Cost {
        let (input, output) = (self.input_voxels() * self.in_channels, self.output_voxels() * self.out_channels);
        Cost {
            flops: 2 * self.output_voxels() as u64 * self.weights() as u64,
            bytes: 4 * (input + self.weights() + output) as u64,
        }
    }
}
