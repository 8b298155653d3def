//! Trains a small occupancy network on the embedded head MRIs and saves a checkpoint that `ossnet infer` takes.
//!
//! `cargo run --release --example train [EPOCHS [FILE]]`

use std::path::PathBuf;

use ossnet::data::embedded;
use ossnet::device::Device;
use ossnet::memory::{default_cpu_budget, format_bytes};
use ossnet::models::{Architecture, NetworkConfig};
use ossnet::task::{PadTo, Task};
use ossnet::train::trainer::Trainer;
use ossnet::train::{presets, training_state};

/// The program; a test runs it too.
pub fn main() -> ossnet::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let epochs = arguments.next().and_then(|epochs| epochs.parse().ok()).unwrap_or(150);
    train(epochs, arguments.next().map_or("o-net-small.safetensors".into(), PathBuf::from))
}

/// Trains for so many epochs and saves to `file`.
pub fn train(epochs: u64, file: PathBuf) -> ossnet::Result<()> {
    let device = Device::cpu(0, default_cpu_budget())?;
    // Any folder in a known layout will do: `Dataset::open(path, seed)`.
    let dataset = embedded::open("heads")?;
    let shape = [64, 80, 64];
    let network = NetworkConfig::sample("o-net-small", dataset.channels.len(), 1, shape)?;
    let task = Task::of(&dataset, network.multiples()).measured(&dataset)?;
    let cases = dataset
        .training
        .iter()
        .map(|case| task.prepare(dataset.read(case, task.preprocessing.axes)?, PadTo::Given(shape).shape()))
        .collect::<ossnet::Result<Vec<_>>>()?;

    let mut trainer = Trainer::new(&device, &network, presets::sample(&network, epochs, 0))?;
    trainer.train(&cases, |trainer| {
        if let Some(loss) = trainer.losses().last() {
            println!("step {}: loss {loss:.4}", trainer.losses().len());
        }
        Ok(())
    })?;
    training_state::save(&trainer, &task, &file)?;
    println!("saved {}; a step held at most {}", file.display(), format_bytes(trainer.costs().peak_bytes));
    Ok(())
}
