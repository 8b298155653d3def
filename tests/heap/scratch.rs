//! What a training step allocates outside the ledger is bounded: the GEMM crate packs its operands in buffers of its own,
//! and ops keep short lists on the heap.

use crate::{allocator, alone};
use ossnet::device::Device;
use ossnet::models::{Family, NetworkConfig};
use ossnet::train::dry_run::{StepSizes, SyntheticStep};

/// Bytes that a step may hold outside the ledger: packed operands of the products in flight, lists of a few numbers an op.
const A_STEP: usize = 1 << 20;

#[test]
fn a_step_allocates_little_outside_the_ledger() {
    let _turn = alone();
    for name in ["oss-net-c", "oss-net-d", "o-net", "unet3d"] {
        let volume = [64, 64, 64];
        let device = Device::cpu(2, 4 << 30).unwrap();
        let config = NetworkConfig::official(name, Family::Brats).unwrap().adapted(4, 1, volume);
        let mut stage = SyntheticStep::new(&device, &config, StepSizes::new(volume, 1, 4096)).unwrap();
        // The first step fills what the GEMM crate keeps for a thread's life: a slab of its second-level cache's size.
        stage.step().unwrap();
        let before = allocator::forget();
        stage.step().unwrap();
        let beside = allocator::most() - before;
        println!("{name}: {beside} bytes beside the ledger");
        assert!(beside <= A_STEP, "{name}: {beside} bytes");
    }
}
