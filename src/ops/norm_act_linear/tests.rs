use super::norm_act_linear;
use crate::device::Device;
use crate::error::Result;
use crate::memory::Role;
use crate::ops::activation::tests::value;
use crate::ops::testing::{Array, Tolerance, assert_clean, check_cuda, check_op, cuda_device};
use crate::ops::{Activation, Grouping, NormActArgs, cast, linear, linear_with_stats, moments, norm_act};
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

const EPSILON: f32 = 1e-3;
const PADE: Activation = Activation::Pade { numerator: 5, denominator: 4 };

/// `x`, scale, shift, both coefficients, weight, bias; scale and shift for each of `items`, the bias too if `own_bias`.
fn inputs([items, rows, features, outputs]: [usize; 4], own_bias: bool) -> Vec<Array> {
    let coefficients = PADE.initial_parameters().unwrap();
    let array = |values: &[f32]| Array { shape: vec![values.len()], data: values.iter().map(|&x| x.into()).collect() };
    vec![
        Array::random(&[items * rows, features], 6).map(|x| 2.0 * x + 0.3),
        Array::random(&[items, features], 3).map(|x| x + 1.5),
        Array::random(&[items, features], 4),
        array(&coefficients[0]),
        // Away from the corner of |d| at zero, and of both signs.
        array(&coefficients[1]).map(|d| if d > 0.02 { -d - 0.1 } else { d + 0.1 }),
        Array::random(&[outputs, features], 5).map(|w| w / (features as f64).sqrt()),
        Array::random(&[if own_bias { items } else { 1 }, outputs], 7),
    ]
}

/// Runs `layer` with the parts of a norm of `v[0]`: with its own statistics, or given ones.
fn with_parts<T>(
    tape: &Tape,
    v: &[Var],
    training: bool,
    layer: impl FnOnce(&NormActArgs<'_>) -> Result<T>,
) -> Result<T> {
    let statistics = match training {
        true => moments(tape, &v[0], Grouping::Scalar)?,
        false => tape.constant(Tensor::from_slice(tape.device(), &[2, 1], Role::Data, &[0.2, 1.7])?),
    };
    layer(&NormActArgs {
        statistics: Some((&statistics, Grouping::Scalar)),
        through_statistics: training,
        epsilon: EPSILON,
        gamma: Some(&v[1]),
        beta: Some(&v[2]),
        residual: None,
        activation: PADE,
        parameters: &[&v[3], &v[4]],
    })
}

fn fused(tape: &Tape, v: &[Var], training: bool) -> Result<Var> {
    with_parts(tape, v, training, |parts| Ok(norm_act_linear(tape, &v[0], parts, [&v[5], &v[6]], true)?.value))
}

/// By definition, in f64.
fn twin(inputs: &[Array], training: bool) -> Array {
    let (x, w) = (&inputs[0], &inputs[5]);
    let (rows, features, outputs) = (x.shape[0], x.shape[1], w.shape[0]);
    let count = x.data.len() as f64;
    let (mean, variance) = match training {
        false => (f64::from(0.2f32), f64::from(1.7f32)),
        true => {
            let mean = x.data.iter().sum::<f64>() / count;
            (mean, x.data.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count)
        }
    };
    let pick = |array: &Array, row: usize, column: usize| {
        let [items, columns] = array.shape[..] else { unreachable!() };
        array.data[row / (rows / items) * columns + column]
    };
    let scale = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    let mut y = Vec::new();
    for row in 0..rows {
        let a: Vec<f64> = (0..features)
            .map(|c| {
                let hat = (x.data[row * features + c] - mean) * scale;
                value(PADE, &inputs[3..5], pick(&inputs[1], row, c) * hat + pick(&inputs[2], row, c))
            })
            .collect();
        let product = |o: usize| a.iter().zip(&w.data[o * features..]).map(|(a, w)| a * w).sum::<f64>();
        y.extend((0..outputs).map(|o| product(o) + pick(&inputs[6], row, o)));
    }
    Array { shape: vec![rows, outputs], data: y }
}

/// Sums of some dozen terms, each a quotient of polynomials: a few units of 2^-24 more than [`norm_act`]'s.
const TOLERANCE: Tolerance = Tolerance { forward: 2e-6, backward: 2e-5 };

#[test]
fn with_statistics_of_its_own() {
    for own_bias in [false, true] {
        let inputs = inputs([2, 7, 12, 9], own_bias);
        let op = |tape: &Tape, v: &[Var]| fused(tape, v, true);
        check_op(&inputs, &[0, 1, 2, 3, 4, 5, 6], TOLERANCE, op, |arrays| twin(arrays, true));
    }
}

#[test]
fn with_given_statistics() {
    // Rows and columns that are no multiple of 4.
    let inputs = inputs([1, 13, 10, 6], false);
    let op = |tape: &Tape, v: &[Var]| fused(tape, v, false);
    check_op(&inputs, &[0, 1, 2, 3, 4, 5, 6], TOLERANCE, op, |arrays| twin(arrays, false));
}

/// Sums of up to 5504 terms, cut differently on the two devices: within a few units of 2^-24 times the root of that. Gradients
/// of coefficients sum as many terms again as there are features.
#[test]
fn every_tile_on_cuda() {
    let tolerance = Tolerance { forward: 5e-6, backward: 5e-5 };
    for sizes in [
        [2, 70, 66, 200],
        [1, 520, 300, 40],
        [2, 33, 40, 270],
        [3, 128, 132, 520],
        [1, 1400, 1024, 8],
        [1, 5504, 300, 8],
    ] {
        let op = |tape: &Tape, v: &[Var]| fused(tape, v, true);
        check_cuda(&inputs(sizes, false), &[0, 1, 2, 3, 4, 5, 6], tolerance, op);
    }
}

/// What the two ops make to the bit, for the sums run in the same order; and its statistics.
#[test]
fn fused_equals_unfused_to_the_bit() {
    for sizes in [[2, 70, 66, 200], [1, 130, 64, 40], [2, 33, 40, 270]] {
        let Some(device) = cuda_device(0) else { return };
        let tape = Tape::new(&device, Mode::Train);
        let v: Vec<Var> = inputs(sizes, true).iter().map(|array| input(&tape, array)).collect();
        let values = |var: &Var| var.tensor().to_vec().unwrap();
        let [fused, unfused] = [true, false].map(|fused| {
            let made = with_parts(&tape, &v, true, |parts| match fused {
                true => norm_act_linear(&tape, &v[0], parts, [&v[5], &v[6]], true),
                false => {
                    let a = norm_act(&tape, &v[0], parts)?;
                    Ok(linear_with_stats(&tape, &a, [&v[5], &v[6]], 0..sizes[2], None)?.0)
                }
            })
            .unwrap();
            (values(&made.value), values(made.statistics.as_ref().unwrap()))
        });
        assert_clean();
        assert_eq!(fused.0, unfused.0);
        // Other threads sum other elements, up to 128 of them in f32: some units of 2^-24 of the deviation.
        let deviation = unfused.1[1].sqrt();
        let close = |a: f32, b: f32| (a - b).abs() <= 2.0 * f32::EPSILON * deviation;
        assert!(fused.1.iter().zip(&unfused.1).all(|(&a, &b)| close(a, b)), "{:?} {:?}", fused.1, unfused.1);
    }
}

/// In bf16 and tf32 the fused op is off by no more than twice what the two ops are (the rule of FlashAttention's tests), of the
/// output and of each gradient; the CPU's f32 is the truth, some 2^-24 off itself.
#[test]
fn no_less_exact_than_unfused_on_tensor_cores() {
    for (sizes, precision) in [
        ([2, 70, 64, 48], Precision::Bf16),
        ([3, 140, 136, 130], Precision::Bf16),
        ([2, 30, 50, 20], Precision::Bf16),
        ([2, 70, 64, 48], Precision::Tf32),
        ([1, 300, 136, 200], Precision::Tf32),
        // Tiles of 128 × 128 for the gradient.
        ([1, 5504, 300, 8], Precision::Bf16),
        ([1, 5504, 300, 8], Precision::Tf32),
    ] {
        let inputs: Vec<Array> = inputs(sizes, true).iter().map(Array::in_bf16).collect();
        let run = |device: &Device, precision: Precision, fused: bool| {
            let tape = Tape::new(device, Mode::Train).with_precision(precision);
            let mut v: Vec<Var> = inputs.iter().map(|array| input(&tape, array)).collect();
            let leaves = v.clone();
            v[0] = cast(&tape, &v[0], precision.storage()).unwrap();
            let y = with_parts(&tape, &v, true, |parts| match fused {
                true => Ok(norm_act_linear(&tape, &v[0], parts, [&v[5], &v[6]], true)?.value),
                false => linear(&tape, &norm_act(&tape, &v[0], parts)?, &v[5], None, Some(&v[6])),
            })
            .unwrap();
            let y = cast(&tape, &y, DType::F32).unwrap();
            let weights = Array::random(y.shape(), 9).in_bf16().f32s();
            let seed = Tensor::from_slice(device, y.shape(), Role::Transient, &weights).unwrap();
            let values = y.tensor().to_vec().unwrap();
            tape.pull(vec![(y, seed)]).unwrap();
            let gradients = leaves.iter().map(|var| tape.take_gradient(var).unwrap().to_vec().unwrap());
            [values].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let truth = run(&Device::cpu(1, 1 << 30).unwrap(), Precision::F32, false);
        let Some(device) = cuda_device(0) else { return };
        let (fused, unfused) = (run(&device, precision, true), run(&device, precision, false));
        assert_clean();
        for (i, ((fused, unfused), truth)) in fused.iter().zip(&unfused).zip(&truth).enumerate() {
            let off = |ours: &[f32]| {
                let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                squares(&mut ours.iter().zip(truth).map(|(a, b)| a - b)) / squares(&mut truth.iter().copied())
            };
            let (fused, unfused) = (off(fused), off(unfused));
            // Both may be as exact as f32 is.
            assert!(fused <= 2.0 * unfused + 1e-6, "{sizes:?} {precision:?}, {i}: {fused} against {unfused}");
            assert!(unfused < 0.02, "{sizes:?} {precision:?}, {i}: {unfused}");
        }
    }
}

fn input(tape: &Tape, array: &Array) -> Var {
    tape.input(Tensor::from_slice(tape.device(), &array.shape, Role::Data, &array.f32s()).unwrap())
}

/// Arguments whose powers overflow take the long way in both directions.
#[test]
fn extreme_arguments() {
    let mut inputs = inputs([1, 20, 12, 8], false);
    inputs[1].data[3] = 1e30;
    inputs[1].data[7] = -3e5;
    let Some(device) = cuda_device(0) else { return };
    let run = |device: &Device, fused: bool| {
        let tape = Tape::new(device, Mode::Train);
        let v: Vec<Var> = inputs.iter().map(|array| input(&tape, array)).collect();
        let y = with_parts(&tape, &v, false, |parts| match fused {
            true => Ok(norm_act_linear(&tape, &v[0], parts, [&v[5], &v[6]], true)?.value),
            false => linear(&tape, &norm_act(&tape, &v[0], parts)?, &v[5], None, Some(&v[6])),
        })
        .unwrap();
        let ones = Tensor::from_slice(device, y.shape(), Role::Transient, &vec![1.0; y.shape().iter().product()]);
        let values = y.tensor().to_vec().unwrap();
        tape.pull(vec![(y, ones.unwrap())]).unwrap();
        let gradients = v.iter().map(|var| tape.take_gradient(var).unwrap().to_vec().unwrap());
        [values].into_iter().chain(gradients).collect::<Vec<_>>()
    };
    let (ours, theirs) = (run(&device, true), run(&device, false));
    assert_clean();
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!(theirs.iter().all(|x| x.is_finite()), "{i}");
        let largest = theirs.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        // Sums of 20 terms in another order.
        let off = ours.iter().zip(theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(off <= 4e-6 * largest, "{i}: {off} of {largest}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Train);
    let good = inputs([2, 7, 12, 9], false);
    for (which, shape) in [(1, vec![3, 12]), (2, vec![2, 11]), (5, vec![9, 11]), (6, vec![1, 8]), (3, vec![5])] {
        let mut bad = good.clone();
        bad[which] = Array::random(&shape, 1);
        let v: Vec<Var> = bad.iter().map(|array| input(&tape, array)).collect();
        let error = fused(&tape, &v, false).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("norm_act_linear: ") || error.contains("norm_act_linear"), "{error}");
    }
}
