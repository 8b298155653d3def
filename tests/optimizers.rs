//! Optimisers move weights as the official code does, or as their papers say.

use common::fixture::{self, Fixture};
use ossnet::nn::optim::{Lookahead, OptimizerSettings, Rule};

mod common;

/// The weights of one tensor with the state of their optimiser.
struct Weights {
    settings: OptimizerSettings,
    rate: f32,
    values: Vec<f32>,
    state: Vec<f32>,
    step: u64,
}

impl Weights {
    fn new(settings: OptimizerSettings, rate: f32, values: &[f32]) -> Self {
        let state = vec![0.0; settings.slots() * values.len()];
        Self { settings, rate, values: values.into(), state, step: 0 }
    }

    fn step(&mut self, gradient: &[f32]) {
        self.step += 1;
        self.settings.step(self.step, self.rate, &mut self.values, gradient, &mut self.state);
    }
}

/// The official trajectories: with the defect that gives every tensor the first group's rate, and without.
#[test]
fn lookahead_radam_follows_the_official_trajectories() {
    let fixture = Fixture::open(&fixture::path("lookahead_radam.npz"));
    for (variant, w_rate, pau_rate) in [("", 3e-4, 3e-4), ("_intended", 3e-4, 1e-2), ("_paufirst", 1e-2, 1e-2)] {
        let (w_rows, pau_rows) = (fixture.f32(&format!("w{variant}")), fixture.f32(&format!("pau{variant}")));
        let mut w = Weights::new(OptimizerSettings::default(), w_rate, &w_rows[..5]);
        let mut pau = Weights::new(OptimizerSettings::default(), pau_rate, &pau_rows[..4]);
        for row in 1..=20 {
            // loss = ½ Σ (i+1)(wᵢ − 1)² + ½ Σ cᵢ (pauᵢ + ½)² + 0.1 Σ wᵢ pauᵢ
            let mut w_gradient: Vec<f32> = (0..5).map(|i| (i + 1) as f32 * (w.values[i] - 1.0)).collect();
            let curvature = [2.0, 0.5, 1.0, 4.0];
            let mut pau_gradient: Vec<f32> = (0..4).map(|i| curvature[i] * (pau.values[i] + 0.5)).collect();
            for i in 0..4 {
                w_gradient[i] += 0.1 * pau.values[i];
                pau_gradient[i] += 0.1 * w.values[i];
            }
            w.step(&w_gradient);
            pau.step(&pau_gradient);
            // A step rounds each weight once here and once there, half a unit in the last place each, and moves it
            // by at most a twentieth of itself, whose own relative error is a few units.
            let (w_official, pau_official) = (&w_rows[5 * row..5 * row + 5], &pau_rows[4 * row..4 * row + 4]);
            for (ours, official) in w.values.iter().chain(&pau.values).zip(w_official.iter().chain(pau_official)) {
                let tolerance = row as f32 * f32::EPSILON * official.abs().max(1.0);
                let error = (ours - official).abs();
                assert!(error <= tolerance, "{variant} step {row}: {ours} against {official}");
            }
        }
    }
}

/// A sequence of gradients without a pattern.
const GRADIENTS: [f64; 12] = [0.5, -0.75, 1e-3, 0.0, 2.5, -1.0, 0.0625, 0.5, -3.0, 1.0, 0.25, -0.5];

/// Applies `settings` to the gradients and compares with `update`: the new weight in f64, given the weight and the
/// gradients so far.
fn follows(rule: Rule, update: impl Fn(f64, &[f64]) -> f64) {
    const RATE: f32 = 0.125;
    let settings = OptimizerSettings { rule, lookahead: None, rate: RATE, activation_rate: None };
    let mut weights = Weights::new(settings, RATE, &[1.0]);
    let mut exact = 1.0;
    for count in 1..=GRADIENTS.len() {
        weights.step(&[GRADIENTS[count - 1] as f32]);
        exact = update(exact, &GRADIENTS[..count]);
        // Each step rounds a handful of times.
        let error = (f64::from(weights.values[0]) - exact).abs();
        assert!(error < 1e-6 * count as f64, "{rule:?} step {count}: {} against {exact}", weights.values[0]);
    }
}

/// `Σ decay^(n−1−i)·value(gᵢ)`: what an exponential average or a momentum remembers.
fn remembered(gradients: &[f64], decay: f64, value: fn(f64) -> f64) -> f64 {
    gradients.iter().fold(0.0, |sum, &g| decay * sum + value(g))
}

#[test]
fn sgd_with_momentum() {
    let rule = Rule::Sgd { momentum: 0.5, weight_decay: 0.0 };
    follows(rule, |weight, gradients| weight - 0.125 * remembered(gradients, 0.5, |g| g));
}

#[test]
fn adam_and_its_decoupled_decay() {
    let adam = |shrink: f64| {
        move |weight: f64, gradients: &[f64]| {
            let n = gradients.len() as i32;
            let mean = 0.1 * remembered(gradients, 0.9, |g| g) / (1.0 - 0.9f64.powi(n));
            let square = 0.001 * remembered(gradients, 0.999, |g| g * g) / (1.0 - 0.999f64.powi(n));
            weight * shrink - 0.125 * mean / (square.sqrt() + 1e-8)
        }
    };
    follows(Rule::adam(), adam(1.0));
    let decoupled = Rule::Adam { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.5, decoupled: true };
    follows(decoupled, adam(1.0 - 0.125 * 0.5));
}

#[test]
fn lookahead_goes_part_of_the_way() {
    let rule = Rule::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let lookahead = Some(Lookahead { every: 2, alpha: 0.5 });
    let settings = OptimizerSettings { rule, lookahead, rate: 1.0, activation_rate: None };
    let mut weights = Weights::new(settings, 1.0, &[0.0]);
    let seen: Vec<f32> = (0..5)
        .map(|_| {
            weights.step(&[-1.0]);
            weights.values[0]
        })
        .collect();
    // Slow copy 1 after the first step; corrections at steps 3 and 5: half of the way from 1 to 3, from 2 to 4.
    assert_eq!(seen, [1.0, 2.0, 2.0, 3.0, 3.0]);
}
