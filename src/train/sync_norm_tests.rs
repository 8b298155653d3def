//! Batch norms with the statistics of all passes of a step: exact, and the same bits whoever makes the passes.

use super::batch::{HostArray, HostBatch, HostTargets};
use super::ranks::Ranks;
use super::ranks_tests::{assert_one_ends_all, assert_planned, cases, networks, train};
use super::settings::{SyncNorm, TrainSettings};
use super::trainer::Trainer;
use crate::device::collective::threads;
use crate::device::{Device, Target};
use crate::models::{Architecture, NetworkConfig, Recompute};
use crate::nn::optim::{OptimizerSettings, UpdateRule};
use crate::ops::testing::every_device;

/// An occupancy network, whose encoder has norms a channel and whose decoder has norms of everything.
fn network() -> (NetworkConfig, TrainSettings) {
    let (network, settings) = networks().into_iter().next().unwrap();
    (network, TrainSettings { sync_norm: SyncNorm::On, ..settings })
}

fn joined<'a>(arrays: impl Iterator<Item = &'a HostArray>) -> HostArray {
    let arrays: Vec<&HostArray> = arrays.collect();
    let mut shape = arrays[0].shape.clone();
    shape[0] *= arrays.len();
    HostArray { shape, values: arrays.iter().flat_map(|array| array.values.clone()).collect() }
}

/// The cases of several batches in one.
fn one_batch(batches: &[HostBatch]) -> HostBatch {
    let of = |which: usize| {
        joined(batches.iter().map(|batch| match &batch.targets {
            HostTargets::Points(points, classes, volumes) => [points, classes, volumes.as_ref().unwrap()][which],
            HostTargets::Dense(classes) => classes,
        }))
    };
    let targets = HostTargets::Points(of(0), of(1), Some(of(2)));
    HostBatch { volumes: joined(batches.iter().map(|batch| &batch.volumes)), targets, known: None }
}

/// What a step on `batches` changes in the weights, parameter by parameter, and the running statistics after it.
fn one_step(
    device: &Device,
    network: &NetworkConfig,
    settings: &TrainSettings,
    batches: &[HostBatch],
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let mut trainer = Trainer::new(device, network, settings.clone()).unwrap();
    let weights = |trainer: &Trainer| -> Vec<Vec<f32>> {
        trainer.parameters().iter().map(|parameter| parameter.value().to_vec().unwrap()).collect()
    };
    let before = weights(&trainer);
    trainer.rehearse(batches, 1).unwrap();
    let after = weights(&trainer);
    let changes = after.iter().zip(&before);
    let changes = changes.map(|(after, before)| after.iter().zip(before).map(|(a, b)| a - b).collect()).collect();
    (changes, trainer.parameters().buffers().map(|(_, value, _)| value.to_vec().unwrap()).collect())
}

/// The largest distance between arrays, over the largest number in those of the second.
fn distance(found: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0f32, |most, value| most.max(value.abs()));
    let differences = |(a, b): (&Vec<f32>, &Vec<f32>)| largest(&mut a.iter().zip(b).map(|(a, b)| a - b));
    largest(&mut found.iter().zip(expected).map(differences)) / largest(&mut expected.iter().flatten().copied())
}

/// Four passes of a case each move the weights as one pass of the four does, at every level of recomputation, on the CPU and on
/// CUDA; with statistics of their own they do not.
#[test]
fn passes_with_common_statistics_are_one_batch() {
    let (network, settings) = network();
    let rule = UpdateRule::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let optimizer = OptimizerSettings { rule, lookahead: None, rate: 1.0, activation_rate: None };
    let mut settings = TrainSettings { optimizer, clip_norm: None, average_decay: None, ..settings };
    // Means over all points, which the mean over passes is as well; a Dice loss of four cases is no mean of four.
    (settings.loss.dice_factor, settings.loss.segmentation_factor) = (0.0, 0.0);
    let cases = cases();
    let plan = Device::cpu(1, 1 << 30).unwrap();
    let batches = Trainer::new(&plan, &network, settings.clone()).unwrap().batches(&cases, 1).unwrap();
    let whole = [one_batch(&batches)];
    for device in every_device() {
        // The emulator takes its time: there the least and the most recomputation.
        let levels = if let Target::Cpu { .. } = device.target() { &[0, 1, 2, 3][..] } else { &[0, 3] };
        for recompute in levels.iter().map(|&level| Recompute::LEVELS[level]) {
            let settings = TrainSettings { recompute, ..settings.clone() };
            let as_one = TrainSettings { batch_size: 4, accumulate: 1, ..settings.clone() };
            let (changes, running) = one_step(&device, &network, &as_one, &whole);
            let (found, followed) = one_step(&device, &network, &settings, &batches);
            let (away, off) = (distance(&found, &changes), distance(&followed, &running));
            // Sums of some thousand f32 in another order, through ten layers.
            assert!(away < 2e-4 && off < 1e-5, "{recompute}: {away}, {off}");
            if let Target::Cuda(_) = device.target() {
                continue;
            }
            let apart = TrainSettings { sync_norm: SyncNorm::Off, ..settings };
            let (found, followed) = one_step(&device, &network, &apart, &batches);
            let (away, off) = (distance(&found, &changes), distance(&followed, &running));
            assert!(away > 1e-2 && off > 1e-3, "{recompute}: {away}, {off}");
        }
    }
}

/// One process that makes all four passes side by side, two ranks with two each and four with one: the same bits on all of them.
#[test]
fn any_number_of_ranks_makes_the_same_bits() {
    let cases = cases();
    let (network, settings) = network();
    for recompute in [Recompute::LEVELS[0], Recompute::LEVELS[3]] {
        let settings = TrainSettings { deterministic_reduce: true, recompute, ..settings.clone() };
        let alone = train(1, &network, &settings, &cases).swap_remove(0).unwrap();
        assert_eq!(alone.0.len(), 6);
        // Running statistics follow those of a step once.
        assert!(alone.2.contains(&6) && alone.2.iter().all(|updates| [0, 6].contains(updates)), "{:?}", alone.2);
        for ranks in [2, 4] {
            for (rank, found) in train(ranks, &network, &settings, &cases).into_iter().enumerate() {
                assert!(found.unwrap() == alone, "{recompute}: rank {rank} of {ranks} has other bits");
            }
        }
        let apart = TrainSettings { sync_norm: SyncNorm::Off, ..settings };
        assert!(train(1, &network, &apart, &cases).swap_remove(0).unwrap() != alone);
    }
}

/// Without `deterministic_reduce` all ranks have the same bits still, and the first step's loss is that of one process.
#[test]
fn the_transports_order_keeps_replicas_alike() {
    let cases = cases();
    let (network, settings) = network();
    let alone = train(1, &network, &settings, &cases).swap_remove(0).unwrap();
    for ranks in [2, 4] {
        let found: Vec<_> = train(ranks, &network, &settings, &cases).into_iter().map(Result::unwrap).collect();
        assert!(found.iter().all(|state| *state == found[0]));
        assert_eq!((found[0].0[0], &found[0].2), (alone.0[0], &alone.2));
    }
}

/// Those too that wait for it at a norm.
#[test]
fn what_one_rank_cannot_do_ends_those_that_wait_for_it() {
    let (network, settings) = network();
    for (ranks, deterministic_reduce) in [(4, false), (4, true), (2, true)] {
        assert_one_ends_all(ranks, &network, &TrainSettings { deterministic_reduce, ..settings.clone() });
    }
}

/// A rank whose memory does not hold a pass says so to those that wait for it at a norm, and nobody waits for ever.
#[test]
fn a_rank_without_memory_ends_those_that_wait_for_it() {
    let cases = cases();
    let (network, settings) = network();
    let divided = settings.divided(2, cases.len()).unwrap();
    let peak = {
        let plan = Device::cpu(1, 1 << 30).unwrap().planned();
        let mut planned = Trainer::new(&plan, &network, divided.clone()).unwrap();
        planned.dry_run(&cases, 2).unwrap();
        planned.costs().peak_bytes
    };
    let errors = threads::run(2, |collective| {
        let budget = if collective.rank() == 1 { peak * 7 / 10 } else { 1 << 30 };
        let device = Device::cpu(1, budget).unwrap();
        let mut trainer = Trainer::new(&device, &network, divided.clone()).unwrap();
        trainer.join(&Ranks::of(collective), settings.clone());
        trainer.train(&cases, |_| Ok(())).unwrap_err().to_string()
    });
    assert!(errors[0].starts_with("rank 1: ") && errors[0].ends_with(&errors[1]), "{errors:?}");
}

/// Whether its passes are made side by side or one alone.
#[test]
fn plans_know_what_meetings_allocate() {
    let (network, settings) = network();
    for (ranks, recompute) in [(1, 0), (2, 0), (4, 0), (4, 3)] {
        let settings = TrainSettings { recompute: Recompute::LEVELS[recompute], ..settings.clone() };
        let events = assert_planned(ranks, &network, &settings);
        assert!(events.iter().any(|event| event.op == "sync_norm"));
    }
}

#[test]
fn small_passes_join_by_themselves() {
    let (_, settings) = network();
    let joins = |sync_norm, batch_size, accumulate, ranks, deterministic_reduce| {
        let asked = TrainSettings { sync_norm, batch_size, accumulate, deterministic_reduce, ..settings.clone() };
        asked.divided(ranks, 100).unwrap().joins_statistics()
    };
    assert!(joins(SyncNorm::Auto, 8, 1, 4, false));
    assert!(joins(SyncNorm::Auto, 1, 2, 2, false));
    // Enough cases a pass; several passes a process, which would all have to be in memory; one process; bits that are to be the
    // same for any number.
    assert!(!joins(SyncNorm::Auto, 8, 1, 2, false));
    assert!(!joins(SyncNorm::Auto, 1, 4, 2, false));
    assert!(!joins(SyncNorm::Auto, 1, 4, 1, false));
    assert!(!joins(SyncNorm::Auto, 8, 1, 4, true));
    assert!(joins(SyncNorm::On, 8, 1, 2, true) && joins(SyncNorm::On, 1, 4, 1, false));
    assert!(!joins(SyncNorm::On, 8, 1, 1, false) && !joins(SyncNorm::Off, 8, 1, 4, false));
    // A network without batch norms has nothing to join.
    let (unet, settings) = networks().into_iter().nth(1).unwrap();
    let cases = cases();
    let apart = train(1, &unet, &settings, &cases).swap_remove(0).unwrap();
    let settings = TrainSettings { sync_norm: SyncNorm::On, ..settings };
    assert!(train(1, &unet, &settings, &cases).swap_remove(0).unwrap() == apart, "{}", unet.title());
}
