//! What a device is, as far as workspaces depend on it: a plan knows no more of the device it stands for.

use super::cpu::SimdLevel;

/// What workspaces depend on. A real device and its plan have equal targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The CPU.
    Cpu {
        /// Threads whose scratch a workspace must hold.
        threads: usize,
        /// Instruction set of the kernels.
        simd: SimdLevel,
    },
    /// A CUDA device.
    Cuda(CudaTarget),
}

/// A CUDA device's properties that kernels are chosen by. Results must not depend on them: only tiles may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaTarget {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Shared memory that one block may ask for, in bytes.
    pub shared_memory: u32,
}

impl Target {
    /// Bytes of address space that memory is put behind at a time: reserved bytes are a multiple of it.
    pub fn granularity(self) -> u64 {
        match self {
            Target::Cpu { .. } => crate::memory::GRANULE,
            Target::Cuda(_) => CUDA_GRANULE,
        }
    }

    /// Page-locked host memory for copies from and to the device, in bytes.
    pub fn staging_bytes(self) -> u64 {
        match self {
            Target::Cpu { .. } => 0,
            Target::Cuda(_) => 2 * STAGING_HALF as u64,
        }
    }

    /// Name in reports: `cpu` or `cuda`.
    pub fn name(self) -> &'static str {
        match self {
            Target::Cpu { .. } => "cpu",
            Target::Cuda(_) => "cuda",
        }
    }
}

/// Bytes that a CUDA device's memory comes in: 2 MiB on all of today's, which ask the driver.
pub(crate) const CUDA_GRANULE: u64 = 2 << 20;

/// Bytes of one of the two halves of the staging memory: one is filled while the other is copied.
pub(crate) const STAGING_HALF: usize = 4 << 20;

/// Counters on a CUDA device with which the last block of a sum is found (`kernels/last_block.cuh`): the first bytes of
/// the arena.
pub(crate) const TICKETS: usize = 1 << 15;

/// Bytes of all tickets.
pub(super) const TICKET_BYTES: u64 = 4 * TICKETS as u64;

impl CudaTarget {
    /// Architectures by name, for plans: `sm_80` (A100), `sm_86` (RTX 30, A40), `sm_89` (RTX 40, L4, L40), `sm_90` (H100,
    /// H200), `sm_100` (B200), `sm_120` (RTX 50). Shared memory a block: CUDA C Programming Guide, table of compute capabilities.
    pub const KNOWN: [(&'static str, CudaTarget); 6] = [
        ("sm_80", CudaTarget { capability: (8, 0), shared_memory: 163 << 10 }),
        ("sm_86", CudaTarget { capability: (8, 6), shared_memory: 99 << 10 }),
        ("sm_89", CudaTarget { capability: (8, 9), shared_memory: 99 << 10 }),
        ("sm_90", CudaTarget { capability: (9, 0), shared_memory: 227 << 10 }),
        ("sm_100", CudaTarget { capability: (10, 0), shared_memory: 227 << 10 }),
        ("sm_120", CudaTarget { capability: (12, 0), shared_memory: 99 << 10 }),
    ];

    /// The architecture of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::KNOWN.into_iter().find(|(known, _)| *known == name).map(|(_, target)| target)
    }
}
