use super::{AlignCorners, resize};
use crate::device::Device;
use crate::memory::Role;
use crate::ops::testing::{Array, Tolerance, check_op, compare, refused};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// Eight products with weights rounded once; the gradient sums up to some 100 of them.
const TOLERANCE: Tolerance = Tolerance { forward: 1e-6, backward: 2e-6 };

/// Linear interpolation along `axis`, by definition.
fn along(x: &Array, axis: usize, length: usize, corners: AlignCorners) -> Array {
    let mut shape = x.shape.clone();
    let n = shape[axis];
    shape[axis] = length;
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let mut data = Vec::new();
    for a in 0..outer {
        for o in 0..length {
            let s = match corners {
                AlignCorners::Free => (o as f64 + 0.5) * n as f64 / length as f64 - 0.5,
                AlignCorners::Aligned => o as f64 * (n as f64 - 1.0) / (length as f64 - 1.0).max(1.0),
            };
            let s = s.clamp(0.0, n as f64 - 1.0);
            let (low, high) = (s.floor() as usize, s.ceil() as usize);
            for i in 0..inner {
                let at = |j: usize| x.data[(a * n + j) * inner + i];
                data.push(at(low) + (s - s.floor()) * (at(high) - at(low)));
            }
        }
    }
    Array { shape, data }
}

fn check(shape: &[usize], size: [usize; 3], corners: AlignCorners) {
    let x = [Array::random(shape, 5)];
    let twin =
        |a: &[Array]| [1, 2, 3].into_iter().fold(a[0].clone(), |x, axis| along(&x, axis, size[axis - 1], corners));
    check_op(&x, &[0], TOLERANCE, |tape, v| resize(tape, &v[0], size, corners), twin);
}

#[test]
fn shrinking_and_growing_with_free_corners() {
    check(&[2, 8, 6, 10, 3], [4, 3, 5], AlignCorners::Free);
    check(&[1, 3, 5, 4, 2], [7, 11, 4], AlignCorners::Free);
}

#[test]
fn shrinking_and_growing_with_aligned_corners() {
    check(&[2, 8, 6, 10, 3], [4, 1, 5], AlignCorners::Aligned);
    check(&[1, 3, 5, 4, 2], [7, 11, 4], AlignCorners::Aligned);
}

#[test]
fn an_image_has_depth_one() {
    check(&[2, 1, 9, 7, 4], [1, 18, 5], AlignCorners::Free);
    check(&[2, 1, 9, 7, 4], [1, 18, 5], AlignCorners::Aligned);
}

#[test]
fn many_pieces() {
    check(&[1, 12, 16, 20, 8], [17, 12, 21], AlignCorners::Free);
}

/// `torch.nn.functional.interpolate(torch.tensor([[[1., 2., 4., 8.]]]), 7, mode='linear', align_corners=...)`; the
/// positions are `(o + 1/2)·4/7 − 1/2` and `o/2`.
#[test]
fn follows_pytorch_on_a_line() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Eval);
    let x = Tensor::from_slice(&device, &[1, 1, 1, 4, 1], Role::Data, &[1.0, 2.0, 4.0, 8.0]).unwrap();
    let x = tape.constant(x);
    let free = resize(&tape, &x, [1, 1, 7], AlignCorners::Free).unwrap().tensor().to_vec().unwrap();
    let expected = [1.0, 1.0 + 5.0 / 14.0, 1.0 + 13.0 / 14.0, 3.0, 4.0 + 2.0 / 7.0, 6.0 + 4.0 / 7.0, 8.0];
    compare("free", &free, &expected, 1e-7);
    let aligned = resize(&tape, &x, [1, 1, 7], AlignCorners::Aligned).unwrap().tensor().to_vec().unwrap();
    compare("aligned", &aligned, &[1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0], 1e-7);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    refused("resize", &[&[4, 3]], |tape, v| resize(tape, &v[0], [2; 3], AlignCorners::Free));
    refused("resize", &[&[1, 2, 2, 2, 1]], |tape, v| resize(tape, &v[0], [2, 0, 2], AlignCorners::Aligned));
    refused("resize", &[&[1, 2, 0, 2, 1]], |tape, v| resize(tape, &v[0], [2; 3], AlignCorners::Free));
}
