use std::ops::Range;

use super::{linear, linear_pair, linear_with_stats};
use crate::device::Device;
use crate::memory::Role;
use crate::ops::testing::{
    Array, Tolerance, assert_clean, check_bf16, check_cuda, check_op, compare, counting_device, cuda_device,
    every_device,
};
use crate::ops::{add, cast, scale_add};
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

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
fn few_rows() {
    // 32 rows, two a bias; 9 rows, one bias, columns 3 … 36 of the weight.
    let inputs = [Array::random(&[32, 40], 4), Array::random(&[13, 40], 5), Array::random(&[16, 13], 6)];
    let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], None, Some(&v[2]));
    check_op(&inputs, &[0, 1, 2], TOLERANCE, op, |arrays| twin(arrays, 0));
    let inputs = [Array::random(&[9, 33], 4), Array::random(&[70, 37], 5), Array::random(&[70], 6)];
    let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], Some(3..36), Some(&v[2]));
    check_op(&inputs, &[0, 1, 2], TOLERANCE, op, |arrays| twin(arrays, 3));
}

/// Two layers, of which both, the first or the second are used further on; of all columns, and of some.
#[test]
fn a_pair_of_few_rows() {
    for (rows, items, columns) in [(9, 1, None), (4, 2, Some(3..36))] {
        let width = if columns.is_some() { 40 } else { 33 };
        let layer = |seed| [Array::random(&[70, width], seed), Array::random(&[items, 70], seed + 1)];
        let inputs = [[Array::random(&[rows, 33], 4)].as_slice(), &layer(5), &layer(7)].concat();
        let first = columns.as_ref().map_or(0, |columns: &Range<usize>| columns.start);
        let layers = |arrays: &[Array]| {
            [1, 3].map(|i| twin(&[arrays[0].clone(), arrays[i].clone(), arrays[i + 1].clone()], first))
        };
        let pair = |tape: &Tape, v: &[Var]| linear_pair(tape, &v[0], [[&v[1], &v[2]], [&v[3], &v[4]]], columns.clone());
        let both = |tape: &Tape, v: &[Var]| pair(tape, v).and_then(|[a, b]| scale_add(tape, &a, &b, 0.5));
        check_op(&inputs, &[0, 1, 2, 3, 4], TOLERANCE, both, |arrays| {
            let [a, b] = layers(arrays);
            Array { data: a.data.iter().zip(&b.data).map(|(a, b)| a + 0.5 * b).collect(), ..a }
        });
        for (i, of_it) in [[0, 1, 2], [0, 3, 4]].iter().enumerate() {
            let one = |tape: &Tape, v: &[Var]| pair(tape, v).map(|pair| pair[i].clone());
            check_op(&inputs, of_it, TOLERANCE, one, |arrays| layers(arrays)[i].clone());
        }
        // One layer twice, or one bias of both: two launches.
        for [w, b] in [[1, 2], [3, 2]] {
            let both = |tape: &Tape, v: &[Var]| {
                let [one, other] = linear_pair(tape, &v[0], [[&v[1], &v[2]], [&v[w], &v[b]]], columns.clone())?;
                scale_add(tape, &one, &other, 0.5)
            };
            check_op(&inputs[..4], &[0, 1, 2], TOLERANCE, both, |arrays| {
                let [one, other] =
                    [[1, 2], [w, b]].map(|[w, b]| twin(&[&arrays[0], &arrays[w], &arrays[b]].map(Array::clone), first));
                Array { data: one.data.iter().zip(&other.data).map(|(a, b)| a + 0.5 * b).collect(), ..one }
            });
        }
    }
}

#[test]
fn a_pair_is_one_launch_each_way() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let (x, w, b) = (var(&[2, 16]), [var(&[8, 16]), var(&[8, 16])], [var(&[8]), var(&[8])]);
    let [one, other] = linear_pair(&tape, &x, [[&w[0], &b[0]], [&w[1], &b[1]]], None).unwrap();
    let y = add(&tape, &one, &other).unwrap();
    drop((one, other));
    let dy = Tensor::zeros(&device, y.shape(), Role::Data).unwrap();
    tape.pull(vec![(y, dy)]).unwrap();
    assert_clean();
    let launches = device.launches_by_kernel();
    let of = |name: &str| launches.iter().find(|(kernel, _)| *kernel == name).map(|(_, count)| *count);
    assert_eq!([of("linear_few"), of("linear_few_backward")], [Some(1), Some(1)], "{launches:?}");
}

/// Sums of `dy` beside the weight's gradient: in one split; in several of one bias; where each split lies within the rows of one
/// bias row, and where one does not, which takes a kernel of its own; and so do numbers that tensor cores would round.
#[test]
fn a_bias_gradient_beside_the_weights() {
    let tolerance = Tolerance { forward: 5e-6, backward: 2e-5 };
    let (f32, bf16, tf32) = (Precision::F32, Precision::Bf16, Precision::Tf32);
    for ([rows, outputs, items], precision, beside) in [
        ([300, 20, 1], f32, true),
        ([2100, 20, 1], f32, true),
        ([2048, 20, 4], f32, true),
        ([2048, 70, 2], f32, true),
        ([1026, 20, 2], f32, false),
        ([300, 20, 3], f32, false),
        ([2048, 24, 4], bf16, true),
        ([1080, 24, 2], bf16, false),
        ([2048, 24, 1], tf32, false),
    ] {
        let inputs =
            [Array::random(&[rows, 8], 1), Array::random(&[outputs, 8], 2), Array::random(&[items, outputs], 3)];
        let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], None, Some(&v[2]));
        match precision {
            Precision::F32 => check_cuda(&inputs, &[0, 1, 2], tolerance, op),
            Precision::Bf16 => check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, op),
            Precision::Tf32 => {
                check_bf16(&inputs, &[], &[0, 1, 2], tolerance, |tape, v| tape.at(precision, || op(tape, v)));
            }
        }
        let Some(device) = cuda_device(0) else { return };
        let tape = Tape::new(&device, Mode::Train).with_precision(precision);
        let zeros = |shape: &[usize], dtype| Tensor::zeros_of(&device, shape, dtype, Role::Data).unwrap();
        let x = tape.input(zeros(&[rows, 8], precision.storage()));
        let [w, b] = [[outputs, 8], [items, outputs]].map(|shape| tape.input(zeros(&shape, DType::F32)));
        let y = op(&tape, &[x, w, b]).unwrap();
        let dy = zeros(&[rows, outputs], y.dtype());
        tape.pull(vec![(y, dy)]).unwrap();
        let apart = device.launches_by_kernel().iter().any(|(kernel, _)| kernel.starts_with("column_sums"));
        assert_eq!(apart, !beside, "{rows} rows, {items} biases, {precision:?}");
    }
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
    for [rows, features, outputs] in [[1930, 6, 1000], [1930, 1000, 5], [33, 1450, 1450], [270, 30, 31], [4100, 36, 20]]
    {
        let inputs =
            [Array::random(&[rows, features], 1), Array::random(&[outputs, features], 2), Array::random(&[outputs], 3)];
        check_cuda(&inputs, &[0, 1, 2], tolerance, |tape, v| linear(tape, &v[0], &v[1], None, Some(&v[2])));
    }
}

#[test]
fn measured_results_have_the_same_gradients() {
    let inputs = [Array::random(&[6, 9], 4), Array::random(&[17, 21], 5), Array::random(&[3, 17], 6)];
    check_op(
        &inputs,
        &[0, 1, 2],
        TOLERANCE,
        |tape, v| linear_with_stats(tape, &v[0], [&v[1], &v[2]], 7..16, None).map(|made| made.0.value),
        |arrays| twin(arrays, 7),
    );
}

/// The product to the bit, and its statistics: in tiles of 256 × 16, 128 × 32, 64 × 64 and 128 × 128, and with sums so long
/// that a kernel of its own takes them. A mean far from zero costs the variance no accuracy.
#[test]
fn measured_on_the_way() {
    for [rows, features, outputs, items] in
        [[300, 40, 10, 2], [260, 33, 31, 2], [130, 24, 100, 1], [1930, 6, 1000, 2], [20, 1030, 40, 1]]
    {
        let inputs = [
            Array::random(&[rows, features], 1),
            Array::random(&[outputs, features + 5], 2),
            Array::random(&[items, outputs], 3).map(|x| x + 100.0),
            Array::random(&[items, outputs], 4),
        ];
        for device in every_device() {
            let run = |device: &Device| {
                let tape = Tape::new(device, Mode::Train);
                let [x, w, b, other] = inputs.each_ref().map(|array| {
                    tape.input(Tensor::from_slice(device, &array.shape, Role::Data, &array.f32s()).unwrap())
                });
                let columns = 2..2 + features;
                let plain = |b: &Var| linear(&tape, &x, &w, Some(columns.clone()), Some(b)).unwrap();
                // Once alone, once with another layer beside it.
                let made = [None, Some([&w, &other])]
                    .map(|beside| linear_with_stats(&tape, &x, [&w, &b], columns.clone(), beside).unwrap());
                let values = |var: &Var| var.tensor().to_vec().unwrap();
                assert_eq!(values(made[1].1.as_ref().unwrap()), values(&plain(&other)));
                let made = made.map(|(made, _)| [values(&made.value), values(&made.statistics.unwrap())]);
                (values(&plain(&b)), made)
            };
            device.ledger(|ledger| ledger.record(true));
            let (expected, [[y, statistics], again]) = run(&device);
            assert_clean();
            let events = device.ledger(|ledger| ledger.take_events());
            let plan = Device::plan_for(device.target(), device.budget());
            plan.ledger(|ledger| ledger.record(true));
            run(&plan);
            assert!(plan.ledger(|ledger| ledger.take_events()) == events, "plan and run allocate differently");
            assert_eq!(y, expected, "{device:?} {rows}×{features}×{outputs}");
            assert_eq!(again, [y.clone(), statistics.clone()]);
            let count = y.len() as f64;
            let mean = y.iter().map(|&y| f64::from(y)).sum::<f64>() / count;
            let variance = y.iter().map(|&y| (f64::from(y) - mean).powi(2)).sum::<f64>() / count;
            // Rounded once each; sums of a thread's few terms round by some 2^-24 of the variance.
            compare(&format!("{device:?} mean"), &statistics[..1], &[mean], 1e-7);
            compare(&format!("{device:?} variance"), &statistics[1..], &[variance], 5e-7);
        }
    }
}

/// Every tile and storage type: the products to the bit, with a layer beside, and the statistics of what is stored.
#[test]
fn measured_on_tensor_cores() {
    for ([rows, features, outputs], x_is_narrow, precision) in [
        ([300, 24, 16], true, Precision::Bf16),
        ([70, 40, 32], true, Precision::Bf16),
        ([33, 70, 50], false, Precision::Bf16),
        ([1930, 8, 1000], true, Precision::Bf16),
        ([300, 24, 16], false, Precision::Tf32),
        ([70, 40, 32], false, Precision::Tf32),
        ([33, 70, 50], false, Precision::Tf32),
        ([1930, 8, 1000], false, Precision::Bf16),
    ] {
        let Some(device) = cuda_device(0) else { return };
        let tape = Tape::new(&device, Mode::Train).with_precision(precision);
        let var = |shape: &[usize], seed| {
            let values = Array::random(shape, seed).in_bf16().f32s();
            tape.input(Tensor::from_slice(&device, shape, Role::Data, &values).unwrap())
        };
        let (x, w, b) = (var(&[rows, features], 1), var(&[outputs, features], 2), var(&[outputs], 3));
        let x = if x_is_narrow { cast(&tape, &x, DType::Bf16).unwrap() } else { x };
        let other = var(&[outputs], 4);
        let values = |var: &Var| cast(&tape, var, DType::F32).unwrap().tensor().to_vec().unwrap();
        let plain = |b: &Var| values(&linear(&tape, &x, &w, None, Some(b)).unwrap());
        let (made, beside) = linear_with_stats(&tape, &x, [&w, &b], 0..features, Some([&w, &other])).unwrap();
        let (y, statistics) = (values(&made.value), values(&made.statistics.unwrap()));
        assert_eq!((&y, values(&beside.unwrap())), (&plain(&b), plain(&other)));
        assert_clean();
        let count = y.len() as f64;
        let mean = y.iter().map(|&y| f64::from(y)).sum::<f64>() / count;
        let variance = y.iter().map(|&y| (f64::from(y) - mean).powi(2)).sum::<f64>() / count;
        // As in f32; the mean of numbers of both signs relative to their deviation.
        compare("mean", &statistics[..1], &[mean], 5e-7 * variance.sqrt() / mean.abs());
        compare("variance", &statistics[1..], &[variance], 5e-7);
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let (x, w) = (var(&[4, 3]), var(&[5, 7]));
    assert!(linear(&tape, &x, &w, None, None).is_err());
    assert!(linear(&tape, &x, &w, Some(5..8), None).is_err());
    assert!(linear(&tape, &x, &w, Some(0..3), Some(&var(&[4]))).is_err());
    assert!(linear(&tape, &x, &w, Some(0..3), Some(&var(&[3, 5]))).is_err());
}

/// Every tile and storage type: rows, features, outputs; bf16 and f32 rows, aligned and not.
#[test]
fn on_tensor_cores() {
    for [rows, features, outputs] in [[300, 24, 16], [70, 40, 32], [33, 70, 50], [520, 264, 136], [4100, 8, 3]] {
        let inputs =
            [Array::random(&[rows, features], 1), Array::random(&[outputs, features], 2), Array::random(&[outputs], 3)];
        let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], None, Some(&v[2]));
        // Sums in f32 of exact products.
        let tolerance = Tolerance { forward: 5e-6, backward: 2e-5 };
        check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, op);
        // f32 in, bf16 out, and the other way round: numbers of bf16 have less than tf32's 11 bits.
        check_bf16(&inputs, &[], &[0, 1, 2], tolerance, op);
        let logits = |tape: &Tape, v: &[Var]| tape.at(Precision::F32, || op(tape, v));
        check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, logits);
        let tf32 = |tape: &Tape, v: &[Var]| tape.at(Precision::Tf32, || op(tape, v));
        check_bf16(&inputs, &[], &[0, 1, 2], tolerance, tf32);
    }
}

#[test]
fn large_tiles_on_tensor_cores() {
    let tolerance = Tolerance { forward: 5e-6, backward: 2e-5 };
    for [rows, features, outputs] in [[1930, 8, 1000], [1930, 1000, 5], [33, 1450, 1450]] {
        let inputs =
            [Array::random(&[rows, features], 1), Array::random(&[outputs, features], 2), Array::random(&[outputs], 3)];
        let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], None, Some(&v[2]));
        check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, op);
        if rows == 33 {
            // f32 in, bf16 out: the bias's gradient beside the weights', which f32 out does not have.
            check_bf16(&inputs, &[], &[0, 1, 2], tolerance, op);
        }
        check_bf16(&inputs, &[], &[0, 1, 2], tolerance, |tape, v| tape.at(Precision::Tf32, || op(tape, v)));
    }
}

#[test]
fn part_of_the_columns_on_tensor_cores() {
    let inputs = [Array::random(&[60, 24], 4), Array::random(&[40, 61], 5), Array::random(&[3, 40], 6)];
    for first in [0, 8, 13] {
        let op = |tape: &Tape, v: &[Var]| linear(tape, &v[0], &v[1], Some(first..first + 24), Some(&v[2]));
        check_bf16(&inputs, &[0], &[0, 1, 2], TOLERANCE, op);
    }
}

/// The decoder's layers: nearly all arithmetic is the tensor cores', and shared memory has no bank conflicts.
#[test]
fn tensor_cores_do_the_work() {
    let Some(device) = counting_device() else { return };
    let (rows, width) = (1024, 256);
    let tape = Tape::new(&device, Mode::Train).with_precision(Precision::Bf16);
    let x = Tensor::zeros_of(&device, &[rows, width], DType::Bf16, Role::Data).unwrap();
    let weight = tape.input(Tensor::zeros(&device, &[width, width], Role::Data).unwrap());
    let y = linear(&tape, &tape.input(x), &weight, None, None).unwrap();
    let dy = Tensor::zeros_of(&device, &[rows, width], DType::Bf16, Role::Data).unwrap();
    tape.pull(vec![(y, dy)]).unwrap();
    assert_clean();
    for kernel in ["linear_forward_bf16_64", "linear_input_gradient_bf16_64", "linear_weight_gradient_bf16_64"] {
        let counters = cuemu::preload().unwrap().counters_of(kernel);
        let share = counters.flops_matrix_half as f64 / counters.flops() as f64;
        assert!(counters.launches == 1 && share >= 0.95, "{kernel}: {share:.3} of the FLOPs are the matrix units'");
        assert_eq!(counters.flops_matrix_half, 2 * (rows * width * width) as u64, "{kernel}");
        assert_eq!(counters.traffic.bank_conflicts(), 0, "{kernel}");
    }
}
