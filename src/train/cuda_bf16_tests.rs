//! Whole training steps in bf16 on CUDA: the plan's allocations, the same bits in any order of blocks, and errors of at most
//! twice those of an unfused reference in low precision, taken over all networks.
//!
//! The reference is the CPU, which computes each op in f32 and rounds what it makes, forward and backward, to bf16. Exact is the
//! same without rounding: its own errors are 2^-15 of those.

use super::dry_run::{StepSizes, SyntheticStep};
use crate::device::Device;
use crate::models::{Architecture, NetworkConfig, OssNetConfig, Recompute, UNetConfig};
use crate::ops::testing::{assert_clean, cuda_device, oss_nets};
use crate::tape::Precision;

/// The loss and all gradients in a row.
#[derive(PartialEq)]
struct Step {
    loss: f32,
    gradients: Vec<f32>,
}

impl Step {
    fn of(device: &Device, config: &NetworkConfig, sizes: StepSizes) -> Self {
        let mut stage = SyntheticStep::new(device, config, sizes).unwrap();
        let loss = stage.loss().unwrap();
        let gradients = stage.gradients().unwrap().into_iter().flat_map(|(_, gradient)| gradient).collect();
        Self { loss, gradients }
    }

    /// Of the loss relative to it, and of the gradient as a vector relative to its length.
    fn errors(&self, exact: &Self) -> [f64; 2] {
        let squares = |terms: &mut dyn Iterator<Item = f32>| terms.map(|x| f64::from(x) * f64::from(x)).sum::<f64>();
        let distance = squares(&mut self.gradients.iter().zip(&exact.gradients).map(|(a, b)| a - b));
        let length = squares(&mut exact.gradients.iter().copied());
        [f64::from(((self.loss - exact.loss) / exact.loss).abs()), (distance / length).sqrt()]
    }
}

/// Errors of our step and of the reference's.
fn check(config: &NetworkConfig, sizes: StepSizes) -> Option<[[f64; 2]; 2]> {
    let cpu = Device::cpu(1, 1 << 30).unwrap();
    let narrow = StepSizes { precision: Precision::Bf16, ..sizes };
    let (exact, reference) = (Step::of(&cpu, config, sizes), Step::of(&cpu, config, narrow));
    let mut earlier: Option<Step> = None;
    for seed in [0, 1] {
        let device = cuda_device(seed)?;
        device.ledger(|ledger| ledger.record(true));
        let ours = Step::of(&device, config, narrow);
        assert_clean();
        let plan = Device::plan_for(device.target(), device.budget());
        plan.ledger(|ledger| ledger.record(true));
        Step::of(&plan, config, narrow);
        let events = |device: &Device| device.ledger(|ledger| ledger.take_events());
        assert!(events(&plan) == events(&device), "{}: plan and run allocate differently", config.title());
        if let Some(earlier) = &earlier {
            assert!(*earlier == ours, "{}: the order of blocks changes the result", config.title());
        }
        earlier = Some(ours);
    }
    let errors = [earlier?.errors(&exact), reference.errors(&exact)];
    let [[_, ours], [_, theirs]] = errors;
    // An error of a tenth of the gradient's length turns it by less than six degrees.
    assert!(ours < 0.1, "{}: gradient off by {ours:.1e}, {theirs:.1e}", config.title());
    Some(errors)
}

/// One rounding to bf16, relative to what is rounded.
const ROUNDING: f64 = 1.0 / 512.0;

/// Checks all steps. The largest error of a loss is at most twice the reference's, or one rounding, which the reference may stay
/// below by chance where networks are few. The errors of the gradients are at most twice the reference's in the geometric mean: a
/// single one may be right or wrong by chance, for a few roundings before the last batch norms, which see as many values as there
/// are volumes, decide about all that follows.
fn check_all(steps: impl IntoIterator<Item = (NetworkConfig, StepSizes)>) {
    let errors: Vec<_> = steps.into_iter().filter_map(|(config, sizes)| check(&config, sizes)).collect();
    let largest = |which: usize| errors.iter().map(|errors| errors[which][0]).fold(0.0, f64::max);
    assert!(largest(0) <= ROUNDING.max(2.0 * largest(1)), "losses off by {:.1e}, {:.1e}", largest(0), largest(1));
    let logarithms: f64 = errors.iter().map(|[[_, ours], [_, theirs]]| (ours / theirs).ln()).sum();
    let ratio = (logarithms / errors.len().max(1) as f64).exp();
    assert!(ratio <= 2.0, "gradients off by {ratio:.2} times what the reference's are");
}

/// With little of everything.
fn small(name: &str) -> (NetworkConfig, StepSizes) {
    match NetworkConfig::sample(name, 2, 1, [16; 3]).unwrap() {
        NetworkConfig::OssNet(config) => {
            // Three volumes: the encoder's last grid is one voxel, two values normalised are ±1 whatever they are, and what
            // is left of their gradient is rounding.
            (NetworkConfig::OssNet(OssNetConfig { width: 24, blocks: 2, ..config }), StepSizes::new([16; 3], 3, 20))
        }
        NetworkConfig::UNet(config) => {
            let volume = if config.dimensions == 2 { [16, 12, 1] } else { [8, 16, 12] };
            let config = UNetConfig { channels: vec![4, 8, 16], strides: vec![2, 2], ..config };
            (NetworkConfig::UNet(config), StepSizes::new(volume, 2, 0))
        }
    }
}

#[test]
fn official_models() {
    check_all(oss_nets().into_iter().chain(["unet3d", "unet2d"]).map(small));
}

#[test]
fn recompute_levels_and_classes() {
    let (config, sizes) = small("oss-net-c");
    let levels = Recompute::LEVELS.map(|recompute| (config.clone(), StepSizes { recompute, ..sizes }));
    let (NetworkConfig::OssNet(net), (unet, unet_sizes)) = (config, small("unet3d")) else { panic!("an OSS-Net") };
    let classes = (NetworkConfig::OssNet(OssNetConfig { classes: 3, ..net }), sizes);
    let unet = (unet, StepSizes { recompute: Recompute::Blocks, ..unet_sizes });
    check_all(levels.into_iter().chain([classes, unet]));
}
