//! Optimisers move weights as the official code does, or as their papers say.

use common::fixture::{self, Fixture};
use ossnet::nn::optim::{Adam, Lookahead, Optimizer, RAdam, Schedule, Sgd};

mod common;

/// A rule with the state of one tensor.
struct Tensor<O> {
    rule: O,
    state: Vec<f32>,
    weight: Vec<f32>,
    step: u64,
}

impl<O: Optimizer> Tensor<O> {
    fn new(rule: O, weight: &[f32]) -> Self {
        Tensor { state: vec![0.0; rule.state_len(weight.len())], rule, weight: weight.into(), step: 0 }
    }

    fn step(&mut self, grad: &[f32], lr: f64) {
        self.step += 1;
        self.rule.step(&mut self.state, &mut self.weight, grad, lr, self.step);
    }
}

/// The official trajectories: with the defect that gives every tensor the first group's rate, and without.
#[test]
fn lookahead_radam_follows_the_official_trajectories() {
    let fixture = Fixture::open(&fixture::path("lookahead_radam.npz"));
    for (variant, w_lr, pau_lr) in [("", 3e-4, 3e-4), ("_intended", 3e-4, 1e-2), ("_paufirst", 1e-2, 1e-2)] {
        let (w_rows, pau_rows) = (fixture.f32(&format!("w{variant}")), fixture.f32(&format!("pau{variant}")));
        let mut w = Tensor::new(Lookahead::new(RAdam::default()), &w_rows[..5]);
        let mut pau = Tensor::new(Lookahead::new(RAdam::default()), &pau_rows[..4]);
        for row in 1..=20 {
            // loss = ½ Σ (i+1)(wᵢ − 1)² + ½ Σ cᵢ (pauᵢ + ½)² + 0.1 Σ wᵢ pauᵢ
            let mut w_grad: Vec<f32> = (0..5).map(|i| (i + 1) as f32 * (w.weight[i] - 1.0)).collect();
            let curvature = [2.0, 0.5, 1.0, 4.0];
            let mut pau_grad: Vec<f32> = (0..4).map(|i| curvature[i] * (pau.weight[i] + 0.5)).collect();
            for i in 0..4 {
                w_grad[i] += 0.1 * pau.weight[i];
                pau_grad[i] += 0.1 * w.weight[i];
            }
            w.step(&w_grad, w_lr);
            pau.step(&pau_grad, pau_lr);
            // A step rounds each weight once here and once there, half a unit in the last place each, and moves it
            // by at most a twentieth of itself, whose own relative error is a few units.
            let (w_official, pau_official) = (&w_rows[5 * row..5 * row + 5], &pau_rows[4 * row..4 * row + 4]);
            for (ours, official) in w.weight.iter().chain(&pau.weight).zip(w_official.iter().chain(pau_official)) {
                let tolerance = row as f32 * f32::EPSILON * official.abs().max(1.0);
                let error = (ours - official).abs();
                assert!(error <= tolerance, "{variant} step {row}: {ours} against {official}");
            }
        }
    }
}

/// A sequence of gradients without a pattern, and weights.
const GRADIENTS: [[f64; 3]; 12] = [
    [0.5, -1.25, 3.0],
    [-0.75, 2.0, 0.0],
    [1e-3, -0.5, 0.25],
    [0.0, 0.0, -8.0],
    [2.5, 1.0, 1.0],
    [-1.0, -1.0, 0.125],
    [0.0625, 4.0, -2.0],
    [0.5, 0.5, 0.5],
    [-3.0, 0.25, 1.5],
    [1.0, -0.125, 0.75],
    [0.25, 1.75, -0.5],
    [-0.5, -2.0, 6.0],
];
const WEIGHTS: [f64; 3] = [1.0, -2.0, 0.5];

/// Applies `rule` to the gradients and compares with `update`: the change of a weight in f64, given the weight's
/// gradients so far and its value.
fn follows(rule: impl Optimizer, lr: f64, shrink: f64, penalty: f64, update: impl Fn(&[f64]) -> f64) {
    let mut tensor = Tensor::new(rule, &WEIGHTS.map(|weight| weight as f32));
    let mut exact = WEIGHTS;
    let mut seen = [const { Vec::new() }; 3];
    for (round, grads) in GRADIENTS.iter().enumerate() {
        for i in 0..3 {
            seen[i].push(grads[i] + penalty * exact[i]);
            exact[i] = shrink * exact[i] - lr * update(&seen[i]);
        }
        tensor.step(&grads.map(|grad| grad as f32), lr);
        for (ours, exact) in tensor.weight.iter().zip(exact) {
            // Each step rounds the weight, and adds a change no larger than 1 here with some ten roundings of its own;
            // weights stay below 8.
            let tolerance = (round + 1) as f64 * 10.0 * f64::from(f32::EPSILON);
            assert!((f64::from(*ours) - exact).abs() <= tolerance, "step {}: {ours} against {exact}", round + 1);
        }
    }
}

/// `Σ (1 − beta) betaᵗ⁻ⁱ xᵢ / (1 − betaᵗ)`: the mean that the recursion stands for.
fn mean(beta: f64, values: impl DoubleEndedIterator<Item = f64> + ExactSizeIterator) -> f64 {
    let count = values.len() as i32;
    let sum: f64 = values.rev().zip(0..).map(|(value, age)| beta.powi(age) * value).sum();
    sum * (1.0 - beta) / (1.0 - beta.powi(count))
}

#[test]
fn sgd_sums_past_gradients() {
    for (momentum, nesterov, weight_decay) in
        [(0.0, false, 0.0), (0.9, false, 0.0), (0.5, true, 0.0), (0.5, false, 0.1)]
    {
        let velocity = |grads: &[f64]| -> f64 {
            grads.iter().rev().zip(0..).map(|(grad, age)| f64::powi(momentum, age) * grad).sum()
        };
        let update = |grads: &[f64]| match nesterov {
            true => grads[grads.len() - 1] + momentum * velocity(grads),
            false => velocity(grads),
        };
        follows(Sgd { momentum, nesterov, weight_decay }, 0.01, 1.0, weight_decay, update);
    }
}

#[test]
fn adam_divides_the_mean_by_the_root_of_the_mean_square() {
    let adam = Adam { betas: (0.8, 0.95), ..Adam::default() };
    let update = |grads: &[f64]| {
        mean(0.8, grads.iter().copied()) / (mean(0.95, grads.iter().map(|grad| grad * grad)).sqrt() + 1e-8)
    };
    follows(adam, 0.01, 1.0, 0.0, update);
    follows(Adam { weight_decay: 0.1, ..adam }, 0.01, 1.0 - 0.01 * 0.1, 0.0, update);
    follows(Adam { weight_decay: 0.1, decoupled: false, ..adam }, 0.01, 1.0, 0.1, update);
}

/// Decay is no part of the golden trajectories.
#[test]
fn radam_decays_weights_beside_the_gradient() {
    let mut tensor = Tensor::new(RAdam { weight_decay: 0.5, ..RAdam::default() }, &[2.0]);
    for _ in 0..10 {
        tensor.step(&[0.0], 0.125);
    }
    // (1 − 1/16)¹⁰, each factor exact and ten products rounded.
    let exact = 2.0 * (15.0_f32 / 16.0).powi(10);
    assert!((tensor.weight[0] - exact).abs() <= 10.0 * f32::EPSILON, "{}", tensor.weight[0]);
}

#[test]
fn lookahead_goes_around_any_rule() {
    let plain = Sgd { momentum: 0.0, ..Sgd::default() };
    let mut tensor = Tensor::new(Lookahead { inner: Box::new(plain) as Box<dyn Optimizer>, k: 2, alpha: 0.5 }, &[0.0]);
    // Steps of −1. Slow weights start at −1; the meetings are at steps 3 and 5. All numbers are exact.
    let weights = [-1.0, -2.0, -2.0, -3.0, -3.0, -4.0];
    for weight in weights {
        tensor.step(&[1.0], 1.0);
        assert_eq!(tensor.weight, [weight]);
    }
}

#[test]
fn schedules_start_at_one_and_end_where_they_should() {
    let official = Schedule::official();
    for (epoch, factor) in [(0, 1.0), (19, 1.0), (20, 0.1), (29, 0.1), (30, 0.01), (49, 0.01)] {
        // 0.1 · 0.1 differs from 0.01 by one rounding.
        assert!((official.factor(epoch) - factor).abs() <= f64::EPSILON * factor, "{epoch}");
    }
    let cosine = Schedule::Cosine { length: 10, floor: 0.2 };
    assert_eq!([cosine.factor(0), cosine.factor(10), cosine.factor(99)], [1.0, 0.2, 0.2]);
    // Half way: cos(π/2), rounded, is 6e-17.
    assert!((cosine.factor(5) - 0.6).abs() <= f64::EPSILON);
    assert!((0..10).all(|time| cosine.factor(time) > cosine.factor(time + 1)));
    assert_eq!(Schedule::Cosine { length: 0, floor: 0.5 }.factor(0), 0.5);
    assert_eq!(Schedule::Constant.factor(1 << 40), 1.0);
}
