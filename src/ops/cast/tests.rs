use half::bf16;

use super::cast;
use crate::device::Device;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::testing::{Array, assert_clean, cuda_device, dot};
use crate::tape::{Mode, Tape};
use crate::tensor::{DType, Tensor};

#[test]
fn there_and_back_again() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Train);
    let values = Array::random(&[3, 1001], 1).f32s();
    let x = tape.input(Tensor::from_slice(&device, &[3, 1001], Role::Data, &values).unwrap());
    let narrow = cast(&tape, &x, DType::Bf16).unwrap();
    let rounded: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    assert_eq!(narrow.tensor().to_typed::<bf16>().unwrap(), rounded);
    let wide = cast(&tape, &narrow, DType::F32).unwrap();
    assert_eq!(wide.tensor().to_vec().unwrap(), rounded.iter().map(|value| value.to_f32()).collect::<Vec<_>>());
    // The gradient is rounded on its way through the narrow tensor, and added to another in f32.
    let weights = Tensor::from_slice(&device, &[3, 1001], Role::Data, &values).unwrap();
    let sum = crate::ops::add(&tape, &wide, &x).unwrap();
    let loss = dot(&tape, &sum, weights).unwrap();
    tape.backward(loss, &mut Parameters::new(&device)).unwrap();
    let gradient = tape.gradient(&x).unwrap().to_vec().unwrap();
    assert_eq!(gradient, values.iter().zip(&rounded).map(|(a, b)| a + b.to_f32()).collect::<Vec<_>>());
    assert_clean();
}

#[test]
fn the_cpu_imitates() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let values = Array::random(&[1001], 1).f32s();
    let x = tape.input(Tensor::from_slice(&device, &[1001], Role::Data, &values).unwrap());
    let narrow = cast(&tape, &x, DType::Bf16).unwrap();
    let double = crate::ops::add(&tape, &narrow, &narrow).unwrap();
    let expected: Vec<f32> = values.iter().map(|&value| 2.0 * bf16::from_f32(value).to_f32()).collect();
    assert_eq!((double.dtype(), double.tensor().to_vec().unwrap()), (DType::Bf16, expected));
}
