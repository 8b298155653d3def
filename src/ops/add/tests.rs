use super::{add, scale_add};
use crate::memory::Role;
use crate::ops::testing::{Array, Tolerance, assert_clean, check_bf16, check_op, cuda_device, refused};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// One or two roundings.
const TOLERANCE: Tolerance = Tolerance { forward: 2e-7, backward: 1e-6 };

fn twin(inputs: &[Array], factor: f64) -> Array {
    let data = inputs[0].data.iter().zip(&inputs[1].data).map(|(a, b)| a + factor * b).collect();
    Array { shape: inputs[0].shape.clone(), data }
}

#[test]
fn sums() {
    let inputs = [Array::random(&[2, 130, 70], 1), Array::random(&[2, 130, 70], 2)];
    check_op(&inputs, &[0, 1], TOLERANCE, |tape, v| add(tape, &v[0], &v[1]), |a| twin(a, 1.0));
    check_op(&inputs, &[0, 1], TOLERANCE, |tape, v| scale_add(tape, &v[0], &v[1], 0.125), |a| twin(a, 0.125));
}

#[test]
fn both_branches_and_what_lies_below_them_get_the_gradient() {
    // x feeds both branches, one of them through another sum: 2·(x + x) + x = 5·x.
    let inputs = [Array::random(&[7, 3], 1)];
    let five = |a: &[Array]| Array { shape: a[0].shape.clone(), data: a[0].data.iter().map(|x| 5.0 * x).collect() };
    let op = |tape: &crate::tape::Tape, v: &[crate::tape::Var]| {
        let double = add(tape, &v[0], &v[0])?;
        scale_add(tape, &v[0], &double, 2.0)
    };
    check_op(&inputs, &[0], TOLERANCE, op, five);
}

#[test]
fn shapes_that_differ_are_errors() {
    refused("add", &[&[4, 2], &[8]], |tape, v| add(tape, &v[0], &v[1]));
    refused("add", &[&[1], &[2]], |tape, v| scale_add(tape, &v[0], &v[1], 0.1));
}

#[test]
fn a_cuda_device_launches_kernels() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Train);
    let input = |values: &[f32]| tape.input(Tensor::from_slice(&device, &[values.len()], Role::Data, values).unwrap());
    let (a, b) = (input(&[1.0, 2.0]), input(&[3.0, 5.0]));
    let before = device.launches();
    let y = add(&tape, &a, &b).unwrap();
    assert_eq!(device.launches() - before, 1);
    assert_eq!(y.tensor().to_vec().unwrap(), [4.0, 7.0]);
    assert_clean();
}

#[test]
fn in_bf16() {
    let inputs = [Array::random(&[2, 13, 71], 1), Array::random(&[2, 13, 71], 2)];
    let op = |tape: &Tape, v: &[crate::tape::Var]| {
        let sum = add(tape, &v[0], &v[1])?;
        scale_add(tape, &sum, &v[1], 0.125)
    };
    check_bf16(&inputs, &[0, 1], &[0, 1], TOLERANCE, op);
}
