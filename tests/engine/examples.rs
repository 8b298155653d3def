//! The examples run.

use crate::support::Nifti;

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

/// It learns, and its steps reserve what the plan said, to the byte.
#[test]
fn a_network_of_ones_own() {
    let (losses, [planned, reserved]) = own_network::run(3).unwrap();
    let (first, last) = (losses.iter().take(4).sum::<f32>(), losses.iter().rev().take(4).sum::<f32>());
    assert!(last < first, "the last epoch is no better than the first: {losses:?}");
    assert_eq!(planned, reserved);
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
