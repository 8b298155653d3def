//! What plans say, as JSON: the one form that the command (`--json`) and the Python module share.

use serde_json::{Map, Value, json};

use super::all_reduce::{GRADIENT_BYTES, LINKS, Link, RANKS};
use super::fit::FitResult;
use super::gpus::Speed;
use super::layers::{self, LayerBytes};
use super::pytorch_baseline::{self, Recorded};
use super::roofline::{EFFICIENCY, Measured, Roofline, Row};
use super::schedules::{Curve, Point};
use super::slopes::{Slope, slopes};
use super::sweep::{Crossover, Sweep};
use super::timeline::Segment;
use super::{StepCost, Workload};
use crate::device::Target;
use crate::error::Result;
use crate::memory::{Role, resident_peak};
use crate::report::counted;
use crate::train::dry_run::StepKind;

/// A step's costs. Seconds and resident bytes are there only if it was run.
pub fn step(answer: &StepCost) -> Value {
    let StepCost { workload, device, cost, aside, .. } = answer;
    let roles: Map<String, Value> =
        Role::ALL.into_iter().map(|role| (role.name().into(), cost.peak.by_role.get(role).into())).collect();
    let at_the_peak: Map<String, Value> =
        answer.by_layer.iter().map(|(layer, bytes)| (layer_name(layer).into(), (*bytes).into())).collect();
    let by_kernel = || -> Map<String, Value> {
        cost.launches.iter().map(|&(kernel, launches)| (kernel.into(), launches.into())).collect()
    };
    let sizes = workload.sizes;
    let (measured, launched) = (!device.is_plan(), !cost.launches.is_empty());
    json!({
        "model": workload.network.title(),
        "step": match sizes.step {
            StepKind::Train => "train",
            StepKind::Evaluate => "eval",
            StepKind::Infer => "infer",
        },
        "volume": sizes.volume,
        "batch": sizes.batch,
        "points": (workload.has_points() && sizes.points > 0).then_some(sizes.points),
        "recompute": sizes.recompute,
        "precision": sizes.precision,
        "changed_to_fit": answer.change,
        "device": device.name(),
        "planned_for": device.is_plan().then(|| device.target().name()),
        "threads": device.threads(),
        "parameters": cost.parameters,
        "peak_bytes": cost.peak.by_role.total(),
        "peak_activation_bytes": cost.peak_activations,
        "peak_op": cost.peak.op,
        "peak_layer": cost.peak.layer.to_string(),
        "peak_phase": cost.peak.phase.name(),
        "by_role": roles,
        "by_layer": at_the_peak,
        "layers": layers::layers(&cost.events).iter().map(layer).collect::<Vec<_>>(),
        "reserved_bytes": cost.reserved,
        "device_bytes": answer.device_bytes(),
        "host_bytes": answer.host_bytes(),
        "host": {
            "cases": aside.cases,
            "staging": aside.staging,
            "results": aside.results,
            "program": aside.machinery(device.target()),
        },
        "timeline": answer.stretches.iter().map(stretch).collect::<Vec<_>>(),
        "slopes": answer.slopes.iter().map(slope).collect::<Vec<_>>(),
        "resident_peak_bytes": measured.then(resident_peak),
        "launches": launched.then(|| cost.all_launches()),
        "launches_by_kernel": launched.then(by_kernel),
        "step_seconds": measured.then(|| answer.seconds()),
    })
}

/// The curve of time against bytes: schedules, the fastest first, and the levels on it or beside it.
pub fn schedules(curve: &Curve) -> Value {
    let point = |point: &Point| {
        json!({
            "recompute": point.recompute,
            "peak_bytes": point.peak,
            "estimated_seconds": point.seconds,
            "measured_seconds": point.measured,
        })
    };
    let all = |points: &[Point]| points.iter().map(point).collect::<Vec<_>>();
    json!({ "points": all(&curve.points), "levels": all(&curve.levels) })
}

/// A layer's path; what belongs to none is the batch, and ops on whole volumes.
pub fn layer_name(layer: &str) -> &str {
    if layer.is_empty() { "(batch and loss)" } else { layer }
}

fn layer(layer: &LayerBytes) -> Value {
    json!({
        "layer": layer_name(&layer.layer),
        "forward_bytes": layer.forward,
        "backward_bytes": layer.backward,
        "retained_bytes": layer.retained,
        "transient_bytes": layer.transient,
        "largest_bytes": layer.largest,
    })
}

fn slope(slope: &Slope) -> Value {
    json!({
        "part": slope.part,
        "unit": slope.unit,
        "bytes": slope.line.slope,
        "offset_bytes": slope.line.offset,
        "largest_error": slope.line.error,
    })
}

fn stretch(stretch: &Segment) -> Value {
    json!({
        "phase": stretch.phase.name(),
        "part": stretch.part,
        "events": stretch.events,
        "peak_bytes": stretch.peak_bytes,
        "peak_activation_bytes": stretch.peak_activations,
        "op": stretch.op,
        "layer": stretch.layer.to_string(),
    })
}

/// Curves, crossings and slopes of `workloads`, at each level of `sweeps`.
///
/// # Errors
/// Sizes that a network does not admit.
pub fn sweep(workloads: &[Workload], sweeps: &[Sweep], target: Target) -> Result<Value> {
    let mut rises = Vec::new();
    for workload in workloads {
        for sweep in sweeps {
            for slope in slopes(&workload.with_recompute(sweep.recompute), target)? {
                rises.push(json!({
                    "model": workload.network.title(),
                    "recompute": sweep.recompute,
                    "part": slope.part,
                    "unit": slope.unit,
                    "bytes": slope.line.slope,
                }));
            }
        }
    }
    Ok(json!({
        "setting": (!workloads.is_empty()).then(|| setting(workloads)),
        "planned_for": target_text(target),
        "levels": sweeps.iter().map(level).collect::<Vec<_>>(),
        "slopes": rises,
    }))
}

fn level(sweep: &Sweep) -> Value {
    let curve = |curve: &super::curves::MemoryCurve| {
        let point = |point: &super::curves::CurvePoint| {
            json!({
                "side": point.side,
                "peak_activation_bytes": point.peak_activations,
                "peak_bytes": point.peak_bytes,
                "reserved_bytes": point.reserved,
                "parameters": point.parameters,
            })
        };
        json!({ "model": curve.name, "points": curve.points.iter().map(point).collect::<Vec<_>>() })
    };
    let recorded = |(_, curve): &(usize, Recorded)| {
        let point = |(side, bytes): (f64, f64)| json!({ "side": side as u64, "peak_activation_bytes": bytes as u64 });
        let points = curve.points().into_iter().map(point).collect::<Vec<_>>();
        json!({ "name": curve.name, "source": pytorch_baseline::SOURCE, "points": points })
    };
    let meeting = |meeting: &Crossover| {
        json!({
            "leaner_above": meeting.leaner_above,
            "other": meeting.other,
            "side": meeting.crossing.side,
            "bytes": meeting.crossing.bytes as u64,
        })
    };
    json!({
        "recompute": sweep.recompute,
        "curves": sweep.curves.iter().map(curve).collect::<Vec<_>>(),
        "recorded": sweep.recorded.iter().map(recorded).collect::<Vec<_>>(),
        "crossings": sweep.meetings.iter().map(meeting).collect::<Vec<_>>(),
    })
}

/// What a sweep's curves are of, in a sentence; points are told if one of the networks has any.
///
/// # Panics
/// If there is no workload.
pub fn setting(workloads: &[Workload]) -> String {
    let sizes = workloads[0].sizes;
    let has_points = workloads.iter().any(Workload::has_points);
    match (sizes.step, if has_points { sizes.points as u64 } else { 0 }) {
        (StepKind::Train, 0) => format!("One training step, batch {}, f32", sizes.batch),
        (StepKind::Train, points) => {
            format!("One training step, batch {}, {} a volume, f32", sizes.batch, counted(points, "point"))
        }
        (_, 0) => "Inference of one volume, f32".into(),
        (_, points) => format!("Inference of one volume, {} at once, f32", counted(points, "point")),
    }
}

/// `the CPU with 2 threads`.
pub fn target_text(target: Target) -> String {
    match target {
        Target::Cpu { threads: 1, .. } => "the CPU with 1 thread".into(),
        Target::Cpu { threads, .. } => format!("the CPU with {threads} threads"),
        Target::Cuda(cuda) => format!("CUDA devices of capability {}.{}", cuda.capability.0, cuda.capability.1),
    }
}

/// What fits into a room of that name with a budget in bytes.
pub fn fit(room: &str, budget: u64, answers: &[FitResult]) -> Value {
    let answer = |answer: &FitResult| {
        let level =
            |(level, value): &(crate::models::Recompute, Option<usize>)| json!({ "recompute": level, "value": value });
        let best = answer.best().map(|(level, value)| json!({ "recompute": level, "value": value }));
        json!({
            "quantity": answer.quantity.name(),
            "by_level": answer.by_level.iter().map(level).collect::<Vec<_>>(),
            "best": best,
        })
    };
    json!({ "room": room, "budget_bytes": budget, "largest": answers.iter().map(answer).collect::<Vec<_>>() })
}

/// The model of a step's time: this engine's kernels, and the same passes op by op; beside them what was measured.
///
/// # Errors
/// An impossible network.
pub fn roofline(
    workload: &Workload,
    speed: &Speed,
    [ours, peer]: [&Roofline; 2],
    measured: Option<&Measured>,
) -> Result<Value> {
    let step = |model: &Roofline| {
        json!({
            "kernel_seconds": model.kernel_seconds(),
            "launches": model.launches,
            "launch_seconds": model.launch_seconds,
            "seconds": model.seconds(),
            "expected_kernel_seconds": model.expected_kernel_seconds(),
            "expected_seconds": model.expected_seconds(),
        })
    };
    let row = |row: &Row| {
        json!({
            "op": row.op,
            "phase": row.phase.name(),
            "passes": row.passes,
            "bytes": row.bytes,
            "flops": row.flops,
            "seconds": row.seconds,
            "memory_seconds": row.memory_seconds,
            "issue_seconds": row.issue_seconds,
            "expected_seconds": row.expected_seconds,
            "held_up_by": row.limit,
            "measured_seconds": measured.and_then(|measured| measured.of(row.op, row.phase.name())),
        })
    };
    let measured_step = measured
        .map(|measured| json!({ "device": measured.name, "seconds": measured.sum(), "host_seconds": measured.wall }));
    let (trained, parameters) = (workload.sizes.step == StepKind::Train, workload.parameters()?);
    Ok(json!({
        "what": "a model, not a measurement",
        "model": workload.network.title(),
        "parameters": parameters,
        "device": speed.name,
        "source": speed.source,
        "volume": workload.sizes.volume,
        "batch": workload.sizes.batch,
        "points": workload.sizes.points,
        "precision": workload.sizes.precision,
        "efficiencies": EFFICIENCY,
        "step": step(ours),
        "unfused_step": step(peer),
        "measured_step": measured_step,
        "all_reduce": trained.then(|| all_reduce(GRADIENT_BYTES * parameters as u64)),
        "ops": ours.rows.iter().map(row).collect::<Vec<_>>(),
    }))
}

/// Seconds of a sum of so many bytes of gradients, by link and number of GPUs.
fn all_reduce(bytes: u64) -> Value {
    let link = |link: &Link| {
        let seconds: Map<String, Value> =
            RANKS.into_iter().map(|ranks| (ranks.to_string(), link.seconds(bytes, ranks).into())).collect();
        json!({ "name": link.name, "bandwidth": link.bandwidth, "latency": link.latency, "seconds": seconds })
    };
    json!({ "bytes": bytes, "links": LINKS.iter().map(link).collect::<Vec<_>>() })
}
