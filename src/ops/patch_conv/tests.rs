//! Against the definition in f64.

use super::source::Source;
use super::spectra::Direction;
use super::{Dims, PATCH, PatchConv, PatchSource, cpu, patch_conv, weight_gradient};
use crate::device::Device;
use crate::device::cpu::{Pool, SimdLevel};
use crate::memory::Role;
use crate::nn::Parameters;
use crate::ops::Op;
use crate::ops::patch_sample::{PatchOptions, Pooling, patch_sample};
use crate::ops::testing::{
    Array, Tolerance, assert_clean, check_bf16, check_cuda, check_op, compare, cuda_device, devices, dot,
};
use crate::tape::{Mode, Precision, Tape, Var};
use crate::tensor::Tensor;

/// Index of voxel `n + m − 3`, if inside.
fn moved(n: usize, m: usize) -> Option<usize> {
    let axis = |stride: usize| {
        let at = (n / stride % 7 + m / stride % 7).checked_sub(3)?;
        (at < 7).then_some(at * stride)
    };
    Some(axis(49)? + axis(7)? + axis(1)?)
}

/// Calls `visit(n, m, n + m − 3)` for all places that lie inside.
fn for_each_tap(mut visit: impl FnMut(usize, usize, usize)) {
    for n in 0..PATCH {
        for m in 0..PATCH {
            if let Some(at) = moved(n, m) {
                visit(n, m, at);
            }
        }
    }
}

/// `(y, dx, dw, db)` by definition.
fn twin(dims: Dims, x: &[f64], w: &[f64], b: &[f64], dy: &[f64]) -> [Vec<f64>; 4] {
    let Dims { points, inputs, outputs } = dims;
    let mut y: Vec<f64> = (0..points * outputs * PATCH).map(|i| b[i / PATCH % outputs]).collect();
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    for p in 0..points {
        for (o, db) in db.iter_mut().enumerate() {
            let out = (p * outputs + o) * PATCH;
            *db += dy[out..out + PATCH].iter().sum::<f64>();
            for c in 0..inputs {
                let (from, kernel) = ((p * inputs + c) * PATCH, (o * inputs + c) * PATCH);
                for_each_tap(|n, m, at| {
                    y[out + n] += w[kernel + m] * x[from + at];
                    dx[from + at] += w[kernel + m] * dy[out + n];
                    dw[kernel + m] += dy[out + n] * x[from + at];
                });
            }
        }
    }
    [y, dx, dw, db]
}

/// `(y, dx, dw, db)` by the kernels, each added to `former`.
fn kernels(pool: &Pool, dims: Dims, x: &[f32], w: &[f32], b: &[f32], dy: &[f32], former: Option<f32>) -> [Vec<f32>; 4] {
    let (threads, lanes, accumulate) = (pool.threads(), pool.simd().lanes(), former.is_some());
    let fill = |len: usize| vec![former.unwrap_or(f32::NAN); len];
    // NaN: nothing may depend on what a workspace held.
    let scratch = |len: usize| vec![f32::NAN; len];
    let (mut y, mut dx) = (fill(dims.points * dims.outputs * PATCH), fill(x.len()));
    let (mut dw, mut db) = (fill(w.len()), fill(b.len()));
    let source: Source<'_> = Source::Patches(x);
    let mut work = scratch(cpu::workspace(threads, lanes, &source, dims));
    let how = (dims, Direction::Forward);
    cpu::convolve(pool, &source, w, Some(b), how, &mut y, accumulate, &mut work);
    let gradient: Source<'_> = Source::Patches(dy);
    let mut work = scratch(cpu::workspace(threads, lanes, &gradient, dims.adjoint()));
    let how = (dims.adjoint(), Direction::Adjoint);
    cpu::convolve(pool, &gradient, w, None, how, &mut dx, accumulate, &mut work);
    let mut work = scratch(weight_gradient::workspace(threads, lanes, &source, dims));
    weight_gradient::weight_gradient(pool, &source, dy, dims, &mut dw, accumulate, &mut work);
    weight_gradient::bias_gradient(pool, dy, dims, &mut db, accumulate);
    [y, dx, dw, db]
}

/// A transform of 10³ has a rounding error of a few 2⁻²⁴ of the largest value; sums over channels and patches of random
/// sign do not add to the relative error of the maximum.
const TOLERANCE: f64 = 5e-7;

const NAMES: [&str; 4] = ["y", "dx", "dw", "db"];

fn check(points: usize, inputs: usize, outputs: usize) {
    let dims = Dims { points, inputs, outputs };
    let x = Array::random(&[points, inputs, PATCH], 1);
    let w = Array::random(&[outputs, inputs, PATCH], 2);
    let b = Array::random(&[outputs], 3);
    let dy = Array::random(&[points, outputs, PATCH], 4);
    let expected = twin(dims, &x.data, &w.data, &b.data, &dy.data);
    let (x, w, b, dy) = (x.f32s(), w.f32s(), b.f32s(), dy.f32s());
    for simd in SimdLevel::available() {
        let [one, two] =
            [1, 2].map(|threads| kernels(&Pool::start_with_simd(threads, simd).unwrap(), dims, &x, &w, &b, &dy, None));
        assert!(one == two, "{simd:?}: one and two threads differ");
        let added = kernels(&Pool::start_with_simd(2, simd).unwrap(), dims, &x, &w, &b, &dy, Some(1.0));
        for i in 0..4 {
            let name = format!("{simd:?} {points} points {inputs} to {outputs}: {}", NAMES[i]);
            compare(&name, &one[i], &expected[i], TOLERANCE);
            let shifted: Vec<f64> = expected[i].iter().map(|value| value + 1.0).collect();
            compare(&format!("{name} added"), &added[i], &shifted, TOLERANCE);
        }
    }
}

#[test]
fn no_points() {
    let dims = Dims { points: 0, inputs: 2, outputs: 1 };
    let w = Array::random(&[1, 2, PATCH], 2).f32s();
    let [y, dx, dw, db] = kernels(&Pool::start(2).unwrap(), dims, &[], &w, &[1.0], &[], None);
    assert!(y.is_empty() && dx.is_empty());
    assert!(dw.iter().chain(&db).all(|&value| value == 0.0));
}

#[test]
fn groups_and_their_tails() {
    for points in [1, 7, 15, 16, 17] {
        check(points, 4, 2);
    }
}

#[test]
fn channels_of_the_published_configurations() {
    for (inputs, outputs) in [(8, 4), (4, 1), (2, 1), (1, 1)] {
        check(5, inputs, outputs);
    }
}

#[test]
fn odd_channels() {
    for (inputs, outputs) in [(3, 5), (5, 3), (9, 6)] {
        check(3, inputs, outputs);
    }
}

#[test]
fn several_pieces() {
    // 16 lanes: five groups; one lane: a weight gradient of 64 pieces of two groups.
    check(80, 2, 1);
}

/// The output by definition.
fn twin_op(inputs: &[Array]) -> Array {
    let [x, weight, bias] = inputs else { panic!("three inputs") };
    let (points, channels, outputs) = (x.shape[0], x.shape[1], weight.shape[0]);
    let mut data: Vec<f64> = (0..points * outputs * PATCH).map(|i| bias.data[i / PATCH % outputs]).collect();
    for (pair, y) in data.chunks_exact_mut(PATCH).enumerate() {
        let (point, output) = (pair / outputs, pair % outputs);
        for c in 0..channels {
            let (x, w) = (&x.data[(point * channels + c) * PATCH..], &weight.data[(output * channels + c) * PATCH..]);
            for_each_tap(|n, m, at| y[n] += w[m] * x[at]);
        }
    }
    Array { shape: vec![points, outputs, PATCH], data }
}

#[test]
fn the_op_on_given_patches() {
    let inputs = [Array::random(&[2, 1, PATCH], 5), Array::random(&[2, 1, 7, 7, 7], 6), Array::random(&[2], 7)];
    // The reference's differences over 2·10⁻⁵ of a linear function in f64 are good to 10⁻⁹.
    let tolerance = Tolerance { forward: TOLERANCE, backward: TOLERANCE };
    let op = |tape: &Tape, v: &[Var]| patch_conv(tape, PatchSource::Patches(&v[0]), &v[1], Some(&v[2]));
    check_op(&inputs, &[0, 1, 2], tolerance, op, twin_op);
}

#[test]
fn channels_and_points_of_every_kind_on_cuda() {
    // Both err by at most TOLERANCE. Blocks take two points, launches eight inputs and four outputs.
    let tolerance = Tolerance { forward: 2.0 * TOLERANCE, backward: 2.0 * TOLERANCE };
    for [points, channels, outputs] in [[5, 8, 4], [2, 4, 1], [1, 1, 1], [3, 9, 6], [0, 2, 1]] {
        let inputs = [
            Array::random(&[points, channels, PATCH], 5),
            Array::random(&[outputs, channels, 7, 7, 7], 6),
            Array::random(&[outputs], 7),
        ];
        let op = |tape: &Tape, v: &[Var]| patch_conv(tape, PatchSource::Patches(&v[0]), &v[1], Some(&v[2]));
        check_cuda(&inputs, &[0, 1, 2], tolerance, op);
    }
}

#[test]
fn a_volume_as_source_equals_its_patches() {
    // To the bit: the groups are the same, only the place that they are read from differs.
    let volume = Array::random(&[2, 9, 8, 10, 2], 8);
    let coordinates = Array::random(&[38, 3], 9).map(|x| (x * 80.0).round() / 8.0);
    let (weight, bias) = (Array::random(&[3, 4, 7, 7, 7], 10), Array::random(&[3], 11));
    let options = PatchOptions { mid_range: Some(Pooling::Average) };
    for device in devices().into_iter().chain(cuda_device(1)) {
        let run = |fused: bool| {
            let tape = Tape::new(&device, Mode::Train);
            let tensor = |array: &Array| Tensor::from_slice(&device, &array.shape, Role::Data, &array.f32s()).unwrap();
            let (volume, coordinates) = (tape.constant(tensor(&volume)), tape.constant(tensor(&coordinates)));
            let (weight, bias) = (tape.input(tensor(&weight)), tape.input(tensor(&bias)));
            let patches = patch_sample(&tape, &volume, &coordinates, options).unwrap();
            let source = match fused {
                true => PatchSource::Volume { volume: &volume, coordinates: &coordinates, options },
                false => PatchSource::Patches(&patches),
            };
            let y = patch_conv(&tape, source, &weight, Some(&bias)).unwrap();
            let loss = dot(&tape, &y, tensor(&Array::random(&[38, 3, PATCH], 12))).unwrap();
            let y = y.tensor().to_vec().unwrap();
            tape.backward(loss, &mut Parameters::new(&device)).unwrap();
            [y, tape.gradient(&weight).unwrap().to_vec().unwrap(), tape.gradient(&bias).unwrap().to_vec().unwrap()]
        };
        assert!(run(true) == run(false), "{device:?}");
    }
    assert_clean();
}

#[test]
fn a_plan_foresees_every_allocation() {
    let options = PatchOptions { mid_range: Some(Pooling::Max) };
    let events = |device: &Device, fused: bool| {
        device.ledger(|ledger| ledger.record(true));
        let tape = Tape::new(device, Mode::Train);
        let zeros = |shape: &[usize]| Tensor::zeros(device, shape, Role::Data).unwrap();
        let volume = if fused { tape.constant(zeros(&[2, 9, 8, 10, 2])) } else { tape.input(zeros(&[2, 9, 8, 10, 2])) };
        let coordinates = tape.constant(zeros(&[38, 3]));
        let (weight, bias) = (tape.input(zeros(&[3, 4, 7, 7, 7])), tape.input(zeros(&[3])));
        let patches = (!fused).then(|| patch_sample(&tape, &volume, &coordinates, options).unwrap());
        let source = match &patches {
            None => PatchSource::Volume { volume: &volume, coordinates: &coordinates, options },
            Some(patches) => PatchSource::Patches(patches),
        };
        let y = patch_conv(&tape, source, &weight, Some(&bias)).unwrap();
        let summands = Tensor::zeros(device, &[38, 3, PATCH], Role::Data).unwrap();
        let loss = dot(&tape, &y, summands).unwrap();
        drop((y, patches));
        tape.backward(loss, &mut Parameters::new(device)).unwrap();
        device.ledger(|ledger| ledger.take_events())
    };
    for device in devices().into_iter().chain(cuda_device(0)) {
        for fused in [false, true] {
            let plan = Device::plan_for(device.target(), device.budget());
            assert_eq!(events(&plan, fused), events(&device, fused), "{device:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let device = Device::cpu(1, 1 << 22).unwrap();
    let tape = Tape::new(&device, Mode::Train);
    let var = |shape: &[usize]| tape.input(Tensor::zeros(&device, shape, Role::Data).unwrap());
    let conv = |patches: &[usize], weight: &[usize], bias: &[usize]| {
        let (patches, weight, bias) = (var(patches), var(weight), var(bias));
        patch_conv(&tape, PatchSource::Patches(&patches), &weight, Some(&bias)).err().map(|error| error.to_string())
    };
    assert_eq!(conv(&[2, 2, PATCH], &[1, 2, 7, 7, 7], &[1]), None);
    for (patches, weight, bias) in [
        (&[2, 2, 7][..], &[1, 2, 7, 7, 7][..], &[1][..]),
        (&[2, 2, PATCH], &[1, 3, 7, 7, 7], &[1]),
        (&[2, 2, PATCH], &[1, 2, 5, 5, 5], &[1]),
        (&[2, 2, PATCH], &[1, 2, 7, 7, 7], &[2]),
        (&[2, 0, PATCH], &[1, 0, 7, 7, 7], &[1]),
    ] {
        assert!(conv(patches, weight, bias).is_some(), "{patches:?} {weight:?} {bias:?}");
    }
    let (volume, coordinates, weight) = (var(&[1, 4, 4, 4, 2]), var(&[2, 3]), var(&[1, 2, 7, 7, 7]));
    let source = PatchSource::Volume { volume: &volume, coordinates: &coordinates, options: PatchOptions::default() };
    let error = patch_conv(&tape, source, &weight, None).err().unwrap().to_string();
    assert!(error.contains("patch_sample"), "{error}");
}

#[test]
fn workspace_is_bounded() {
    // The published sizes on sixteen lanes: 1 MiB a thread for the patches and 16 MiB in all for the sums.
    for (inputs, outputs) in [(8, 4), (4, 1), (4, 2), (2, 1), (1, 1)] {
        let dims = Dims { points: 1 << 17, inputs, outputs };
        let source: Source<'_> = Source::Patches(&[]);
        let [one, two] = [1, 2].map(|threads| weight_gradient::workspace(threads, 16, &source, dims));
        assert!(4 * (two - one) <= 1 << 20, "{inputs} to {outputs}: {} bytes a thread", 4 * (two - one));
        assert!(4 * (2 * one - two) <= 16 << 20, "{inputs} to {outputs}: {} bytes of sums", 4 * (2 * one - two));
    }
}

#[test]
fn in_bf16() {
    let tolerance = Tolerance { forward: 2.0 * TOLERANCE, backward: 2.0 * TOLERANCE };
    let (weight, bias) = (Array::random(&[2, 4, 7, 7, 7], 6), Array::random(&[2], 7));
    let inputs = [Array::random(&[3, 4, PATCH], 5), weight.clone(), bias.clone()];
    let op = |tape: &Tape, v: &[Var]| patch_conv(tape, PatchSource::Patches(&v[0]), &v[1], Some(&v[2]));
    check_bf16(&inputs, &[0], &[0, 1, 2], tolerance, op);
    // Volumes and coordinates stay f32.
    let coordinates = Array::random(&[3, 3], 9).map(|x| (x * 80.0).round() / 8.0);
    let inputs = [Array::random(&[1, 9, 8, 10, 4], 8), coordinates, weight, bias];
    check_bf16(&inputs, &[], &[2, 3], tolerance, |tape, v| {
        let (volume, coordinates) = (&tape.constant(v[0].tensor()), &tape.constant(v[1].tensor()));
        let source = PatchSource::Volume { volume, coordinates, options: PatchOptions::default() };
        patch_conv(tape, source, &v[2], Some(&v[3]))
    });
}

/// What is stated is executed: a little more is counted, for lanes without a line compute as well.
#[test]
fn stated_operations_are_those_that_are_counted() {
    let table = include_str!("../../../kernels/counts.tsv");
    let line = table.lines().find(|line| line.starts_with("patch_conv 128 of 4 to 4\t(op)")).unwrap();
    let counted: f64 = line.split('\t').nth(10).unwrap().parse().unwrap();
    let volume = [1, 32, 32, 32, 4];
    let inputs: [&[usize]; 4] = [&volume, &[128, 3], &[4, 4, 7, 7, 7], &[4]];
    let options = Some(PatchOptions { mid_range: None });
    let op = PatchConv { options, bias: true, precision: Precision::F32 };
    let flops = op.forward_cost(&inputs).flops + op.backward_cost(&inputs).flops;
    let share = flops as f64 / counted;
    assert!((0.8..1.0).contains(&share), "{share}");
}
