//! Whole training steps on CUDA: the CPU's gradients, the plan's allocations, the same bits in any order of blocks.

use super::dry_run::{StepSizes, SyntheticStep};
use crate::device::Device;
use crate::models::{Architecture, NetworkConfig, OssNetConfig, Recompute, UNetConfig};
use crate::ops::testing::{assert_clean, cuda_device, oss_nets};

/// Of the largest element of each parameter's gradient. Both devices compute in f32 with sums in different orders: errors
/// of 2^-24 a term, made larger by some fifty layers of norms and rational activations, each with slopes of a few.
const TOLERANCE: f64 = 1e-3;

/// Of the loss: a mean of some ten to a thousand terms, each a logarithm of a network's output, which differs by a few units
/// of 2^-24 for each of some fifty layers.
const LOSS_TOLERANCE: f64 = 2e-5;

/// Of the largest element of all gradients: what counts as the scale of a gradient that is smaller. A bias in front of a
/// norm has no effect, so its gradient is nothing but roundings of sums of the network's scale; with this floor they may
/// be 1e-7 of that, one or two units of 2^-24.
const FLOOR: f32 = 1e-4;

type Gradients = Vec<(String, Vec<f32>)>;

/// The loss and all gradients.
fn step(device: &Device, config: &NetworkConfig, sizes: StepSizes) -> (f32, Gradients) {
    let mut stage = SyntheticStep::new(device, config, sizes).unwrap();
    (stage.loss().unwrap(), stage.gradients().unwrap())
}

fn check(config: &NetworkConfig, sizes: StepSizes) {
    let (expected_loss, expected) = step(&Device::cpu(1, 1 << 30).unwrap(), config, sizes);
    let mut earlier: Option<Gradients> = None;
    for seed in [0, 1] {
        let Some(device) = cuda_device(seed) else { return };
        device.ledger(|ledger| ledger.record(true));
        let (loss, ours) = step(&device, config, sizes);
        assert_clean();
        let difference = f64::from((loss - expected_loss).abs() / expected_loss);
        assert!(difference <= LOSS_TOLERANCE, "{}: losses {loss} and {expected_loss}", config.title());
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        step(&plan, config, sizes);
        let events = |device: &Device| device.ledger(|ledger| ledger.take_events());
        assert!(events(&plan) == events(&device), "{}: plan and run allocate differently", config.title());
        if let Some(earlier) = &earlier {
            assert!(*earlier == ours, "{}: the order of blocks changes the result", config.title());
            continue;
        }
        assert_eq!(ours.len(), expected.len());
        let largest_of = |values: &[f32]| values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let floor = FLOOR * expected.iter().map(|(_, values)| largest_of(values)).fold(0.0, f32::max);
        let gradient_of = |wanted: &str| -> &[f32] {
            expected.iter().find(|(name, _)| name == wanted).map_or(&[], |(_, gradient)| gradient)
        };
        for ((name, ours), (_, expected)) in ours.iter().zip(&expected) {
            // A bias in front of a batch norm: its gradient is zero but for the roundings of its layer's sums.
            let scale = match name.as_str() {
                "encoder.final_mapping.0.bias" => gradient_of("encoder.final_mapping.0.weight"),
                _ => expected,
            };
            let largest = largest_of(scale).max(floor);
            let difference = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let error = f64::from(difference) / f64::from(largest);
            assert!(
                error <= TOLERANCE,
                "{}: gradient of {name} is off by {error:.1e} of {largest:.1e}",
                config.title()
            );
        }
        earlier = Some(ours);
    }
}

/// A configuration of the occupancy network with little of everything.
fn oss_net(name: &str, classes: usize) {
    let volume = [16, 16, 16];
    let config = OssNetConfig::sample(name, 2, volume).unwrap();
    let config = OssNetConfig { width: 24, blocks: 2, classes, ..config };
    check(&NetworkConfig::OssNet(config), StepSizes::new(volume, 2, 20));
}

#[test]
fn official_configurations() {
    oss_nets().into_iter().for_each(|name| oss_net(name, 1));
}

#[test]
fn o_net() {
    oss_net("o-net", 1);
}

#[test]
fn oss_net_with_mid_range_patches_and_classes() {
    oss_net("oss-net-d", 3);
}

/// Encoder blocks in slabs, decoder blocks recomputed or in chunks of points.
#[test]
fn recompute_levels() {
    let volume = [16, 16, 16];
    let config = OssNetConfig::sample("oss-net-c", 2, volume).unwrap();
    let config = NetworkConfig::OssNet(OssNetConfig { width: 24, blocks: 3, ..config });
    for recompute in [Recompute::Blocks, Recompute::Chunks] {
        check(&config, StepSizes { recompute, ..StepSizes::new(volume, 2, 20) });
    }
    let config = UNetConfig { channels: vec![4, 8, 16], strides: vec![2, 2], ..UNetConfig::standard(3, 3, 1) };
    let sizes = StepSizes::new([8, 16, 12], 1, 0);
    check(&NetworkConfig::UNet(config), StepSizes { recompute: Recompute::Blocks, ..sizes });
}

/// A U-Net of three levels.
fn u_net(dimensions: usize, volume: [usize; 3], classes: usize) {
    let config =
        UNetConfig { channels: vec![4, 8, 16], strides: vec![2, 2], ..UNetConfig::standard(dimensions, 3, classes) };
    check(&NetworkConfig::UNet(config), StepSizes::new(volume, 2, 0));
}

#[test]
fn u_net_3d() {
    u_net(3, [8, 16, 12], 2);
}

#[test]
fn u_net_2d() {
    u_net(2, [16, 12, 1], 1);
}
