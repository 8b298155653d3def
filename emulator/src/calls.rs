//! The calls of a host thread that concern streams, in their order.

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked for.
    pub kind: CallKind,
    /// The stream; 0 for an event that the host waits for.
    pub stream: u64,
    /// The event, the address on the device, or 0.
    pub of: u64,
    /// Bytes of a copy, from or to that address.
    pub bytes: u64,
    /// The kernel.
    pub kernel: String,
}

/// What is asked of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// A kernel.
    Launch,
    /// A graph.
    Graph,
    /// A copy to the device.
    ToDevice,
    /// A copy to the host.
    ToHost,
    /// An event happens when all before is done.
    Record,
    /// What follows in the stream waits for an event.
    StreamWaits,
    /// The host waits for an event.
    HostWaitsForEvent,
    /// The host waits for a stream.
    HostWaitsForStream,
}

/// All kinds, with their names in lines.
const KINDS: [(CallKind, &str); 8] = [
    (CallKind::Launch, "launch"),
    (CallKind::Graph, "graph"),
    (CallKind::ToDevice, "to-device"),
    (CallKind::ToHost, "to-host"),
    (CallKind::Record, "record"),
    (CallKind::StreamWaits, "stream-waits"),
    (CallKind::HostWaitsForEvent, "host-waits-for-event"),
    (CallKind::HostWaitsForStream, "host-waits-for-stream"),
];

impl Call {
    /// A call without a kernel.
    pub fn new(kind: CallKind, stream: u64, of: u64, bytes: u64) -> Self {
        Self { kind, stream, of, bytes, kernel: String::new() }
    }

    /// As one line.
    pub fn to_line(&self) -> String {
        let name = KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, name)| name);
        format!("{name}\t{}\t{}\t{}\t{}", self.stream, self.of, self.bytes, self.kernel)
    }

    /// Of such a line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut cells = line.split('\t');
        let name = cells.next()?;
        let kind = KINDS.iter().find(|(_, known)| *known == name)?.0;
        let mut number = || cells.next()?.parse().ok();
        let (stream, of, bytes) = (number()?, number()?, number()?);
        Some(Self { kind, stream, of, bytes, kernel: cells.next()?.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        for (kind, _) in KINDS {
            let call = Call { kernel: "k".into(), ..Call::new(kind, 1, 2, 3) };
            assert_eq!(Call::parse(&call.to_line()), Some(call));
        }
        assert_eq!(Call::parse("launch\t1\t2"), None);
    }
}
