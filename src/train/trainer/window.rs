//! How far ahead of their use a trainer's batches are drawn.

use super::Trainer;
use crate::data::prefetch::PrefetchLimits;
use crate::device::{Backend, Buffer};
use crate::memory::Role;

/// The most threads that draw batches beside a network on the CPU: more only help where reading is slower than it.
const PREFETCH_THREADS: usize = 4;

/// Nothing is drawn before it is needed.
pub(super) const WHEN_NEEDED: PrefetchLimits = PrefetchLimits { items: 1, threads: 0 };

impl Trainer {
    /// How far batches of `bytes` bytes are drawn ahead, with the entry in the ledger that stands for them. On a CUDA device
    /// they lie in the host's memory, of which its ledger knows nothing. They take at most half of what steps leave of the
    /// budget; where that holds no two batches, each is drawn when it is needed.
    pub(super) fn window(&self, bytes: u64) -> (PrefetchLimits, Option<Buffer>) {
        let on_cpu = matches!(self.device.backend(), Backend::Cpu { .. });
        // A GPU leaves the host's cores to reading, inflating and augmenting.
        let threads = match on_cpu {
            true => self.device.threads().clamp(1, PREFETCH_THREADS),
            false => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let left = if on_cpu { (self.device.budget().saturating_sub(self.device.reserved())) / 2 } else { u64::MAX };
        let window = PrefetchLimits::within(self.prefetch_bytes.min(left), bytes, threads);
        if self.prefetch_bytes == 0 || window.bytes(bytes) > left {
            return (WHEN_NEEDED, None);
        }
        if !on_cpu {
            return (window, None);
        }
        match self.device.in_op("prefetch", || self.device.allocate(window.bytes(bytes), Role::Staging)) {
            Ok(entry) => (window, Some(entry)),
            Err(_) => (WHEN_NEEDED, None),
        }
    }
}
