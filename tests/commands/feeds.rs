//! Where batches come from changes nothing but the time: drawn when needed or ahead on other threads, from cases in memory
//! or read from disk, training ends with the same bits.

use crate::support::cli::{Place, data_set};
use ossnet::Result;
use ossnet::data::{Augmentation, Dataset, SamplingRule};
use ossnet::device::Device;
use ossnet::memory::Role;
use ossnet::models::NetworkConfig;
use ossnet::task::{PreparedCase, Task};
use ossnet::train::case_source::{CaseSource, OnDisk};
use ossnet::train::presets;
use ossnet::train::settings::TrainSettings;
use ossnet::train::trainer::Trainer;

const SHAPE: [usize; 3] = [16; 3];

fn settings(network: &NetworkConfig) -> TrainSettings {
    TrainSettings {
        batch_size: 2,
        points: 200,
        accumulate: 2,
        sampling: SamplingRule::Class,
        augmentation: Augmentation { rotation: 0.5, gamma: 0.5, ..Augmentation::STRONG },
        ..presets::sample(network, 3, 5)
    }
}

/// Weights and losses after training on `cases`, and the most bytes that stood in the ledger as staging.
fn train(cases: &dyn CaseSource, prefetch: u64, budget: u64, threads: usize) -> Result<(Vec<u32>, u64)> {
    let device = Device::cpu(threads, budget)?;
    let network = NetworkConfig::sample("oss-net-c", 1, 1, SHAPE)?;
    let mut trainer = Trainer::new(&device, &network, settings(&network))?;
    trainer.set_prefetch(prefetch);
    let mut staged = 0;
    trainer.train(cases, |trainer| {
        staged = staged.max(trainer.parameters().device().live().get(Role::Staging));
        Ok(())
    })?;
    assert_eq!(device.live().get(Role::Staging), 0, "given back at the end");
    let mut bits: Vec<u32> = trainer.losses().iter().map(|loss| loss.to_bits()).collect();
    for parameter in trainer.parameters().iter() {
        bits.extend(parameter.value().to_vec()?.iter().map(|weight| weight.to_bits()));
    }
    Ok((bits, staged))
}

#[test]
fn the_same_bits_from_memory_and_disk_ahead_or_not() {
    let place = Place::new();
    data_set(place.path(), 16, &["a", "b", "c", "d", "e"], &["f"]);
    let dataset = Dataset::open(place.path(), 0).unwrap();
    let task = Task::of(&dataset, SHAPE);
    let held: Vec<PreparedCase> = dataset
        .training
        .iter()
        .map(|case| task.prepare(dataset.read(case, task.preprocessing.axes).unwrap(), None).unwrap())
        .collect();
    let on_disk = OnDisk::new(&dataset, &dataset.training, &task, None, 16 * 16 * 16);
    let (expected, staged) = train(&held, 0, 1 << 30, 1).unwrap();
    assert_eq!(staged, 0);
    for threads in [1, 3] {
        for cases in [&held as &dyn CaseSource, &on_disk] {
            let (bits, staged) = train(cases, 4 << 20, 1 << 30, threads).unwrap();
            assert!(bits == expected, "{threads} threads");
            // Two batches at least, and no more than was allowed.
            assert!((1..=4 << 20).contains(&staged), "{staged} bytes of staging");
        }
    }
    // A budget without room for batches in advance is not an error: they are drawn when they are needed.
    let (bits, staged) = train(&held, 4 << 30, 1 << 30, 2).unwrap();
    assert!(bits == expected && staged < 1 << 30);
}

/// A file that vanishes in the middle of a run ends it with one line that names the file.
#[test]
fn a_case_that_vanishes_is_named() {
    let place = Place::new();
    data_set(place.path(), 16, &["a", "b", "c"], &["d"]);
    let dataset = Dataset::open(place.path(), 0).unwrap();
    let task = Task::of(&dataset, SHAPE);
    let on_disk = OnDisk::new(&dataset, &dataset.training, &task, None, 16 * 16 * 16);
    std::fs::remove_file(place.at("imagesTr/b.nii.gz")).unwrap();
    let message = train(&on_disk, 4 << 20, 1 << 30, 2).unwrap_err().to_string();
    assert!(message.contains("b.nii.gz") && !message.contains('\n'), "{message}");
}

/// Augmentation and sampling as the user says them.
#[test]
fn the_configuration_says_what_is_drawn() {
    let place = Place::new();
    std::fs::write(place.at("run.toml"), "augment = 'strong'\nsampling = 'class'\n[augmentation]\nrotation = 0.9\n")
        .unwrap();
    let dumped = |arguments: &str| -> toml::Table {
        place.run(&format!("train --dump-config {arguments}")).succeeded().parse().unwrap()
    };
    let number = |table: &toml::Table, key: &str| table["augmentation"][key].as_float().unwrap();
    let table = dumped("--config run.toml");
    assert_eq!(table["sampling"].as_str(), Some("class"));
    assert!((number(&table, "rotation") - 0.9).abs() < 1e-6 && (number(&table, "gamma") - 0.3).abs() < 1e-6);
    // A name on the command line stands for all of it.
    let table = dumped("--config run.toml --augment none --sampling reference --clip lung --ignore-geometry");
    assert_eq!((number(&table, "rotation"), number(&table, "gamma")), (0.0, 0.0));
    assert_eq!(table["sampling"].as_str(), Some("reference"));
    assert_eq!(table["preprocessing"]["clip"].as_array().unwrap()[0].as_float(), Some(-1000.0));
    assert_eq!(table["preprocessing"]["ignore_geometry"].as_bool(), Some(true));
    place.refuses("train --dump-config --sampling nearby", 2, &["uniform, border, class, reference"]);
    place.refuses("train --dump-config --clip belly", 2, &["abdomen"]);
    std::fs::write(place.at("bad.toml"), "[augmentation]\nrotation = 1.5\n").unwrap();
    place.refuses("train --dump-config --config bad.toml", 1, &["bad.toml", "rotation must be a probability"]);
    std::fs::write(place.at("bad.toml"), "[augmentation]\nrotatoin = 0.5\n").unwrap();
    place.refuses("train --dump-config --config bad.toml", 1, &["bad.toml", "rotatoin"]);
}
