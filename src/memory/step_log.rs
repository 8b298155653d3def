//! What a step asks for, written down while a plan goes through it.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::{self, Layout, Lifetime};
use super::{EntryId, Phase, RoleBytes};

/// A request, and who made it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its buffer.
    pub lifetime: Lifetime,
    /// The op.
    pub op: &'static str,
    /// Its layer.
    pub layer: Arc<str>,
    /// Its phase.
    pub phase: Phase,
    /// Bytes that lived before.
    pub live: RoleBytes,
}

/// The requests of a step.
///
/// Of loops over pieces that all do the same, one piece is kept: the others' buffers come to lie where its own do. A plan
/// that leaves such pieces out has the same log as one that goes through them, and so the same layout.
#[derive(Debug, Default)]
pub struct StepLog {
    requests: Vec<Request>,
    /// Which of them each request of the step was, in order.
    sequence: Vec<u32>,
    /// Live buffers, and their place in the sequence; `None` for those of a repeated piece.
    live: HashMap<EntryId, Option<u32>>,
    clock: u32,
    held: u64,
    /// For each loop that is being run: where its present piece begins in the sequence.
    loops: Vec<usize>,
    /// The loop whose piece is a repeated one, and the request that comes next in its model.
    repeating: Option<(usize, usize)>,
}

impl StepLog {
    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.sequence.len()
    }

    /// Tells which buffers live: equal numbers mean the same ones.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// A buffer comes.
    pub fn allocated(&mut self, entry: EntryId, request: impl FnOnce(u32) -> Request) {
        self.held ^= entry.scattered();
        let request = request(self.clock);
        let repeated = self.model().filter(|&n| self.requests[n as usize].lifetime.bytes == request.lifetime.bytes);
        if let Some(n) = repeated {
            self.sequence.push(n);
            self.live.insert(entry, None);
            return;
        }
        self.repeating = None;
        let n = self.requests.len() as u32;
        self.clock += 1;
        self.requests.push(request);
        self.sequence.push(n);
        self.live.insert(entry, Some(n));
    }

    /// What a repeated piece asks for next.
    fn model(&mut self) -> Option<u32> {
        let (depth, next) = self.repeating.as_mut()?;
        let end = self.loops.get(*depth).copied()?;
        let found = (*next < end).then(|| self.sequence[*next]);
        *next += 1;
        found
    }

    /// A buffer goes.
    pub fn freed(&mut self, entry: EntryId) {
        self.held ^= entry.scattered();
        if let Some(Some(n)) = self.live.remove(&entry) {
            self.clock += 1;
            self.requests[n as usize].lifetime.until = self.clock;
        }
    }

    /// A loop over pieces begins.
    pub fn loop_begins(&mut self) {
        self.loops.push(self.sequence.len());
    }

    /// A piece of the innermost loop begins; a repeated one asks for what the last did.
    pub fn piece_begins(&mut self, repeated: bool) {
        let Some(depth) = self.loops.len().checked_sub(1) else { return };
        if self.repeating.is_some_and(|(outer, _)| outer < depth) {
            return;
        }
        let former = std::mem::replace(&mut self.loops[depth], self.sequence.len());
        self.repeating = repeated.then_some((depth, former));
    }

    /// The innermost loop ends.
    pub fn loop_ends(&mut self) {
        self.loops.pop();
        if self.repeating.is_some_and(|(depth, _)| depth >= self.loops.len()) {
            self.repeating = None;
        }
    }

    /// The step is over: its buffers, of which those that are left live from its start on, as they do in the next.
    pub fn end(&mut self) -> Vec<Lifetime> {
        let mut lifetimes: Vec<Lifetime> = self.requests.iter().map(|request| request.lifetime).collect();
        for n in self.live.values().flatten() {
            (lifetimes[*n as usize].from, lifetimes[*n as usize].until) = (0, self.clock + 1);
        }
        lifetimes
    }

    /// The layout that has the different requests at `offsets`.
    pub fn layout(&self, offsets: &[u64], height: u64) -> Layout {
        let request = |&n: &u32| (self.requests[n as usize].lifetime.bytes, offsets[n as usize]);
        Layout { requests: self.sequence.iter().map(request).collect(), height }
    }

    /// The different requests, in order.
    pub fn into_requests(self) -> Vec<Request> {
        self.requests
    }

    /// The request at the peak: the one that makes most bytes live.
    pub fn at_the_peak(&self) -> Option<&Request> {
        let with = |request: &&Request| request.live.total().saturating_add(request.lifetime.bytes);
        // The first of those that are equal.
        self.requests.iter().rev().max_by_key(with)
    }
}

/// Layouts that a plan has made: the same lifetimes are not placed twice.
#[derive(Debug, Default)]
pub struct LayoutMaker {
    last: Option<(Vec<Lifetime>, Vec<u64>, u64)>,
}

impl LayoutMaker {
    /// Offsets that take no time to find: one buffer above the other.
    pub fn stack(&mut self, lifetimes: Vec<Lifetime>) -> (&[u64], u64) {
        let mut height = 0u64;
        let place = |buffer: &Lifetime| {
            let offset = height;
            height = height.saturating_add(buffer.bytes);
            offset
        };
        let offsets = lifetimes.iter().map(place).collect();
        let (_, offsets, height) = self.last.insert((lifetimes, offsets, height));
        (offsets, *height)
    }

    /// Offsets of these buffers, and the highest end.
    pub fn place(&mut self, lifetimes: Vec<Lifetime>) -> (&[u64], u64) {
        if self.last.as_ref().is_none_or(|(known, _, _)| *known != lifetimes) {
            let (offsets, height) = layout::place(&lifetimes);
            self.last = Some((lifetimes, offsets, height));
        }
        self.last.as_ref().map_or((&[], 0), |(_, offsets, height)| (offsets, *height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Block, Ledger, Role};

    /// A step of a lasting buffer and a loop of `pieces` pieces of three buffers each, of which every one but the first is a
    /// repetition; `skip`: they are left out.
    fn looped(pieces: usize, skip: bool) -> (Vec<Lifetime>, usize) {
        let (mut log, mut ledger) = (StepLog::default(), Ledger::default());
        let mut take = |log: &mut StepLog, bytes: u64| {
            let id = ledger.allocate(Role::Transient, bytes, Block { offset: 0, bytes });
            log.allocated(id, |from| Request {
                lifetime: Lifetime { bytes, from, until: from + 1 },
                op: "",
                layer: "".into(),
                phase: Phase::Forward,
                live: RoleBytes::default(),
            });
            id
        };
        take(&mut log, 1024);
        log.loop_begins();
        for piece in 0..pieces {
            if piece > 0 && skip {
                continue;
            }
            let before = log.held();
            log.piece_begins(piece > 0);
            let (a, b) = (take(&mut log, 256), take(&mut log, 512));
            log.freed(a);
            let c = take(&mut log, 768);
            log.freed(b);
            log.freed(c);
            assert_eq!(log.held(), before);
        }
        log.loop_ends();
        take(&mut log, 2048);
        (log.end(), log.asked())
    }

    #[test]
    fn repeated_pieces_leave_no_trace() {
        let ((all, asked), (one, once)) = (looped(5, false), looped(5, true));
        assert_eq!(all, one);
        assert_eq!((asked, once), (2 + 5 * 3, 2 + 3));
        // What is left lives through the whole step.
        let end = all.iter().map(|lifetime| lifetime.until).max().unwrap();
        assert!([all[0], all[4]].iter().all(|left| (left.from, left.until) == (0, end)));
    }
}
