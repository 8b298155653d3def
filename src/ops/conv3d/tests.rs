//! Kernels against a naive f64 twin, at every instruction set, with one and with two threads.

use super::sizes::{ConvGeometry, ConvWindow, Sizes};
use super::{conv3d, conv3d_with_stats, cpu};
use crate::device::cpu::{Pool, SimdLevel};
use crate::device::{Device, Target};
use crate::memory::Role;
use crate::ops::testing::{
    Array, Tolerance, assert_clean, check_bf16, check_cuda, check_op, compare, cuda_device, every_device,
};
use crate::ops::{Grouping, cast};
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::{DType, Tensor};

/// Naive convolution, or what its three gradients are, in f64: calls `visit(x index, w index, y index)` for each product.
pub(crate) fn products(g: &Sizes, mut visit: impl FnMut(usize, usize, usize)) {
    let ConvWindow { kernel, stride, padding } = g.window;
    for n in 0..g.batch {
        for (y, o) in voxels(g.output) {
            for (tap, t) in voxels(kernel) {
                let at = [0, 1, 2].map(|a| (o[a] * stride[a] + t[a]) as isize - padding[a] as isize);
                if (0..3).any(|a| at[a] < 0 || at[a] >= g.input[a] as isize) {
                    continue;
                }
                let at = at.map(|i| i as usize);
                let x = ((n * g.input[0] + at[0]) * g.input[1] + at[1]) * g.input[2] + at[2];
                let y = n * g.output.iter().product::<usize>() + y;
                for co in 0..g.out_channels {
                    for ci in 0..g.in_channels {
                        let w = (co * g.in_channels + ci) * g.window.taps() + tap;
                        visit(x * g.in_channels + ci, w, y * g.out_channels + co);
                    }
                }
            }
        }
    }
}

/// All coordinates of a box with their index.
fn voxels(lengths: [usize; 3]) -> impl Iterator<Item = (usize, [usize; 3])> {
    let [d, h, w] = lengths;
    (0..d * h * w).map(move |i| (i, [i / (h * w), i / w % h, i % w]))
}

/// One shape of the table: input, channels in and out, window.
pub(crate) fn shape(input: [usize; 4], channels: [usize; 2], window: ConvWindow) -> Sizes {
    let [n, d, h, w] = input;
    Sizes::new("conv3d", &[n, d, h, w, channels[0]], channels[1], window).unwrap()
}

fn table() -> Vec<Sizes> {
    let window = |kernel, stride, padding| ConvWindow { kernel, stride, padding };
    let cubic = ConvWindow::cubic;
    vec![
        shape([2, 5, 4, 7], [3, 5], cubic(3, 1, 1)),
        shape([1, 6, 7, 17], [16, 16], cubic(3, 1, 1)),
        shape([1, 6, 6, 6], [22, 40], cubic(3, 1, 1)),
        shape([1, 9, 8, 7], [4, 16], cubic(3, 2, 1)),
        shape([2, 4, 6, 31], [6, 10], cubic(3, 2, 1)),
        shape([1, 8, 8, 5], [16, 8], cubic(5, 1, 2)),
        shape([1, 8, 8, 5], [120, 6], cubic(5, 1, 2)),
        shape([1, 7, 7, 7], [8, 4], cubic(7, 1, 3)),
        shape([1, 7, 7, 7], [1, 1], cubic(7, 1, 0)),
        shape([1, 4, 5, 6], [10, 33], cubic(1, 1, 0)),
        shape([1, 5, 5, 5], [3, 4], cubic(1, 2, 0)),
        shape([1, 6, 5, 5], [3, 4], cubic(1, 2, 1)),
        shape([2, 1, 9, 10], [3, 16], window([1, 3, 3], [1, 2, 2], [0, 1, 1])),
        shape([2, 1, 9, 10], [16, 16], window([1, 3, 3], [1, 1, 1], [0, 1, 1])),
        shape([1, 5, 9, 10], [4, 6], window([1, 5, 7], [2, 1, 2], [0, 2, 0])),
        shape([1, 12, 12, 12], [1, 1], cubic(3, 1, 1)),
        shape([1, 12, 12, 12], [1, 16], cubic(3, 2, 1)),
        shape([1, 12, 12, 12], [16, 1], cubic(3, 1, 1)),
        shape([1, 10, 12, 14], [16, 32], cubic(3, 1, 1)),
        shape([2, 9, 11, 13], [32, 16], cubic(3, 1, 1)),
        shape([1, 9, 8, 9], [48, 48], cubic(3, 1, 2)),
        // Few outputs and lines of a multiple of 8 or 16: folded.
        shape([2, 3, 4, 32], [1, 1], cubic(3, 1, 1)),
        shape([1, 4, 6, 16], [5, 2], cubic(3, 2, 1)),
        shape([1, 4, 6, 32], [1, 32], cubic(3, 2, 1)),
        shape([1, 3, 4, 16], [2, 3], window([3, 1, 5], [1, 1, 1], [1, 0, 2])),
        // Sums of 5·5·5·64 terms are cut into chains.
        shape([1, 5, 5, 5], [64, 16], cubic(5, 1, 2)),
        // Stride larger than the kernel: inputs that no output reads.
        shape([1, 7, 7, 7], [2, 2], cubic(3, 5, 0)),
    ]
}

/// Chains of at most 1024 additions (or one run of taps) of random signs: rounding errors grow with the root of the
/// length, 32 · 2^-24 of a term's size, while the largest of many sums is about 3 · 32 terms. That is 2e-8 of it; 2e-6
/// leaves a hundred times as much for the unluckiest of up to 10^5 sums, and for long runs.
const TOLERANCE: f64 = 2e-6;

/// What one kernel call leaves in its output.
type Run<'a> = Box<dyn Fn(&Pool, &mut [f32], bool) + 'a>;

/// Runs a kernel overwriting and accumulating, on all pools; compares with the twin and between thread counts.
fn check(what: &str, g: &Sizes, expected: &[f64], run: Run<'_>) {
    for simd in SimdLevel::available() {
        let mut earlier: Option<Vec<f32>> = None;
        for threads in [1, 2] {
            let pool = Pool::start_with_simd(threads, simd).unwrap();
            let what = format!("{what} at {simd:?}, {threads} threads, {g:?}");
            let mut out = vec![f32::NAN; expected.len()];
            run(&pool, &mut out, false);
            compare(&what, &out, expected, TOLERANCE);
            let before = Array::random(&[expected.len()], 9);
            let mut sum = before.f32s();
            run(&pool, &mut sum, true);
            let twice: Vec<f64> = before.data.iter().zip(expected).map(|(a, b)| a + b).collect();
            compare(&format!("accumulated {what}"), &sum, &twice, TOLERANCE);
            out.extend(sum);
            if let Some(earlier) = &earlier {
                assert!(*earlier == out, "{what}: one and two threads differ");
            }
            earlier = Some(out);
        }
    }
}

#[test]
fn every_shape_equals_its_twin() {
    for g in table() {
        let x = Array::random(&[g.input_voxels() * g.in_channels], 1);
        let w = Array::random(&[g.weights()], 2);
        let dy = Array::random(&[g.output_voxels() * g.out_channels], 3);
        let mut y = vec![0.0; dy.data.len()];
        let mut dx = vec![0.0; x.data.len()];
        let mut dw = vec![0.0; w.data.len()];
        products(&g, |i, k, o| {
            y[o] += x.data[i] * w.data[k];
            dx[i] += dy.data[o] * w.data[k];
            dw[k] += x.data[i] * dy.data[o];
        });
        let (x, w, dy) = (x.f32s(), w.f32s(), dy.f32s());
        let scratch = |len: usize| vec![f32::NAN; len];
        check(
            "forward",
            &g,
            &y,
            Box::new(|pool, out, add| {
                let mut scratch = scratch(cpu::forward_workspace(&g, pool.simd(), pool.threads()));
                cpu::forward(pool, &g, &x, &w, None, out, add, &mut scratch);
            }),
        );
        check(
            "input gradient",
            &g,
            &dx,
            Box::new(|pool, out, add| {
                let mut scratch = scratch(cpu::input_gradient_workspace(&g, pool.simd(), pool.threads()));
                cpu::input_gradient(pool, &g, &dy, &w, None, out, add, &mut scratch);
            }),
        );
        check(
            "weight gradient",
            &g,
            &dw,
            Box::new(|pool, out, add| {
                let mut scratch = scratch(cpu::weight_gradient_workspace(&g, pool.simd(), pool.threads()));
                cpu::weight_gradient(pool, &g, &x, &dy, out, add, &mut scratch);
            }),
        );
    }
}

/// The convolution by definition, in f64.
fn twin(inputs: &[Array], stride: [usize; 3], padding: [usize; 3]) -> Array {
    let (x, w) = (&inputs[0], &inputs[1]);
    let window = ConvWindow { kernel: [w.shape[2], w.shape[3], w.shape[4]], stride, padding };
    let g = Sizes::new("conv3d", &x.shape, w.shape[0], window).unwrap();
    let mut data = vec![0.0; g.output_voxels() * g.out_channels];
    if let Some(bias) = inputs.get(2) {
        data.chunks_exact_mut(g.out_channels).for_each(|voxel| voxel.copy_from_slice(&bias.data));
    }
    products(&g, |i, k, o| data[o] += x.data[i] * w.data[k]);
    let [d, h, w] = g.output;
    Array { shape: vec![g.batch, d, h, w, g.out_channels], data }
}

#[test]
fn the_op_equals_its_twin() {
    let table = [
        ([1, 5, 4, 6, 3], [4, 3, 3, 3, 3], [1; 3], [1; 3]),
        ([2, 4, 5, 4, 4], [16, 4, 3, 3, 3], [2; 3], [1; 3]),
        ([1, 1, 7, 6, 3], [5, 3, 1, 3, 3], [1, 2, 2], [0, 1, 1]),
        ([1, 3, 3, 4, 6], [7, 6, 1, 1, 1], [1; 3], [0; 3]),
    ];
    for (x, w, stride, padding) in table {
        let inputs = [Array::random(&x, 1), Array::random(&w, 2), Array::random(&w[..1], 3)];
        for count in [2, 3] {
            check_op(
                &inputs[..count],
                &[0, 1, 2][..count],
                Tolerance { forward: TOLERANCE, backward: TOLERANCE },
                |tape, v| conv3d(tape, &v[0], &v[1], v.get(2), ConvGeometry { stride, padding }),
                |arrays| twin(arrays, stride, padding),
            );
        }
    }
}

/// Input, weight and bias for one shape.
fn operands(g: &Sizes) -> [Array; 3] {
    let ([d, h, w], [kd, kh, kw]) = (g.input, g.window.kernel);
    let x = Array::random(&[g.batch, d, h, w, g.in_channels], 1);
    let weight = Array::random(&[g.out_channels, g.in_channels, kd, kh, kw], 2);
    [x, weight, Array::random(&[g.out_channels], 3)]
}

fn run(g: &Sizes, tape: &Tape, v: &[Var]) -> crate::Result<Var> {
    let ConvWindow { stride, padding, .. } = g.window;
    conv3d(tape, &v[0], &v[1], Some(&v[2]), ConvGeometry { stride, padding })
}

/// Of CUDA and CPU against each other: both err by at most half of this.
const TWICE: Tolerance = Tolerance { forward: 2.0 * TOLERANCE, backward: 2.0 * TOLERANCE };

/// The op on CUDA and on the CPU, for one shape.
fn check_shape_on_cuda(g: &Sizes) {
    check_cuda(&operands(g), &[0, 1, 2], TWICE, |tape, v| run(g, tape, v));
}

/// The same in bf16, and in tf32, whose products of numbers of bf16 are exact.
fn check_shape_on_tensor_cores(g: &Sizes) {
    let inputs = operands(g);
    check_bf16(&inputs, &[0], &[0, 1, 2], TWICE, |tape, v| run(g, tape, v));
    check_bf16(&inputs, &[], &[0, 1, 2], TWICE, |tape, v| tape.at(Precision::Tf32, || run(g, tape, v)));
}

#[test]
fn every_shape_on_tensor_cores_equals_the_cpu() {
    table().iter().for_each(check_shape_on_tensor_cores);
    // f32 logits of bf16 features, whose gradient is f32.
    let g = shape([1, 4, 5, 6], [16, 3], ConvWindow::cubic(3, 1, 1));
    let logits = |tape: &Tape, v: &[Var]| tape.at(Precision::F32, || run(&g, tape, v));
    check_bf16(&operands(&g), &[0], &[0, 1, 2], TWICE, logits);
}

#[test]
fn large_tiles_on_tensor_cores() {
    let cubic = ConvWindow::cubic;
    check_shape_on_tensor_cores(&shape([1, 10, 10, 14], [8, 1000], cubic(1, 1, 1)));
    check_shape_on_tensor_cores(&shape([1, 12, 12, 16], [1000, 4], cubic(1, 1, 1)));
    check_shape_on_tensor_cores(&shape([1, 1, 1, 2], [56, 1450], cubic(3, 1, 1)));
}

#[test]
fn every_shape_on_cuda_equals_the_cpu() {
    table().iter().for_each(check_shape_on_cuda);
}

#[test]
fn large_tiles_on_cuda() {
    // Enough tiles of 128 × 128 in the forward pass, in the data gradient and in the weight gradient.
    let cubic = ConvWindow::cubic;
    check_shape_on_cuda(&shape([1, 10, 10, 14], [4, 1000], cubic(1, 1, 1)));
    check_shape_on_cuda(&shape([1, 12, 12, 16], [1000, 4], cubic(1, 1, 1)));
    check_shape_on_cuda(&shape([1, 1, 1, 2], [54, 1450], cubic(3, 1, 1)));
}

/// Means and biased variances of the groups of `y`, which has `items` items, in f64; the largest deviation.
fn statistics_of(y: &[f32], channels: usize, items: usize) -> ([Vec<f64>; 2], f64) {
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for item in y.chunks_exact(y.len() / items) {
        for channel in 0..channels {
            let values = || item.iter().skip(channel).step_by(channels).map(|&y| f64::from(y));
            let count = values().count() as f64;
            let mean = values().sum::<f64>() / count;
            means.push(mean);
            variances.push(values().map(|y| (y - mean).powi(2)).sum::<f64>() / count);
        }
    }
    let largest = variances.iter().fold(0.0f64, |largest, &variance| largest.max(variance)).sqrt();
    ([means, variances], largest)
}

/// Runs one shape measured and plain: equal to the bit, and the statistics are those of what is stored. True if a kernel took
/// them on the way.
fn check_measured(g: &Sizes, grouping: Grouping, precision: Precision, x_is_narrow: bool, device: &Device) -> bool {
    let inputs = operands(g).map(|array| array.in_bf16());
    let run = |device: &Device| {
        let tape = Tape::new(device, Mode::Train).with_precision(precision);
        let var = |array: &Array, shift: f64| {
            let values = array.clone().map(|x| x + shift).f32s();
            tape.input(Tensor::from_slice(device, &array.shape, Role::Data, &values).unwrap())
        };
        // A mean far from zero costs no accuracy in f32; in bf16 it would cost what is stored its own.
        let far = if precision == Precision::F32 { 100.0 } else { 1.0 };
        let (x, w, b) = (var(&inputs[0], 0.0), var(&inputs[1], 0.0), var(&inputs[2], far));
        let x = if x_is_narrow { cast(&tape, &x, DType::Bf16).unwrap() } else { x };
        let values = |var: &Var| cast(&tape, var, DType::F32).unwrap().tensor().to_vec().unwrap();
        let ConvWindow { stride, padding, .. } = g.window;
        let geometry = ConvGeometry { stride, padding };
        let plain = values(&conv3d(&tape, &x, &w, Some(&b), geometry).unwrap());
        let made = conv3d_with_stats(&tape, &x, &w, Some(&b), geometry, grouping).unwrap();
        let statistics = made.statistics.unwrap();
        assert_eq!(statistics.shape(), [2, grouping.groups(g.out_channels)]);
        (plain, values(&made.value), statistics.tensor().to_vec().unwrap())
    };
    device.ledger(|ledger| ledger.record(true));
    device.cost_log(|log| log.record(true));
    let (plain, y, statistics) = run(device);
    assert_clean();
    let ops: Vec<_> = device.cost_log(|log| log.take()).iter().map(|work| work.op).collect();
    let events = device.ledger(|ledger| ledger.take_events());
    let plan = Device::plan_for(device.target(), device.budget());
    plan.ledger(|ledger| ledger.record(true));
    run(&plan);
    let what = format!("{device:?} {precision:?} {grouping:?} {g:?}");
    assert!(plan.ledger(|ledger| ledger.take_events()) == events, "{what}: plan and run allocate differently");
    assert_eq!(y, plain, "{what}");
    let ([means, variances], deviation) = statistics_of(&y, g.out_channels, grouping.items());
    let largest = means.iter().fold(0.0f64, |largest, mean| largest.max(mean.abs()));
    let (mean, variance) = statistics.split_at(means.len());
    // Rounded once; the mean of numbers of both signs relative to their deviation. Sums of a warp's few terms round by some
    // 2^-24 of theirs.
    compare(&format!("{what} mean"), mean, &means, 1e-7f64.max(5e-7 * deviation / largest));
    compare(&format!("{what} variance"), variance, &variances, 5e-7);
    !ops.contains(&"moments")
}

/// A shape for each tile and a few others; whether its sums are whole in f32, over the batch and an item at a time.
fn measured_shapes() -> Vec<(Sizes, [bool; 2])> {
    let cubic = ConvWindow::cubic;
    let line = ConvWindow { kernel: [1, 1, 3], stride: [1; 3], padding: [0, 0, 1] };
    vec![
        // Tiles of 256 × 16, one to three of them, items of half a tile; of 128 × 32; of 64 × 64, part of the columns, with 68
        // tiles: three groups.
        (shape([2, 4, 8, 8], [3, 10], cubic(3, 1, 1)), [true, true]),
        (shape([2, 4, 4, 8], [3, 16], cubic(3, 1, 1)), [true, false]),
        (shape([1, 5, 9, 13], [1, 3], cubic(3, 1, 1)), [true, true]),
        (shape([1, 5, 9, 7], [9, 31], cubic(3, 1, 1)), [true, true]),
        (shape([2, 8, 8, 16], [6, 24], cubic(3, 2, 1)), [true, true]),
        (shape([1, 16, 16, 17], [2, 50], line), [true, true]),
        (shape([3, 4, 4, 4], [4, 100], cubic(1, 1, 0)), [true, true]),
        // 128 × 128: tensor cores only.
        (shape([1, 10, 10, 14], [4, 1000], cubic(1, 1, 1)), [false, false]),
        // Sums in several blocks.
        (shape([1, 4, 4, 4], [64, 16], cubic(3, 1, 1)), [false, false]),
    ]
}

#[test]
fn measured_on_the_way() {
    for (g, whole) in measured_shapes() {
        for (grouping, whole) in [Grouping::Channel, Grouping::Instance { batch: g.batch }].into_iter().zip(whole) {
            for device in every_device() {
                let on_the_way = check_measured(&g, grouping, Precision::F32, false, &device);
                let cuda = matches!(device.target(), Target::Cuda(_));
                assert_eq!(on_the_way, cuda && whole, "{device:?} {grouping:?} {g:?}");
            }
        }
    }
}

#[test]
fn measured_on_tensor_cores() {
    let Some(device) = cuda_device(0) else { return };
    for (g, whole) in measured_shapes() {
        for (precision, x_is_narrow) in [(Precision::Bf16, true), (Precision::Bf16, false), (Precision::Tf32, false)] {
            let on_the_way = check_measured(&g, Grouping::Channel, precision, x_is_narrow, &device);
            assert_eq!(on_the_way, whole[0] || g.out_channels == 1000, "{precision:?} {g:?}");
        }
    }
}

/// Sums of more terms than one register adds up, each one block's: that takes as many blocks as fill a device.
#[test]
fn measured_when_the_last_chain_is_there() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Eval);
    let var = |shape: &[usize], seed| {
        tape.constant(Tensor::from_slice(&device, shape, Role::Data, &Array::random(shape, seed).f32s()).unwrap())
    };
    let (x, w) = (var(&[1, 16, 32, 32, 344], 1), var(&[40, 344, 1, 1, 3], 2));
    let geometry = ConvGeometry { stride: [1; 3], padding: [0, 0, 1] };
    device.cost_log(|log| log.record(true));
    let made = conv3d_with_stats(&tape, &x, &w, None, geometry, Grouping::Channel).unwrap();
    assert_eq!(device.cost_log(|log| log.take()).len(), 1, "one op");
    assert_clean();
    let ([means, variances], deviation) = statistics_of(&made.value.tensor().to_vec().unwrap(), 40, 1);
    let statistics = made.statistics.unwrap().tensor().to_vec().unwrap();
    let largest = means.iter().fold(0.0f64, |largest, mean| largest.max(mean.abs()));
    compare("mean", &statistics[..40], &means, 5e-7 * deviation / largest);
    compare("variance", &statistics[40..], &variances, 5e-7);
}

#[test]
fn measured_results_have_the_same_gradients() {
    let inputs = [Array::random(&[1, 5, 4, 6, 3], 1), Array::random(&[4, 3, 3, 3, 3], 2), Array::random(&[4], 3)];
    let geometry = ConvGeometry { stride: [1; 3], padding: [1; 3] };
    check_op(
        &inputs,
        &[0, 1, 2],
        Tolerance { forward: TOLERANCE, backward: TOLERANCE },
        |tape, v| {
            conv3d_with_stats(tape, &v[0], &v[1], Some(&v[2]), geometry, Grouping::Channel).map(|made| made.value)
        },
        |arrays| twin(arrays, [1; 3], [1; 3]),
    );
}

#[test]
fn a_bias_gradient_over_many_voxels_is_exact_enough() {
    for (voxels, channels) in [(13_001, 37), (13_001, 5), (4_099, 1), (300, 16)] {
        let dy = Array::random(&[voxels * channels], 5);
        let mut expected = vec![0.0; channels];
        dy.data.chunks_exact(channels).for_each(|row| expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += x));
        for threads in [1, 2] {
            let pool = Pool::start(threads).unwrap();
            let mut scratch = vec![f32::NAN; cpu::bias_gradient_workspace(voxels, channels)];
            let mut db = vec![f32::NAN; channels];
            cpu::bias_gradient(&pool, channels, &dy.f32s(), &mut db, false, &mut scratch);
            compare("bias gradient", &db, &expected, TOLERANCE);
        }
    }
}

#[test]
fn workspaces_stay_small() {
    // The hottest layer of the encoder at true size, two threads, widest vectors: at most 24 MiB for any pass.
    for (input, channels) in [([1, 128, 128, 80], [4, 16]), ([1, 128, 128, 80], [16, 16])] {
        let g = shape(input, channels, ConvWindow::cubic(3, 1, 1));
        let lengths = [cpu::forward_workspace, cpu::input_gradient_workspace, cpu::weight_gradient_workspace]
            .map(|workspace| workspace(&g, SimdLevel::Avx512, 2));
        assert!(lengths.iter().all(|&floats| floats * 4 <= 24 << 20), "{lengths:?} floats");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = Device::cpu(1, 1 << 20).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let cubic = |stride, padding| ConvGeometry { stride: [stride; 3], padding: [padding; 3] };
    let (x, w) = (var(&[1, 3, 3, 3, 2]), var(&[4, 2, 3, 3, 3]));
    assert!(conv3d(&tape, &x, &w, None, cubic(1, 1)).is_ok());
    assert!(conv3d(&tape, &x, &w, None, cubic(0, 1)).is_err(), "stride 0");
    assert!(conv3d(&tape, &var(&[1, 2, 3, 3, 2]), &w, None, cubic(1, 0)).is_err(), "the kernel is too long");
    assert!(conv3d(&tape, &x, &var(&[4, 3, 3, 3, 3]), None, cubic(1, 1)).is_err(), "channels");
    assert!(conv3d(&tape, &x, &var(&[0, 2, 3, 3, 3]), None, cubic(1, 1)).is_err(), "no outputs");
    assert!(conv3d(&tape, &x, &var(&[4, 2, 3, 3]), None, cubic(1, 1)).is_err(), "weight of a plane");
    assert!(conv3d(&tape, &x, &w, Some(&var(&[2])), cubic(1, 1)).is_err(), "bias of the inputs' length");
}
