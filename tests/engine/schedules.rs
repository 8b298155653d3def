//! Recomputation chosen unit by unit: a bound that holds, and about as fast as any schedule below it.

use std::sync::Arc;
use std::time::Instant;

use ossnet::device::cpu::SimdLevel;
use ossnet::device::{CudaTarget, Device, Target};
use ossnet::models::{Architecture, NetworkConfig, OssNetConfig, Recompute, Schedule, UNetConfig, UnitChoice};
use ossnet::planner::Workload;
use ossnet::planner::adjust::Adjustable;
use ossnet::planner::schedules::{Curve, fastest};
use ossnet::tape::Precision;
use ossnet::train::dry_run::StepSizes;

const CPU: Target = Target::Cpu { threads: 2, simd: SimdLevel::Avx2 };

fn unet(channels: &[usize], volume: [usize; 3], batch: usize) -> Workload {
    let strides = vec![2; channels.len() - 1];
    let config = UNetConfig { channels: channels.to_vec(), strides, ..UNetConfig::standard(3, 1, 2) };
    Workload { network: Arc::new(NetworkConfig::UNet(config)), sizes: StepSizes::new(volume, batch, 0) }
}

/// An occupancy network with so many blocks of encoder and decoder.
fn oss_net(name: &str, blocks: [usize; 2], volume: [usize; 3], points: usize) -> Workload {
    let config = OssNetConfig::sample(name, 1, volume).unwrap();
    let encoder_channels = config.encoder_channels[..blocks[0]].to_vec();
    let config = OssNetConfig { encoder_channels, blocks: blocks[1], ..config };
    Workload { network: Arc::new(NetworkConfig::OssNet(config)), sizes: StepSizes::new(volume, 1, points) }
}

/// Every schedule of a network.
fn all(architecture: &dyn Architecture) -> Vec<Recompute> {
    let mut all: Vec<Vec<UnitChoice>> = vec![Vec::new()];
    for unit in architecture.units() {
        let with = |known: &[UnitChoice], choice| known.iter().copied().chain([choice]).collect::<Vec<_>>();
        all = all.iter().flat_map(|known| unit.choices.iter().map(move |&choice| with(known, choice))).collect();
    }
    all.iter().map(|choices| Recompute::Units(Schedule::new(choices).unwrap())).collect()
}

/// A hundred budgets from the least that a point of the curve takes to the most.
fn budgets(curve: &Curve) -> Vec<u64> {
    let (most, least) = (curve.points[0].reserved, curve.leanest().unwrap().reserved);
    (0..100).map(|n| least + (most - least) * n / 99).collect()
}

/// Within 5 % of the fastest of all schedules at each of a hundred budgets, and within a hundredth of the least bytes of any.
#[test]
fn no_schedule_is_much_faster_than_the_one_that_is_chosen() {
    let cases = [
        unet(&[8, 16, 32], [32, 32, 32], 1),
        unet(&[16, 32, 64, 128], [48, 64, 48], 2),
        oss_net("oss-net-c", [2, 3], [32; 3], 8192),
        oss_net("oss-net-c", [2, 3], [96; 3], 4096),
        oss_net("o-net", [1, 4], [64; 3], 8192),
    ];
    for work in &cases {
        let (started, title) = (Instant::now(), work.network.title());
        let curve = work.schedules(CPU).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let every = work.scheduled(CPU, all(&*work.network)).unwrap();
        let mut worst = 1.0f64;
        for budget in budgets(&curve) {
            let best = every.iter().filter(|point| point.reserved <= budget).map(|point| point.seconds);
            let (best, chosen) = (best.fold(f64::INFINITY, f64::min), curve.within(budget).unwrap());
            worst = worst.max(chosen.seconds / best);
        }
        let (least, leanest) = (every.iter().map(|point| point.reserved).min().unwrap(), curve.leanest().unwrap());
        println!(
            "{title}: {} points of {} schedules in {seconds:.2} s; at most {worst:.4} of the best time, {:.4} of the least bytes",
            curve.points.len(),
            every.len(),
            leanest.reserved as f64 / least as f64
        );
        for point in &curve.points {
            println!("   {} {} {:.4}", point.recompute, point.reserved, point.seconds);
        }
        for point in &curve.levels {
            println!("   level {} {} {:.4}", point.recompute, point.reserved, point.seconds);
        }
        assert!(worst <= 1.05, "{title}: {worst}");
        assert!(leanest.reserved as f64 <= 1.01 * least as f64, "{title}: {} of {least}", leanest.reserved);
        assert!(curve.points.len() >= 3, "{title}: {curve:?}");
    }
}

/// Over a hundred budgets what is chosen reserves no more than the budget, and takes less time the larger the budget is; a
/// little less than a point reserves is not enough for it. No level beats the curve.
#[test]
fn a_larger_budget_is_never_slower() {
    let sm_80 = Target::Cuda(CudaTarget::named("sm_80").unwrap());
    let bf16 = |work: Workload| Workload { sizes: StepSizes { precision: Precision::Bf16, ..work.sizes }, ..work };
    let official = |name, volume, points| Workload::official(name, StepSizes::new(volume, 1, points)).unwrap();
    let cases = [
        (official("unet3d", [96; 3], 0), CPU),
        (official("unet2d", [256, 256, 1], 0), CPU),
        (official("oss-net-c", [64; 3], 4096), CPU),
        (official("oss-net-d", [128; 3], 2048), CPU),
        (bf16(official("oss-net-c", [256, 256, 160], 16384)), sm_80),
        (official("unet3d", [128; 3], 0), sm_80),
    ];
    for (work, target) in &cases {
        let started = Instant::now();
        let curve = work.schedules(*target).unwrap();
        let (seconds, title) = (started.elapsed().as_secs_f64(), work.network.title());
        println!("{title} {:?}: {} points in {seconds:.2} s", work.sizes.volume, curve.points.len());
        let mut slower = f64::INFINITY;
        for budget in budgets(&curve) {
            let point = curve.within(budget).unwrap();
            assert!(point.reserved <= budget && point.seconds <= slower, "{title}: {point:?} for {budget}");
            slower = point.seconds;
        }
        for point in &curve.points {
            let step = work.with_recompute(point.recompute);
            assert_eq!(
                step.reserved_within(*target, point.reserved).unwrap(),
                Some(point.reserved),
                "{title}: {point:?}"
            );
            assert!(!step.fits(*target, point.reserved - 1).unwrap(), "{title}: {point:?}");
        }
        for level in &curve.levels {
            let point = curve.within(level.reserved).unwrap();
            assert!(point.seconds <= level.seconds, "{title}: {level:?} is faster than {point:?}");
        }
        assert_eq!(curve.points[0].recompute, Recompute::Activations, "{title}");
    }
}

/// A run with what is chosen for a budget reserves what was planned, on a device that has no more.
#[test]
fn what_is_chosen_runs_within_its_budget() {
    let target = Device::cpu(2, 1 << 20).unwrap().target();
    for work in [unet(&[8, 16, 32], [32, 32, 32], 1), oss_net("oss-net-c", [2, 3], [32; 3], 2500)] {
        let curve = work.schedules(target).unwrap();
        let (most, least) = (curve.points[0].reserved, curve.leanest().unwrap().reserved);
        let mut chosen = Vec::new();
        for part in 0..4 {
            let budget = least + (most - least) * part / 4;
            let step = fastest(&work, target, budget, || work.schedules(target)).unwrap();
            let profile = step.dry_run(&Device::cpu(2, budget).unwrap(), 2).unwrap();
            assert_eq!(profile.reserved, curve.within(budget).unwrap().reserved);
            chosen.push(step.sizes.recompute);
        }
        chosen.dedup();
        assert!(chosen.len() >= 2, "{chosen:?}");
        // Below the least nothing fits: the leanest is what is told.
        let step = fastest(&work, target, least - 1, || work.schedules(target)).unwrap();
        assert_eq!(step.sizes.recompute, curve.leanest().unwrap().recompute);
        assert!(!step.fits(target, least - 1).unwrap());
    }
}
