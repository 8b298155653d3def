use super::concat;
use crate::ops::testing::{Array, Tolerance, check_bf16, check_op, refused};
use crate::tape::{Tape, Var};
use crate::tensor::DType;

/// Nothing is computed but f32 copies; the gradient's twin is a finite difference.
const TOLERANCE: Tolerance = Tolerance { forward: 0.0, backward: 1e-6 };

fn twin(inputs: &[Array]) -> Array {
    let rows: usize = inputs[0].shape[..inputs[0].shape.len() - 1].iter().product();
    let mut data = Vec::new();
    for row in 0..rows {
        for x in inputs {
            let width = *x.shape.last().unwrap();
            data.extend_from_slice(&x.data[row * width..(row + 1) * width]);
        }
    }
    let mut shape = inputs[0].shape.clone();
    *shape.last_mut().unwrap() = data.len() / rows;
    Array { shape, data }
}

#[test]
fn points_and_volumes() {
    let inputs = [Array::random(&[5, 3], 1), Array::random(&[5, 1], 2), Array::random(&[5, 7], 3)];
    check_op(&inputs, &[0, 1, 2], TOLERANCE, |tape, v| concat(tape, &[&v[0], &v[1], &v[2]]), twin);
    let inputs = [Array::random(&[2, 3, 4, 5, 3], 1), Array::random(&[2, 3, 4, 5, 2], 2)];
    check_op(&inputs, &[0, 1], TOLERANCE, |tape, v| concat(tape, &[&v[0], &v[1]]), twin);
}

#[test]
fn many_pieces() {
    let inputs = [Array::random(&[5000, 3], 1), Array::random(&[5000, 5], 2)];
    check_op(&inputs, &[0, 1], TOLERANCE, |tape, v| concat(tape, &[&v[0], &v[1]]), twin);
}

#[test]
fn an_input_given_twice_gets_both_gradients() {
    let inputs = [Array::random(&[4, 2], 1)];
    let twice = |a: &[Array]| twin(&[a[0].clone(), a[0].clone()]);
    check_op(&inputs, &[0], TOLERANCE, |tape, v| concat(tape, &[&v[0], &v[0]]), twice);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    refused("concat", &[&[4, 2], &[5, 2]], |tape, v| concat(tape, &[&v[0], &v[1]]));
    refused("concat", &[&[4, 2], &[2, 2, 2]], |tape, v| concat(tape, &[&v[0], &v[1]]));
    refused("concat", &[], |tape, _| concat(tape, &[]));
}

#[test]
fn in_bf16() {
    let inputs = [Array::random(&[50, 3], 1), Array::random(&[50, 16], 2)];
    let join = |tape: &Tape, v: &[Var]| concat(tape, &[&v[0], &v[1]]);
    check_bf16(&inputs, &[0, 1], &[0, 1], TOLERANCE, join);
    // Coordinates stay f32, and so does what they are joined with.
    check_bf16(&inputs, &[1], &[0, 1], TOLERANCE, |tape, v| {
        let both = join(tape, v)?;
        assert_eq!(both.dtype(), DType::F32);
        Ok(both)
    });
}
