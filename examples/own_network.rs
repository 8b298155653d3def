//! A network that the crate does not know: planned, trained and run.
//!
//! `cargo run --release --example own_network [EPOCHS]`

use ossnet::data::embedded;
use ossnet::device::{Device, UNLIMITED};
use ossnet::infer::{Segmenter, SegmenterOptions};
use ossnet::memory::{default_cpu_budget, format_bytes};
use ossnet::models::{Architecture, Network};
use ossnet::nn::Parameters;
use ossnet::nn::layers::{Act, Builder, Conv, NormAct};
use ossnet::ops::Activation;
use ossnet::planner::adjust::Adjustable;
use ossnet::planner::training::TrainingPlan;
use ossnet::rng::Rng;
use ossnet::tape::{Tape, Var};
use ossnet::task::{PadTo, Task};
use ossnet::train::presets;
use ossnet::train::trainer::Trainer;

/// `conv3 → instance norm → PReLU → conv3`: from one channel to the logits of one class.
#[derive(Clone, Debug)]
pub struct TwoLayers {
    pub features: usize,
}

struct TwoLayersNetwork {
    architecture: TwoLayers,
    first: Conv,
    norm: NormAct,
    act: Act,
    last: Conv,
}

impl Architecture for TwoLayers {
    fn build(&self, parameters: &mut Parameters, rng: &mut Rng) -> ossnet::Result<Box<dyn Network>> {
        let mut root = Builder::new(parameters, rng);
        let first = Conv::new(&mut root.child("first"), 1, self.features, [3; 3], [1; 3], [1; 3], true)?;
        let act = Act::new(&mut root.child("act"), Activation::PRelu)?;
        let last = Conv::new(&mut root.child("last"), self.features, 1, [3; 3], [1; 3], [1; 3], true)?;
        let architecture = self.clone();
        Ok(Box::new(TwoLayersNetwork { architecture, first, norm: NormAct::instance(), act, last }))
    }

    fn title(&self) -> String {
        format!("Two layers of {} features", self.features)
    }

    fn image_channels(&self) -> usize {
        1
    }

    fn classes(&self) -> usize {
        1
    }

    fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::json!({ "architecture": "two_layers", "features": self.features }).to_string())
    }
}

impl Network for TwoLayersNetwork {
    fn architecture(&self) -> &dyn Architecture {
        &self.architecture
    }

    fn logits(&self, tape: &Tape, weights: &Parameters, volumes: &Var, _: Option<&Var>) -> ossnet::Result<Var> {
        let x = self.first.forward(tape, weights, volumes)?;
        let x = self.norm.forward(tape, weights, x, None, None, Some(&self.act))?;
        self.last.forward(tape, weights, &x)
    }
}

fn main() -> ossnet::Result<()> {
    run(std::env::args().nth(1).and_then(|epochs| epochs.parse().ok()).unwrap_or(3)).map(drop)
}

/// The program; a test runs it too. Returns the losses, and the bytes of a step as planned and as reserved.
pub fn run(epochs: u64) -> ossnet::Result<(Vec<f32>, [u64; 2])> {
    let (device, network) = (Device::cpu(0, default_cpu_budget())?, TwoLayers { features: 8 });
    let dataset = embedded::open("heads")?;
    let task = Task::of(&dataset, network.multiples());
    let read = |case| task.prepare(dataset.read(case, task.preprocessing.axes)?, PadTo::Own.shape());
    let cases = dataset.training.iter().map(read).collect::<ossnet::Result<Vec<_>>>()?;

    let settings = presets::sample(&network, epochs, 0);
    let run = TrainingPlan { network: &network, settings: settings.clone(), cases: &cases, flags: false, graph: false };
    let planned = run.plan(&Device::plan_for(device.target(), UNLIMITED))?;
    let mut trainer = Trainer::new(&device, &network, settings)?;
    trainer.train(&cases, |_| Ok(()))?;
    let reserved = device.reserved();
    println!("planned {}, reserved {}; losses {:.3?}", format_bytes(planned), format_bytes(reserved), trainer.losses());

    let scan = dataset.read(&dataset.validation[0], task.preprocessing.axes)?.image;
    let segmenter = Segmenter::new(trainer.network(), trainer.parameters(), &task, SegmenterOptions::of(&network))?;
    let labels = segmenter.segment("scan", scan, &mut || Ok(()))?.labels;
    println!("{} of {} voxels are inside", labels.voxels.iter().filter(|&&label| label > 0).count(), labels.len());
    Ok((trainer.losses().to_vec(), [planned, reserved]))
}
