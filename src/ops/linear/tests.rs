use super::linear;
use crate::ops::testing::{Array, Tolerance, check_cuda, check_op};

/// `x·W[:, columns]ᵀ + b` by definition.
fn twin(inputs: &[Array], first: usize) -> Array {
    let (x, w) = (&inputs[0], &inputs[1]);
    let (features, outputs, stride) = (*x.shape.last().unwrap(), w.shape[0], w.shape[1]);
    let rows = x.data.len() / features;
    let mut data = vec![0.0; rows * outputs];
    for row in 0..rows {
        for output in 0..outputs {
            let mut sum = inputs.get(2).map_or(0.0, |bias| {
                let batch = bias.data.len() / outputs;
                bias.data[row / (rows / batch) * outputs + output]
            });
            for feature in 0..features {
                sum += x.data[row * features + feature] * w.data[output * stride + first + feature];
            }
            data[row * outputs + output] = sum;
        }
    }
    let mut shape = x.shape.clone();
    *shape.last_mut().unwrap() = outputs;
    Array { shape, data }
}

/// Products of up to 70 terms: rounding errors of a few units of 2^-24 each, far below 1e-5 of the largest.
const TOLERANCE: Tolerance = Tolerance { forward: 2e-6, backward: 1e-5 };

#[test]
fn plain() {
    let inputs = [Array::random(&[3, 5, 70], 1), Array::random(&[33, 70], 2), Array::random(&[33], 3)];
    check_op(
        &inputs,
        &[0, 1, 2],
        TOLERANCE,
        |tape, v| linear(tape, &v[0], &v[1], None, Some(&v[2])),
        |arrays| twin(arrays, 0),
    );
}

#[test]
fn part_of_the_columns_and_a_bias_a_volume() {
    let inputs = [Array::random(&[6, 9], 4), Array::random(&[17, 21], 5), Array::random(&[3, 17], 6)];
    check_op(
        &inputs,
        &[0, 1, 2],
        TOLERANCE,
        |tape, v| linear(tape, &v[0], &v[1], Some(7..16), Some(&v[2])),
        |arrays| twin(arrays, 7),
    );
}

#[test]
fn many_rows_are_split() {
    // 4100 rows make three partial weight gradients; the sums have 4100 terms of random sign.
    let inputs = [Array::random(&[4100, 3], 7), Array::random(&[2, 3], 8)];
    let tolerance = Tolerance { forward: 2e-6, backward: 2e-5 };
    check_op(&inputs, &[0, 1], tolerance, |tape, v| linear(tape, &v[0], &v[1], None, None), |arrays| twin(arrays, 0));
}

#[test]
fn every_tile_on_cuda() {
    // Rows, features, outputs: 128 × 128 forward, backward to the input, to the weight; 128 × 32; 64 × 64 in several splits.
    // Sums of up to 4100 terms in either; both are within a few units of 2^-24 times the root of that.
    let tolerance = Tolerance { forward: 5e-6, backward: 2e-5 };
    for [rows, features, outputs] in [[1930, 6, 1000], [1930, 1000, 5], [5, 1450, 1450], [270, 30, 31], [4100, 36, 20]]
    {
        let inputs =
            [Array::random(&[rows, features], 1), Array::random(&[outputs, features], 2), Array::random(&[outputs], 3)];
        check_cuda(&inputs, &[0, 1, 2], tolerance, |tape, v| linear(tape, &v[0], &v[1], None, Some(&v[2])));
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    use crate::device::Device;
    use crate::memory::Role;
    use crate::tape::{Mode, Tape};
    use crate::tensor::Tensor;
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let (x, w) = (var(&[4, 3]), var(&[5, 7]));
    assert!(linear(&tape, &x, &w, None, None).is_err());
    assert!(linear(&tape, &x, &w, Some(5..8), None).is_err());
    assert!(linear(&tape, &x, &w, Some(0..3), Some(&var(&[4]))).is_err());
    assert!(linear(&tape, &x, &w, Some(0..3), Some(&var(&[3, 5]))).is_err());
}
