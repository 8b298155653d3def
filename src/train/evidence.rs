//! What a training run leaves for the report: its loss curve and its memory over one step.

use crate::memory::{Event, Role};
use crate::report::{LossCurve, MemoryEvent, Timeline};

/// Points of a loss curve: enough for a picture.
const CURVE_POINTS: usize = 400;

/// Losses by step, averaged over equal stretches.
pub fn loss_curve(model: &str, losses: &[f32]) -> LossCurve {
    let stretch = losses.len().div_ceil(CURVE_POINTS).max(1);
    let points = losses
        .chunks(stretch)
        .enumerate()
        .map(|(i, losses)| {
            let mean = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;
            ((i * stretch + losses.len()) as u64, mean)
        })
        .collect();
    LossCurve { model: model.into(), points }
}

/// Live bytes after each allocation and release of one training step.
pub fn timeline(model: &str, events: &[Event]) -> Timeline {
    let roles: Vec<Role> =
        Role::ALL.into_iter().filter(|&role| events.iter().any(|event| event.live.get(role) > 0)).collect();
    let events = events
        .iter()
        .enumerate()
        .map(|(index, event)| MemoryEvent {
            index: index as u64,
            op: event.op.to_string(),
            layer: event.layer.to_string(),
            phase: event.phase.name().to_string(),
            bytes: roles.iter().map(|&role| event.live.get(role)).collect(),
        })
        .collect();
    Timeline { model: model.into(), roles: roles.iter().map(|role| role.name().to_string()).collect(), events }
}
