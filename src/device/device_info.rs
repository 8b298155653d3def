//! What is known of a CUDA device before it is used, and who may watch its memory.

/// The oldest CUDA version whose drivers compile the kernels (PTX 8.1), major and minor.
pub const LEAST_CUDA: (u32, u32) = (12, 1);

/// The oldest branch of NVIDIA's driver with that version.
pub const LEAST_DRIVER: &str = "r530";

/// Bytes of the id that NCCL's ranks find each other by.
pub const NCCL_ID: usize = 128;

/// A CUDA device of this machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// Number, from 0.
    pub ordinal: usize,
    /// Name.
    pub name: String,
    /// CUDA version of the driver, major and minor.
    pub driver: (u32, u32),
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Memory that nobody uses, in bytes.
    pub free: u64,
    /// Shared memory that one block may ask for, in bytes.
    pub shared_memory: u32,
}

/// What the driver made of a kernel.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct KernelInfo {
    /// Its file, without the ending.
    pub file: &'static str,
    /// Its name.
    pub kernel: &'static str,
    /// Seconds that loading it took one thread.
    pub seconds: f64,
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block, in bytes.
    pub shared: u32,
    /// Local memory of a thread, in bytes: registers that did not suffice, or arrays.
    pub local: u32,
    /// Why it could not be loaded.
    pub problem: Option<String>,
}

/// Told of every buffer in a device's arena: an emulator whose checkers would otherwise see one large allocation.
pub trait Observer: Send + Sync {
    /// Memory came into being; no buffer lies in it yet.
    fn backed(&self, address: u64, bytes: u64);
    /// A buffer came, with unspecified contents.
    fn allocated(&self, address: u64, bytes: u64);
    /// A buffer went.
    fn freed(&self, address: u64, bytes: u64);
}
