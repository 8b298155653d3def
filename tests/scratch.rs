//! What a training step allocates outside the ledger is bounded: the GEMM crate packs its operands in buffers of its own,
//! and ops keep short lists on the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ossnet::device::Device;
use ossnet::models::{Family, NetworkConfig};
use ossnet::train::rehearsal::{Sizes, Stage};

/// Counts live heap bytes and remembers the most.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's condition.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a step may hold outside the ledger: packed operands of the products in flight, lists of a few numbers an op.
const A_STEP: usize = 1 << 20;

#[test]
fn a_step_allocates_little_outside_the_ledger() {
    for name in ["oss-net-c", "oss-net-d", "o-net", "unet3d"] {
        let volume = [64, 64, 64];
        let device = Device::cpu(2, 4 << 30).unwrap();
        let config = NetworkConfig::official(name, Family::Brats).unwrap().adapted(4, 1, volume);
        let mut stage = Stage::new(&device, &config, Sizes::new(volume, 1, 4096)).unwrap();
        // The first step fills what the GEMM crate keeps for a thread's life: a slab of its second-level cache's size.
        stage.step().unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        stage.step().unwrap();
        let beside = MOST.load(Ordering::Relaxed) - before;
        println!("{name}: {beside} bytes beside the ledger");
        assert!(beside <= A_STEP, "{name}: {beside} bytes");
    }
}
