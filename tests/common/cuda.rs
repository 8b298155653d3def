//! A CUDA device for tests: the GPU if there is one, else the emulator with all its checkers.
//!
//! The library's own tests compile this file as well.

use ossnet::device::{Device, Observer};

/// Bytes that a test may use.
const BUDGET: u64 = 1 << 30;

/// A CUDA device, under the emulator with all checkers on where the machine has no GPU; its blocks and warps then run in an
/// order drawn from `seed` (0: ascending). `None` without the feature `cuda`.
pub fn cuda_device(seed: u64) -> Option<Device> {
    if !cfg!(feature = "cuda") {
        return None;
    }
    if cuemu::gpu_present() {
        return Some(Device::cuda(0, BUDGET).unwrap());
    }
    // Sectors and bank conflicts are a quarter of the work, and few ask for them.
    Some(emulated(cuemu::Config { seed, traffic: false, ..cuemu::Config::checked() }))
}

/// An emulated device that counts sectors and bank conflicts beside checking. `None` where there is a GPU, which counts nothing.
pub fn counting_device() -> Option<Device> {
    (cfg!(feature = "cuda") && !cuemu::gpu_present()).then(|| emulated(cuemu::Config::checked()))
}

fn emulated(config: cuemu::Config) -> Device {
    let emulator = cuemu::preload().unwrap();
    emulator.configure(config);
    emulator.reset();
    Device::cuda_observed(0, BUDGET, Box::new(Watch(emulator))).unwrap()
}

/// Fails if the emulator found anything in this thread's launches since [`cuda_device`].
pub fn assert_clean() {
    if cfg!(feature = "cuda") && !cuemu::gpu_present() {
        cuemu::preload().unwrap().assert_clean();
    }
}

/// Makes the emulator's checkers see each buffer of the arena as an allocation of its own.
struct Watch(&'static cuemu::Emulator);

impl Observer for Watch {
    fn backed(&self, address: u64, bytes: u64) {
        self.0.forbid(address, bytes, true);
    }

    fn allocated(&self, address: u64, bytes: u64) {
        self.0.forbid(address, bytes, false);
        self.0.undefine(address, bytes);
    }

    fn freed(&self, address: u64, bytes: u64) {
        self.0.forbid(address, bytes, true);
    }
}
