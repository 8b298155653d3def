//! The planner's truth: what it predicts is what a run does, event by event, and no size makes it stumble.

use std::sync::Arc;
use std::time::Instant;

use crate::recompute::drawn;
use ossnet::device::cpu::SimdLevel;
use ossnet::device::{CudaTarget, Device, Target};
use ossnet::models::{Architecture, Family, NetworkConfig, Recompute};
use ossnet::nn::optim::{Lookahead, OptimizerSettings, UpdateRule};
use ossnet::planner::Workload;
use ossnet::rng::Rng;
use ossnet::tape::Precision;
use ossnet::train::config::RunConfig;
use ossnet::train::dry_run::{StepKind, StepSizes, SyntheticStep, dry_run};

fn optimizers() -> [OptimizerSettings; 4] {
    let plain = |rule| OptimizerSettings { rule, lookahead: None, rate: 1e-3, activation_rate: None };
    [
        OptimizerSettings::default(),
        plain(UpdateRule::adam()),
        plain(UpdateRule::Sgd { momentum: 0.9, weight_decay: 0.0 }),
        OptimizerSettings {
            lookahead: Some(Lookahead::default()),
            ..plain(UpdateRule::Sgd { momentum: 0.0, weight_decay: 1e-4 })
        },
    ]
}

/// Allocations, frees and changes of role, with op, layer, phase, sizes, place and what lives then, of a run and its plan.
fn check(config: &NetworkConfig, sizes: StepSizes) {
    let cpu = Device::cpu(2, 2 << 30).unwrap();
    let (run, plan) = (dry_run(&cpu, config, sizes, 2).unwrap(), dry_run(&cpu.planned(), config, sizes, 2).unwrap());
    let what = format!("{} {sizes:?}", config.title());
    assert!(!run.events.is_empty(), "{what}");
    if let Some(i) = (0..run.events.len().min(plan.events.len())).find(|&i| run.events[i] != plan.events[i]) {
        panic!("{what}: event {i} is {:?}, was planned as {:?}", run.events[i], plan.events[i]);
    }
    assert_eq!(run.events.len(), plan.events.len(), "{what}");
    assert_eq!((run.reserved, run.peak_activations), (plan.reserved, plan.peak_activations), "{what}");
}

/// Every network at every level with changing batches, points and optimisers, and in evaluation and inference: 114
/// combinations with the feature `exhaustive`, else every fifth of them: each network once, each level and step with three.
#[test]
fn a_plan_equals_the_run_event_by_event() {
    let mut combinations = 0;
    let mut due = || {
        combinations += 1;
        cfg!(feature = "exhaustive") || combinations % 5 == 1
    };
    let mut checked = 0;
    for (n, name) in ossnet::models::network::names().into_iter().enumerate() {
        let classes = 1 + n % 3;
        let volume = [[32, 32, 32], [32, 48, 32]][n % 2];
        let config = NetworkConfig::sample(name, 1 + n % 2, classes, volume).unwrap();
        for (level, recompute) in Recompute::LEVELS.into_iter().enumerate() {
            let sizes = StepSizes::new(volume, 1 + (n + level) % 2, [90, 128, 70, 131][level]);
            if due() {
                check(&config, StepSizes { recompute, optimizer: optimizers()[(n + level) % 4], ..sizes });
                checked += 1;
            }
        }
        for step in [StepKind::Evaluate, StepKind::Infer] {
            let recompute = Recompute::LEVELS[n % 4];
            if due() {
                check(&config, StepSizes { recompute, step, ..StepSizes::new(volume, 2, 100) });
                checked += 1;
            }
        }
    }
    assert!(checked >= if cfg!(feature = "exhaustive") { 110 } else { 22 }, "{checked}");
}

/// Schedules drawn unit by unit.
#[test]
fn a_plan_of_any_schedule_equals_the_run_event_by_event() {
    let mut rng = Rng::new(171);
    for (n, name) in ["oss-net-a", "oss-net-c", "oss-net-d", "o-net", "unet3d", "unet2d"].into_iter().enumerate() {
        let volume = [[32, 32, 32], [32, 48, 32]][n % 2];
        let config = NetworkConfig::sample(name, 1 + n % 2, 2, volume).unwrap();
        for _ in 0..if cfg!(feature = "exhaustive") { 40 } else { 4 } {
            let recompute = drawn(&config, &mut rng);
            check(&config, StepSizes { recompute, ..StepSizes::new(volume, 1 + n % 2, 2300) });
        }
    }
}

/// What is reserved above what lives at the peak, the granules of CUDA apart: at most a hundredth, for every network, level and
/// precision of a training step, and for every pass of a U-Net, at its published size and at a small one with two volumes; with
/// the feature `exhaustive` all of them, else every fifth.
#[test]
fn holes_cost_at_most_a_hundredth() {
    const GRANULE: u64 = 2 << 20;
    let cuda = Target::Cuda(CudaTarget::named("sm_80").unwrap());
    let cpu = Target::Cpu { threads: 2, simd: SimdLevel::detect() };
    let (mut combinations, mut checked, mut worst) = (0, 0, (0.0, String::new()));
    for name in ossnet::models::network::names() {
        for (n, (volume, batch, points)) in [([128; 3], 1, 16384), ([32, 48, 32], 2, 131)].into_iter().enumerate() {
            let config =
                if n == 0 { official(name, volume) } else { NetworkConfig::sample(name, 1, 2, volume).unwrap() };
            let train = Recompute::LEVELS.map(|recompute| (StepKind::Train, recompute));
            let other = [StepKind::Evaluate, StepKind::Infer].map(|step| (step, Recompute::default()));
            // The points of an occupancy network are asked chunk by chunk, each placed by best fit.
            let other = other.into_iter().filter(|_| matches!(config, NetworkConfig::UNet(_)));
            for (step, recompute) in train.into_iter().chain(other) {
                for (target, precision) in [(cpu, Precision::F32), (cuda, Precision::F32), (cuda, Precision::Bf16)] {
                    combinations += 1;
                    if !cfg!(feature = "exhaustive") && combinations % 5 != 1 {
                        continue;
                    }
                    let sizes = StepSizes { step, recompute, precision, ..StepSizes::new(volume, batch, points) };
                    let device = Device::plan_for(target, 1 << 50);
                    let cost = Workload { network: Arc::new(config.clone()), sizes }.dry_run(&device, 2).unwrap();
                    let slack = if matches!(target, Target::Cuda(_)) { GRANULE } else { 0 };
                    let live = cost.peak.by_role.total();
                    let ratio = cost.reserved.saturating_sub(slack) as f64 / live as f64;
                    assert!(cost.reserved >= live);
                    checked += 1;
                    if ratio > 1.01 {
                        println!("{ratio:.4}: {} {sizes:?} for {target:?}", config.title());
                    }
                    if ratio > worst.0 {
                        worst = (ratio, format!("{} {sizes:?} for {target:?}", config.title()));
                    }
                }
            }
        }
    }
    println!("{checked} plans, at most {:.4} of the peak reserved: {}", worst.0, worst.1);
    assert!(worst.0 <= 1.01, "{} of {}", worst.0, worst.1);
}

/// Several slabs (planes of 256×256 voxels) and several chunks of points.
#[test]
fn plans_of_several_slabs_and_chunks_equal_the_run() {
    let volume = [8, 512, 512];
    let config = NetworkConfig::sample("full", 1, 1, volume).unwrap();
    for recompute in [Recompute::Activations, Recompute::Chunks] {
        check(&config, StepSizes { recompute, ..StepSizes::new(volume, 1, 2300) });
    }
    check(&config, StepSizes { step: StepKind::Infer, ..StepSizes::new(volume, 1, 100) });
}

fn official(name: &str, volume: [usize; 3]) -> NetworkConfig {
    let config = NetworkConfig::official(name, Family::Brats).unwrap();
    let (channels, classes) = (config.image_channels(), config.classes());
    config.adapted(channels, classes, volume)
}

fn plan(budget: u64) -> Device {
    Device::plan(2, SimdLevel::detect(), budget)
}

#[test]
fn plans_of_the_largest_volumes_take_no_time() {
    for name in ["full", "full2", "unet3d"] {
        let config = official(name, [1024; 3]);
        for recompute in Recompute::LEVELS {
            let started = Instant::now();
            let sizes = StepSizes { recompute, ..StepSizes::new([1024; 3], 1, 1 << 16) };
            let large = dry_run(&plan(1 << 50), &config, sizes, 1).unwrap();
            assert!(large.peak_activations > 2 << 30);
            // "Well under a second" on an idle machine; tests share theirs.
            assert!(started.elapsed().as_secs_f64() < 2.0, "{name} level {recompute}: {:?}", started.elapsed());
        }
    }
}

/// Both kinds of network learn with every activation that flags name, as planned, and a checkpoint keeps it.
#[test]
fn any_activation_for_both_networks() {
    let (volume, sizes) = ([16; 3], StepSizes { optimizer: optimizers()[1], ..StepSizes::new([16; 3], 2, 40) });
    for name in ["oss-net-c-small", "unet3d"] {
        let network = |activation: &str| {
            let flags =
                format!("model = '{name}'\n[network]\nactivation = '{activation}'\nwidth = 16\nchannels = [4, 8]");
            RunConfig::resolve(None, flags.parse().unwrap(), false)?.network(1, 1, volume)
        };
        let own = network("").unwrap();
        assert!(network("relu").unwrap().title().contains("activation relu"));
        assert!(network("gelu").unwrap_err().to_string().contains("leaky-relu"));
        let mut losses = Vec::new();
        for activation in ["pade-5/4", "pade-3/3", "pade-7/7", "relu", "leaky-relu-0.2", "prelu"] {
            let config = network(activation).unwrap();
            assert_eq!(serde_json::from_str::<NetworkConfig>(&config.to_json().unwrap()).unwrap(), config);
            check(&config, sizes);
            let mut step = SyntheticStep::new(&Device::cpu(1, 1 << 30).unwrap(), &config, sizes).unwrap();
            let before = step.loss().unwrap();
            (0..5).for_each(|_| step.step().unwrap());
            assert!(step.loss().unwrap() < before, "{name} with {activation} does not learn");
            losses.push((before, config == own));
        }
        assert_eq!(losses.iter().filter(|(_, own)| *own).count(), 1, "the network's own is among them");
        losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(losses.windows(2).all(|pair| pair[0].0 != pair[1].0), "{name}: {losses:?}");
    }
    let unet = NetworkConfig::official("unet3d", Family::Brats).unwrap().to_json().unwrap();
    assert!(!unet.contains("activation"), "checkpoints keep their bytes: {unet}");
}

/// Sides, batches and points from nothing to what no machine addresses: an error or a plan, never a panic (the tests are
/// built with overflow checks) and never a small number.
#[test]
fn absurd_sizes_are_errors() {
    let mut rng = Rng::new(9);
    let mut draw = |most: u64| match rng.below(6) {
        0 => rng.below(3) as usize,
        1 => usize::MAX >> rng.below(40),
        _ => (1usize << rng.below(most)) * (1 + rng.below(3) as usize),
    };
    let (mut errors, mut plans) = (0, 0);
    for n in 0..600 {
        let volume = [draw(18), draw(18), draw(18)];
        let name = ["full", "B", "o-net", "unet3d", "unet2d", "full2"][n % 6];
        let config = official(name, volume);
        let sizes = StepSizes {
            recompute: Recompute::LEVELS[n % 4],
            step: [StepKind::Train, StepKind::Evaluate, StepKind::Infer][n % 3],
            ..StepSizes::new(volume, draw(7), draw(26))
        };
        match dry_run(&plan(1 << 36), &config, sizes, 1) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
            Ok(cost) => {
                let voxels: u128 = volume.iter().map(|&side| side as u128).product();
                let data = voxels * sizes.batch as u128 * 4 * config.image_channels() as u128;
                let whole = matches!(config, NetworkConfig::OssNet(_)) || name == "unet3d";
                assert!(!whole || u128::from(cost.peak.by_role.total()) >= data, "{name} {sizes:?}");
                plans += 1;
            }
        }
    }
    assert!(errors > 100 && plans > 20, "{errors} errors, {plans} plans");
}

/// 512³, besides the volume: encoder blocks run in slabs.
#[test]
fn inference_on_512_cubed_takes_less_than_a_gibibyte() {
    for family in [Family::Brats, Family::Lits] {
        for name in ossnet::models::config::names() {
            let config = NetworkConfig::official(name, family).unwrap();
            let (channels, classes) = (config.image_channels(), config.classes());
            let config = config.adapted(channels, classes, [512; 3]);
            let sizes = StepSizes { step: StepKind::Infer, ..StepSizes::new([512; 3], 1, 1 << 14) };
            let cost = dry_run(&plan(1 << 40), &config, sizes, 1).unwrap();
            assert!(cost.peak_activations < 1 << 30, "{name} {family:?}: {} bytes", cost.peak_activations);
        }
    }
}
