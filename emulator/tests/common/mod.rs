//! What the emulator's tests share.
#![allow(dead_code)]

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig};
use cudarc::nvrtc::Ptx;

/// The kernels compiled from `cu/kernels.cu`.
pub const KERNELS: &str = include_str!("../ptx/kernels.ptx");
/// The kernels compiled from `cu/bugs.cu`.
pub const BUGS: &str = include_str!("../ptx/bugs.ptx");

/// A device with a module.
pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub module: Arc<CudaModule>,
}

impl Gpu {
    /// Device 0 with the PTX loaded; the emulator must be loaded already.
    pub fn new(ptx: &str) -> Gpu {
        let context = CudaContext::new(0).expect("the emulated device exists");
        let module = context.load_module(Ptx::from_src(ptx)).expect("the module loads");
        Gpu { stream: context.default_stream(), context, module }
    }

    /// A kernel by name.
    pub fn kernel(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).expect("the kernel exists")
    }
}

/// A one-dimensional launch of at least `n` threads in blocks of `block`.
pub fn threads(n: usize, block: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: ((n as u32).div_ceil(block), 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 }
}

/// Repeatable numbers in -2..2.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 22) as f32) - 2.0
        })
        .collect()
}
