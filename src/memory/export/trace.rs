//! The log in the Trace Event Format, which Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) open.
//!
//! Phases, layers and ops are nested slices, the live bytes of each role a counter. The ledger notes order, not time: an
//! event is a microsecond.

use serde_json::{Value, json};

use crate::memory::{Event, Role};

/// The log of the process `name` as a JSON document.
pub fn chrome_trace(name: &str, events: &[Event]) -> String {
    let mut entries = vec![json!({ "ph": "M", "pid": 1, "name": "process_name", "args": { "name": name } })];
    for (thread, title) in ["phase", "layer", "op"].iter().enumerate() {
        entries.push(json!({ "ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": { "name": title } }));
    }
    slices(&mut entries, 0, events, |event| event.phase.name());
    slices(&mut entries, 1, events, |event| &event.layer);
    slices(&mut entries, 2, events, |event| event.op);
    let used: Vec<Role> =
        Role::ALL.into_iter().filter(|&role| events.iter().any(|event| event.live.get(role) > 0)).collect();
    for (index, event) in events.iter().enumerate() {
        let roles: serde_json::Map<String, Value> =
            used.iter().map(|&role| (role.name().to_string(), event.live.get(role).into())).collect();
        entries.push(json!({ "ph": "C", "pid": 1, "ts": index, "name": "live bytes", "args": roles }));
    }
    let note = "one event of the ledger is shown as one microsecond: the order is real, the time is not";
    json!({ "traceEvents": entries, "displayTimeUnit": "ns", "otherData": { "note": note } }).to_string()
}

/// Runs of events that `key` gives one name to, as slices of a thread; unnamed runs are left out.
fn slices<'a>(entries: &mut Vec<Value>, thread: usize, events: &'a [Event], key: impl Fn(&'a Event) -> &'a str) {
    let mut start = 0;
    for end in 1..=events.len() {
        let name = key(&events[start]);
        if end == events.len() || key(&events[end]) != name {
            if !name.is_empty() {
                let length = end - start;
                entries.push(
                    json!({ "ph": "X", "pid": 1, "tid": thread, "ts": start, "dur": length, "name": name, "cat": "memory" }),
                );
            }
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Block, Ledger, Phase};

    #[test]
    fn slices_cover_the_events_and_counters_follow_them() {
        let mut ledger = Ledger::default();
        ledger.record(true);
        ledger.set_phase(Phase::Forward);
        ledger.set_op("conv3d");
        let a = ledger.allocate(Role::Transient, 256, Block { offset: 0, bytes: 256 });
        ledger.set_phase(Phase::Backward);
        ledger.set_op("pool");
        let b = ledger.allocate(Role::Saved, 512, Block { offset: 256, bytes: 512 });
        for id in [a, b] {
            ledger.free(id);
        }
        let trace: Value = serde_json::from_str(&chrome_trace("step", &ledger.take_events())).unwrap();
        let entries = trace["traceEvents"].as_array().unwrap();
        let of = |kind: &str| entries.iter().filter(|entry| entry["ph"] == kind).cloned().collect::<Vec<_>>();
        let phases: Vec<_> = of("X").into_iter().filter(|slice| slice["tid"] == 0).collect();
        assert_eq!(phases.len(), 2);
        assert_eq!(
            (&phases[1]["name"], &phases[1]["ts"], &phases[1]["dur"]),
            (&"backward".into(), &1.into(), &3.into())
        );
        let counters = of("C");
        assert_eq!(counters.len(), 4);
        assert_eq!(counters[1]["args"], json!({ "saved": 512, "transient": 256 }));
        assert_eq!(counters[3]["args"], json!({ "saved": 0, "transient": 0 }));
    }

    #[test]
    fn no_events_are_a_valid_trace() {
        let trace: Value = serde_json::from_str(&chrome_trace("nothing", &[])).unwrap();
        assert!(trace["traceEvents"].is_array());
    }
}
