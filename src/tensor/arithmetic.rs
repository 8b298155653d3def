//! The arithmetic that the tape itself needs: sums of gradients, and rounding where a CPU imitates bf16.

use half::bf16;

use super::{DType, Tensor};
use crate::device::cpu::loops::by_elements;
use crate::device::{Backend, LaunchConfig};
use crate::error::Result;
use crate::memory::Role;

impl Tensor {
    /// `self + other`, in the same buffer if it is unshared, else in a new one.
    pub(crate) fn plus(self, other: &Tensor) -> Result<Tensor> {
        let mut sum = if self.is_unique() { self } else { self.copied(Role::Transient)? };
        let device = sum.device().clone();
        match device.backend() {
            Backend::Cpu { pool, .. } => by_elements(pool, sum.data_mut(), |first, sum| {
                sum.iter_mut().zip(&other.data()[first..]).for_each(|(a, b)| *a += b);
            }),
            Backend::Cuda(cuda) => {
                let len = sum.len();
                cuda.kernel_of("add_in_place", sum.dtype())
                    .output(&mut sum)
                    .input(other)
                    .value(len as u64)
                    .launch(LaunchConfig::cover(len.div_ceil(4)))?;
            }
            Backend::Plan { .. } => {}
        }
        Ok(sum)
    }

    /// Adds `length` f32 of `other` from its number `from` on to those from number `at` on.
    #[cfg(feature = "train")]
    pub(crate) fn add_part(&mut self, at: usize, other: &Tensor, from: usize, length: usize) -> Result<()> {
        let device = self.device().clone();
        match device.backend() {
            Backend::Cpu { pool, .. } => by_elements(pool, &mut self.data_mut()[at..at + length], |first, sum| {
                sum.iter_mut().zip(&other.data()[from + first..]).for_each(|(a, b)| *a += b);
            }),
            Backend::Cuda(cuda) => cuda
                .kernel("add_in_place")
                .output_from(self, at)
                .input_from(other, from)
                .value(length as u64)
                .launch(LaunchConfig::cover(length.div_ceil(4)))?,
            Backend::Plan { .. } => {}
        }
        Ok(())
    }

    /// Rounds the f32 that a CPU holds numbers of bf16 as. What is shared was rounded when it was made.
    pub(crate) fn imitate_bf16(&mut self) {
        if self.dtype() != DType::Bf16 || !self.is_unique() {
            return;
        }
        let device = self.device().clone();
        if let Backend::Cpu { pool, .. } = device.backend() {
            by_elements(pool, self.data_mut(), |_, piece| {
                piece.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
            });
        }
    }
}
