//! What the kernels on volumes `[batch, D, H, W, C]` are told of each axis (`kernels/windows.cuh`).

use bytemuck::{Pod, Zeroable};

/// One axis.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Axis {
    pub(super) inputs: u32,
    pub(super) outputs: u32,
    /// Voxels of a window; 0 for bins that cover the axis.
    pub(super) kernel: u32,
    pub(super) stride: u32,
}

/// The three axes.
pub(super) type Axes = [Axis; 3];

impl Axis {
    /// An axis from its lengths.
    pub(super) fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        Self { inputs: inputs as u32, outputs: outputs as u32, kernel: kernel as u32, stride: stride as u32 }
    }
}
