//! The border map: voxels near a class boundary, of which training draws more points.
//!
//! * `label` `[D, H, W]` u8 (0: outside) → `[D, H, W]` u8: 1 where the Sobel gradient magnitude of the binary label (its ends
//!   repeated) exceeds 0 anywhere within a cube of 13 voxels, else 0.
//! * All arithmetic is on small whole numbers, so every device gives the same bits. No derivative.
//! * Work: some 60 additions a voxel; bytes 2 a voxel at least.
//!
//! Source: OSS-Net's `generate_borders_*.py`.

pub mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use crate::device::{Backend, Device, Target};
use crate::error::{Error, Result};
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// How far the dilation reaches from a voxel, in voxels: a cube of side 13.
pub const REACH: usize = 6;

/// The border map of `label`.
///
/// # Errors
/// [`Error::Shape`] unless `label` is `[D, H, W]` in bytes, or no memory.
pub fn border_map(label: &Tensor) -> Result<Tensor> {
    let shape = match <[usize; 3]>::try_from(label.shape()) {
        Ok(shape) if label.dtype() == DType::U8 => shape,
        _ => {
            let problem = format!("expected [D, H, W] in bytes, got {:?} of {:?}", label.shape(), label.dtype());
            return Err(Error::shape("border_map", problem));
        }
    };
    let device = label.device();
    device.in_op("border_map", || {
        let mut map = Tensor::empty(device, &shape, DType::U8, Role::Output)?;
        let mut scratch = scratch(device, shape)?;
        match device.backend() {
            Backend::Cpu { .. } => map.write(&cpu::border_map(label.typed(), shape))?,
            Backend::Cuda(cuda) => cuda::border_map(cuda, label, &mut map, &mut scratch)?,
            Backend::Plan { .. } => {}
        }
        Ok(map)
    })
}

/// A second map on CUDA.
fn scratch(device: &Device, shape: [usize; 3]) -> Result<Tensor> {
    let shape = if matches!(device.target(), Target::Cuda(_)) { shape } else { [0; 3] };
    Tensor::empty(device, &shape, DType::U8, Role::Workspace)
}
