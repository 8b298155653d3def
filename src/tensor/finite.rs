//! Whether values are finite: for weights that are to be kept, and for finding where a computation went wrong.

use crate::device::{Backend, Device, LaunchConfig, Target};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::{DType, Tensor};

/// Index of the first of `tensors` that holds NaN or infinity; `None` on a plan.
///
/// # Errors
/// No memory for a flag a tensor on CUDA, or what the driver says.
pub fn first_not_finite(device: &Device, tensors: &[&Tensor]) -> Result<Option<usize>> {
    match device.backend() {
        Backend::Cpu { .. } => Ok(tensors.iter().position(|x| !x.data().iter().all(|value| value.is_finite()))),
        Backend::Cuda(cuda) => {
            let mut flags = Tensor::empty(device, &[tensors.len()], DType::U32, Role::Workspace)?;
            flags.zero()?;
            for (i, x) in tensors.iter().enumerate() {
                let kernel = cuda.kernel_of("find_not_finite", x.dtype()).input(x).value(x.len() as u64);
                kernel.output_from(&mut flags, i).launch(LaunchConfig::cover(x.len()))?;
            }
            Ok(flags.to_typed::<u32>()?.iter().position(|&flag| flag != 0))
        }
        Backend::Plan { target } => {
            if let Target::Cuda(_) = target {
                Tensor::empty(device, &[tensors.len()], DType::U32, Role::Workspace)?;
            }
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::first_not_finite;
    use crate::memory::Role;
    use crate::ops::testing::{assert_clean, cuda_device, every_device};
    use crate::tensor::{DType, Tensor};
    use half::bf16;

    #[test]
    fn the_first_is_found() {
        for device in every_device() {
            let tensor = |value: f32, at: usize, len: usize| {
                let mut values = vec![1.0; len];
                values[at] = value;
                Tensor::from_slice(&device, &[len], Role::Data, &values).unwrap()
            };
            let fine = tensor(f32::MAX, 3, 1000);
            let (nan, infinite) = (tensor(f32::NAN, 70_000, 70_001), tensor(f32::NEG_INFINITY, 0, 5));
            assert_eq!(first_not_finite(&device, &[&fine, &fine]).unwrap(), None);
            assert_eq!(first_not_finite(&device, &[&fine, &nan, &infinite]).unwrap(), Some(1));
            assert_eq!(first_not_finite(&device, &[&infinite, &fine]).unwrap(), Some(0));
            assert_clean();
        }
    }

    #[test]
    fn in_bf16() {
        let Some(device) = cuda_device(0) else { return };
        let tensor = |value: f32| {
            let mut values = vec![bf16::ONE; 1001];
            values[700] = bf16::from_f32(value);
            Tensor::from_typed(&device, &[1001], DType::Bf16, Role::Data, &values).unwrap()
        };
        let (fine, nan) = (tensor(-1e38), tensor(f32::NAN));
        assert_eq!(first_not_finite(&device, &[&fine, &fine]).unwrap(), None);
        assert_eq!(first_not_finite(&device, &[&fine, &nan]).unwrap(), Some(1));
        assert_clean();
    }
}
