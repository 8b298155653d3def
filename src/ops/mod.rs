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

use crate::device::{Device, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

pub(crate) use crate::device::cpu::loops::PIECE;
pub use crate::tape::{Cost, Needs, Op, OutputSpec};
pub use crate::tensor::first_not_finite;

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
