//! `ossnet roofline`: the model of a step's time.

#[cfg(feature = "report")]
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::memory::DataArgs;
#[cfg(feature = "report")]
use super::output::new_files;
use super::output::print;
use super::provenance::print_json;
use crate::device::Device;
use crate::device::cuda::devices;
use crate::error::{Error, Result};
#[cfg(feature = "report")]
use crate::files::write_atomic;
use crate::planner::Workload;
use crate::planner::all_reduce::{GRADIENT_BYTES, LINKS, RANKS};
use crate::planner::gpus::Speed;
use crate::planner::json;
use crate::planner::roofline::{self, EFFICIENCY, LAUNCH, Measured, Roofline};
use crate::quantities::parse_shape;
#[cfg(feature = "report")]
use crate::report::{RooflineMark, RooflinePage, roofline_page};
use crate::report::{TextTable, counted};
use crate::tape::Precision;
use crate::train::dry_run::{StepKind, StepSizes, dry_run_timed};

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StepName {
    /// Loss, gradients, update
    Train,
    /// The segmentation of a scan by the hierarchical search, at worst: every voxel is asked
    Infer,
}

/// Flags of `ossnet roofline`.
#[derive(Args, Clone, Debug)]
pub struct RooflineArgs {
    /// GPU by name, for example h100, a100, rtx4090
    #[arg(long, default_value = "h100", value_name = "GPU", value_parser = Speed::named)]
    device: Speed,
    /// Model, for example oss-net-c, o-net, unet3d
    #[arg(short, long, default_value = "oss-net-c", value_name = "NAME")]
    model: String,
    /// Full-resolution volume
    #[arg(long, default_value = "256x256x160", value_name = "XxYxZ", value_parser = parse_shape)]
    volume: [usize; 3],
    /// Points a volume
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    points: u64,
    /// Volumes (of a 2D network: slices) a step
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    batch: u64,
    #[command(flatten)]
    data: DataArgs,
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
    /// Write a page with the roofline plot, one file
    #[cfg(feature = "report")]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace a page that exists
    #[cfg(feature = "report")]
    #[arg(long, requires = "html")]
    overwrite: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

fn microseconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| format!("'{text}' is no number of microseconds; write 0 or more"))
}

/// Prints the model.
///
/// # Errors
/// An unknown model, a volume that it does not admit, a page that exists or cannot be written.
pub fn run(args: &RooflineArgs) -> Result<()> {
    #[cfg(feature = "report")]
    let _folders = new_files(&args.html, args.overwrite)?;
    let step = match args.step {
        StepName::Train => StepKind::Train,
        StepName::Infer => StepKind::Infer,
    };
    let sizes = StepSizes {
        step,
        precision: args.precision,
        ..StepSizes::new(args.volume, args.batch as usize, args.points as usize)
    };
    let workload = args.data.of(Workload::official(&args.model, sizes)?);
    workload.check()?;
    let measured = if args.measure { Some(take(&workload)?) } else { None };
    let [ours, peer] = roofline::models(&workload, &args.device, args.launch / 1e6)?;
    #[cfg(feature = "report")]
    if let Some(path) = &args.html {
        write_atomic(path, page(args, &workload, &ours, measured.as_ref()).as_bytes())?;
    }
    match args.run.json {
        true => print_json(json::roofline(&workload, &args.device, [&ours, &peer], measured.as_ref())?, "steps"),
        false => {
            let sums = if step == StepKind::Train { sums(&workload)? } else { String::new() };
            print(as_text(args, &workload, [&ours, &peer], measured.as_ref()) + &sums)
        }
    }
}

/// Runs the step on CUDA device 0, after two others.
fn take(workload: &Workload) -> Result<Measured> {
    let device = Device::cuda(0, 0).map_err(|e| match e {
        Error::Device(problem) => Error::Device(format!("{problem} (--measure needs a GPU)")),
        other => other,
    })?;
    let (step, seconds) = dry_run_timed(&device, &*workload.network, workload.sizes, 2)?;
    let name = devices()?.into_iter().next().map_or_else(String::new, |info| info.name);
    Ok(Measured::of_step(name, &step, &seconds))
}

/// What is modelled: network, sizes, precision.
fn setting(workload: &Workload) -> String {
    let StepSizes { volume, batch, points, precision, .. } = workload.sizes;
    let volume = volume.map(|side| side.to_string()).join("×");
    let points = if workload.has_points() { format!(", {}", counted(points as u64, "point")) } else { String::new() };
    format!("{}, {volume}, batch {batch}{points}, {precision}", workload.network.title())
}

/// The page with the plot: rates that are expected, and measured ones beside them.
#[cfg(feature = "report")]
fn page(args: &RooflineArgs, workload: &Workload, ours: &Roofline, measured: Option<&Measured>) -> String {
    let Speed { source, bandwidth, f32, tf32, bf16, .. } = args.device;
    let tensor = match args.precision {
        Precision::F32 => None,
        Precision::Tf32 => Some(("tf32 on tensor cores".into(), tf32)),
        Precision::Bf16 => Some(("bf16 on tensor cores".into(), bf16)),
    };
    let mut marks = Vec::new();
    for row in &ours.rows {
        let name = format!("{}, {}", row.op, row.phase.name());
        let mut mark = |series, seconds: f64, all: f64| {
            let (intensity, rate, name) = (row.flops / row.bytes, row.flops / seconds, name.clone());
            marks.push(RooflineMark { series, name, intensity, rate, share: seconds / all });
        };
        mark(0, row.expected_seconds, ours.expected_kernel_seconds());
        if let Some((measured, seconds)) =
            measured.and_then(|measured| Some((measured, measured.of(row.op, row.phase.name())?)))
        {
            mark(1, seconds, measured.sum());
        }
    }
    let mut conclusion = format!(
        "At best {} ms a step, expected {} ms",
        milliseconds(ours.seconds()),
        milliseconds(ours.expected_seconds()),
    );
    if let Some(measured) = measured {
        conclusion += &format!(", measured {} ms on {}", milliseconds(measured.wall), measured.name);
    }
    let assumed = "Expected times rest on assumed efficiencies, not on measurements.";
    roofline_page(&RooflinePage {
        title: format!("Roofline of {}", workload.network.title()),
        network: workload.network.title(),
        conclusion: conclusion + ".",
        run: format!("{}; {source}. {assumed} ossnet {}", setting(workload), super::VERSION),
        bandwidth,
        ceilings: tensor.into_iter().chain([("f32".to_string(), f32)]).collect(),
        series: ["expected"].into_iter().chain(measured.map(|_| "measured")).map(String::from).collect(),
        marks,
        table: rows(ours, measured),
    })
}

fn as_text(
    args: &RooflineArgs,
    workload: &Workload,
    [ours, peer]: [&Roofline; 2],
    measured: Option<&Measured>,
) -> String {
    let Speed { source, bandwidth, f32, tf32, bf16, .. } = args.device;
    let mut text = format!(
        "{}\n{source}: {:.0} GB/s; TFLOP/s: {:.0} in f32, on tensor cores {:.0} in tf32, {:.0} in bf16\n\
         Below {:.0} FLOP/B (f32) an op is bound by memory. A model (roofline), not a measurement.\n\n",
        setting(workload),
        bandwidth / 1e9,
        f32 / 1e12,
        tf32 / 1e12,
        bf16 / 1e12,
        f32 / bandwidth,
    );
    text += &rows(ours, measured).render();
    if let Some(measured) = measured {
        text += &format!(
            "\nMeasured on {} between the events of one step: {} ms in all, {} ms of it in the update and between ops; by the host's clock {} ms.\n",
            measured.name,
            milliseconds(measured.sum()),
            milliseconds(measured.rest),
            milliseconds(measured.wall),
        );
    }
    text += &format!(
        "\nExpected: {:.0} % of the bandwidth, {:.0} % of the f32 peak, {:.0} % of the tensor cores' (cuDNN's 3³ convolutions on an H200), {:.0} % of the\ninstructions that could be issued (counted in PTX); assumed, not measured.\n",
        100.0 * EFFICIENCY.memory,
        100.0 * EFFICIENCY.f32,
        100.0 * EFFICIENCY.tensor,
        100.0 * EFFICIENCY.issue,
    );
    let mut grid =
        TextTable::new(["a step at best", "kernels ms", "launches", "launches ms", "in all ms", "kernels ms expected"]);
    for (name, model) in [("this engine", ours), ("the same passes op by op", peer)] {
        grid.push([
            name.to_string(),
            milliseconds(model.kernel_seconds()),
            model.launches.to_string(),
            milliseconds(model.launch_seconds),
            milliseconds(model.seconds()),
            milliseconds(model.expected_kernel_seconds()),
        ]);
    }
    text.push('\n');
    text + &grid.render()
}

/// What it costs to sum the step's gradients over several GPUs.
fn sums(workload: &Workload) -> Result<String> {
    let bytes = GRADIENT_BYTES * workload.parameters()? as u64;
    let heads = RANKS.map(|ranks| format!("ms on {ranks} GPUs"));
    let mut grid =
        TextTable::new(["the sum of gradients over", "µs a round"].map(String::from).into_iter().chain(heads));
    for link in LINKS {
        let cells = RANKS.map(|ranks| milliseconds(link.seconds(bytes, ranks)));
        grid.push([link.name.to_string(), format!("{:.0}", 1e6 * link.latency)].into_iter().chain(cells));
    }
    Ok(format!(
        "\n{}\nNCCL's ring (train --cuda-devices), once a step, {} MiB: 2(n − 1)/n of the bytes at the link's full rate, and 2(n − 1)\n\
         rounds; assumed, not measured.\n",
        grid.render(),
        crate::report::mib(bytes),
    ))
}

/// The ops of a step with what bounds them.
fn rows(ours: &Roofline, measured: Option<&Measured>) -> TextTable {
    let heads = ["op", "passes", "GB", "TFLOP", "ms at best", "bound by", "ms to issue", "ms expected", "for"];
    let mut grid = TextTable::new(heads.into_iter().chain(measured.map(|_| "ms measured")));
    for row in &ours.rows {
        let mut cells = vec![
            format!("{}, {}", row.op, row.phase.name()),
            row.passes.to_string(),
            format!("{:.3}", row.bytes / 1e9),
            format!("{:.4}", row.flops / 1e12),
            milliseconds(row.seconds),
            if row.memory_seconds > 0.5 * row.seconds { "memory" } else { "arithmetic" }.to_string(),
            if row.issue_seconds > 0.0 { milliseconds(row.issue_seconds) } else { String::new() },
            milliseconds(row.expected_seconds),
            row.limit.name().to_string(),
        ];
        if let Some(measured) = measured {
            cells.push(measured.of(row.op, row.phase.name()).map_or_else(String::new, milliseconds));
        }
        grid.push(cells);
    }
    grid
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}
