//! What a training step allocates outside the ledger is bounded: the GEMM crate packs its operands in buffers of its own,
//! and ops keep short lists on the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ossnet::device::Device;
use ossnet::models::{Family, NetworkConfig};
use ossnet::train::rehearsal::{Sizes, rehearse};

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

/// Bytes a step may hold outside the ledger, beyond what lives before it and the packing buffers of each thread.
const A_STEP: usize = 1 << 20;

/// The GEMM crate's packed panels a thread: a block of the left operand that fills its share of the second-level cache
/// (kept for the thread's life), and the right operand of the largest product, 512 × 666.
const PACKING: usize = 4 << 20;

#[test]
fn a_step_allocates_little_outside_the_ledger() {
    let (volume, threads) = ([64, 64, 64], 2);
    let device = Device::cpu(threads, 4 << 30).unwrap();
    let config = NetworkConfig::official("oss-net-c", Family::Brats).unwrap().adapted(4, 1, volume);
    let sizes = Sizes { volume, batch: 1, points: 4096 };
    // The first run starts threads and fills the crate's thread-local buffers.
    drop(rehearse(&device, &config, sizes, 1).unwrap());
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let run = rehearse(&device, &config, sizes, 1).unwrap();
    let beside = MOST.load(Ordering::Relaxed) - before;
    // The ledger's own log of the step, which only a rehearsal keeps; it grows by doubling.
    let log = 3 * run.events.len() * size_of::<ossnet::memory::Event>();
    let parameters = 4 * run.parameters;
    println!("{beside} bytes beside the ledger, of which the log {log} and initial weights {parameters}");
    assert!(beside <= A_STEP + threads * PACKING + log + parameters, "{beside} bytes");
}
