//! `ossnet roofline`: the model of a step's time.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::output::print;
use super::run::parse_volume;
use crate::device::{CudaTarget, Device, Target};
use crate::error::Result;
use crate::planner::gpus::{SPEEDS, Speed};
use crate::planner::roofline::{self, Kernels, LAUNCH, Roofline};
use crate::planner::{UNLIMITED, Workload};
use crate::report::Grid;
use crate::tape::Precision;
use crate::train::rehearsal::{Sizes, StepKind, rehearse};

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StepName {
    /// Loss, gradients, update
    Train,
    /// The encoding, and probabilities of the points
    Infer,
}

/// Flags of `ossnet roofline`.
#[derive(Args, Clone, Debug)]
pub struct RooflineArgs {
    /// GPU by name, for example h100, a100, rtx4090
    #[arg(long, default_value = "h100", value_name = "GPU", value_parser = gpu)]
    device: Speed,
    /// Model, for example oss-net-c, o-net, unet3d
    #[arg(long, default_value = "oss-net-c", value_name = "NAME")]
    model: String,
    /// Full-resolution volume
    #[arg(long, default_value = "256x256x160", value_name = "XxYxZ", value_parser = parse_volume)]
    volume: [usize; 3],
    /// Points a volume
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    points: u64,
    /// Volumes (of a 2D network: slices) a step
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    batch: u64,
    /// Number format of activations and products
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// What is done
    #[arg(long, value_enum, default_value_t = StepName::Train)]
    step: StepName,
    /// Microseconds that a launch costs; 0 for a step that is one CUDA graph
    #[arg(long, default_value_t = LAUNCH * 1e6, value_name = "µs", value_parser = microseconds, allow_negative_numbers = true)]
    launch: f64,
    /// Print the model as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

fn gpu(name: &str) -> Result<Speed, String> {
    let known = || SPEEDS.map(|speed| speed.name).join(", ");
    let speed = SPEEDS.into_iter().find(|speed| speed.name.eq_ignore_ascii_case(name));
    speed.ok_or_else(|| format!("'{name}' is no GPU that is known here; use one of {}", known()))
}

fn microseconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("'{text}' is no number of microseconds; write 0 or more"))
}

/// Prints the model.
///
/// # Errors
/// An unknown model, or a volume that it does not admit.
pub fn run(args: &RooflineArgs) -> Result<()> {
    let step = match args.step {
        StepName::Train => StepKind::Train,
        StepName::Infer => StepKind::Infer,
    };
    let sizes =
        Sizes { step, precision: args.precision, ..Sizes::new(args.volume, args.batch as usize, args.points as usize) };
    let workload = Workload::official(&args.model, sizes)?;
    workload.check()?;
    // What ops do depends on the sizes only, not on the architecture.
    let device = Device::plan_for(Target::Cuda(CudaTarget::KNOWN[0].1), UNLIMITED);
    let cost = rehearse(&device, &workload.network, workload.sizes, 1)?;
    let mut work = cost.work;
    let mut launches = None;
    if step == StepKind::Train {
        work.push(roofline::update(&sizes.optimizer, cost.parameters));
        launches = roofline::counted_launches(&args.model);
    }
    let launch = args.launch * 1e-6;
    let of = |kernels, launches| roofline::roofline(&work, &args.device, args.precision, kernels, launches, launch);
    let (ours, peer) = (of(Kernels::Fused, launches), of(Kernels::Unfused, None));
    let title = workload.network.title();
    match args.json {
        true => print(format!("{:#}", as_json(args, &title, [&ours, &peer]))),
        false => print(as_text(args, &title, [&ours, &peer])),
    }
}

fn as_text(args: &RooflineArgs, title: &str, [ours, peer]: [&Roofline; 2]) -> String {
    let Speed { source, bandwidth, .. } = args.device;
    let volume = args.volume.map(|side| side.to_string()).join("×");
    let mut text = format!(
        "{title}, {volume}, batch {}, {} points, {}\n{source}: {:.0} GB/s\nA model (roofline), not a measurement.\n\n",
        args.batch,
        args.points,
        args.precision,
        bandwidth / 1e9,
    );
    let mut grid = Grid::new(["op", "passes", "GB", "TFLOP", "ms at best", "bound by"]);
    for row in &ours.rows {
        grid.push([
            format!("{}, {}", row.op, row.phase.name()),
            row.passes.to_string(),
            format!("{:.3}", row.bytes / 1e9),
            format!("{:.4}", row.flops / 1e12),
            milliseconds(row.seconds),
            if row.memory_seconds > 0.5 * row.seconds { "memory" } else { "arithmetic" }.to_string(),
        ]);
    }
    text += &grid.render();
    let mut grid = Grid::new(["a step at best", "kernels ms", "launches", "launches ms", "in all ms"]);
    for (name, model) in [("this engine", ours), ("the same passes op by op", peer)] {
        grid.push([
            name.to_string(),
            milliseconds(model.kernel_seconds()),
            model.launches.to_string(),
            milliseconds(model.launch_seconds),
            milliseconds(model.seconds()),
        ]);
    }
    text.push('\n');
    text + &grid.render()
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

fn as_json(args: &RooflineArgs, title: &str, [ours, peer]: [&Roofline; 2]) -> Value {
    let step = |model: &Roofline| {
        json!({
            "kernel_seconds": model.kernel_seconds(),
            "launches": model.launches,
            "launch_seconds": model.launch_seconds,
            "seconds": model.seconds(),
        })
    };
    let row = |row: &roofline::Row| {
        json!({
            "op": row.op,
            "phase": row.phase.name(),
            "passes": row.passes,
            "bytes": row.bytes,
            "flops": row.flops,
            "seconds": row.seconds,
            "memory_seconds": row.memory_seconds,
        })
    };
    json!({
        "what": "a model, not a measurement",
        "model": title,
        "device": args.device.name,
        "source": args.device.source,
        "volume": args.volume,
        "batch": args.batch,
        "points": args.points,
        "precision": args.precision,
        "step": step(ours),
        "unfused_step": step(peer),
        "ops": ours.rows.iter().map(row).collect::<Vec<_>>(),
    })
}
