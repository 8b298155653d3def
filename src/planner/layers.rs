//! A step layer by layer: what each allocates in the forward and in the backward pass, and what of it is kept in between.

use std::collections::HashMap;
use std::sync::Arc;

use crate::memory::{Event, EventKind, Phase, Role};

/// Bytes of one layer in a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerBytes {
    /// Its path.
    pub layer: Arc<str>,
    /// Allocated in the forward pass (in evaluation and inference: at all).
    pub forward: u64,
    /// Allocated in the backward pass, recomputation included.
    pub backward: u64,
    /// Of what was allocated in the forward pass, what is live when the backward pass begins: saved activations.
    pub retained: u64,
    /// The most that lives at a time beside that: transient activations, gradients of activations and workspace.
    pub transient: u64,
    /// The largest buffer.
    pub largest: u64,
}

/// The layers of a step in the order in which they come. What a step finds there and leaves there is in none.
pub fn layers(events: &[Event]) -> Vec<LayerBytes> {
    let turn = events.iter().position(|event| event.kind == EventKind::Allocate && event.phase == Phase::Backward);
    let retained = retained(&events[..turn.unwrap_or(0)]);
    let (mut found, mut places): (Vec<LayerBytes>, HashMap<Arc<str>, usize>) = Default::default();
    // Transient bytes of each layer now, and the layer of each transient buffer that lives.
    let (mut now, mut live): (Vec<u64>, HashMap<u64, usize>) = Default::default();
    for (n, event) in events.iter().enumerate() {
        match event.kind {
            EventKind::Allocate => {
                let place = *places.entry(event.layer.clone()).or_insert_with(|| {
                    found.push(LayerBytes { layer: event.layer.clone(), ..LayerBytes::default() });
                    now.push(0);
                    found.len() - 1
                });
                let layer = &mut found[place];
                match event.phase {
                    Phase::Forward | Phase::Evaluate => layer.forward += event.granted,
                    Phase::Backward => layer.backward += event.granted,
                    Phase::Setup | Phase::Data | Phase::Optimizer => {}
                }
                layer.largest = layer.largest.max(event.granted);
                if retained.contains_key(&n) {
                    layer.retained += event.granted;
                } else if event.role.is_activation() {
                    now[place] += event.granted;
                    layer.transient = layer.transient.max(now[place]);
                    live.insert(event.offset, place);
                }
            }
            EventKind::Free => {
                if let Some(place) = live.remove(&event.offset) {
                    now[place] -= event.granted;
                }
            }
            EventKind::Retag(_) => {}
        }
    }
    found.retain(|layer| layer.forward + layer.backward > 0);
    found
}

/// Numbers of the allocations of `forward` that outlive it.
fn retained(forward: &[Event]) -> HashMap<usize, Role> {
    let mut live: HashMap<u64, usize> = HashMap::new();
    for (n, event) in forward.iter().enumerate() {
        match event.kind {
            EventKind::Allocate => {
                live.insert(event.offset, n);
            }
            EventKind::Free => {
                live.remove(&event.offset);
            }
            EventKind::Retag(_) => {}
        }
    }
    live.into_values().map(|n| (n, forward[n].role)).filter(|(_, role)| role.is_activation()).collect()
}

/// Sums over all layers; the largest buffer of any. What is transient in one layer need not live with what is in another.
pub fn total(layers: &[LayerBytes]) -> LayerBytes {
    layers.iter().fold(LayerBytes { layer: "all".into(), ..LayerBytes::default() }, |mut sum, layer| {
        sum.forward += layer.forward;
        sum.backward += layer.backward;
        sum.retained += layer.retained;
        sum.transient = sum.transient.max(layer.transient);
        sum.largest = sum.largest.max(layer.largest);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Block, Ledger};

    #[test]
    fn what_is_kept_and_what_passes_are_told_apart() {
        let mut ledger = Ledger::default();
        ledger.record(true);
        let take = |ledger: &mut Ledger, phase, layer: &str, role, offset, bytes| {
            ledger.set_phase(phase);
            ledger.set_layer(layer.into());
            ledger.allocate(role, bytes, Block { offset, bytes })
        };
        let batch = take(&mut ledger, Phase::Data, "", Role::Data, 0, 1024);
        let kept = take(&mut ledger, Phase::Forward, "a", Role::Transient, 1024, 512);
        ledger.retag(kept, Role::Saved);
        let scratch = take(&mut ledger, Phase::Forward, "a", Role::Workspace, 2048, 256);
        ledger.free(scratch);
        // The same place again, in another layer.
        let passing = take(&mut ledger, Phase::Forward, "b", Role::Transient, 2048, 768);
        ledger.free(passing);
        let gradient = take(&mut ledger, Phase::Backward, "b", Role::Transient, 2048, 256);
        let another = take(&mut ledger, Phase::Backward, "b", Role::Transient, 4096, 512);
        let weights = take(&mut ledger, Phase::Backward, "a", Role::Gradient, 8192, 2048);
        for id in [gradient, another, kept, batch, weights] {
            ledger.free(id);
        }
        let found = layers(&ledger.take_events());
        let layer = |name: &str, forward, backward, retained, transient, largest| LayerBytes {
            layer: name.into(),
            forward,
            backward,
            retained,
            transient,
            largest,
        };
        assert_eq!(found, [layer("a", 768, 2048, 512, 256, 2048), layer("b", 768, 768, 0, 768, 768)]);
        assert_eq!(total(&found), layer("all", 1536, 2816, 512, 768, 2048));
        assert!(layers(&[]).is_empty());
    }
}
