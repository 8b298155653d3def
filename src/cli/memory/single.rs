//! One configuration: the peak, who holds it, and how it comes about.

use super::super::output::{note, print};
use super::super::provenance::print_json;
use super::{MemoryArgs, shape_text, write};
use crate::error::{Error, Result};
use crate::memory::{format_bytes, resident_peak};
use crate::order;
use crate::planner::json::{self, layer_name, target_text};
use crate::planner::layers;
use crate::planner::schedules::{Curve, Point};
use crate::planner::slopes::Slope;
use crate::planner::timeline::Segment;
use crate::planner::{StepCost, Workload, median};
use crate::report::{TextTable, count, counted, mib, role_name};
use crate::train::dry_run::{StepKind, StepProfile};

/// Layers that the table lists; the rest are summed.
const LAYERS: usize = 10;

/// Prints the costs.
pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    let device = args.device()?;
    let steps = if device.is_plan() { 2 } else { args.steps as usize };
    let (workload, change, cost) = args.taken(&device, steps)?;
    if let Some(change) = &change {
        note(format!("the step as asked needs more than {}: gone on with {change}", format_bytes(device.budget())));
    }
    let answer = StepCost::of(workload, device, cost, change)?;
    if args.schedules && answer.workload.sizes.step != StepKind::Train {
        return Err(Error::Usage("--schedules compares what training steps recompute; omit --step".into()));
    }
    let mut curve = match args.schedules || args.has_page() {
        true => answer.workload.schedules(answer.device.target())?,
        false => Curve::default(),
    };
    if args.schedules && !answer.device.is_plan() {
        let count = curve.points.len();
        note(format!("running {steps} steps of each of {count} schedules, and of the levels that are not among them"));
        curve.measure(|recompute| {
            Ok(median(&answer.workload.with_recompute(recompute).dry_run(&answer.device, steps)?.seconds))
        })?;
    }
    write::step(args, &answer, &curve)?;
    match args.run.json {
        true => {
            let mut told = json::step(&answer);
            if args.schedules {
                told["schedules"] = json::schedules(&curve);
            }
            print_json(told, "steps")
        }
        false if args.schedules => print(schedule_text(&answer, &curve)),
        false if args.by_layer => print(layer_text(&answer)),
        false => print(answer.text()),
    }?;
    match args.profile.profile {
        Some(_) => args.profile.tell(&answer.workload.profile(&answer.device, steps)?, &answer.device, &args.run),
        None => Ok(()),
    }
}

/// What is said of a step's costs.
pub(super) trait Said {
    /// What is done, in a line.
    fn setting(&self) -> String;
    /// Where the peak is: op, layer and phase.
    fn place(&self) -> String;
    /// All of it.
    fn text(&self) -> String;
}

impl Said for StepCost {
    fn setting(&self) -> String {
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
            parts.push(counted(sizes.points as u64, "point"));
        }
        if sizes.step == StepKind::Train {
            parts.push(format!("recompute {}", sizes.recompute));
        }
        let how = if self.device.is_plan() { "planned for" } else { "run on" };
        let target = target_text(self.device.target());
        format!("{}: {step}, {}, {}, {how} {target}", network.title(), parts.join(", "), sizes.precision)
    }

    fn place(&self) -> String {
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
        let holes = 100.0 * (cost.reserved as f64 / peak.by_role.total().max(1) as f64 - 1.0);
        text += &grid.render();
        let (target, mut grid) = (self.device.target(), TextTable::new(["on the device", "MiB"]));
        grid.push([format!("reserved; the peak is the least, {holes:.1} % are on top"), mib(cost.reserved)]);
        super::run::device_and_host(
            grid,
            (aside, target),
            self.device_bytes(),
            "volumes and labels of the cases",
            &mut text,
        );

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
        let mut grid = TextTable::new(["phase", "peak MiB", "activations", "allocations and releases"]);
        for stretch in &self.stretches {
            grid.push([
                stretch_name(stretch),
                mib(stretch.peak_bytes),
                mib(stretch.peak_activations),
                count(stretch.events as u64),
            ]);
            grid.push([format!("  at {}", place(stretch.op, &stretch.layer, ""))]);
        }
        text += &grid.render();
        text += "\nHow the peak of activations grows\n";
        text += &slope_grid(&self.slopes).render();
        if !self.device.is_plan() {
            text += &format!(
                "\nresident, at most {}; a step takes {:.3} s (median)\n",
                format_bytes(resident_peak()),
                self.seconds()
            );
            if !cost.launches.is_empty() {
                text +=
                    &format!("\nKernels launched in a step: {}\n{}", cost.all_launches(), launch_grid(cost).render());
            }
        }
        text
    }
}

/// The curve of time against bytes, with the levels beside it where they are wanted.
pub(super) fn schedule_grid(curve: &Curve, levels: bool) -> TextTable {
    let ran = curve.points.iter().any(|point| point.measured.is_some());
    let heads = ["recompute", "peak MiB", "estimated time", "measured", "of the fastest"];
    let mut grid = TextTable::new(heads.into_iter().take(if ran { 5 } else { 3 }));
    let mut row = |point: &Point, name: String| {
        let [estimated, measured] = curve.ratios(point);
        let measured = point.measured.zip(measured).map(|(seconds, ratio)| [format!("{seconds:.3} s"), times(ratio)]);
        let estimated = estimated.map_or_else(String::new, times);
        grid.push([name, mib(point.peak), estimated].into_iter().chain(measured.into_iter().flatten()));
    };
    curve.points.iter().for_each(|point| row(point, point.recompute.to_string()));
    for level in curve.levels.iter().filter(|level| levels && !curve.points.contains(level)) {
        row(level, format!("(level {})", level.recompute));
    }
    grid
}

fn times(ratio: f64) -> String {
    format!("× {ratio:.3}")
}

/// The same for people.
fn schedule_text(answer: &StepCost, curve: &Curve) -> String {
    let text = format!("{}\n\n{}", answer.setting(), schedule_grid(curve, true).render());
    let letters = "A letter for each unit of the network in the order of the forward pass: k keeps its values, r recomputes them, p runs in pieces\n\
                   (slabs, chunks of points), l recomputes in pieces. `--recompute` takes such a word; `--recompute auto` takes the first row that\n\
                   fits --memory-budget. Estimated times are those of the planned operations and bytes at assumed rates;\n\
                   `--device cpu` runs each schedule and shows what it took.";
    format!("{text}\n{letters}\n")
}

/// The step layer by layer.
fn layer_text(answer: &StepCost) -> String {
    let layers = layers::layers(&answer.cost.events);
    let heads = ["layer", "forward MiB", "backward", "retained", "transient", "largest buffer"];
    let mut grid = TextTable::new(heads);
    for layer in layers.iter().chain([&layers::total(&layers)]) {
        let bytes = [layer.forward, layer.backward, layer.retained, layer.transient, layer.largest];
        grid.push(std::iter::once(layer_name(&layer.layer).to_string()).chain(bytes.map(mib)));
    }
    let explained = "Forward and backward: allocated in all. Retained: saved for the backward pass. Transient: the most that is live at a time\n\
                     beside that. What lives before the step (parameters, the optimiser's state, the batch) is not in it.";
    format!("{}\n\n{}\n{explained}\n", answer.setting(), grid.render())
}

/// Launches of each kernel, most first.
fn launch_grid(cost: &StepProfile) -> TextTable {
    let mut launches = cost.launches.clone();
    order::by_key_descending(&mut launches, |(_, launches)| (*launches).into());
    let mut grid = TextTable::new(["kernel", "launches"]);
    launches.into_iter().for_each(|(kernel, launches)| grid.push([kernel.to_string(), launches.to_string()]));
    grid
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
