//! The work of a step: which op moved how many bytes and made how many operations, as its page states.

use std::ops::Range;
use std::sync::Arc;

use super::Phase;

/// One pass of one op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpCost {
    /// The op's name.
    pub op: &'static str,
    /// The layer that it belongs to.
    pub layer: Arc<str>,
    /// When it ran; an op that is run again for the backward pass counts there once more.
    pub phase: Phase,
    /// Floating-point operations, a fused multiply-add being two.
    pub flops: u64,
    /// Bytes that must move whatever the implementation.
    pub bytes: u64,
}

/// Keeps record while it is on.
#[derive(Debug, Default)]
pub struct OpCostLog {
    on: bool,
    entries: Vec<OpCost>,
}

impl OpCostLog {
    /// Starts or stops recording.
    pub fn record(&mut self, on: bool) {
        self.on = on;
    }

    /// True while it records.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Adds an entry.
    pub fn note(&mut self, work: OpCost) {
        self.entries.push(work);
    }

    /// Entries since the last [`OpCostLog::take`].
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes entries once more, for work that is like theirs and is not gone through.
    pub fn repeat(&mut self, entries: Range<usize>) {
        self.entries.extend_from_within(entries);
    }

    /// What was recorded since the last call.
    pub fn take(&mut self) -> Vec<OpCost> {
        std::mem::take(&mut self.entries)
    }
}
