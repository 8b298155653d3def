//! What is done to many tensors at once, in place and without a derivative: gradients cleared and clipped, weights averaged.
//!
//! On CUDA it is one launch however many tensors there are. Bytes an element: 4 ([`sums_of_squares`], [`zero_all`]), 8 ([`scale_all`]),
//! 12 ([`approach_all`]).

mod cuda;
#[cfg(test)]
mod tests;

use super::pieces::{by_elements, sum_rows};
use crate::device::{Backend, Device};
use crate::error::Result;
use crate::tensor::Tensor;

/// `Σ x²` of each tensor, in f64; zeros on a plan. Waits for the device.
///
/// # Errors
/// No memory for a sum of each block of 4,096 elements on CUDA, or what the driver says.
pub fn sums_of_squares(device: &Device, tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let squares = |x: &[f32]| x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.len()).collect();
    let mut sums = cuda::sums(device, &lengths)?;
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            let sum = |x: &[f32]| sum_rows(pool, x.len(), 1, |piece| squares(&x[piece]));
            Ok(tensors.iter().map(|tensor| sum(tensor.data())).collect())
        }
        Backend::Cuda(device) => cuda::sums_of_squares(device, tensors, &mut sums),
        Backend::Plan { .. } => Ok(vec![0.0; tensors.len()]),
    }
}

/// `x ← 0` for each tensor.
///
/// # Errors
/// What the driver says.
pub fn zero_all(device: &Device, tensors: &mut [&mut Tensor]) -> Result<()> {
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            for tensor in tensors {
                by_elements(pool, tensor.data_mut(), |_, x| x.fill(0.0));
            }
            Ok(())
        }
        Backend::Cuda(cuda) => cuda::zero_all(cuda, tensors),
        Backend::Plan { .. } => Ok(()),
    }
}

/// `x ← factor·x` for each tensor.
///
/// # Errors
/// What the driver says.
pub fn scale_all(device: &Device, tensors: &mut [&mut Tensor], factor: f32) -> Result<()> {
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            for tensor in tensors {
                by_elements(pool, tensor.data_mut(), |_, x| x.iter_mut().for_each(|x| *x *= factor));
            }
            Ok(())
        }
        Backend::Cuda(cuda) => cuda::scale_all(cuda, tensors, factor),
        Backend::Plan { .. } => Ok(()),
    }
}

/// `x ← x + share·(goal − x)` for each tensor and its goal, of equal lengths.
///
/// # Errors
/// What the driver says.
pub fn approach_all(device: &Device, tensors: &mut [(&mut Tensor, &Tensor)], share: f32) -> Result<()> {
    debug_assert!(tensors.iter().all(|(tensor, goal)| tensor.len() == goal.len()));
    match device.backend() {
        Backend::Cpu { pool, .. } => {
            for (tensor, goal) in tensors {
                let goal = goal.data();
                by_elements(pool, tensor.data_mut(), |first, x| {
                    x.iter_mut().zip(&goal[first..]).for_each(|(x, goal)| *x += share * (goal - *x));
                });
            }
            Ok(())
        }
        Backend::Cuda(cuda) => cuda::approach_all(cuda, tensors, share),
        Backend::Plan { .. } => Ok(()),
    }
}
