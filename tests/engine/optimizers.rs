//! Optimisers move weights as the official code does, or as their papers say.

use crate::common::cuda::{assert_clean, cuda_device};
use crate::common::dot::dot;
use crate::common::fixture::{self, Fixture};
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::models::{Architecture, Family, NetworkConfig};
use ossnet::nn::optim::{Lookahead, Optimizer, OptimizerSettings, UpdateRule};
use ossnet::nn::{ParamId, ParameterKind, Parameters};
use ossnet::rng::Rng;
use ossnet::tape::{Mode, Tape};
use ossnet::tensor::Tensor;

/// The CPU and CUDA.
fn devices() -> impl Iterator<Item = Device> {
    std::iter::once(Device::cpu(2, 1 << 26).unwrap()).chain(cuda_device(1))
}

/// Tensors with their optimiser.
struct Weights {
    parameters: Parameters,
    ids: Vec<ParamId>,
    optimizer: Optimizer,
}

impl Weights {
    fn new(device: &Device, settings: OptimizerSettings, tensors: &[(ParameterKind, &[f32])]) -> Self {
        let mut parameters = Parameters::new(device);
        let mut add = |(kind, values): &(ParameterKind, &[f32])| {
            parameters.add("w", *kind, &[values.len()], |weights| weights.copy_from_slice(values)).unwrap()
        };
        let ids = tensors.iter().map(&mut add).collect();
        let optimizer = Optimizer::new(settings, &parameters).unwrap();
        Self { parameters, ids, optimizer }
    }

    fn values(&self, tensor: usize) -> Vec<f32> {
        self.parameters.get(self.ids[tensor]).value().to_vec().unwrap()
    }

    /// One step: the loss is the weights' product with their gradients.
    fn step(&mut self, gradients: &[&[f32]]) {
        let device = self.parameters.device().clone();
        let tape = Tape::new(&device, Mode::Train);
        for (id, gradient) in self.ids.iter().zip(gradients) {
            let weights = tape.parameter(&self.parameters, *id);
            let gradient = Tensor::from_slice(&device, &[gradient.len()], Role::Data, gradient).unwrap();
            let loss = dot(&tape, &weights, gradient).unwrap();
            drop(weights);
            tape.backward(loss, &mut self.parameters).unwrap();
        }
        self.optimizer.step(&mut self.parameters, 1.0).unwrap();
        self.parameters.clear_gradients();
        assert_clean();
    }
}

/// The official trajectories: with the defect that gives every tensor the first group's rate, and without.
#[test]
fn lookahead_radam_follows_the_official_trajectories() {
    let fixture = Fixture::open(&fixture::path("lookahead_radam.npz"));
    for (variant, w_rate, pau_rate) in [("", 3e-4, 3e-4), ("_intended", 3e-4, 1e-2), ("_paufirst", 1e-2, 1e-2)] {
        let (w_rows, pau_rows) = (fixture.f32(&format!("w{variant}")), fixture.f32(&format!("pau{variant}")));
        let settings =
            OptimizerSettings { rate: w_rate, activation_rate: Some(pau_rate), ..OptimizerSettings::default() };
        for device in devices() {
            let tensors = [(ParameterKind::Weight, &w_rows[..5]), (ParameterKind::Pade, &pau_rows[..4])];
            let mut weights = Weights::new(&device, settings, &tensors);
            for row in 1..=20 {
                // loss = ½ Σ (i+1)(wᵢ − 1)² + ½ Σ cᵢ (pauᵢ + ½)² + 0.1 Σ wᵢ pauᵢ
                let (w, pau) = (weights.values(0), weights.values(1));
                let mut w_gradient: Vec<f32> = (0..5).map(|i| (i + 1) as f32 * (w[i] - 1.0)).collect();
                let curvature = [2.0, 0.5, 1.0, 4.0];
                let mut pau_gradient: Vec<f32> = (0..4).map(|i| curvature[i] * (pau[i] + 0.5)).collect();
                for i in 0..4 {
                    w_gradient[i] += 0.1 * pau[i];
                    pau_gradient[i] += 0.1 * w[i];
                }
                weights.step(&[&w_gradient, &pau_gradient]);
                // A step rounds each weight once here and once there, half a unit in the last place each, and moves it
                // by at most a twentieth of itself, whose own relative error is a few units.
                let ours = [weights.values(0), weights.values(1)].concat();
                let official = [&w_rows[5 * row..5 * row + 5], &pau_rows[4 * row..4 * row + 4]].concat();
                for (ours, official) in ours.iter().zip(official) {
                    let tolerance = row as f32 * f32::EPSILON * official.abs().max(1.0);
                    let error = (ours - official).abs();
                    assert!(error <= tolerance, "{device:?}: {variant} step {row}: {ours} against {official}");
                }
            }
        }
    }
}

/// A sequence of gradients without a pattern.
const GRADIENTS: [f64; 12] = [0.5, -0.75, 1e-3, 0.0, 2.5, -1.0, 0.0625, 0.5, -3.0, 1.0, 0.25, -0.5];

/// Applies `settings` to the gradients and compares with `update`: the new weight in f64, given the weight and the
/// gradients so far.
fn follows(rule: UpdateRule, update: impl Fn(f64, &[f64]) -> f64) {
    let settings = OptimizerSettings { rule, lookahead: None, rate: 0.125, activation_rate: None };
    for device in devices() {
        let mut weights = Weights::new(&device, settings, &[(ParameterKind::Weight, &[1.0])]);
        let mut exact = 1.0;
        for count in 1..=GRADIENTS.len() {
            weights.step(&[&[GRADIENTS[count - 1] as f32]]);
            exact = update(exact, &GRADIENTS[..count]);
            // Each step rounds a handful of times.
            let ours = weights.values(0)[0];
            let error = (f64::from(ours) - exact).abs();
            assert!(error < 1e-6 * count as f64, "{device:?}: {rule:?} step {count}: {ours} against {exact}");
        }
    }
}

/// `Σ decay^(n−1−i)·value(gᵢ)`: what an exponential average or a momentum remembers.
fn remembered(gradients: &[f64], decay: f64, value: fn(f64) -> f64) -> f64 {
    gradients.iter().fold(0.0, |sum, &g| decay * sum + value(g))
}

#[test]
fn sgd_with_momentum() {
    let rule = UpdateRule::Sgd { momentum: 0.5, weight_decay: 0.0 };
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
    follows(UpdateRule::adam(), adam(1.0));
    let decoupled = UpdateRule::Adam { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.5, decoupled: true };
    follows(decoupled, adam(1.0 - 0.125 * 0.5));
}

#[test]
fn lookahead_goes_part_of_the_way() {
    let rule = UpdateRule::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let lookahead = Some(Lookahead { every: 2, alpha: 0.5 });
    let settings = OptimizerSettings { rule, lookahead, rate: 1.0, activation_rate: None };
    for device in devices() {
        let mut weights = Weights::new(&device, settings, &[(ParameterKind::Weight, &[0.0])]);
        let seen: Vec<f32> = (0..5)
            .map(|_| {
                weights.step(&[&[-1.0]]);
                weights.values(0)[0]
            })
            .collect();
        // Slow copy 1 after the first step; corrections at steps 3 and 5: half of the way from 1 to 3, from 2 to 4.
        assert_eq!(seen, [1.0, 2.0, 2.0, 3.0, 3.0]);
    }
}

#[test]
fn many_tensors_move_on_cuda_as_on_the_cpu() {
    let Some(cuda) = cuda_device(1) else { return };
    let steps_launched = || -> u64 {
        let launches = cuda.launches_by_kernel();
        launches.iter().filter(|(name, _)| *name == "optimizer_step").map(|(_, count)| count).sum()
    };
    let adamw = UpdateRule::Adam { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.1, decoupled: true };
    let sgd = UpdateRule::Sgd { momentum: 0.9, weight_decay: 0.1 };
    let wave = |n: usize, seed: usize| (0..n).map(|i| ((i * 7 + seed * 13) as f32 * 0.37).sin()).collect::<Vec<f32>>();
    for rule in [UpdateRule::radam(), adamw, sgd] {
        let lookahead = Some(Lookahead { every: 2, alpha: 0.8 });
        let settings = OptimizerSettings { rule, lookahead, rate: 1e-2, activation_rate: Some(3e-2) };
        // More tensors than a launch takes; lengths that fill no vector; more than one piece of state.
        let lengths: Vec<usize> = (0..514).map(|i| if i == 40 { 40_001 } else { 1 + i % 7 }).collect();
        let values: Vec<Vec<f32>> = lengths.iter().enumerate().map(|(i, &n)| wave(n, i)).collect();
        let kinds = [ParameterKind::Weight, ParameterKind::Pade];
        let tensors: Vec<(ParameterKind, &[f32])> =
            values.iter().enumerate().map(|(i, v)| (kinds[i % 2], &v[..])).collect();
        let cpu = Device::cpu(2, 1 << 26).unwrap();
        let mut both = [&cpu, &cuda].map(|device| Weights::new(device, settings, &tensors));
        for step in 1..=7 {
            let gradients: Vec<Vec<f32>> = lengths.iter().enumerate().map(|(i, &n)| wave(n, i + step)).collect();
            let gradients: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
            let before = steps_launched();
            both.iter_mut().for_each(|weights| weights.step(&gradients));
            assert_eq!(steps_launched() - before, 2);
        }
        let state = |weights: &Weights| -> Vec<Vec<f32>> {
            weights.optimizer.state().iter().map(|state| state.to_vec().unwrap()).collect()
        };
        let all = |weights: &Weights| -> Vec<f32> {
            (0..lengths.len()).flat_map(|i| weights.values(i)).chain(state(weights).concat()).collect()
        };
        // A few roundings a step, of numbers below 4.
        let close = |[a, b]: [Vec<f32>; 2]| a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 2e-6) && a.len() == b.len();
        assert!(close(both.each_ref().map(all)), "{rule:?}");
        // What CUDA remembers, the CPU goes on from.
        let (steps, stored) = (both[1].optimizer.steps(), state(&both[1]));
        both[0].optimizer.restore(steps, &stored).unwrap();
        let gradients: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        both.iter_mut().for_each(|weights| weights.step(&gradients));
        assert!(close(both.each_ref().map(all)), "{rule:?} after going on");
    }
}

/// The rate of Padé coefficients is theirs alone: the slopes of a U-Net's PReLUs take the common one (at 1e-2 they run away,
/// and the network learns nothing).
#[test]
fn only_pade_coefficients_have_a_rate_of_their_own() {
    let device = Device::plan_for(Device::cpu(1, 1 << 20).unwrap().target(), 1 << 40);
    for name in ["unet3d", "unet2d", "full", "vanilla_o_net"] {
        let mut parameters = Parameters::new(&device);
        let config = NetworkConfig::official(name, Family::Brats).unwrap();
        config.build(&mut parameters, &mut Rng::new(0)).unwrap();
        let pade = |name: &str| name.ends_with(".weight_numerator") || name.ends_with(".weight_denominator");
        for parameter in parameters.iter() {
            let wanted = if pade(parameter.name()) { ParameterKind::Pade } else { ParameterKind::Weight };
            assert_eq!(parameter.kind(), wanted, "{name}: {}", parameter.name());
        }
        let coefficients = parameters.iter().filter(|parameter| parameter.kind() == ParameterKind::Pade).count();
        assert_eq!(coefficients > 0, !name.starts_with("unet"), "{name}");
    }
}
