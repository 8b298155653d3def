//! The ledger: every live buffer with its role, op, layer and phase; the peak and what was live then.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::arena::Block;
use super::role::{Phase, Role, RoleBytes};
use crate::order;
use crate::rng::Rng;

/// Identity of a buffer in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64);

impl EntryId {
    /// A number whose bits have nothing to do with those of other buffers: sums of them tell sets of buffers apart.
    pub(super) fn scattered(self) -> u64 {
        Rng::new(self.0).next_u64()
    }
}

#[derive(Clone, Debug)]
struct Entry {
    role: Role,
    op: &'static str,
    layer: Arc<str>,
    requested: u64,
    block: Block,
}

/// What happened to a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was allocated.
    Allocate,
    /// It was freed.
    Free,
    /// Its role changed from this one.
    Retag(Role),
}

/// One line of the ledger's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The buffer's role (after the event).
    pub role: Role,
    /// The op that asked for the buffer.
    pub op: &'static str,
    /// The layer's path in the model, for example `encoder.blocks.0`.
    pub layer: Arc<str>,
    /// When.
    pub phase: Phase,
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes given.
    pub granted: u64,
    /// Where in the arena.
    pub offset: u64,
    /// Live bytes by role after the event.
    pub live: RoleBytes,
}

/// The moment of most live bytes.
#[derive(Clone, Debug)]
pub struct Peak {
    /// Live bytes by role at that moment.
    pub by_role: RoleBytes,
    /// The op whose allocation made the peak.
    pub op: &'static str,
    /// Its layer.
    pub layer: Arc<str>,
    /// Its phase.
    pub phase: Phase,
    /// Live bytes by layer at that moment, largest first; the empty path holds what belongs to no layer.
    pub by_layer: Vec<(Arc<str>, u64)>,
}

/// Who holds which bytes.
#[derive(Debug)]
pub struct Ledger {
    entries: BTreeMap<EntryId, Entry>,
    next: u64,
    live: RoleBytes,
    peak: Peak,
    /// True while the peak is the present: the layers' shares are written down when the live set falls from it, not each
    /// time that it rises further.
    at_peak: bool,
    peak_activations: u64,
    events: Option<Vec<Event>>,
    phase: Phase,
    op: &'static str,
    layer: Arc<str>,
}

impl Default for Ledger {
    fn default() -> Self {
        let root: Arc<str> = "".into();
        Self {
            entries: BTreeMap::new(),
            next: 0,
            live: RoleBytes::default(),
            peak: Peak {
                by_role: RoleBytes::default(),
                op: "",
                layer: root.clone(),
                phase: Phase::Setup,
                by_layer: Vec::new(),
            },
            at_peak: true,
            peak_activations: 0,
            events: None,
            phase: Phase::Setup,
            op: "",
            layer: root,
        }
    }
}

impl Ledger {
    /// Live bytes by role.
    pub fn live(&self) -> RoleBytes {
        self.live
    }

    /// The peak since the start or the last [`Ledger::reset_peak`].
    pub fn peak(&self) -> Peak {
        let mut peak = self.peak.clone();
        if self.at_peak {
            peak.by_layer = self.live_by_layer();
        }
        peak
    }

    /// The highest sum of saved, transient and workspace bytes since the last [`Ledger::reset_peak`].
    pub fn peak_activations(&self) -> u64 {
        self.peak_activations
    }

    /// Forgets the peaks; what is live now becomes the first candidate.
    pub fn reset_peak(&mut self) {
        self.set_peak();
        self.peak_activations = self.live.activations();
    }

    /// What is live now is the peak.
    fn set_peak(&mut self) {
        let (by_role, op, layer, phase) = (self.live, self.op, self.layer.clone(), self.phase);
        self.peak = Peak { by_role, op, layer, phase, by_layer: Vec::new() };
        self.at_peak = true;
    }

    /// The live set is about to fall.
    fn leave_peak(&mut self) {
        if self.at_peak {
            self.peak.by_layer = self.live_by_layer();
            self.at_peak = false;
        }
    }

    /// Starts (with an empty log) or stops recording events.
    pub fn record(&mut self, on: bool) {
        self.events = on.then(Vec::new);
    }

    /// True while events are recorded.
    pub fn is_recording(&self) -> bool {
        self.events.is_some()
    }

    /// The recorded events so far; the log starts anew.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The phase that new entries belong to.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Sets the phase; returns the former one.
    pub fn set_phase(&mut self, phase: Phase) -> Phase {
        std::mem::replace(&mut self.phase, phase)
    }

    /// The layer that new entries belong to.
    pub fn layer(&self) -> Arc<str> {
        self.layer.clone()
    }

    /// Sets the layer; returns the former one.
    pub fn set_layer(&mut self, layer: Arc<str>) -> Arc<str> {
        std::mem::replace(&mut self.layer, layer)
    }

    /// Sets the op; returns the former one.
    pub fn set_op(&mut self, op: &'static str) -> &'static str {
        std::mem::replace(&mut self.op, op)
    }

    /// The op that new entries belong to.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// Enters a new buffer.
    pub fn allocate(&mut self, role: Role, requested: u64, block: Block) -> EntryId {
        let id = EntryId(self.next);
        self.next += 1;
        self.live.0[role as usize] += block.bytes;
        let entry = Entry { role, op: self.op, layer: self.layer.clone(), requested, block };
        self.log(EventKind::Allocate, &entry);
        self.entries.insert(id, entry);
        if self.live.total() > self.peak.by_role.total() {
            self.set_peak();
        }
        self.peak_activations = self.peak_activations.max(self.live.activations());
        id
    }

    /// Strikes a buffer out; returns its place. `None` if it is not there.
    pub fn free(&mut self, id: EntryId) -> Option<Block> {
        self.leave_peak();
        let entry = self.entries.remove(&id)?;
        self.live.0[entry.role as usize] -= entry.block.bytes;
        self.log(EventKind::Free, &entry);
        Some(entry.block)
    }

    /// Gives a buffer another role.
    pub fn retag(&mut self, id: EntryId, role: Role) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let former = std::mem::replace(&mut entry.role, role);
        if former == role {
            return;
        }
        let entry = entry.clone();
        self.live.0[former as usize] -= entry.block.bytes;
        self.live.0[role as usize] += entry.block.bytes;
        self.peak_activations = self.peak_activations.max(self.live.activations());
        self.log(EventKind::Retag(former), &entry);
    }

    /// Events recorded so far.
    pub(crate) fn recorded(&self) -> usize {
        self.events.as_ref().map_or(0, Vec::len)
    }

    /// Changes the places in the log of the events from `first` on.
    pub(crate) fn relocate_log(&mut self, first: usize, moved: impl Fn(u64) -> u64) {
        let events = self.events.iter_mut().flat_map(|events| events.iter_mut().skip(first));
        events.for_each(|event| event.offset = moved(event.offset));
    }

    /// Changes the places of live buffers; one for which there is none stays where it is.
    pub(crate) fn relocate_live(&mut self, mut moved: impl FnMut(Block) -> Option<Block>) {
        for entry in self.entries.values_mut() {
            entry.block = moved(entry.block).unwrap_or(entry.block);
        }
    }

    /// Live bytes by layer, largest first.
    pub fn live_by_layer(&self) -> Vec<(Arc<str>, u64)> {
        let mut sums: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for entry in self.entries.values() {
            *sums.entry(entry.layer.clone()).or_default() += entry.block.bytes;
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        order::by_key_descending(&mut sums, |(_, bytes)| (*bytes).into());
        sums
    }

    fn log(&mut self, kind: EventKind, entry: &Entry) {
        let (phase, live) = (self.phase, self.live);
        if let Some(events) = &mut self.events {
            events.push(Event {
                kind,
                role: entry.role,
                op: entry.op,
                layer: entry.layer.clone(),
                phase,
                requested: entry.requested,
                granted: entry.block.bytes,
                offset: entry.block.offset,
                live,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_peak_and_log_agree() {
        let mut ledger = Ledger::default();
        ledger.record(true);
        let block = |offset, bytes| Block { offset, bytes };
        let a = ledger.allocate(Role::Parameter, 100, block(0, 256));
        ledger.set_op("linear");
        let b = ledger.allocate(Role::Transient, 500, block(256, 512));
        ledger.retag(b, Role::Saved);
        assert_eq!(ledger.live().get(Role::Saved), 512);
        assert_eq!(ledger.peak().by_role.total(), 768);
        assert_eq!(ledger.peak().op, "linear");
        assert_eq!(ledger.peak().by_layer, [("".into(), 768)]);
        assert_eq!(ledger.free(b), Some(block(256, 512)));
        assert_eq!(ledger.free(b), None);
        assert_eq!(ledger.peak_activations(), 512);
        ledger.reset_peak();
        assert_eq!(ledger.peak().by_role.total(), 256);
        assert_eq!(ledger.peak_activations(), 0);
        let events = ledger.take_events();
        assert_eq!(events.len(), 4);
        assert_eq!(events[2].kind, EventKind::Retag(Role::Transient));
        ledger.free(a);
        assert_eq!(ledger.live(), RoleBytes::default());
    }

    #[test]
    fn the_peak_knows_its_layers_after_it_is_left() {
        let mut ledger = Ledger::default();
        let block = |offset, bytes| Block { offset, bytes };
        ledger.set_layer("encoder".into());
        let a = ledger.allocate(Role::Saved, 256, block(0, 256));
        ledger.set_layer("decoder".into());
        let b = ledger.allocate(Role::Transient, 512, block(256, 512));
        let c = ledger.allocate(Role::Transient, 256, block(768, 256));
        let shares: [(Arc<str>, u64); 2] = [("decoder".into(), 768), ("encoder".into(), 256)];
        assert_eq!(ledger.peak().by_layer, shares);
        // Retagging moves bytes between roles, not between layers; falling and rising again below the peak changes nothing.
        ledger.retag(c, Role::Saved);
        for id in [a, b, c] {
            ledger.free(id);
        }
        ledger.allocate(Role::Saved, 512, block(0, 512));
        assert_eq!(ledger.peak().by_layer, shares);
        assert_eq!(ledger.peak().by_role.total(), shares.iter().map(|share| share.1).sum::<u64>());
    }
}
