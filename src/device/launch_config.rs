//! How many threads a kernel is launched with.

/// Blocks, threads a block, and dynamic shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Blocks along x (at most 2³¹ − 1), y and z (at most 65535).
    pub blocks: [u32; 3],
    /// Threads of a block along x, y, z; at most 1024 in all.
    pub threads: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// Threads of a block of element-wise kernels.
pub const THREADS: u32 = 256;

/// Blocks of a grid-stride loop, at most: enough to fill any device, few enough that a block has work.
pub const MANY_BLOCKS: usize = 1 << 12;

impl LaunchConfig {
    /// `blocks` blocks of `threads` threads, both along x.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Self { blocks: [blocks as u32, 1, 1], threads: [threads, 1, 1], shared: 0 }
    }

    /// For a kernel with a grid-stride loop (`for_elements` of `common.cuh`) over `elements`.
    pub fn cover(elements: usize) -> Self {
        Self::new(elements.div_ceil(THREADS as usize).min(MANY_BLOCKS), THREADS)
    }

    /// The same with dynamic shared memory.
    pub fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes as u32, ..self }
    }

    /// True if no thread runs.
    pub fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}
