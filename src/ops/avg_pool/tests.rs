use super::avg_pool;
use crate::ops::testing::{Array, Tolerance, check_bf16, check_op, refused};

/// Means of at most 18 terms: a few units of 2^-24 of the largest.
const TOLERANCE: Tolerance = Tolerance { forward: 5e-7, backward: 1e-6 };

fn twin(x: &Array, kernel: [usize; 3], stride: [usize; 3]) -> Array {
    let s = &x.shape;
    let out = [0, 1, 2].map(|a| (s[a + 1] - kernel[a]) / stride[a] + 1);
    let shape = vec![s[0], out[0], out[1], out[2], s[4]];
    let mut data = Vec::new();
    for flat in 0..shape.iter().product::<usize>() {
        let c = flat % s[4];
        let o = [flat / s[4] / out[2] / out[1] % out[0], flat / s[4] / out[2] % out[1], flat / s[4] % out[2]];
        let b = flat / s[4] / out[2] / out[1] / out[0];
        let mut sum = 0.0;
        for k in 0..kernel.iter().product::<usize>() {
            let k = [k / kernel[2] / kernel[1], k / kernel[2] % kernel[1], k % kernel[2]];
            let i = [0, 1, 2].map(|a| o[a] * stride[a] + k[a]);
            sum += x.data[(((b * s[1] + i[0]) * s[2] + i[1]) * s[3] + i[2]) * s[4] + c];
        }
        data.push(sum / kernel.iter().product::<usize>() as f64);
    }
    Array { shape, data }
}

fn check(shape: &[usize], kernel: [usize; 3], stride: [usize; 3]) {
    let x = [Array::random(shape, 11)];
    check_op(&x, &[0], TOLERANCE, |tape, v| avg_pool(tape, &v[0], kernel, stride), |a| twin(&a[0], kernel, stride));
}

#[test]
fn halving() {
    check(&[2, 8, 6, 4, 5], [2; 3], [2; 3]);
}

#[test]
fn an_odd_axis_loses_its_last_voxel() {
    check(&[1, 5, 7, 3, 1], [2; 3], [2; 3]);
}

#[test]
fn an_image_has_depth_one() {
    check(&[2, 1, 12, 10, 17], [1, 2, 2], [1, 2, 2]);
}

#[test]
fn overlapping_and_spaced_windows() {
    check(&[1, 7, 9, 8, 3], [3, 3, 2], [1, 2, 3]);
}

#[test]
fn many_pieces() {
    // 30·20 lines of 20·8 elements are 6 pieces of the gradient.
    check(&[1, 30, 20, 20, 8], [2; 3], [2; 3]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    for (shape, kernel, stride) in [
        (vec![4, 3], [2; 3], [2; 3]),
        (vec![1, 1, 4, 4, 2], [2; 3], [2; 3]),
        (vec![1, 4, 4, 4, 2], [0, 2, 2], [2; 3]),
        (vec![1, 4, 4, 4, 2], [2; 3], [2, 0, 2]),
        (vec![0, 4, 4, 4, 2], [2; 3], [2; 3]),
    ] {
        refused("avg_pool", &[&shape], |tape, v| avg_pool(tape, &v[0], kernel, stride));
    }
}

#[test]
fn in_bf16() {
    let x = [Array::random(&[2, 8, 6, 4, 5], 11)];
    check_bf16(&x, &[0], &[0], TOLERANCE, |tape, v| avg_pool(tape, &v[0], [2; 3], [2; 3]));
}
