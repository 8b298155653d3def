use super::{ConvGeometry, conv_transpose3d};
use crate::ops::testing::{Array, Tolerance, check_bf16, check_op};

/// Scatter by definition: `y[i·stride + t − padding] += x[i]·W[t]`.
fn twin(inputs: &[Array], stride: [usize; 3], padding: [usize; 3], output_padding: [usize; 3]) -> Array {
    let (x, w) = (&inputs[0], &inputs[1]);
    let &[batch, d, h, width, channels] = &x.shape[..] else { panic!() };
    let (input, kernel, outputs) = ([d, h, width], [w.shape[2], w.shape[3], w.shape[4]], w.shape[1]);
    let length = [0, 1, 2].map(|a| (input[a] - 1) * stride[a] + kernel[a] + output_padding[a] - 2 * padding[a]);
    let taps: usize = kernel.iter().product();
    let mut data = vec![0.0; batch * length.iter().product::<usize>() * outputs];
    if let Some(bias) = inputs.get(2) {
        data.chunks_exact_mut(outputs).for_each(|voxel| voxel.copy_from_slice(&bias.data));
    }
    for voxel in 0..batch * d * h * width {
        let (n, i) = (voxel / (d * h * width), [voxel / (h * width) % d, voxel / width % h, voxel % width]);
        for tap in 0..taps {
            let t = [tap / (kernel[1] * kernel[2]), tap / kernel[2] % kernel[1], tap % kernel[2]];
            let at = [0, 1, 2].map(|a| (i[a] * stride[a] + t[a]) as isize - padding[a] as isize);
            if (0..3).any(|a| at[a] < 0 || at[a] >= length[a] as isize) {
                continue;
            }
            let at = at.map(|i| i as usize);
            let y = ((n * length[0] + at[0]) * length[1] + at[1]) * length[2] + at[2];
            for ci in 0..channels {
                for co in 0..outputs {
                    data[y * outputs + co] += x.data[voxel * channels + ci] * w.data[(ci * outputs + co) * taps + tap];
                }
            }
        }
    }
    Array { shape: vec![batch, length[0], length[1], length[2], outputs], data }
}

/// Sums of at most a few hundred products of random sign: rounding errors of some units of 2^-24 of the largest sum; the
/// numeric gradient of the f64 twin adds nothing to that (the op is linear in each input).
const TOLERANCE: Tolerance = Tolerance { forward: 2e-6, backward: 2e-6 };

#[test]
fn equals_its_twin() {
    let table = [
        ([1, 3, 4, 5, 6], [6, 4, 3, 3, 3], [2; 3], [1; 3], [1; 3]),
        ([2, 2, 3, 2, 5], [5, 1, 3, 3, 3], [2; 3], [1; 3], [0; 3]),
        ([1, 4, 4, 3, 16], [16, 16, 2, 2, 2], [2; 3], [0; 3], [0; 3]),
        ([1, 1, 4, 5, 8], [8, 3, 1, 3, 3], [1, 2, 2], [0, 1, 1], [0, 1, 1]),
        ([1, 3, 3, 3, 2], [2, 3, 3, 3, 3], [1; 3], [1; 3], [0; 3]),
        ([1, 2, 2, 2, 3], [3, 2, 2, 1, 3], [3, 2, 4], [0; 3], [2, 1, 3]),
    ];
    for (x, w, stride, padding, output_padding) in table {
        let inputs = [Array::random(&x, 1), Array::random(&w, 2), Array::random(&w[1..2], 3)];
        for count in [2, 3] {
            check_op(
                &inputs[..count],
                &[0, 1, 2][..count],
                TOLERANCE,
                |tape, v| {
                    conv_transpose3d(tape, &v[0], &v[1], v.get(2), ConvGeometry { stride, padding }, output_padding)
                },
                |arrays| twin(arrays, stride, padding, output_padding),
            );
        }
        // Twice the tolerance: CUDA and CPU both err.
        let tolerance = Tolerance { forward: 4e-6, backward: 4e-6 };
        check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, |tape, v| {
            conv_transpose3d(tape, &v[0], &v[1], Some(&v[2]), ConvGeometry { stride, padding }, output_padding)
        });
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    use crate::device::Device;
    use crate::memory::Role;
    use crate::tape::{Mode, Tape, Var};
    use crate::tensor::Tensor;
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let (x, w) = (var(&[1, 3, 3, 3, 2]), var(&[2, 4, 3, 3, 3]));
    let run = |x: &Var, w: &Var, bias: Option<&Var>, stride, padding, extra| {
        conv_transpose3d(&tape, x, w, bias, ConvGeometry { stride, padding }, extra)
    };
    assert!(run(&x, &w, None, [2; 3], [1; 3], [1; 3]).is_ok());
    assert!(run(&x, &w, None, [2; 3], [1; 3], [2; 3]).is_err(), "output padding reaches the stride");
    assert!(run(&x, &w, None, [0; 3], [1; 3], [0; 3]).is_err(), "stride 0");
    assert!(run(&x, &w, None, [1; 3], [4; 3], [0; 3]).is_err(), "nothing is left");
    assert!(run(&x, &w, Some(&var(&[2])), [2; 3], [1; 3], [1; 3]).is_err(), "bias of the inputs' length");
    assert!(run(&x, &var(&[3, 4, 3, 3, 3]), None, [2; 3], [1; 3], [1; 3]).is_err(), "channels");
    assert!(run(&var(&[3, 3, 3, 2]), &w, None, [2; 3], [1; 3], [1; 3]).is_err(), "no batch axis");
}
