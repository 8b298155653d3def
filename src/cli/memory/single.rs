//! One configuration: the peak, who holds it, and how it comes about.

use serde_json::{Value, json};

use super::super::output::{note, print};
use super::{MemoryArgs, shape_text, target_text, write};
use crate::device::Device;
use crate::error::Result;
use crate::memory::{Role, format_bytes};
use crate::planner::slopes::{Slope, slopes};
use crate::planner::timeline::{Segment, rolled_up, segments};
use crate::planner::{HostOverhead, Workload};
use crate::report::{TextTable, count, mib, role_name};
use crate::train::dry_run::{StepKind, StepProfile};

/// Layers that the table lists; the rest are summed.
const LAYERS: usize = 10;

/// Prints the costs.
pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    let device = args.device()?;
    let target = device.target();
    let steps = if device.is_plan() { 2 } else { args.steps as usize };
    let (workload, change, cost) = args.taken(&device, steps)?;
    if let Some(change) = &change {
        note(format!("the step as asked needs more than {}: gone on with {change}", format_bytes(device.budget())));
    }
    let answer = Single {
        slopes: slopes(&workload, target)?,
        aside: HostOverhead::of(&workload, target)?,
        stretches: segments(&cost.events),
        by_layer: rolled_up(&cost.peak.by_layer, &cost.events),
        workload,
        device,
        cost,
        change,
    };
    write::step(args, &answer)?;
    print(if args.run.json { format!("{:#}", answer.json()) } else { answer.text() })
}

/// A step's costs and what follows from them.
pub(super) struct Single {
    pub workload: Workload,
    pub device: Device,
    pub cost: StepProfile,
    pub aside: HostOverhead,
    pub stretches: Vec<Segment>,
    pub by_layer: Vec<(std::sync::Arc<str>, u64)>,
    pub slopes: Vec<Slope>,
    /// What `--on-oom adapt` changed.
    pub change: Option<String>,
}

impl Single {
    /// The ledger's reservation and what lies beside it.
    pub fn total(&self) -> u64 {
        self.cost.reserved.saturating_add(self.aside.host()).saturating_add(self.aside.overhead)
    }

    /// What is done, in a line.
    pub fn setting(&self) -> String {
        let Workload { network, sizes } = &self.workload;
        let step = match sizes.step {
            StepKind::Train => "one training step",
            StepKind::Evaluate => "the evaluation of one case",
            StepKind::Infer => "the inference of one scan",
        };
        let mut parts = vec![shape_text(sizes.volume)];
        if sizes.step == StepKind::Train {
            parts.push(format!("batch {}", sizes.batch));
        }
        if self.workload.has_points() && sizes.points > 0 {
            parts.push(format!("{} points", count(sizes.points as u64)));
        }
        if sizes.step == StepKind::Train {
            parts.push(format!("recompute {}", sizes.recompute));
        }
        let how = if self.device.is_plan() { "planned for" } else { "run on" };
        let target = target_text(self.device.target());
        format!("{}: {step}, {}, {}, {how} {target}", network.title(), parts.join(", "), sizes.precision)
    }

    /// Where the peak is: op, layer and phase.
    pub fn place(&self) -> String {
        place(self.cost.peak.op, &self.cost.peak.layer, self.cost.peak.phase.name())
    }

    fn text(&self) -> String {
        let Self { cost, aside, .. } = self;
        let peak = &cost.peak;
        let mut text = format!("{}\n{} parameters\n\n", self.setting(), count(cost.parameters as u64));
        let mut grid = TextTable::new(["", "MiB"]);
        for (role, bytes) in peak.by_role.iter().filter(|(_, bytes)| *bytes > 0) {
            grid.push([role_name(role.name()), mib(bytes)]);
        }
        grid.push([format!("peak, {}", self.place()), mib(peak.by_role.total())]);
        grid.push(["highest sum of saved, transient and workspace".into(), mib(cost.peak_activations)]);
        grid.push(["reserved by the arena, fragmentation included".into(), mib(cost.reserved)]);
        grid.push(["host: volumes and labels of the cases".into(), mib(aside.cases)]);
        grid.push(["host: the batch on its way".into(), mib(aside.staging)]);
        if aside.results > 0 {
            grid.push(["host: probabilities and labels".into(), mib(aside.results)]);
        }
        grid.push([HostOverhead::overhead_name(self.device.target()).into(), mib(aside.overhead)]);
        grid.push(["in all".into(), mib(self.total())]);
        text += &grid.render();

        text += "\nLayers at the peak\n";
        let mut grid = TextTable::new(["layer", "MiB"]);
        for (layer, bytes) in self.by_layer.iter().take(LAYERS) {
            grid.push([layer_name(layer).to_string(), mib(*bytes)]);
        }
        let others: u64 = self.by_layer.iter().skip(LAYERS).map(|(_, bytes)| bytes).sum();
        if others > 0 {
            grid.push([format!("{} others", self.by_layer.len() - LAYERS), mib(others)]);
        }
        text += &grid.render();

        text += "\nThe step from start to end\n";
        let mut grid = TextTable::new(["stretch", "most MiB", "activations", "allocations and releases", "most in"]);
        for stretch in &self.stretches {
            grid.push([
                stretch_name(stretch),
                mib(stretch.peak_bytes),
                mib(stretch.peak_activations),
                count(stretch.events as u64),
                place(stretch.op, &stretch.layer, ""),
            ]);
        }
        text += &grid.render();
        text += "\nHow the peak of activations grows\n";
        text += &slope_grid(&self.slopes).render();
        if !self.device.is_plan() {
            text += &format!(
                "\nresident, at most {}; a step takes {:.3} s (median)\n",
                format_bytes(write::resident_peak()),
                write::median(&cost.seconds)
            );
            if !cost.launches.is_empty() {
                text +=
                    &format!("\nKernels launched in a step: {}\n{}", cost.all_launches(), launch_grid(cost).render());
            }
        }
        text
    }

    fn json(&self) -> Value {
        let Self { workload, device, cost, aside, .. } = self;
        let roles: serde_json::Map<String, Value> =
            Role::ALL.into_iter().map(|role| (role.name().into(), cost.peak.by_role.get(role).into())).collect();
        let layers: serde_json::Map<String, Value> =
            self.by_layer.iter().map(|(layer, bytes)| (layer_name(layer).into(), (*bytes).into())).collect();
        let sizes = workload.sizes;
        let measured = !device.is_plan();
        json!({
            "model": workload.network.title(),
            "step": self.step_name(),
            "volume": sizes.volume,
            "batch": sizes.batch,
            "points": (workload.has_points() && sizes.points > 0).then_some(sizes.points),
            "recompute": sizes.recompute,
            "precision": sizes.precision,
            "changed_to_fit": self.change,
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
            "by_layer": layers,
            "reserved_bytes": cost.reserved,
            "host_bytes": aside.host(),
            "host": { "cases": aside.cases, "staging": aside.staging, "results": aside.results },
            "overhead_bytes": aside.overhead,
            "total_bytes": self.total(),
            "timeline": self.stretches.iter().map(stretch_json).collect::<Vec<_>>(),
            "slopes": self.slopes.iter().map(slope_json).collect::<Vec<_>>(),
            "resident_peak_bytes": measured.then(write::resident_peak),
            "launches": (!cost.launches.is_empty()).then(|| cost.all_launches()),
            "launches_by_kernel": (!cost.launches.is_empty()).then(|| by_kernel(cost)),
            "step_seconds": measured.then(|| write::median(&cost.seconds)),
        })
    }

    fn step_name(&self) -> &'static str {
        match self.workload.sizes.step {
            StepKind::Train => "train",
            StepKind::Evaluate => "eval",
            StepKind::Infer => "infer",
        }
    }
}

/// Launches of each kernel, most first.
fn launch_grid(cost: &StepProfile) -> TextTable {
    let mut launches = cost.launches.clone();
    launches.sort_by_key(|(_, launches)| std::cmp::Reverse(*launches));
    let mut grid = TextTable::new(["kernel", "launches"]);
    launches.into_iter().for_each(|(kernel, launches)| grid.push([kernel.to_string(), launches.to_string()]));
    grid
}

fn by_kernel(cost: &StepProfile) -> serde_json::Map<String, Value> {
    cost.launches.iter().map(|&(kernel, launches)| (kernel.into(), launches.into())).collect()
}

/// `linear of decoder.blocks.4, forward`.
pub(super) fn place(op: &str, layer: &str, phase: &str) -> String {
    let mut text = op.to_string();
    if !layer.is_empty() {
        text += &format!(" of {layer}");
    }
    if !phase.is_empty() {
        text += &format!(", {phase}");
    }
    text
}

/// A layer's path; what belongs to none is the batch, and ops on whole volumes.
pub(super) fn layer_name(layer: &str) -> &str {
    if layer.is_empty() { "(batch and loss)" } else { layer }
}

/// `backward, decoder`.
pub(super) fn stretch_name(stretch: &Segment) -> String {
    match stretch.part.as_str() {
        "" => stretch.phase.name().into(),
        part => format!("{}, {part}", stretch.phase.name()),
    }
}

/// The fitted lines.
pub(super) fn slope_grid(slopes: &[Slope]) -> TextTable {
    let mut grid = TextTable::new(["part", "rises by", "for each", "from", "fit off by at most"]);
    for slope in slopes {
        let (offset, error) = (format_bytes(slope.line.offset.max(0.0) as u64), 100.0 * slope.line.error);
        grid.push([slope.part.to_string(), slope.rise(), slope.unit.into(), offset, format!("{error:.1} %")]);
    }
    grid
}

fn slope_json(slope: &Slope) -> Value {
    json!({
        "part": slope.part,
        "unit": slope.unit,
        "bytes": slope.line.slope,
        "offset_bytes": slope.line.offset,
        "largest_error": slope.line.error,
    })
}

fn stretch_json(stretch: &Segment) -> Value {
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
