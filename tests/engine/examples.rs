//! The examples run.

use crate::support::Nifti;
use ossnet::checkpoint::model::{self, Model};
use ossnet::data::embedded;
use ossnet::device::Device;
use ossnet::models::Architecture;
use ossnet::nn::Parameters;
use ossnet::rng::Rng;
use ossnet::task::Task;

#[path = "../../examples/custom_op.rs"]
mod custom_op;
#[path = "../../examples/infer.rs"]
mod infer;
#[path = "../../examples/own_network.rs"]
#[allow(dead_code)] // `main`
mod own_network;
#[path = "../../examples/plan.rs"]
mod plan;
#[path = "../../examples/train.rs"]
#[allow(dead_code)] // its arguments are read by `main`
mod train;

#[test]
fn a_plan() {
    plan::main().unwrap();
}

#[test]
fn an_op_of_ones_own() {
    custom_op::main().unwrap();
}

/// It learns, its steps reserve what the plan said, to the byte, and the program fits on a screen or two.
#[test]
fn a_network_of_ones_own() {
    assert!(include_str!("../../examples/own_network.rs").lines().count() < 100);
    let (losses, [planned, reserved]) = own_network::run(3).unwrap();
    let (first, last) = (losses.iter().take(4).sum::<f32>(), losses.iter().rev().take(4).sum::<f32>());
    assert!(last < first, "the last epoch is no better than the first: {losses:?}");
    assert_eq!(planned, reserved);
}

/// The program that knows it reads its checkpoint; for any other, and for another size of it, there is one line.
#[test]
fn a_checkpoint_of_ones_own_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.safetensors");
    let device = Device::cpu(1, 1 << 28).unwrap();
    let architecture = own_network::TwoLayers { features: 3 };
    let mut parameters = Parameters::new(&device);
    let network = architecture.build(&mut parameters, &mut Rng::new(1)).unwrap();
    let task = Task::of(&embedded::open("heads").unwrap(), architecture.multiples());
    Model::save(&*network, &parameters, &task, &path).unwrap();

    let read = model::load_as(&device, &architecture, &path).unwrap();
    assert_eq!(read.task, task);
    for (own, read) in parameters.iter().zip(read.parameters.iter()) {
        assert_eq!((own.name(), own.value().to_vec().unwrap()), (read.name(), read.value().to_vec().unwrap()));
    }
    let refused = |found: ossnet::Result<Model>| found.err().expect("refused").to_string();
    let larger = refused(model::load_as(&device, &own_network::TwoLayers { features: 4 }, &path));
    assert!(larger.contains("another network than Two layers of 4 features"), "{larger}");
    let nameless = refused(model::load(&device, &path));
    assert!(nameless.contains("no name for (two_layers)"), "{nameless}");
}

#[test]
fn training_and_then_inference() {
    let folder = tempfile::tempdir().unwrap();
    let [checkpoint, scan, out] =
        ["o-net.safetensors", "scan.nii.gz", "found.nii.gz"].map(|name| folder.path().join(name));
    train::train(1, checkpoint.clone()).unwrap();
    Nifti::new([30, 40, 20]).write(&scan);
    infer::infer(&checkpoint, &scan, &out).unwrap();
    assert!(out.exists());
    assert!(infer::main().unwrap_err().to_string().contains("checkpoint"));
}
