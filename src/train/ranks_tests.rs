//! Ranks that are threads train as one process does.

use std::borrow::Cow;

use super::case_source::CaseSource;
use super::presets;
use super::ranks::Ranks;
use super::settings::TrainSettings;
use super::trainer::Trainer;
use crate::data::{BorderPoints, GridTransform, Labels, Padding, Volume};
use crate::device::Device;
use crate::device::collective::threads;
use crate::error::{Error, Result};
use crate::memory::Event;
use crate::models::{Architecture, NetworkConfig, OssNetConfig, UNetConfig};
use crate::rng::Rng;
use crate::task::PreparedCase;

const SHAPE: [usize; 3] = [16; 3];

/// Noise with a brighter box.
fn case(number: u64) -> PreparedCase {
    let mut rng = Rng::new(number);
    let start = [0; 3].map(|least| least + 2 + rng.below(6) as usize);
    let is_inside = |i: &usize| {
        let at = [i / 256, i / 16 % 16, i % 16];
        (0..3).all(|k| (start[k]..start[k] + 6).contains(&at[k]))
    };
    let inside: Vec<bool> = (0..4096).map(|i| is_inside(&i)).collect();
    let voxels: Vec<f32> = inside.iter().map(|&inside| rng.normal() + if inside { 2.0 } else { 0.0 }).collect();
    let labels = Labels::new(SHAPE, inside.iter().map(|&inside| u8::from(inside)).collect());
    let volume = Volume::new(SHAPE, 1, voxels.clone());
    PreparedCase {
        name: format!("case {number}"),
        border: Some(BorderPoints::of(&labels)),
        way: GridTransform { shape: SHAPE, geometry: volume.geometry, resampled: SHAPE, padding: Padding::default() },
        truth: Some(labels.clone()),
        labels: Some(labels),
        volume,
        ignore: None,
        image: voxels,
    }
}

pub(super) fn cases() -> Vec<PreparedCase> {
    (0..9).map(case).collect()
}

pub(super) fn networks() -> [(NetworkConfig, TrainSettings); 2] {
    let oss = OssNetConfig { width: 16, blocks: 2, ..OssNetConfig::sample("oss-net-c", 1, SHAPE).unwrap() };
    let unet = UNetConfig { channels: vec![4, 8], strides: vec![2], ..UNetConfig::standard(3, 1, 1) };
    [NetworkConfig::OssNet(oss), NetworkConfig::UNet(unet)].map(|network| {
        let settings = TrainSettings {
            batch_size: 1,
            accumulate: 4,
            points: 64,
            clip_norm: Some(0.5),
            average_decay: Some(0.9),
            ..presets::sample(&network, 3, 1)
        };
        (network, settings)
    })
}

/// Losses, and the bits of weights, averages, running statistics with their updates, and the optimiser.
pub(super) type State = (Vec<f32>, Vec<Vec<u32>>, Vec<u64>);

fn state(trainer: &Trainer) -> State {
    let parameters = trainer.parameters();
    let weights = parameters.iter().map(|parameter| parameter.value());
    let averages = trainer.average().into_iter().flat_map(|average| average.weights());
    let statistics = parameters.buffers().map(|(_, value, _)| value);
    let all = weights.chain(averages).chain(statistics).chain(trainer.optimizer().state());
    let bits = all.map(|tensor| tensor.to_vec().unwrap().into_iter().map(f32::to_bits).collect());
    (trainer.losses().to_vec(), bits.collect(), parameters.buffers().map(|(_, _, updates)| updates).collect())
}

/// Trains on `ranks` threads of one each; how each ends.
pub(super) fn train(
    ranks: usize,
    network: &NetworkConfig,
    settings: &TrainSettings,
    cases: &(dyn CaseSource + Sync),
) -> Vec<Result<State>> {
    threads::run(ranks, |collective| {
        let device = Device::cpu(1, 1 << 30).unwrap();
        let divided = settings.divided(ranks, cases.len())?;
        let mut trainer = Trainer::new(&device, network, divided)?;
        trainer.join(&Ranks::of(collective), settings.clone());
        trainer.train(cases, |_| Ok(()))?;
        trainer.check_replicas()?;
        Ok(state(&trainer))
    })
}

/// One process that accumulates four cases, two ranks and four: the same bits, on all of them.
#[test]
fn any_number_of_ranks_makes_the_same_bits() {
    let cases = cases();
    for (network, settings) in networks() {
        let settings = TrainSettings { deterministic_reduce: true, ..settings };
        let alone = train(1, &network, &settings, &cases).swap_remove(0).unwrap();
        assert_eq!(alone.0.len(), 6, "{}", network.title());
        for ranks in [2, 4] {
            for (rank, found) in train(ranks, &network, &settings, &cases).into_iter().enumerate() {
                assert!(found.unwrap() == alone, "{}: rank {rank} of {ranks} has other bits", network.title());
            }
        }
    }
}

/// Without the flag sums have another order, and nothing else: the first step's losses are equal to the bit, running statistics
/// are updated as often, and all ranks have the same bits.
#[test]
fn the_transports_order_changes_the_last_bits_only() {
    let cases = cases();
    for (network, settings) in networks() {
        let settings = TrainSettings { epochs: 1, ..settings };
        let alone = train(1, &network, &settings, &cases).swap_remove(0).unwrap();
        let found: Vec<State> = train(2, &network, &settings, &cases).into_iter().map(Result::unwrap).collect();
        assert!(found[0] == found[1], "{}", network.title());
        assert_eq!((found[0].0[0], &found[0].2), (alone.0[0], &alone.2), "{}", network.title());
        // The second step's loss feels the first's gradients, of relative error 1e-6 at most for sums of four terms.
        let difference = (found[0].0[1] - alone.0[1]).abs() / alone.0[1];
        assert!(difference < 1e-3, "{}: {difference}", network.title());
    }
}

/// A source one of whose cases cannot be read by whoever draws it.
struct Unreadable(Vec<PreparedCase>, usize);

impl CaseSource for Unreadable {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn case(&self, index: usize) -> Result<Cow<'_, PreparedCase>> {
        match index == self.1 {
            true => Err(Error::data("scan.nii.gz", "is gone", "bring it back")),
            false => self.0.case(index),
        }
    }

    fn case_bytes(&self) -> u64 {
        self.0.case_bytes()
    }

    fn reading_bytes(&self) -> u64 {
        0
    }
}

/// A case that one of `ranks` cannot read ends all of them, with an error that says whose it is.
pub(super) fn assert_one_ends_all(ranks: usize, network: &NetworkConfig, settings: &TrainSettings) {
    let ended = train(ranks, network, settings, &Unreadable(cases(), 3));
    let errors: Vec<String> = ended.into_iter().map(|ended| ended.unwrap_err().to_string()).collect();
    let own = errors.iter().position(|error| error.starts_with("scan.nii.gz: is gone")).expect("one rank's own");
    for (rank, error) in errors.iter().enumerate().filter(|(rank, _)| *rank != own) {
        assert!(error.starts_with(&format!("rank {own}: scan.nii.gz: is gone")), "rank {rank}: {error}");
    }
}

#[test]
fn what_one_rank_cannot_do_ends_all() {
    let (network, settings) = networks().into_iter().next().unwrap();
    for deterministic_reduce in [false, true] {
        assert_one_ends_all(4, &network, &TrainSettings { deterministic_reduce, ..settings.clone() });
    }
}

/// A plan of a rank's steps asks for what each of `ranks` does, event by event; the events.
pub(super) fn assert_planned(ranks: usize, network: &NetworkConfig, settings: &TrainSettings) -> Vec<Event> {
    let (cases, divided) = (cases(), settings.divided(ranks, cases().len()).unwrap());
    let told = threads::run(ranks, |collective| {
        let device = Device::cpu(1, 1 << 30).unwrap();
        let mut trainer = Trainer::new(&device, network, divided.clone()).unwrap();
        trainer.join(&Ranks::of(collective), settings.clone());
        trainer.train(&cases, |_| Ok(())).unwrap();
        trainer.events().to_vec()
    });
    let plan = Device::cpu(1, 1 << 30).unwrap().planned();
    let mut planned = Trainer::new(&plan, network, divided).unwrap();
    planned.dry_run(&cases, 2).unwrap();
    assert!(!planned.events().is_empty());
    told.iter().for_each(|events| assert!(events == planned.events(), "{}, {ranks} ranks", network.title()));
    planned.events().to_vec()
}

/// Flat buffers included.
#[test]
fn plans_know_what_a_rank_allocates() {
    for (network, settings) in networks() {
        for deterministic_reduce in [false, true] {
            assert_planned(2, &network, &TrainSettings { deterministic_reduce, ..settings.clone() });
        }
    }
}

#[test]
fn a_steps_cases_are_divided_into_the_fewest_passes() {
    let (_, settings) = networks().into_iter().next().unwrap();
    let table = [
        // batch, passes, cases, ranks: batch, passes of a rank's turn
        ((8, 1, 100, 2), Some((4, 2))),
        ((8, 1, 100, 4), Some((2, 4))),
        ((8, 1, 100, 3), None),
        ((4, 3, 100, 6), Some((2, 6))),
        ((1, 4, 100, 4), Some((1, 4))),
        ((1, 4, 100, 8), None),
        ((6, 1, 100, 4), None),
        ((6, 2, 100, 4), Some((3, 4))),
        // A batch is no larger than the data set.
        ((8, 1, 4, 4), Some((1, 4))),
        ((8, 1, 100, 1), Some((8, 1))),
    ];
    for ((batch_size, accumulate, cases, ranks), expected) in table {
        let asked = TrainSettings { batch_size, accumulate, ..settings.clone() };
        let divided = asked.divided(ranks, cases);
        match expected {
            Some(expected) => {
                let divided = divided.unwrap();
                assert_eq!((divided.batch_size, divided.accumulate, divided.ranks), (expected.0, expected.1, ranks));
                assert_eq!(divided.undivided(&divided, &asked), asked);
            }
            None => {
                let error = divided.unwrap_err().to_string();
                assert!(error.contains(&format!("among {ranks} processes; give --accumulate")), "{error}");
            }
        }
    }
}
