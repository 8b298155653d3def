//! Recompute levels and schedules: gradients are those of level 0.

use ossnet::device::Device;
use ossnet::device::cpu::{Pool, SimdLevel};
use ossnet::models::{Architecture, Family, NetworkConfig, Recompute, Schedule, UnitChoice};
use ossnet::rng::Rng;
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

type Gradients = Vec<(String, Vec<f32>)>;

fn gradients(config: &NetworkConfig, sizes: StepSizes, recompute: Recompute) -> Gradients {
    gradients_on(&Device::cpu(2, 4 << 30).unwrap(), config, StepSizes { recompute, ..sizes })
}

fn gradients_on(device: &Device, config: &NetworkConfig, sizes: StepSizes) -> Gradients {
    SyntheticStep::new(device, config, sizes).unwrap().gradients().unwrap()
}

/// The largest difference of each parameter's gradient from `exact`, relative to the largest element of that gradient.
///
/// A bias in front of a batch norm has no gradient but rounding: it is measured by its layer's weights.
fn differences(exact: &Gradients, other: &Gradients) -> Vec<(String, f64)> {
    assert_eq!(exact.len(), other.len());
    let largest = |values: &[f32]| values.iter().fold(0.0f64, |largest, &value| largest.max(f64::from(value).abs()));
    let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
    let pairs = exact.iter().zip(other).enumerate().map(|(i, ((name, values), (other_name, others)))| {
        assert_eq!((name, values.len()), (other_name, others.len()));
        let scale = match name.as_str() {
            "encoder.final_mapping.0.bias" => &exact[i - 1].1,
            _ => values,
        };
        let difference = difference(values, others);
        (name.clone(), if difference == 0.0 { 0.0 } else { difference / largest(scale) })
    });
    pairs.collect()
}

/// Sums over voxels and points that are taken in another order differ by some units of 2⁻²⁴ ≈ 6e-8 of their largest
/// terms. A gradient is the end of some forty such ops, and those of Padé coefficients are sums of 77,000 terms of either
/// sign that cancel to a thousandth: 6e-8 · √40 · 1000 = 4e-4. [`instruction_sets_differ_by_as_much`] measures the same.
const ROUNDING: f64 = 4e-4;

/// A U-Net runs the same kernels on the same values in the same order at every level: its gradients are bit for bit those of
/// level 0. An occupancy network sums gradients of the decoder's last block chunk by chunk from level 1 on, statistics and
/// gradients of the encoder's convolutions slab by slab from level 2 on, those of the whole decoder chunk by chunk at
/// level 3: equal to rounding. A forward pass, and so a loss, is the same bit for bit but for the slabs' statistics.
fn check(config: &NetworkConfig, sizes: StepSizes, others: &[Recompute]) {
    let exact = gradients(config, sizes, Recompute::Activations);
    assert!(exact.iter().any(|(_, values)| values.iter().any(|value| *value != 0.0)));
    let unet = matches!(config, NetworkConfig::UNet(_));
    for &level in others {
        let most = if unet { 0.0 } else { ROUNDING };
        for (name, difference) in differences(&exact, &gradients(config, sizes, level)) {
            let title = config.title();
            assert!(difference <= most, "{title} level {level}: gradient of {name} differs by {difference:.2e}");
        }
    }
}

/// Of every official network with the feature `exhaustive`, else of four in which every part is once there and once not.
#[test]
fn gradients_of_official_networks_are_those_of_level_0() {
    let four = || vec!["vanilla_o_net", "C2", "D2", "E1"];
    for name in if cfg!(feature = "exhaustive") { ossnet::models::config::names() } else { four() } {
        let volume = [32, 32, 32];
        let config = NetworkConfig::sample(name, 2, 1, volume).unwrap();
        check(&config, StepSizes::new(volume, 2, 300), &Recompute::LEVELS[1..]);
    }
}

#[test]
fn gradients_of_the_u_nets_are_those_of_level_0() {
    for (name, volume) in [("unet3d", [32, 16, 32]), ("unet2d", [32, 48, 1])] {
        let config = NetworkConfig::official(name, Family::Brats).unwrap();
        check(&config, StepSizes::new(volume, 2, 0), &Recompute::LEVELS[1..]);
    }
}

/// A choice for each unit, at random.
pub fn drawn(architecture: &dyn Architecture, rng: &mut Rng) -> Recompute {
    let mut choice = |choices: &[UnitChoice]| choices[rng.below(choices.len() as u64) as usize];
    let choices: Vec<_> = architecture.units().iter().map(|unit| choice(unit.choices)).collect();
    Recompute::Units(Schedule::new(&choices).unwrap())
}

/// Five schedules of each network, with the feature `exhaustive` a hundred.
#[test]
fn gradients_of_drawn_schedules_are_those_of_level_0() {
    let mut rng = Rng::new(170);
    for (name, volume) in [("C2", [32; 3]), ("D2", [32; 3]), ("unet3d", [32, 16, 32]), ("unet2d", [32, 48, 1])] {
        let config = NetworkConfig::sample(name, 2, 1, volume).unwrap();
        let count = if cfg!(feature = "exhaustive") { 100 } else { 5 };
        let schedules: Vec<Recompute> = (0..count).map(|_| drawn(&config, &mut rng)).collect();
        check(&config, StepSizes::new(volume, 2, 300), &schedules);
    }
}

/// What rounding alone makes of a gradient: level 0 with another instruction set, whose sums are cut differently.
#[test]
fn instruction_sets_differ_by_as_much() {
    let levels = SimdLevel::available();
    let (Some(&first), Some(&last)) = (levels.first(), levels.last()) else { return };
    if first == last {
        return println!("this machine has one instruction set: nothing to compare");
    }
    let volume = [32, 32, 32];
    let config = NetworkConfig::sample("D1", 2, 1, volume).unwrap();
    let on = |simd| {
        let pool = Pool::start_with_simd(2, simd).unwrap();
        gradients_on(&Device::cpu_with_pool(pool, 4 << 30).unwrap(), &config, StepSizes::new(volume, 2, 300))
    };
    let worst = differences(&on(first), &on(last)).into_iter().map(|(_, difference)| difference).fold(0.0, f64::max);
    println!("{first:?} and {last:?}: {worst:.1e}");
    assert!(worst > ROUNDING / 40.0 && worst < ROUNDING, "{worst:.1e}");
}
