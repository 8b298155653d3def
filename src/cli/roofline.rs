//! `ossnet roofline`: the model of a step's time.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::device_args::parse_volume;
use super::output::print;
use crate::device::cuda::{default_budget, devices};
use crate::device::{CudaTarget, Device, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::planner::Workload;
use crate::planner::gpus::{SPEEDS, Speed};
use crate::planner::roofline::{self, Kernels, LAUNCH, Roofline, measured};
use crate::report::TextTable;
use crate::tape::Precision;
use crate::train::dry_run::{StepKind, StepSizes, dry_run, dry_run_timed};

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
    /// Run the step on CUDA device 0 as well, and print beside the model how long each op took between two events
    #[arg(long)]
    measure: bool,
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
    let sizes = StepSizes {
        step,
        precision: args.precision,
        ..StepSizes::new(args.volume, args.batch as usize, args.points as usize)
    };
    let workload = Workload::official(&args.model, sizes)?;
    workload.check()?;
    // What ops do depends on the sizes only, not on the architecture.
    let device = Device::plan_for(Target::Cuda(CudaTarget::KNOWN[0].1), UNLIMITED);
    let cost = dry_run(&device, &workload.network, workload.sizes, 1)?;
    let mut work = cost.work;
    let mut launches = None;
    if step == StepKind::Train {
        work.push(roofline::update(&sizes.optimizer, cost.parameters));
        launches = roofline::counted_launches(&args.model);
    }
    let measured = if args.measure { Some(Measured::take(&workload)?) } else { None };
    let launch = args.launch * 1e-6;
    let of = |kernels, launches| roofline::roofline(&work, &args.device, args.precision, kernels, launches, launch);
    let (ours, peer) = (of(Kernels::Fused, launches), of(Kernels::Unfused, None));
    let title = workload.network.title();
    match args.json {
        true => print(format!("{:#}", as_json(args, &title, [&ours, &peer], measured.as_ref()))),
        false => print(as_text(args, &title, [&ours, &peer], measured.as_ref())),
    }
}

/// How long a step took, after two others.
struct Measured {
    /// The GPU.
    name: String,
    /// Op, phase, seconds between events.
    rows: Vec<(&'static str, &'static str, f64)>,
    /// Seconds of everything else.
    rest: f64,
    /// Of the whole step, by the host's clock.
    wall: f64,
}

impl Measured {
    fn take(workload: &Workload) -> Result<Self> {
        let device = default_budget(0).and_then(|budget| Device::cuda(0, budget)).map_err(|e| match e {
            Error::Device(problem) => Error::Device(format!("{problem} (--measure needs a GPU)")),
            other => other,
        })?;
        let (step, seconds) = dry_run_timed(&device, &workload.network, workload.sizes, 2)?;
        let name = devices()?.into_iter().next().map_or_else(String::new, |info| info.name);
        let (rows, rest) = measured(&step.work, &seconds);
        Ok(Self { name, rows, rest, wall: step.seconds.iter().sum() })
    }

    fn of(&self, op: &str, phase: &str) -> Option<f64> {
        self.rows.iter().find(|row| (row.0, row.1) == (op, phase)).map(|row| row.2)
    }

    fn sum(&self) -> f64 {
        self.rows.iter().map(|row| row.2).sum::<f64>() + self.rest
    }
}

fn as_text(args: &RooflineArgs, title: &str, [ours, peer]: [&Roofline; 2], measured: Option<&Measured>) -> String {
    let Speed { source, bandwidth, .. } = args.device;
    let volume = args.volume.map(|side| side.to_string()).join("×");
    let mut text = format!(
        "{title}, {volume}, batch {}, {} points, {}\n{source}: {:.0} GB/s\nA model (roofline), not a measurement.\n\n",
        args.batch,
        args.points,
        args.precision,
        bandwidth / 1e9,
    );
    let heads = ["op", "passes", "GB", "TFLOP", "ms at best", "bound by"];
    let mut grid = TextTable::new(heads.into_iter().chain(measured.map(|_| "ms measured")));
    for row in &ours.rows {
        let mut cells = vec![
            format!("{}, {}", row.op, row.phase.name()),
            row.passes.to_string(),
            format!("{:.3}", row.bytes / 1e9),
            format!("{:.4}", row.flops / 1e12),
            milliseconds(row.seconds),
            if row.memory_seconds > 0.5 * row.seconds { "memory" } else { "arithmetic" }.to_string(),
        ];
        if let Some(measured) = measured {
            cells.push(measured.of(row.op, row.phase.name()).map_or_else(String::new, milliseconds));
        }
        grid.push(cells);
    }
    text += &grid.render();
    if let Some(measured) = measured {
        text += &format!(
            "\nMeasured on {} between the events of one step: {} ms in all, {} ms of it in the update and between ops; by the host's clock {} ms.\n",
            measured.name,
            milliseconds(measured.sum()),
            milliseconds(measured.rest),
            milliseconds(measured.wall),
        );
    }
    let mut grid = TextTable::new(["a step at best", "kernels ms", "launches", "launches ms", "in all ms"]);
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

fn as_json(args: &RooflineArgs, title: &str, [ours, peer]: [&Roofline; 2], measured: Option<&Measured>) -> Value {
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
            "measured_seconds": measured.and_then(|measured| measured.of(row.op, row.phase.name())),
        })
    };
    let measured_step = measured
        .map(|measured| json!({ "device": measured.name, "seconds": measured.sum(), "host_seconds": measured.wall }));
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
        "measured_step": measured_step,
        "ops": ours.rows.iter().map(row).collect::<Vec<_>>(),
    })
}
