//! The log as comma-separated values: a line an event, bytes in columns.

use std::fmt::Write;

use crate::memory::{Event, EventKind, Role};

/// The log with a header line. `former_role` is filled where a role changed; `live_…` are the bytes after the event.
pub fn csv(events: &[Event]) -> String {
    let mut text = String::from("event,kind,phase,op,layer,role,former_role,requested,granted,offset,live_total");
    for role in Role::ALL {
        let _ = write!(text, ",live_{}", role.name());
    }
    text.push('\n');
    for (index, event) in events.iter().enumerate() {
        let (kind, former) = match event.kind {
            EventKind::Allocate => ("allocate", ""),
            EventKind::Free => ("free", ""),
            EventKind::Retag(role) => ("retag", role.name()),
        };
        let Event { op, layer, requested, granted, offset, .. } = event;
        let (phase, role, total) = (event.phase.name(), event.role.name(), event.live.total());
        let _ =
            write!(text, "{index},{kind},{phase},{op},{layer},{role},{former},{requested},{granted},{offset},{total}");
        for (_, bytes) in event.live.iter() {
            let _ = write!(text, ",{bytes}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Block, Ledger};

    #[test]
    fn every_event_is_a_line_whose_live_bytes_add_up() {
        let mut ledger = Ledger::default();
        ledger.record(true);
        ledger.set_op("conv3d");
        let id = ledger.allocate(Role::Transient, 1000, Block { offset: 256, bytes: 1024 });
        ledger.retag(id, Role::Saved);
        ledger.free(id);
        let text = csv(&ledger.take_events());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert!(rows.len() == 4 && rows.iter().all(|row| row.len() == 11 + Role::ALL.len()), "{text}");
        assert_eq!(
            rows[1][..11],
            ["0", "allocate", "setup", "conv3d", "", "transient", "", "1000", "1024", "256", "1024"]
        );
        assert_eq!(rows[2][1..7], ["retag", "setup", "conv3d", "", "saved", "transient"]);
        let live: u64 = rows[2][11..].iter().map(|bytes| bytes.parse::<u64>().unwrap()).sum();
        assert_eq!((live, rows[3][10]), (1024, "0"));
    }
}
