//! What is said to be the largest that fits, against every smaller and larger value; and plans that leave out what repeats.

use ossnet::device::cpu::SimdLevel;
use ossnet::device::{CudaTarget, Device, Target, UNLIMITED};
use ossnet::models::Recompute;
use ossnet::planner::Workload;
use ossnet::planner::adjust::{Adjustable, Quantity};
use ossnet::planner::fit::{best_answers, largest};
use ossnet::planner::remedies::{adapt, remedies};
use ossnet::train::dry_run::{StepKind, StepSizes};

const TARGETS: [Target; 2] =
    [Target::Cpu { threads: 2, simd: SimdLevel::Portable }, Target::Cuda(CudaTarget::KNOWN[0].1)];

fn workload(name: &str, volume: [usize; 3], points: usize, recompute: Recompute) -> Workload {
    Workload::official(name, StepSizes { recompute, ..StepSizes::new(volume, 1, points) }).unwrap()
}

/// Bytes of every value up to the last, planned one by one. Between two budgets at which the answer changes it is known: a
/// value that fits and whose next does not, and the largest of all where bytes only rise.
#[test]
fn the_largest_that_fits_is_that_of_an_exhaustive_search() {
    let cases = [
        ("o-net", Quantity::Points, Recompute::Chunks, 256, 24),
        ("oss-net-c", Quantity::Side, Recompute::Blocks, 16, 12),
        ("oss-net-a", Quantity::Batch, Recompute::Decoder, 1, 9),
        ("unet3d", Quantity::Side, Recompute::Activations, 16, 10),
        ("unet3d", Quantity::Batch, Recompute::Blocks, 1, 9),
    ];
    let mut falling = 0;
    for (case, (name, quantity, level, unit, most)) in cases.into_iter().enumerate() {
        let (step, target) = (workload(name, [48, 64, 32], 700, level), TARGETS[case % 2]);
        let plan = |units: usize| match units {
            0 => 0,
            units => {
                let step = step.with_quantity(quantity, units * unit);
                if step.is_admissible() { step.plan(&Device::plan_for(target, UNLIMITED)).unwrap() } else { 0 }
            }
        };
        let bytes: Vec<u64> = (0..=most).map(plan).collect();
        let rises = bytes.is_sorted();
        falling += usize::from(!rises);
        let granule = target.granularity();
        let budgets = bytes[1..].iter().flat_map(|&bytes| [bytes, bytes.saturating_sub(granule)]);
        for budget in budgets.filter(|&budget| budget > 0) {
            let found = largest(&step, target, budget, quantity, most * unit).unwrap().unwrap_or(0);
            assert!(found.is_multiple_of(unit), "{name} {quantity:?}: {found}");
            let units = found / unit;
            let fits = |units: usize| bytes[units] <= budget;
            if rises {
                let exhaustive = (0..=most).rev().find(|&units| fits(units)).unwrap();
                let exhaustive = if bytes[exhaustive] == 0 { 0 } else { exhaustive };
                assert_eq!(units, exhaustive, "{name} {quantity:?} in {budget}: {bytes:?}");
            }
            assert!(
                fits(units) && (units == most || found == 0 || !fits(units + 1)),
                "{name} {quantity:?} in {budget}"
            );
        }
    }
    assert!(falling < cases.len(), "nothing was compared with the largest of all");
}

/// Several budgets at once are answered as each by itself, with the fastest level that holds the answer.
#[test]
fn several_budgets_are_answered_as_each_alone() {
    let (step, target) = (workload("o-net", [32; 3], 512, Recompute::Activations), TARGETS[1]);
    let budgets = [96u64, 128, 256].map(|mebibytes| mebibytes << 20);
    let answers = best_answers(&step, &step.levels(), target, &budgets).unwrap();
    for (budget, answers) in budgets.into_iter().zip(answers) {
        for answer in answers {
            let &[(level, Some(value))] = answer.by_level.as_slice() else { panic!("{answer:?}") };
            let reserved = |level, value| {
                let step = step.with_recompute(level).with_quantity(answer.quantity, value);
                step.plan(&Device::plan_for(target, UNLIMITED)).unwrap()
            };
            let unit = [16, 256, 1][Quantity::ALL.iter().position(|&quantity| quantity == answer.quantity).unwrap()];
            assert!(
                reserved(level, value) <= budget && reserved(Recompute::Chunks, value + unit) > budget,
                "{answer:?}"
            );
            assert!(
                Recompute::LEVELS.into_iter().filter(|&l| l < level).all(|l| reserved(l, value) > budget),
                "{answer:?}"
            );
        }
    }
}

/// Where neither the leanest level nor less of one thing does, both and the smallest batch do.
#[test]
fn remedies_are_put_together_where_none_suffices() {
    let target = TARGETS[0];
    let step = workload("o-net", [48, 64, 32], 40_000, Recompute::Decoder).with_batch(8);
    let least = step.with_recompute(Recompute::Chunks).with_batch(1).with_points(1024);
    let budget = least.plan(&Device::plan_for(target, UNLIMITED)).unwrap();
    let found = remedies(&step, target, budget).unwrap();
    let [change] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(change.remedy.change, "--recompute 3 --batch 1 --points 1024");
    assert_eq!((change.remedy.needs, change.step.sizes.points), (budget, 1024));
    assert_eq!(adapt(&step, target, budget).unwrap().1, Some(change.remedy.clone()));
}

/// A plan without a log goes once through chunks and slabs that are alike; what it reserves is what the whole step does.
#[test]
fn what_repeats_may_be_left_out() {
    for (name, volume, batch, points) in [
        ("oss-net-c", [64, 64, 48], 3, 9000),
        ("full2", [96, 64, 64], 1, 30_001),
        ("o-net", [160, 256, 256], 2, 100),
        ("unet3d", [64, 48, 32], 3, 1),
    ] {
        for recompute in Recompute::LEVELS {
            let sizes = StepSizes { recompute, ..StepSizes::new(volume, batch, points) };
            let step = Workload::official(name, sizes).unwrap();
            for target in TARGETS {
                let whole = step.dry_run(&Device::plan_for(target, UNLIMITED), 2).unwrap().reserved;
                let short = step.plan(&Device::plan_for(target, UNLIMITED)).unwrap();
                assert_eq!(short, whole, "{name} at level {recompute} on {target:?}");
            }
        }
    }
    // Without leaving out anything this would take minutes.
    let started = std::time::Instant::now();
    let sizes =
        StepSizes { recompute: Recompute::Chunks, step: StepKind::Train, ..StepSizes::new([256; 3], 1, 1 << 26) };
    let step = Workload::official("oss-net-c", sizes).unwrap();
    step.plan(&Device::plan_for(TARGETS[1], UNLIMITED)).unwrap();
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}
