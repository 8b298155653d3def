//! What the kernels on volumes `[batch, D, H, W, C]` are told of each axis (`kernels/axes.cuh`).

use bytemuck::{Pod, Zeroable};

/// One axis.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct AxisWindows {
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
    /// Voxels of a window; 0 for bins that cover the axis.
    pub(crate) kernel: u32,
    pub(crate) stride: u32,
}

/// The three axes.
pub(crate) type VolumeWindows = [AxisWindows; 3];

impl AxisWindows {
    /// An axis from its lengths.
    pub(crate) fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Self {
        Self { inputs: inputs as u32, outputs: outputs as u32, kernel: kernel as u32, stride: stride as u32 }
    }
}
