use super::windows::{PoolAxis, PoolWindows};
use super::{adaptive_max_pool, max_pool};
use crate::device::Device;
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::testing::{Array, Tolerance, check_bf16, check_op, dot, refused};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// The output copies inputs; the gradient sums the few windows that share a voxel.
const TOLERANCE: Tolerance = Tolerance { forward: 0.0, backward: 1e-6 };

/// Maximum along `axis` over `windows`; axis by axis gives the maximum over the box.
fn along(x: &Array, axis: usize, windows: &[std::ops::Range<usize>]) -> Array {
    let mut shape = x.shape.clone();
    let n = shape[axis];
    shape[axis] = windows.len();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut data = Vec::new();
    for outer in 0..shape[..axis].iter().product::<usize>() {
        for window in windows {
            for i in 0..inner {
                let values = window.clone().map(|j| x.data[(outer * n + j) * inner + i]);
                data.push(values.fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }
    Array { shape, data }
}

fn fixed(n: usize, kernel: usize, stride: usize) -> Vec<std::ops::Range<usize>> {
    (0..).map(|o| o * stride..o * stride + kernel).take_while(|window| window.end <= n).collect()
}

fn adaptive(n: usize, size: usize) -> Vec<std::ops::Range<usize>> {
    let share = |o: usize| o as f64 * n as f64 / size as f64;
    (0..size).map(|o| share(o).floor() as usize..(share(o + 1) - 1e-9).ceil() as usize).collect()
}

fn check_fixed(shape: &[usize], kernel: [usize; 3], stride: [usize; 3]) {
    let twin =
        |a: &[Array]| (0..3).fold(a[0].clone(), |x, i| along(&x, i + 1, &fixed(x.shape[i + 1], kernel[i], stride[i])));
    check_op(&[Array::random(shape, 3)], &[0], TOLERANCE, |tape, v| max_pool(tape, &v[0], kernel, stride), twin);
}

fn check_adaptive(shape: &[usize], size: [usize; 3]) {
    let twin = |a: &[Array]| (0..3).fold(a[0].clone(), |x, i| along(&x, i + 1, &adaptive(x.shape[i + 1], size[i])));
    check_op(&[Array::random(shape, 4)], &[0], TOLERANCE, |tape, v| adaptive_max_pool(tape, &v[0], size), twin);
}

#[test]
fn fixed_windows() {
    check_fixed(&[2, 6, 4, 8, 5], [2; 3], [2; 3]);
    check_fixed(&[1, 5, 7, 6, 19], [2; 3], [2; 3]);
    check_fixed(&[2, 1, 8, 6, 3], [1, 2, 2], [1, 2, 2]);
}

#[test]
fn overlapping_windows() {
    check_fixed(&[1, 6, 7, 5, 2], [3, 3, 2], [1, 2, 1]);
}

#[test]
fn bins_that_divide_the_axes() {
    check_adaptive(&[2, 8, 8, 10, 4], [4, 2, 5]);
}

#[test]
fn bins_that_overlap() {
    check_adaptive(&[1, 7, 5, 11, 3], [3, 2, 4]);
}

#[test]
fn bins_that_enlarge() {
    check_adaptive(&[2, 2, 2, 1, 3], [8, 3, 5]);
}

#[test]
fn many_pieces() {
    check_fixed(&[1, 32, 24, 8, 16], [2, 2, 1], [2, 2, 1]);
}

/// PyTorch: `floor(i·in/out) .. ceil((i+1)·in/out)`, written out for 5 → 8 and 7 → 3.
#[test]
fn bins_are_pytorchs() {
    let bins = |n, outputs| {
        let axis = PoolAxis::new(PoolWindows::Adaptive { outputs }, n).unwrap();
        (0..outputs).map(|o| (axis.window(o).start, axis.window(o).end)).collect::<Vec<_>>()
    };
    assert_eq!(bins(5, 8), [(0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 4), (3, 5), (4, 5)]);
    assert_eq!(bins(7, 3), [(0, 3), (2, 5), (4, 7)]);
}

#[test]
fn of_equals_the_first_gets_the_gradient() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let x = Tensor::from_slice(&device, &[1, 2, 2, 2, 1], Role::Data, &[0.0, 3.0, 3.0, 1.0, 3.0, 0.0, 0.0, 0.0]);
    let x = tape.input(x.unwrap());
    let y = max_pool(&tape, &x, [2; 3], [2; 3]).unwrap();
    let weight = Tensor::from_slice(&device, &[1], Role::Data, &[5.0]).unwrap();
    let loss = dot(&tape, &y, weight).unwrap();
    tape.backward(loss, &mut Parameters::new(&device)).unwrap();
    assert_eq!(tape.gradient(&x).unwrap().to_vec().unwrap(), [0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn windows_of_different_runs_share_nothing() {
    for (windows, n) in [
        (PoolWindows::Fixed { kernel: 2, stride: 2 }, 9),
        (PoolWindows::Fixed { kernel: 3, stride: 2 }, 9),
        (PoolWindows::Adaptive { outputs: 4 }, 6),
        (PoolWindows::Adaptive { outputs: 9 }, 6),
    ] {
        let axis = PoolAxis::new(windows, n).unwrap();
        let runs = axis.separate_runs();
        assert_eq!(runs.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..axis.outputs).collect::<Vec<_>>());
        for pair in runs.windows(2) {
            assert!(axis.window(pair[0].end - 1).end <= axis.window(pair[1].start).start, "{windows:?}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    refused("max_pool", &[&[1, 1, 4, 4, 2]], |tape, v| max_pool(tape, &v[0], [2; 3], [2; 3]));
    refused("max_pool", &[&[1, 4, 4, 4, 2]], |tape, v| max_pool(tape, &v[0], [2; 3], [2, 0, 2]));
    refused("max_pool", &[&[4, 4, 2]], |tape, v| max_pool(tape, &v[0], [2; 3], [2; 3]));
    refused("adaptive_max_pool", &[&[1, 4, 4, 4, 2]], |tape, v| adaptive_max_pool(tape, &v[0], [2, 0, 2]));
}

#[test]
fn in_bf16() {
    let x = [Array::random(&[2, 6, 4, 8, 5], 3)];
    check_bf16(&x, &[0], &[0], TOLERANCE, |tape, v| max_pool(tape, &v[0], [2; 3], [2; 3]));
    check_bf16(&x, &[0], &[0], TOLERANCE, |tape, v| adaptive_max_pool(tape, &v[0], [4, 3, 3]));
}
