//! What is known of a CUDA device before it is used, and who may watch its memory.

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

/// Told of every buffer in a device's arena: an emulator whose checkers would otherwise see one large allocation.
pub trait Observer: Send + Sync {
    /// Memory came into being; no buffer lies in it yet.
    fn backed(&self, address: u64, bytes: u64);
    /// A buffer came, with unspecified contents.
    fn allocated(&self, address: u64, bytes: u64);
    /// A buffer went.
    fn freed(&self, address: u64, bytes: u64);
}
