use super::top_k::{TopK, kept};
use super::{BinaryLoss, CrossEntropy, Prediction, SoftDice, binary_loss, cross_entropy, dice_loss};
use crate::device::cpu::Pool;
use crate::memory::Role;
use crate::ops::testing::{Array, Tolerance, assert_clean, check_op, cuda_device, every_device, refused};
use crate::tape::{Mode, Tape};
use crate::tensor::Tensor;

/// A few roundings for each element; the mean is exact. The largest slopes are tens of times the typical.
const TOLERANCE: Tolerance = Tolerance { forward: 1e-6, backward: 2e-6 };

fn scalar(value: f64) -> Array {
    Array { shape: vec![1], data: vec![value] }
}

/// Labels 0 and 1 in irregular order.
fn labels(shape: &[usize]) -> Array {
    Array::random(shape, 99).map(|x| f64::from(u8::from(x > 0.2)))
}

/// Probabilities between 1 and 99 %: inside the clamp, steps of the twin included.
fn probabilities(shape: &[usize]) -> Array {
    Array::random(shape, 98).map(|x| 0.5 + 0.49 * x)
}

fn binary_twin(a: &[Array], options: BinaryLoss) -> Array {
    let BinaryLoss { gamma, label_smoothing: e, .. } = options;
    let [mut w0, mut w1] = options.label_weights.map(f64::from);
    let (gamma, e) = (f64::from(gamma), f64::from(e));
    if options.reference {
        (w0, w1) = (w1, w0);
    }
    let element = |(&x, &y): (&f64, &f64)| {
        let p = match options.prediction {
            Prediction::Logits => 1.0 / (1.0 + (-x).exp()),
            Prediction::Probabilities => x,
        };
        let y = y * (1.0 - e) + if options.reference { e } else { e / 2.0 };
        let c = match options.prediction {
            Prediction::Logits => p,
            Prediction::Probabilities => p.clamp(1e-6, 1.0 - 1e-6),
        };
        (1.0 - (p * y + (1.0 - p) * (1.0 - y))).powf(gamma) * -(w1 * y * c.ln() + w0 * (1.0 - y) * (1.0 - c).ln())
    };
    let mut losses: Vec<f64> = a[0].data.iter().zip(&a[1].data).map(element).collect();
    losses.sort_by(|a, b| b.total_cmp(a));
    let count = (options.keep * losses.len() as f64) as usize;
    scalar(losses[..count].iter().sum::<f64>() / count as f64)
}

fn check_binary(options: BinaryLoss) {
    let x = match options.prediction {
        Prediction::Logits => Array::random(&[2, 150, 1], 1).map(|x| 9.0 * x),
        Prediction::Probabilities => probabilities(&[2, 150, 1]),
    };
    let op = |tape: &Tape, v: &[crate::tape::Var]| binary_loss(tape, &v[0], &v[1], options);
    check_op(&[x, labels(&[2, 150, 1])], &[0], TOLERANCE, op, |a| binary_twin(a, options));
}

#[test]
fn binary_losses_follow_their_definition() {
    for prediction in [Prediction::Logits, Prediction::Probabilities] {
        for reference in [false, true] {
            let plain = BinaryLoss { prediction, reference, ..BinaryLoss::default() };
            check_binary(plain);
            check_binary(BinaryLoss { label_weights: [2.0, 0.5], ..plain });
            check_binary(BinaryLoss { label_smoothing: 0.1, ..plain });
            check_binary(BinaryLoss { keep: 0.3, ..plain });
            check_binary(BinaryLoss { gamma: 2.0, ..plain });
            check_binary(BinaryLoss {
                gamma: 1.5,
                keep: 0.5,
                label_smoothing: 0.2,
                label_weights: [0.7, 3.0],
                ..plain
            });
        }
    }
}

#[test]
fn many_pieces() {
    let inputs = [Array::random(&[20_000, 1], 1).map(|x| 9.0 * x), labels(&[20_000, 1])];
    for keep in [1.0, 0.25] {
        let options = BinaryLoss { keep, ..BinaryLoss::default() };
        let op = |tape: &Tape, v: &[crate::tape::Var]| binary_loss(tape, &v[0], &v[1], options);
        // The twin's difference quotient of a mean of 20000 terms near 2: 2e-16·2/2e-5 = 2e-11 of slopes of 5e-5 at most
        // (2e-4 for a quarter).
        check_op(&inputs, &[0], Tolerance { forward: 1e-6, backward: 1e-5 }, op, |a| binary_twin(a, options));
    }
}

/// Runs a loss on every device: values and gradients.
fn run<'a>(x: &'a [f32], y: &'a [f32], options: BinaryLoss) -> impl Iterator<Item = (f32, Vec<f32>)> + 'a {
    every_device().map(move |device| {
        let tape = Tape::new(&device, Mode::Train);
        let var =
            |values: &[f32]| tape.input(Tensor::from_slice(&device, &[values.len()], Role::Data, values).unwrap());
        let x = var(x);
        let loss = binary_loss(&tape, &x, &var(y), options).unwrap();
        let value = loss.tensor().to_vec().unwrap()[0];
        tape.backward(loss, &mut crate::nn::Parameters::new(&device)).unwrap();
        assert_clean();
        (value, tape.gradient(&x).unwrap().to_vec().unwrap())
    })
}

#[test]
fn saturated_probabilities_have_no_gradient_and_logits_have() {
    let probabilities = BinaryLoss { prediction: Prediction::Probabilities, ..BinaryLoss::default() };
    for (loss, gradient) in run(&[0.0, 1.0], &[1.0, 0.0], probabilities) {
        // −ln 1e-6; 1 − (1 − 1e-6) is 1.0133e-6 in f32, whose logarithm is 0.013 less.
        assert!((loss - 13.815_511).abs() < 0.01, "{loss}");
        assert_eq!(gradient, [0.0, 0.0]);
    }
    for (loss, gradient) in run(&[-300.0, 300.0], &[1.0, 0.0], BinaryLoss::default()) {
        assert_eq!((loss, gradient), (300.0, vec![-0.5, 0.5]));
    }
}

#[test]
fn focal_exponents_below_one_stay_finite() {
    let ends = |prediction| match prediction {
        Prediction::Logits => [-200.0, 200.0, -200.0],
        // Just above 1, as a softmax can round.
        Prediction::Probabilities => [0.0, 1.0 + f32::EPSILON, 0.0],
    };
    for prediction in [Prediction::Logits, Prediction::Probabilities] {
        let options = BinaryLoss { prediction, gamma: 0.5, ..BinaryLoss::default() };
        for (loss, gradient) in run(&ends(prediction), &[0.0, 1.0, 1.0], options) {
            assert!(loss.is_finite() && gradient.iter().all(|slope| slope.is_finite()), "{loss} {gradient:?}");
            // Right predictions weigh nothing; the wrong one pulls.
            assert!(gradient[2] < 0.0 && loss > 1.0, "{loss} {gradient:?}");
        }
    }
}

#[test]
fn of_equal_losses_the_first_are_kept() {
    // 3 pieces of equal elements with three worse ones; 20000 are kept: the worse and the first 19997 others.
    let n = 40_000;
    let worse = [5, 17_000, 39_999];
    let mut x = vec![0.0; n];
    worse.iter().for_each(|&i| x[i] = 1.0);
    let expected: Vec<usize> = (0..19_999).chain([39_999]).collect();
    for (_, gradient) in run(&x, &vec![0.0; n], BinaryLoss { keep: 0.5, ..BinaryLoss::default() }) {
        let kept: Vec<usize> = (0..n).filter(|&i| gradient[i] != 0.0).collect();
        assert_eq!(kept, expected);
    }
}

#[test]
fn a_loss_that_is_no_number_counts_as_the_worst() {
    // With a NaN of either sign: the sum is one as well, and so is the gradient of that element.
    let mut x = vec![0.5; 5000];
    (x[70], x[4100]) = (f32::NAN, -f32::NAN);
    let options = BinaryLoss { keep: 0.25, ..BinaryLoss::default() };
    for (loss, gradient) in run(&x, &vec![1.0; 5000], options) {
        assert!(loss.is_nan());
        assert!((0..5000).all(|i| gradient[i].is_nan() == x[i].is_nan()));
    }
}

#[test]
fn on_cuda_a_label_that_is_no_class_makes_the_loss_nan() {
    let Some(device) = cuda_device(0) else { return };
    let tape = Tape::new(&device, Mode::Train);
    let tensor = |shape: &[usize], values: &[f32]| Tensor::from_slice(&device, shape, Role::Data, values).unwrap();
    let x = tape.input(tensor(&[1, 3, 2], &[0.5; 6]));
    for wrong in [2.0, -1.0, 0.5, f32::NAN] {
        let label = tape.constant(tensor(&[1, 3, 1], &[0.0, wrong, 1.0]));
        for loss in [
            cross_entropy(&tape, &x, &label, CrossEntropy::default()),
            dice_loss(&tape, &x, &label, SoftDice::default()),
        ] {
            assert!(loss.unwrap().tensor().to_vec().unwrap()[0].is_nan(), "{wrong}");
        }
    }
    assert_clean();
}

#[test]
fn the_worst_are_found() {
    assert_eq!([kept(0.8, 100), kept(0.7, 10), kept(0.01, 10), kept(1.0, 7)], [80, 7, 1, 7]);
    assert_eq!(TopK::of(&mut [3.0, 1.0, 2.0, 2.0], 3).sum, 7.0);
    let losses = [3.0, 1.0, 2.0, 2.0, f32::NAN, 2.0];
    let mut reordered = losses;
    let worst = TopK::of(&mut reordered, 4);
    assert!(worst.sum.is_nan());
    let pool = Pool::start(1).unwrap();
    let mut chooser = worst.choose(&pool, 6, |i| losses[i])(0);
    assert_eq!(losses.map(|loss| chooser.takes(loss)), [true, false, true, true, true, false]);
}

fn cross_entropy_twin(a: &[Array], options: CrossEntropy) -> Array {
    let classes = *a[0].shape.last().unwrap();
    let rows = a[1].data.len();
    let p: Vec<f64> = match options.prediction {
        Prediction::Probabilities => a[0].data.clone(),
        Prediction::Logits => {
            let softmax = |row: &[f64]| {
                let sum: f64 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(|x| x.exp() / sum).collect::<Vec<_>>()
            };
            a[0].data.chunks(classes).flat_map(softmax).collect()
        }
    };
    let gamma = f64::from(options.gamma);
    let labelled = |row: usize, c: usize| a[1].data[row] == c as f64;
    let mut sum = 0.0;
    if options.reference {
        let batch = a[0].shape[0];
        let n = rows / batch;
        for element in 0..p.len() {
            let (row, c) = (element / classes, element % classes);
            let mine = |b: usize| b * n + row % n;
            let entropy: f64 =
                (0..batch).map(|b| if labelled(mine(b), c) { -p[mine(b) * classes + c].ln() } else { 0.0 }).sum();
            let t = if labelled(row, c) { p[element] } else { 1.0 - p[element] };
            sum += (1.0 - t).powf(gamma) * entropy;
        }
        return scalar(sum / p.len() as f64);
    }
    for row in 0..rows {
        let q = p[row * classes + a[1].data[row] as usize];
        sum += (1.0 - q).powf(gamma) * -q.ln();
    }
    scalar(sum / rows as f64)
}

#[test]
fn cross_entropies_follow_their_definition() {
    let classes = Array::random(&[3, 40, 1], 7).map(|x| ((x + 1.0) * 2.0).floor());
    // More classes than a warp has lanes.
    let many = [
        Array::random(&[1, 9, 70], 1).map(|x| 6.0 * x),
        Array::random(&[1, 9, 1], 3).map(|x| ((x + 1.0) * 35.0).floor()),
    ];
    let plain = CrossEntropy::default();
    check_op(
        &many,
        &[0],
        TOLERANCE,
        |tape, v| cross_entropy(tape, &v[0], &v[1], plain),
        |a| cross_entropy_twin(a, plain),
    );
    for gamma in [0.0, 1.5, 2.0] {
        for (prediction, reference) in
            [(Prediction::Logits, false), (Prediction::Probabilities, false), (Prediction::Probabilities, true)]
        {
            let options = CrossEntropy { prediction, gamma, reference };
            let x = match prediction {
                Prediction::Logits => Array::random(&[3, 40, 4], 1).map(|x| 6.0 * x),
                Prediction::Probabilities => probabilities(&[3, 40, 4]),
            };
            let op = |tape: &Tape, v: &[crate::tape::Var]| cross_entropy(tape, &v[0], &v[1], options);
            check_op(&[x, classes.clone()], &[0], TOLERANCE, op, |a| cross_entropy_twin(a, options));
        }
    }
}

#[test]
fn dice_follows_its_definition() {
    let all = SoftDice::default();
    for options in [
        all,
        SoftDice { background: false, ..all },
        SoftDice { over_batch: true, ..all },
        SoftDice { background: false, over_batch: true },
    ] {
        let twin = |a: &[Array]| {
            let (batch, classes) = (a[0].shape[0], *a[0].shape.last().unwrap());
            let items = if options.over_batch { 1 } else { batch };
            let first = if options.background || classes == 1 { 0 } else { 1 };
            let rows = a[1].data.len() / items;
            let mut dice = 0.0;
            for item in 0..items {
                for c in first..classes {
                    let (mut both, mut either) = (0.0, 0.0);
                    for row in item * rows..(item + 1) * rows {
                        let label = a[1].data[row];
                        let y = if classes == 1 { label } else { f64::from(u8::from(label == c as f64)) };
                        both += a[0].data[row * classes + c] * y;
                        either += a[0].data[row * classes + c] + y;
                    }
                    dice += (2.0 * both + 1e-5) / (either + 1e-5);
                }
            }
            scalar(1.0 - dice / (items * (classes - first)) as f64)
        };
        let op = |tape: &Tape, v: &[crate::tape::Var]| dice_loss(tape, &v[0], &v[1], options);
        let inputs = [probabilities(&[3, 50, 1]), labels(&[3, 50, 1])];
        check_op(&inputs, &[0], TOLERANCE, op, twin);
        let classes = Array::random(&[2, 4, 5, 6, 1], 7).map(|x| ((x + 1.0) * 1.5).floor());
        check_op(&[probabilities(&[2, 4, 5, 6, 3]), classes], &[0], TOLERANCE, op, twin);
        // Several pieces an item; slopes near 1e-4 from differences of numbers near 1: 1e-16/2e-5 = 5e-12, 5e-8 of the
        // slope.
        let inputs = [probabilities(&[2, 20_000, 1]), labels(&[2, 20_000, 1])];
        check_op(&inputs, &[0], TOLERANCE, op, twin);
    }
}

#[test]
fn shapes_and_labels_that_do_not_fit_are_errors() {
    refused("binary_loss", &[&[4, 1], &[4]], |t, v| binary_loss(t, &v[0], &v[1], BinaryLoss::default()));
    refused("binary_loss", &[&[0, 1], &[0, 1]], |t, v| binary_loss(t, &v[0], &v[1], BinaryLoss::default()));
    for options in [
        BinaryLoss { keep: 0.0, ..BinaryLoss::default() },
        BinaryLoss { keep: f64::NAN, ..BinaryLoss::default() },
        BinaryLoss { gamma: -1.0, ..BinaryLoss::default() },
        BinaryLoss { label_smoothing: 1.0, ..BinaryLoss::default() },
        BinaryLoss { label_weights: [1.0, -1.0], ..BinaryLoss::default() },
    ] {
        refused("binary_loss", &[&[4, 1], &[4, 1]], |t, v| binary_loss(t, &v[0], &v[1], options));
    }
    let default = CrossEntropy::default();
    refused("cross_entropy", &[&[4, 3], &[4, 3]], |t, v| cross_entropy(t, &v[0], &v[1], default));
    refused("cross_entropy", &[&[4, 3], &[5, 1]], |t, v| cross_entropy(t, &v[0], &v[1], default));
    let reference = CrossEntropy { reference: true, ..default };
    refused("cross_entropy", &[&[4, 3], &[4, 1]], |t, v| cross_entropy(t, &v[0], &v[1], reference));
    refused("dice_loss", &[&[4, 3], &[4, 1]], |t, v| dice_loss(t, &v[0], &v[1], SoftDice::default()));
    refused("dice_loss", &[&[1, 4, 3], &[1, 4, 3]], |t, v| dice_loss(t, &v[0], &v[1], SoftDice::default()));
    for wrong in [3.0, -1.0, 0.5, f32::NAN] {
        let label =
            |t: &Tape| t.constant(Tensor::from_slice(t.device(), &[1, 2, 1], Role::Data, &[1.0, wrong]).unwrap());
        refused("cross_entropy", &[&[1, 2, 3]], |t, v| cross_entropy(t, &v[0], &label(t), default));
        refused("dice_loss", &[&[1, 2, 3]], |t, v| dice_loss(t, &v[0], &label(t), SoftDice::default()));
    }
}
