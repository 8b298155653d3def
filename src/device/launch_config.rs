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

/// The most blocks along y, and along z.
#[cfg(feature = "cuda")]
pub const LONGEST: u32 = 65_535;

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

    /// Says what no device takes of it.
    #[cfg(feature = "cuda")]
    pub(super) fn check(&self) -> Result<(), String> {
        let (blocks, threads) = (self.blocks, self.threads);
        if blocks[0] > i32::MAX as u32 || blocks[1] > LONGEST || blocks[2] > LONGEST {
            return Err(format!(
                "{blocks:?} blocks, and {} × {LONGEST} × {LONGEST} are the most; use a smaller batch",
                i32::MAX
            ));
        }
        match threads.iter().map(|&n| u64::from(n)).product() {
            1..=1024 => Ok(()),
            all => Err(format!("{all} threads a block, and 1024 are the most; report this")),
        }
    }

    /// True if no thread runs.
    pub fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;

    #[test]
    fn what_no_device_takes_is_said() {
        let grid = |blocks, threads| LaunchConfig { blocks, threads: [threads, 1, 1], shared: 0 };
        assert_eq!(grid([1 << 30, LONGEST, LONGEST], 1024).check(), Ok(()));
        for wrong in [grid([1 << 31, 1, 1], 1), grid([1, 65_536, 1], 1), grid([1, 1, 65_536], 1)] {
            assert!(wrong.check().unwrap_err().contains("blocks"));
        }
        assert!(grid([1; 3], 1025).check().unwrap_err().contains("1025 threads"));
    }
}
