//! What a CUDA device holds, as its driver counts it. The driver counts by device and not by test, so these tests have a
//! process of their own and take turns in it.
#![cfg(feature = "cuda")]

#[path = "../support/mod.rs"]
mod support;

mod plan;
mod reserved;
mod second_device;

use std::sync::Once;

/// The emulator with two devices, for one test at a time; `None` where a GPU takes its place.
fn emulator() -> Option<cuemu::Exclusive> {
    static ONCE: Once = Once::new();
    // SAFETY: before the emulator reads it, and no other thread reads the environment meanwhile: tests wait here first.
    ONCE.call_once(|| unsafe { std::env::set_var("CUEMU_DEVICES", "2") });
    if cuemu::gpu_present() {
        return None;
    }
    Some(cuemu::exclusive(cuemu::Config::default()).unwrap())
}
