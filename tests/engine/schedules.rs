//! Recomputation chosen unit by unit: a bound that holds, and about as fast as any schedule below it.

use std::sync::Arc;
use std::time::Instant;

use ossnet::device::cpu::SimdLevel;
use ossnet::device::{CudaTarget, Device, Target};
use ossnet::models::{Architecture, NetworkConfig, OssNetConfig, Recompute, Schedule, UNetConfig, UnitChoice};
use ossnet::planner::Workload;
use ossnet::planner::adjust::Adjustable;
use ossnet::planner::schedules::{Curve, Point, fastest};
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

/// The most and the least that a point of the curve takes.
fn ends(curve: &Curve) -> (u64, u64) {
    (curve.points[0].peak, curve.points.last().unwrap().peak)
}

/// A hundred budgets from the least to the most.
fn budgets(curve: &Curve) -> Vec<u64> {
    let (most, least) = ends(curve);
    (0..100).map(|n| least + (most - least) * n / 99).collect()
}

fn at(points: &[Point], budget: u64) -> &Point {
    points.iter().find(|point| point.peak <= budget).unwrap()
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
        oss_net("oss-net-d", [1, 4], [32; 3], 5000),
    ];
    for work in &cases {
        let (started, title) = (Instant::now(), work.network.title());
        let curve = work.schedules(CPU).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let every = work.scheduled(CPU, all(&*work.network)).unwrap();
        let (mut worst, mut place) = (1.0f64, String::new());
        for budget in budgets(&curve) {
            let fitting = every.iter().filter(|point| point.peak <= budget);
            let best = fitting.min_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap();
            let ratio = at(&curve.points, budget).seconds / best.seconds;
            if ratio > worst {
                (worst, place) = (ratio, format!("{:?} against {best:?}", at(&curve.points, budget)));
            }
        }
        let (leanest, least) = (ends(&curve).1, every.iter().map(|point| point.peak).min().unwrap());
        let points = curve.points.len();
        println!(
            "{title}: {points} points of {} schedules in {seconds:.2} s, at most {worst:.4} of the best time {place}",
            every.len()
        );
        assert!(worst <= 1.05, "{title}: {worst}, {place}");
        assert!(leanest as f64 <= 1.01 * least as f64, "{title}: {leanest} of {least}");
        assert!(points >= 3, "{title}: {curve:?}");
    }
}

/// Over a hundred budgets what is chosen reserves no more than the budget, and takes less time the larger the budget is; a
/// little less than it reserves is not enough for it. No level beats the curve. Three networks, with the feature `exhaustive` six.
#[test]
fn a_larger_budget_is_never_slower() {
    let sm_80 = Target::Cuda(CudaTarget::named("sm_80").unwrap());
    let bf16 = |work: Workload| Workload { sizes: StepSizes { precision: Precision::Bf16, ..work.sizes }, ..work };
    let official = |name, volume, points| Workload::official(name, StepSizes::new(volume, 1, points)).unwrap();
    let cases = [
        (official("unet3d", [96; 3], 0), CPU),
        (official("oss-net-c", [64; 3], 4096), CPU),
        (official("unet3d", [128; 3], 0), sm_80),
        (official("unet2d", [256, 256, 1], 0), CPU),
        (official("oss-net-d", [128; 3], 2048), CPU),
        (bf16(official("oss-net-c", [256, 256, 160], 16384)), sm_80),
    ];
    for (work, target) in &cases[..if cfg!(feature = "exhaustive") { cases.len() } else { 3 }] {
        let started = Instant::now();
        let curve = work.schedules(*target).unwrap();
        let (seconds, title) = (started.elapsed().as_secs_f64(), work.network.title());
        println!("{title} {:?}: {} points in {seconds:.2} s", work.sizes.volume, curve.points.len());
        assert_eq!(curve.points[0].recompute, Recompute::Activations, "{title}");
        for level in &curve.levels {
            assert!(at(&curve.points, level.peak).seconds <= level.seconds, "{title}: {level:?} beats the curve");
        }
        let granule = if matches!(target, Target::Cuda(_)) { 2 << 20 } else { 0 };
        let plan =
            |point: &Point, budget| work.with_recompute(point.recompute).reserved_within(*target, budget).unwrap();
        let reserved: Vec<u64> = curve.points.iter().map(|point| plan(point, u64::MAX >> 1).unwrap()).collect();
        let mut slower = f64::INFINITY;
        // From the leanest with what its placement may take on top.
        for (n, budget) in budgets(&curve).into_iter().map(|budget| budget + budget / 100 + granule).enumerate() {
            let chosen = reserved.iter().position(|&reserved| reserved <= budget).unwrap();
            assert!(curve.points[chosen].peak <= reserved[chosen] && curve.points[chosen].seconds <= slower, "{title}");
            slower = curve.points[chosen].seconds;
            if n % 25 == 0 {
                let (step, bytes) = curve.within(work, *target, budget).unwrap().unwrap();
                assert_eq!((step.level(), bytes), (curve.points[chosen].recompute, reserved[chosen]), "{title}");
                assert_eq!(plan(&curve.points[chosen], bytes), Some(bytes), "{title}");
                let less = plan(&curve.points[chosen], bytes - granule.max(1));
                assert_eq!(less, None, "{title}");
            }
        }
    }
}

/// A run with what is chosen for a budget reserves what was planned, on a device that has no more.
#[test]
fn what_is_chosen_runs_within_its_budget() {
    let target = Device::cpu(2, 1 << 20).unwrap().target();
    for work in [unet(&[8, 16, 32], [32, 32, 32], 1), oss_net("oss-net-c", [2, 3], [32; 3], 2500)] {
        let curve = work.schedules(target).unwrap();
        let reserved = |point: &Point| {
            work.with_recompute(point.recompute).reserved_within(target, u64::MAX >> 1).unwrap().unwrap()
        };
        let (most, least) = (reserved(&curve.points[0]), reserved(curve.points.last().unwrap()));
        let mut chosen = Vec::new();
        for part in 0..4 {
            let budget = least + (most - least) * part / 4;
            let step = fastest(&work, target, budget, || work.schedules(target)).unwrap();
            let profile = step.dry_run(&Device::cpu(2, budget).unwrap(), 2).unwrap();
            let (planned, bytes) = curve.within(&work, target, budget).unwrap().unwrap();
            assert_eq!((step.level(), profile.reserved), (planned.level(), bytes));
            chosen.push(step.level());
        }
        chosen.dedup();
        assert!(chosen.len() >= 2, "{chosen:?}");
        // Below the least nothing fits: the leanest is what is told.
        let step = fastest(&work, target, least - 1, || work.schedules(target)).unwrap();
        assert_eq!(step.level(), curve.points.last().unwrap().recompute);
        assert!(!step.fits(target, least - 1).unwrap());
    }
}
