//! The log as a heap profile that pprof opens (`go tool pprof -http : FILE`, Speedscope, Pyroscope).
//!
//! A gzipped `Profile` message of [profile.proto](https://github.com/google/pprof/blob/main/proto/profile.proto): stacks of
//! op, role and layers within a phase, with what each allocated in the step and what of it was in use at the step's peak.
//! What lives across steps is in use, too, but was allocated before.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::memory::{Event, EventKind, Peak};
use crate::order;
use crate::protobuf::{bytes, packed, varint};

/// The values of a sample: their types and units, by pprof's names for heap profiles.
const VALUES: [(&str, &str); 3] = [("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_space", "bytes")];

/// Frames from the leaf to the root.
type Stack = Vec<String>;

/// The log of a step whose peak was `peak`.
///
/// # Errors
/// None that memory could cause; the compressor's interface has them.
pub fn pprof(events: &[Event], peak: &Peak) -> std::io::Result<Vec<u8>> {
    let mut profile = Profile::default();
    for (value, unit) in VALUES {
        let kind = [varint(1, profile.string(value)), varint(2, profile.string(unit))].concat();
        profile.message.extend(bytes(1, &kind));
    }
    for (stack, values) in samples(events, peak) {
        profile.sample(&stack, values);
    }
    let in_use = profile.string(VALUES[2].0);
    profile.message.extend(varint(14, in_use));
    let mut file = GzEncoder::new(Vec::new(), Compression::default());
    file.write_all(&profile.finish())?;
    file.finish()
}

/// What each stack allocated in the step, and what of that was live at the peak.
fn samples(events: &[Event], peak: &Peak) -> BTreeMap<Stack, [u64; 3]> {
    let total = peak.by_role.total();
    let at_peak = events.iter().position(|event| event.live.total() == total);
    let mut samples = BTreeMap::<Stack, [u64; 3]>::new();
    let mut live = BTreeMap::<u64, &Event>::new();
    let mut before: BTreeMap<Arc<str>, u64> = order::map(peak.by_layer.iter().cloned());
    for (index, event) in events.iter().enumerate() {
        match event.kind {
            EventKind::Allocate => {
                let values = samples.entry(stack(event)).or_default();
                *values = [values[0] + 1, values[1] + event.granted, values[2]];
                live.insert(event.offset, event);
            }
            EventKind::Free => drop(live.remove(&event.offset)),
            EventKind::Retag(_) => {
                live.entry(event.offset).and_modify(|held| *held = event);
            }
        }
        if Some(index) == at_peak {
            for held in live.values() {
                samples.entry(stack(held)).or_default()[2] += held.granted;
                if let Some(bytes) = before.get_mut(&held.layer) {
                    *bytes = bytes.saturating_sub(held.granted);
                }
            }
        }
    }
    // The peak may lie before the first event; all that is live is then from before the step.
    for (layer, bytes) in before.into_iter().filter(|(_, bytes)| *bytes > 0) {
        samples.entry(frames(&["held from before the step"], &layer, "all steps")).or_default()[2] += bytes;
    }
    samples
}

fn stack(event: &Event) -> Stack {
    frames(&[event.role.name(), event.op], &event.layer, event.phase.name())
}

/// `leaves`, then the layers from the innermost to the outermost, then the phase.
fn frames(leaves: &[&str], layer: &str, phase: &str) -> Stack {
    let ends = layer.char_indices().filter(|(_, c)| *c == '.').map(|(at, _)| at).chain([layer.len()]);
    let paths = ends.filter(|&end| end > 0).map(|end| &layer[..end]).collect::<Vec<_>>();
    leaves.iter().copied().chain(paths.into_iter().rev()).chain([phase]).map(str::to_owned).collect()
}

/// A message in the making, with its table of strings; a frame's location and function have the number of its name.
#[derive(Default)]
struct Profile {
    message: Vec<u8>,
    strings: Vec<String>,
    numbers: BTreeMap<String, u64>,
    frames: Vec<u64>,
}

impl Profile {
    /// The number of a string; the table begins with an empty one, as the format wants.
    fn string(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.strings.push(text.into());
        let number = self.strings.len() as u64;
        self.numbers.insert(text.into(), number);
        number
    }

    fn sample(&mut self, stack: &[String], values: [u64; 3]) {
        let places: Vec<u64> = stack.iter().map(|frame| self.string(frame)).collect();
        self.frames.extend(&places);
        self.message.extend(bytes(2, &[packed(1, &places), packed(2, &values)].concat()));
    }

    fn finish(mut self) -> Vec<u8> {
        self.frames.sort_unstable();
        self.frames.dedup();
        for frame in self.frames {
            let line = bytes(4, &varint(1, frame));
            self.message.extend(bytes(4, &[varint(1, frame), line].concat()));
            self.message.extend(bytes(5, &[varint(1, frame), varint(2, frame)].concat()));
        }
        self.message.extend(bytes(6, b""));
        self.strings.iter().for_each(|text| self.message.extend(bytes(6, text.as_bytes())));
        self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Block, Ledger, Phase, Role};

    #[test]
    fn nothing_stands_for_no_layer_and_for_no_bytes() {
        assert_eq!(frames(&["saved", "add"], "", "forward"), ["saved", "add", "forward"]);
        assert_eq!(frames(&["saved"], "a.b", "forward"), ["saved", "a.b", "a", "forward"]);
        let mut ledger = Ledger::default();
        ledger.record(true);
        ledger.set_layer("encoder".into());
        ledger.allocate(Role::Saved, 256, Block { offset: 0, bytes: 256 });
        let (peak, events) = (ledger.peak(), ledger.take_events());
        // All is from the step: nothing was held before.
        assert_eq!(samples(&events, &peak).len(), 1);
    }

    #[test]
    fn stacks_hold_what_was_allocated_and_what_was_live_at_the_peak() {
        let mut ledger = Ledger::default();
        let block = |offset, bytes| Block { offset, bytes };
        ledger.set_layer("encoder.0".into());
        ledger.allocate(Role::Parameter, 512, block(0, 512));
        ledger.record(true);
        ledger.set_phase(Phase::Forward);
        ledger.set_op("conv3d");
        let a = ledger.allocate(Role::Transient, 256, block(512, 256));
        ledger.free(a);
        ledger.allocate(Role::Saved, 1024, block(512, 1024));
        let (peak, events) = (ledger.peak(), ledger.take_events());
        let names = |stack: &Stack| stack.join(" < ");
        let found: Vec<(String, [u64; 3])> =
            samples(&events, &peak).iter().map(|(stack, values)| (names(stack), *values)).collect();
        let expected = [
            ("held from before the step < encoder.0 < encoder < all steps", [0, 0, 512]),
            ("saved < conv3d < encoder.0 < encoder < forward", [1, 1024, 1024]),
            ("transient < conv3d < encoder.0 < encoder < forward", [1, 256, 0]),
        ];
        assert_eq!(found, expected.map(|(stack, values)| (stack.to_string(), values)));
        assert_eq!(found.iter().map(|(_, values)| values[2]).sum::<u64>(), peak.by_role.total());
        let file = pprof(&events, &peak).unwrap();
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&file[..]), &mut text).unwrap();
        let holds = |field: &[u8]| text.windows(field.len()).any(|part| part == field);
        assert!(holds(b"\x32\x00\x32\x0dalloc_objects") && holds(b"\x32\x06conv3d") && holds(b"\x32\x07forward"));
    }
}
