//! Recompute levels: gradients are those of level 0.

use ossnet::device::Device;
use ossnet::models::{Family, NetworkConfig, Recompute};
use ossnet::train::rehearsal::{Sizes, Stage};

type Gradients = Vec<(String, Vec<f32>)>;

fn gradients(config: &NetworkConfig, sizes: Sizes, recompute: Recompute) -> Gradients {
    let device = Device::cpu(2, 4 << 30).unwrap();
    Stage::new(&device, config, Sizes { recompute, ..sizes }).unwrap().gradients().unwrap()
}

/// The largest difference of each parameter's gradient from `exact`, relative to the largest element of that gradient.
fn differences(exact: &Gradients, other: &Gradients) -> Vec<(String, f64)> {
    assert_eq!(exact.len(), other.len());
    let pairs = exact.iter().zip(other).map(|((name, exact), (other_name, other))| {
        assert_eq!((name, exact.len()), (other_name, other.len()));
        let largest = exact.iter().fold(0.0f64, |largest, &value| largest.max(f64::from(value).abs()));
        let difference = exact.iter().zip(other).map(|(a, b)| f64::from(a - b).abs()).fold(0.0, f64::max);
        (name.clone(), if difference == 0.0 { 0.0 } else { difference / largest })
    });
    pairs.collect()
}

/// Levels 1 and 2 run the same kernels on the same values in the same order: their gradients are bit for bit those of
/// level 0.
fn check(config: &NetworkConfig, sizes: Sizes) {
    let exact = gradients(config, sizes, Recompute::Activations);
    assert!(exact.iter().any(|(_, values)| values.iter().any(|value| *value != 0.0)));
    for level in [Recompute::Decoder, Recompute::Blocks, Recompute::Chunks] {
        for (name, difference) in differences(&exact, &gradients(config, sizes, level)) {
            assert!(
                difference == 0.0,
                "{} level {level}: gradient of {name} differs by {difference:.2e}",
                config.title()
            );
        }
    }
}

#[test]
fn gradients_of_every_published_network_are_those_of_level_0() {
    for name in ossnet::models::config::names() {
        let volume = [32, 32, 32];
        let config = NetworkConfig::sample(name, 2, 1, volume).unwrap();
        check(&config, Sizes::new(volume, 2, 300));
    }
}

#[test]
fn gradients_of_the_u_nets_are_those_of_level_0() {
    for (name, volume) in [("unet3d", [32, 16, 32]), ("unet2d", [32, 48, 1])] {
        let config = NetworkConfig::official(name, Family::Brats).unwrap();
        check(&config, Sizes::new(volume, 2, 0));
    }
}
