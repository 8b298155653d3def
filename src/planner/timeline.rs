//! A step in stretches: forward through the encoder, forward through the decoder, and so on.

use std::sync::Arc;

use crate::memory::{Event, EventKind, Phase};
use crate::order;

/// A run of events of one phase in one part of the network.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The phase.
    pub phase: Phase,
    /// First component of the layers' paths, for example `encoder`; empty for what belongs to no layer.
    pub part: String,
    /// Events in it.
    pub events: usize,
    /// Most live bytes in it.
    pub peak_bytes: u64,
    /// Most live bytes of saved and transient activations and workspace in it.
    pub peak_activations: u64,
    /// The op that reached [`Segment::peak_bytes`].
    pub op: &'static str,
    /// Its layer.
    pub layer: Arc<str>,
}

/// The stretches of a step, in their order.
///
/// An allocation decides where the step is; releases belong to whatever is going on. What belongs to no layer (the loss)
/// joins the stretch that it follows.
pub fn segments(events: &[Event]) -> Vec<Segment> {
    let mut stretches: Vec<Segment> = Vec::new();
    for event in events {
        let part = match event.kind {
            EventKind::Allocate if matches!(event.phase, Phase::Forward | Phase::Backward | Phase::Evaluate) => {
                event.layer.split('.').next().unwrap_or_default()
            }
            _ => "",
        };
        let fresh = stretches.last().is_none_or(|last| {
            let elsewhere = !part.is_empty() && !last.part.is_empty() && last.part != part;
            last.phase != event.phase || elsewhere
        });
        if fresh {
            stretches.push(Segment {
                phase: event.phase,
                part: part.into(),
                events: 0,
                peak_bytes: 0,
                peak_activations: 0,
                op: event.op,
                layer: event.layer.clone(),
            });
        }
        if let Some(last) = stretches.last_mut() {
            last.events += 1;
            if last.part.is_empty() {
                last.part = part.into();
            }
            last.peak_activations = last.peak_activations.max(event.live.activations());
            if event.live.total() > last.peak_bytes {
                (last.peak_bytes, last.op, last.layer) = (event.live.total(), event.op, event.layer.clone());
            }
        }
    }
    stretches
}

/// Most live activation bytes in the stretches of a part.
pub fn peak_of_part(stretches: &[Segment], part: &str) -> Option<u64> {
    stretches.iter().filter(|stretch| stretch.part == part).map(|stretch| stretch.peak_activations).max()
}

/// The layers' shares of a peak with the paths of parameters and inner modules drawn up to the layers that `events` name,
/// largest first.
pub fn rolled_up(by_layer: &[(Arc<str>, u64)], events: &[Event]) -> Vec<(Arc<str>, u64)> {
    let layers: std::collections::BTreeSet<&str> = order::set(
        events
            .iter()
            .filter(|event| event.kind == EventKind::Allocate)
            .map(|event| &*event.layer)
            .filter(|layer| !layer.is_empty()),
    );
    let home = |path: &str| {
        let mut above = path;
        loop {
            if layers.contains(above) {
                return above.to_string();
            }
            match above.rsplit_once('.') {
                Some((parent, _)) => above = parent,
                None => return path.to_string(),
            }
        }
    };
    let mut sums = std::collections::BTreeMap::<String, u64>::new();
    for (path, bytes) in by_layer {
        *sums.entry(home(path)).or_default() += bytes;
    }
    let mut sums: Vec<(Arc<str>, u64)> = sums.into_iter().map(|(path, bytes)| (path.into(), bytes)).collect();
    order::by_key_descending(&mut sums, |(_, bytes)| (*bytes).into());
    sums
}
