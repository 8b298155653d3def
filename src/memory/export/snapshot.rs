//! The log as a memory snapshot of PyTorch's caching allocator, which pytorch.org/memory_viz opens.
//!
//! The file is a pickle of `{segments, device_traces}`: the state at the end, and the events that led there. Its viewer goes
//! back in time from the one by the other. Buffers that the step did not make are not in its log; they stand in a segment of
//! their own, one block a role. A buffer's stack has its op with its layer, and its phase.

use std::collections::{BTreeMap, HashMap};

use super::pickle::Pickle;
use crate::memory::{Event, EventKind, Role};

/// Where the segments begin: addresses of a device look like this, and 0 is none.
const STEP: u64 = 1 << 44;
const LASTING: u64 = 1 << 43;

/// The log as a pickle. Places are offsets in the arena above 2⁴⁴.
pub fn snapshot(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer { pickle: Pickle::new(), stacks: HashMap::new() };
    let end = events.iter().map(|event| event.offset + event.granted).max().unwrap_or(0);
    let start = events.iter().map(|event| event.offset).min().unwrap_or(0);
    // What lives at the end, of what the step made.
    let mut live = BTreeMap::new();
    for event in events {
        match event.kind {
            EventKind::Allocate => drop(live.insert(event.offset, event)),
            EventKind::Free => drop(live.remove(&event.offset)),
            EventKind::Retag(_) => {}
        }
    }
    writer.pickle.dict();
    writer.pickle.text("segments");
    writer.pickle.list();
    writer.pickle.mark();
    writer.segment(STEP + start, end - start, |writer| {
        let mut next = start;
        for (&offset, event) in &live {
            writer.block(offset - next, None);
            writer.block(event.granted, Some(event));
            next = offset + event.granted;
        }
        writer.block(end - next, None);
    });
    let made = |role: Role| live.values().filter(|event| event.role == role).map(|event| event.granted).sum::<u64>();
    let last = events.last().map(|event| event.live).unwrap_or_default();
    let lasting: Vec<(Role, u64)> = last
        .iter()
        .map(|(role, bytes)| (role, bytes.saturating_sub(made(role))))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    writer.segment(LASTING, lasting.iter().map(|(_, bytes)| bytes).sum(), |writer| {
        lasting.iter().for_each(|&(role, bytes)| writer.lasting(role, bytes));
    });
    writer.pickle.appends();
    writer.pickle.text("device_traces");
    writer.pickle.list();
    writer.pickle.mark();
    writer.trace(events);
    writer.pickle.appends();
    writer.pickle.end_dict();
    writer.pickle.finish()
}

struct Writer<'a> {
    pickle: Pickle,
    /// Stacks that were written, and where they are remembered.
    stacks: HashMap<(&'a str, &'a str, &'a str), u32>,
}

impl<'a> Writer<'a> {
    fn segment(&mut self, address: u64, bytes: u64, blocks: impl FnOnce(&mut Self)) {
        self.pickle.dict();
        for (key, value) in [("device", 0), ("stream", 0), ("address", address), ("total_size", bytes)] {
            self.pickle.pair(key, value);
        }
        for key in ["allocated_size", "active_size", "requested_size"] {
            self.pickle.pair(key, bytes);
        }
        self.pickle.text("segment_type");
        self.pickle.text("large");
        self.pickle.text("frames");
        self.pickle.list();
        self.pickle.text("blocks");
        self.pickle.list();
        self.pickle.mark();
        blocks(self);
        self.pickle.appends();
        self.pickle.end_dict();
    }

    /// A block of a segment: of an event, or of nothing.
    fn block(&mut self, bytes: u64, event: Option<&'a Event>) {
        if bytes == 0 {
            return;
        }
        self.pickle.dict();
        self.pickle.pair("size", bytes);
        self.pickle.pair("requested_size", event.map_or(bytes, |event| event.requested));
        self.pickle.text("state");
        self.pickle.text(if event.is_some() { "active_allocated" } else { "inactive" });
        self.pickle.text("frames");
        match event {
            Some(event) => self.stack(event.op, &event.layer, event.phase.name()),
            None => self.pickle.list(),
        }
        self.pickle.end_dict();
    }

    /// A block of what the step did not make.
    fn lasting(&mut self, role: Role, bytes: u64) {
        self.pickle.dict();
        self.pickle.pair("size", bytes);
        self.pickle.pair("requested_size", bytes);
        self.pickle.text("state");
        self.pickle.text("active_allocated");
        self.pickle.text("frames");
        self.stack(role.name(), "before the step", "setup");
        self.pickle.end_dict();
    }

    /// The events of the one device.
    fn trace(&mut self, events: &'a [Event]) {
        self.pickle.list();
        // The viewer colours by category only if one is called unknown.
        self.pickle.mark();
        self.event("snapshot", 0, 0, "unknown", None);
        self.pickle.appends();
        for some in events.chunks(1000) {
            self.pickle.mark();
            for event in some {
                let actions: &[&str] = match event.kind {
                    EventKind::Allocate => &["alloc"],
                    EventKind::Free => &["free_requested", "free_completed"],
                    EventKind::Retag(_) => &[],
                };
                for action in actions {
                    self.event(action, STEP + event.offset, event.granted, event.role.name(), Some(event));
                }
            }
            self.pickle.appends();
        }
    }

    fn event(&mut self, action: &str, address: u64, bytes: u64, category: &str, event: Option<&'a Event>) {
        self.pickle.dict();
        self.pickle.text("action");
        self.pickle.text(action);
        for (key, value) in [("addr", address), ("size", bytes), ("stream", 0)] {
            self.pickle.pair(key, value);
        }
        self.pickle.text("category");
        self.pickle.text(category);
        self.pickle.text("frames");
        match event {
            Some(event) => self.stack(event.op, &event.layer, event.phase.name()),
            None => self.pickle.list(),
        }
        self.pickle.end_dict();
    }

    /// A list of frames, the innermost first.
    fn stack(&mut self, op: &'a str, layer: &'a str, phase: &'a str) {
        if let Some(&known) = self.stacks.get(&(op, layer, phase)) {
            return self.pickle.recall(known);
        }
        self.pickle.list();
        self.pickle.mark();
        for (file, name) in [(if layer.is_empty() { "(no layer)" } else { layer }, op), ("step", phase)] {
            self.pickle.dict();
            self.pickle.text("filename");
            self.pickle.text(file);
            self.pickle.pair("line", 0);
            self.pickle.text("name");
            self.pickle.text(name);
            self.pickle.end_dict();
        }
        self.pickle.appends();
        let place = self.pickle.remember();
        self.stacks.insert((op, layer, phase), place);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::pickle::read;
    use super::*;
    use crate::memory::{Block, Ledger, Phase};

    #[test]
    fn the_viewer_can_go_back_from_the_end() {
        let mut ledger = Ledger::default();
        let block = |offset, bytes| Block { offset, bytes };
        ledger.allocate(Role::Parameter, 1000, block(0, 1024));
        let batch = ledger.allocate(Role::Data, 256, block(1024, 256));
        ledger.record(true);
        ledger.set_phase(Phase::Forward);
        ledger.set_op("conv3d");
        ledger.set_layer("encoder.0".into());
        let passing = ledger.allocate(Role::Transient, 500, block(2048, 512));
        ledger.allocate(Role::Saved, 700, block(2816, 768));
        ledger.free(passing);
        ledger.free(batch);
        let file = read(&snapshot(&ledger.take_events()));
        let [step, lasting] = file["segments"].as_array().unwrap().as_slice() else { panic!("{file}") };
        // From the lowest to the highest place of the log, without a gap.
        let blocks = |segment: &Value| -> Vec<(u64, String)> {
            let block = |block: &Value| (block["size"].as_u64().unwrap(), block["state"].as_str().unwrap().to_string());
            segment["blocks"].as_array().unwrap().iter().map(block).collect()
        };
        assert_eq!((&step["address"], &step["total_size"]), (&json!(STEP + 1024), &json!(2560)));
        assert_eq!(blocks(step), [(1792, "inactive".to_string()), (768, "active_allocated".into())]);
        assert_eq!(step["blocks"][1]["requested_size"], 700);
        assert_eq!(blocks(lasting), [(1024, "active_allocated".to_string())]);
        let frames = json!([{ "filename": "encoder.0", "line": 0, "name": "conv3d" },
                            { "filename": "step", "line": 0, "name": "forward" }]);
        assert_eq!(step["blocks"][1]["frames"], frames);
        let trace = file["device_traces"][0].as_array().unwrap();
        let events: Vec<_> = trace.iter().map(|event| (event["action"].as_str().unwrap(), &event["addr"])).collect();
        let (a, b, c) = (json!(STEP + 2048), json!(STEP + 2816), json!(STEP + 1024));
        let expected = [("snapshot", &json!(0)), ("alloc", &a), ("alloc", &b), ("free_requested", &a)];
        assert_eq!(events[..4], expected);
        assert_eq!(events[4..], [("free_completed", &a), ("free_requested", &c), ("free_completed", &c)]);
        assert_eq!((&trace[1]["frames"], &trace[3]["frames"]), (&frames, &frames));
        assert_eq!(trace[2]["category"], "saved");
    }

    #[test]
    fn no_events_are_a_valid_snapshot() {
        assert_eq!(read(&snapshot(&[]))["device_traces"][0].as_array().unwrap().len(), 1);
    }
}
