//! What is planned for a CUDA device equals what its ledger logs, event by event: under the emulator where there is no GPU.

use crate::emulator;
use ossnet::device::Device;
use ossnet::models::network::names;
use ossnet::models::{NetworkConfig, OssNetConfig, Recompute, UNetConfig};
use ossnet::nn::optim::{Lookahead, OptimizerSettings, UpdateRule};
use ossnet::tape::Precision;
use ossnet::train::dry_run::{StepKind, StepSizes, dry_run};

const BUDGET: u64 = 64 << 20;

/// The smallest network of this name that has all its parts: the emulator computes every step.
fn tiny(name: &str, channels: usize, classes: usize, volume: [usize; 3]) -> NetworkConfig {
    match NetworkConfig::sample(name, channels, classes, volume).unwrap() {
        NetworkConfig::OssNet(config) => NetworkConfig::OssNet(OssNetConfig { width: 8, blocks: 2, ..config }),
        NetworkConfig::UNet(config) => {
            NetworkConfig::UNet(UNetConfig { channels: vec![4, 8, 16], strides: vec![2, 2], ..config })
        }
    }
}

fn optimizer(number: usize) -> OptimizerSettings {
    let rule =
        [UpdateRule::radam(), UpdateRule::adam(), UpdateRule::Sgd { momentum: 0.9, weight_decay: 0.0 }][number % 3];
    OptimizerSettings { rule, lookahead: number.is_multiple_of(2).then(Lookahead::default), ..Default::default() }
}

/// Every network in training at two levels of recomputation or more, with changing batches, points, classes and optimisers,
/// in evaluation and in inference; in bf16 with everything kept and at a higher level, and in tf32. With the feature
/// `exhaustive` all of these, else every fifth: each network once, and each of the eight ways with three networks.
#[test]
fn a_plan_equals_the_run_on_cuda_event_by_event() {
    let emulator = emulator();
    let device = Device::cuda(0, BUDGET).unwrap();
    let plan = device.planned();
    let (mut combinations, mut checked) = (0, 0);
    for (n, name) in names().into_iter().enumerate() {
        let (channels, classes) = (1 + n % 2, 1 + n % 3);
        let volume = [[16, 16, 16], [16, 32, 16]][n % 2];
        let config = tiny(name, channels, classes, volume);
        let sizes = |level: usize| {
            let recompute = Recompute::LEVELS[level % 4];
            StepSizes {
                recompute,
                optimizer: optimizer(n + level),
                ..StepSizes::new(volume, 1 + level % 2, 5 + 6 * level)
            }
        };
        let step = |step| StepSizes { step, ..sizes(n) };
        let at = |precision, sizes| StepSizes { precision, ..sizes };
        let half_infers = at(Precision::Bf16, step([StepKind::Evaluate, StepKind::Infer][n % 2]));
        for sizes in [
            sizes(n),
            sizes(n + 2),
            step(StepKind::Evaluate),
            step(StepKind::Infer),
            at(Precision::Bf16, sizes(0)),
            at(Precision::Bf16, sizes(1 + n % 3)),
            at(Precision::Tf32, sizes(1 + (n + 1) % 3)),
            half_infers,
        ] {
            combinations += 1;
            if !cfg!(feature = "exhaustive") && combinations % 5 != 1 {
                continue;
            }
            checked += 1;
            let run = dry_run(&device, &config, sizes, 1).unwrap();
            let planned = dry_run(&plan, &config, sizes, 1).unwrap();
            let what = format!("{name} {sizes:?}");
            let differing = (0..run.events.len().max(planned.events.len()))
                .find(|&i| run.events.get(i) != planned.events.get(i))
                .map(|i| (i, run.events.get(i), planned.events.get(i)));
            assert!(run.events.len() > 10 && differing.is_none(), "{what}: {differing:?}");
            assert_eq!((run.reserved, run.peak_activations), (planned.reserved, planned.peak_activations), "{what}");
            if let Some(emulator) = &emulator {
                assert_eq!(emulator.memory(0), (run.reserved, run.reserved), "{what}: the driver's live bytes");
            }
        }
    }
    assert!(checked >= if cfg!(feature = "exhaustive") { 150 } else { 30 }, "{checked}");
}
