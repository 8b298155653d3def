//! How far ahead of their use a trainer's batches are drawn.

use super::Trainer;
use crate::data::prefetch::PrefetchLimits;
use crate::device::{Backend, Buffer, Target};
use crate::memory::Role;
use crate::train::case_source::CaseSource;

/// The most threads that draw batches beside a network on the CPU: more only help where reading is slower than it.
const PREFETCH_THREADS: usize = 4;

/// What `train --prefetch` takes where nothing is said.
pub const PREFETCH: u64 = 1 << 30;

/// Nothing is drawn before it is needed.
pub(super) const WHEN_NEEDED: PrefetchLimits = PrefetchLimits { items: 1, threads: 0 };

impl Trainer {
    /// Bytes of the batches that exist at once under a budget of `budget` bytes, once some steps were planned: of `cases`, each
    /// of which takes `reading` bytes more to be read.
    pub fn batch_bytes(&self, cases: &dyn CaseSource, reading: u64, budget: u64) -> u64 {
        let passes = self.passes(cases);
        let bytes = passes.bytes() + passes.size as u64 * reading;
        self.reach(bytes, budget).bytes(bytes)
    }

    fn reach(&self, bytes: u64, budget: u64) -> PrefetchLimits {
        let (threads, left) = match self.device.target() {
            Target::Cpu { threads, .. } => {
                (threads.clamp(1, PREFETCH_THREADS), budget.saturating_sub(self.device.reserved()) / 2)
            }
            // A GPU leaves the host's cores to reading, inflating and augmenting.
            Target::Cuda(_) => (std::thread::available_parallelism().map_or(1, usize::from), u64::MAX),
        };
        let window = PrefetchLimits::within(self.prefetch_bytes.min(left), bytes, threads);
        if self.prefetch_bytes == 0 || window.bytes(bytes) > left { WHEN_NEEDED } else { window }
    }

    /// How far batches of `bytes` bytes are drawn ahead, with the entry in the ledger that stands for them. On a CUDA device
    /// they lie in the host's memory, of which its ledger knows nothing. They take at most half of what steps leave of the
    /// budget; where that holds no two batches, each is drawn when it is needed.
    pub(super) fn window(&self, bytes: u64) -> (PrefetchLimits, Option<Buffer>) {
        let window = self.reach(bytes, self.device.budget());
        if !matches!(self.device.backend(), Backend::Cpu { .. }) || window == WHEN_NEEDED {
            return (window, None);
        }
        match self.device.in_op("prefetch", || self.device.allocate(window.bytes(bytes), Role::Staging)) {
            Ok(entry) => (window, Some(entry)),
            Err(_) => (WHEN_NEEDED, None),
        }
    }
}
