//! Ops: one folder an op.
//!
//! An op is a pure function of tensors with a derivative. Its folder holds `mod.rs` (formula, shape rule, forward,
//! backward, FLOPs and bytes), `cpu.rs` (slices in, slices out) and the tests: a naive f64 twin, finite differences of
//! that twin, the golden file where there is one. Adding an op touches its folder, its kernel file and one line here.

pub mod activation;
pub mod add;
pub mod avg_pool;
pub mod border_map;
pub mod cast;
pub mod concat;
pub mod conv3d;
pub mod conv_transpose3d;
pub mod copy_range;
pub(crate) mod cuda;
pub mod dropout;
mod finite;
pub mod fourier_features;
pub mod fused_decoder;
pub mod lattice;
pub mod linear;
pub mod loss;
pub mod marching_cubes;
pub mod max_pool;
pub mod moments;
pub mod norm_act;
pub mod norm_act_linear;
pub mod norm_act_pool;
pub(crate) mod par_loops;
pub mod patch_conv;
pub mod patch_sample;
pub mod reshape;
pub mod resize;
pub mod select;
mod separable;
pub mod sigmoid;
pub(crate) mod simd;
pub mod softmax;
pub(crate) mod tiling_cpu;
pub mod transpose_channels;

#[cfg(test)]
pub mod testing;

pub use activation::{Activation, activation};
pub use add::{add, scale_add};
pub use avg_pool::avg_pool;
pub use cast::cast;
pub use concat::concat;
pub use conv_transpose3d::conv_transpose3d;
pub use conv3d::{conv3d, conv3d_with_stats};
pub use dropout::dropout;
pub use finite::first_not_finite;
pub use fourier_features::fourier_features;
pub use linear::{linear, linear_pair, linear_with_stats};
pub use loss::{BinaryLoss, CrossEntropy, Prediction, SoftDice, binary_loss, cross_entropy, dice_loss};
pub use marching_cubes::{Surface, marching_cubes};
pub use max_pool::{adaptive_max_pool, max_pool};
pub use moments::{Grouping, moments};
pub use norm_act::{NormActArgs, ResidualPlace, norm_act};
pub use norm_act_linear::norm_act_linear;
pub use norm_act_pool::norm_act_pool;
pub use patch_conv::patch_conv;
pub use patch_sample::patch_sample;
pub use reshape::reshape;
pub use resize::{AlignCorners, resize};
pub use select::select;
pub use sigmoid::sigmoid;
pub use softmax::{probabilities, softmax};
pub use transpose_channels::transpose_channels;

use crate::device::{Backend, Device, LaunchConfig, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::tape::Backward;
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

/// Scratch of `len` floats for an op, with unspecified contents.
///
/// # Errors
/// No memory.
pub fn workspace(device: &Device, len: usize) -> Result<Tensor> {
    Tensor::empty(device, &[len], DType::F32, Role::Workspace)
}

/// Scratch of so many floats on the CPU, so many on CUDA.
///
/// # Errors
/// No memory.
pub(crate) fn workspace_for(device: &Device, cpu: usize, cuda: usize) -> Result<Tensor> {
    workspace(device, if let Target::Cuda(_) = device.target() { cuda } else { cpu })
}

/// Elements that one piece of an element-wise loop handles.
pub(crate) const PIECE: usize = 1 << 14;

/// `a + b` into `a`'s buffer if it is unshared, else into a new one.
pub(crate) fn add_gradients(device: &Device, a: Tensor, b: &Tensor) -> Result<Tensor> {
    let mut sum = match a.is_unique() {
        true => a,
        false => a.copied(Role::Transient)?,
    };
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            let b = b.data();
            let len = b.len();
            let out = crate::device::cpu::SharedMut::new(sum.data_mut());
            pool.for_each(len.div_ceil(PIECE), |piece| {
                let start = piece * PIECE;
                let count = PIECE.min(len - start);
                // SAFETY: pieces do not overlap.
                let out = unsafe { out.slice(start, count) };
                out.iter_mut().zip(&b[start..start + count]).for_each(|(a, b)| *a += b);
            });
        }
        Backend::Cuda(cuda) => {
            let len = sum.len();
            cuda.kernel_of("add_in_place", sum.dtype())
                .output(&mut sum)
                .input(b)
                .value(len as u64)
                .launch(LaunchConfig::cover(len.div_ceil(4)))?;
        }
        Backend::Plan { .. } => {}
    }
    Ok(sum)
}
