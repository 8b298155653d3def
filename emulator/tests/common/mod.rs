//! What the emulator's tests share.
#![allow(dead_code)]

use std::sync::Arc;

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DriverError, LaunchArgs, LaunchConfig,
};
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

    /// Memory that nobody wrote.
    pub fn undefined(&self, n: usize) -> CudaSlice<f32> {
        // SAFETY: any bits are an f32; that they are undefined is what the tests are about.
        unsafe { self.stream.alloc(n) }.expect("there is memory")
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

/// Launches without ceremony.
pub trait Launch {
    /// Launches and waits.
    fn run(&mut self, cfg: LaunchConfig) -> Result<(), DriverError>;
}

impl Launch for LaunchArgs<'_> {
    fn run(&mut self, cfg: LaunchConfig) -> Result<(), DriverError> {
        // SAFETY: every test gives its kernel the arguments it declares; accesses outside the buffers are stopped by the
        // emulator, which is what some tests are about.
        unsafe { self.launch(cfg) }.map(|_| ())
    }
}

/// Copies to the host from a bare address.
pub fn from_address(to: &mut [f32], address: u64) -> Result<(), DriverError> {
    // SAFETY: the emulator checks the device side; `to` is as long as it says.
    unsafe { cudarc::driver::result::memcpy_dtoh_sync(to, address) }
}

/// Copies to a bare address.
pub fn to_address(address: u64, from: &[f32]) -> Result<(), DriverError> {
    // SAFETY: as in `from_address`.
    unsafe { cudarc::driver::result::memcpy_htod_sync(address, from) }
}
