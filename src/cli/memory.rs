//! `ossnet memory`: what one training step of a configuration costs, measured on the CPU or planned without computing.

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::output::print;
use super::run::parse_volume;
use crate::device::Device;
use crate::device::cpu::SimdLevel;
use crate::error::{Error, Result};
use crate::memory::format_bytes;
use crate::models::{Family, NetworkConfig};
use crate::train::rehearsal::{self, Rehearsal, Sizes};

/// Where the step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Nowhere: the same code goes through the motions and counts
    Plan,
    /// On this machine
    Cpu,
}

/// Flags of `ossnet memory`.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Model, for example oss-net-c, o-net, unet3d
    #[arg(long, default_value = "oss-net-c", value_name = "NAME")]
    model: String,
    /// Full-resolution volume
    #[arg(long, default_value = "256x256x160", value_name = "XxYxZ", value_parser = parse_volume)]
    volume: [usize; 3],
    /// Points a volume (occupancy networks)
    #[arg(long, default_value_t = 16384, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    points: u64,
    /// Volumes a step
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    batch: u64,
    /// Plan the step, or run it
    #[arg(long, value_enum, default_value_t = Target::Plan)]
    device: Target,
    /// Steps to run; the last one is shown
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    steps: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// Prints the costs.
///
/// # Errors
/// An unknown model, a volume that it does not admit, or no memory.
pub fn run(args: MemoryArgs) -> Result<()> {
    let config = NetworkConfig::official(&args.model, Family::Brats)?;
    let (channels, classes) = (config.image_channels(), config.classes());
    let config = config.adapted(channels, classes, args.volume);
    let multiples = config.multiples();
    if let Some(axis) = (0..3).find(|&axis| !args.volume[axis].is_multiple_of(multiples[axis])) {
        return Err(Error::Usage(format!(
            "--volume: side {} must be a multiple of {} for {}",
            args.volume[axis],
            multiples[axis],
            config.title()
        )));
    }
    let device = match args.device {
        Target::Cpu => args.run.device()?,
        Target::Plan => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = if args.run.threads == 0 { cores } else { args.run.threads };
            // A plan has no memory to run out of unless a budget is asked for.
            Device::plan(threads, SimdLevel::detect(), args.run.memory_budget.unwrap_or(1 << 50))
        }
    };
    let sizes = Sizes::new(args.volume, args.batch as usize, args.points as usize);
    let steps = if device.is_plan() { 2 } else { args.steps as usize };
    let cost = rehearsal::rehearse(&device, &config, sizes, steps)?;
    if args.run.json {
        return print(format!("{:#}", to_json(&config, &device, &cost)));
    }
    let mut text = format!(
        "{} ({} parameters), {:?}, batch {}\none training step on {} with {} threads\n",
        config.title(),
        cost.parameters,
        args.volume,
        args.batch,
        device.name(),
        device.threads()
    );
    let mut row = |name: &str, value: String| text += &format!("  {name:<22} {value:>12}\n");
    row("activations, peak", format_bytes(cost.peak_activations));
    row("all, peak", format_bytes(cost.peak.by_role.total()));
    row("reached in", format!("{} {}", cost.peak.op, cost.peak.layer));
    for (role, bytes) in cost.peak.by_role.iter().filter(|(_, bytes)| *bytes > 0) {
        row(&format!("  {}", role.name()), format_bytes(bytes));
    }
    row("reserved", format_bytes(cost.reserved));
    if !device.is_plan() {
        row("resident, peak", format_bytes(resident_peak()));
        row("step, median", format!("{:.3} s", median(&cost.seconds)));
        row("budget", format_bytes(device.budget()));
    }
    print(text)
}

fn to_json(config: &NetworkConfig, device: &Device, cost: &Rehearsal) -> serde_json::Value {
    let roles: serde_json::Map<String, serde_json::Value> =
        cost.peak.by_role.iter().map(|(role, bytes)| (role.name().to_string(), bytes.into())).collect();
    serde_json::json!({
        "model": config.title(),
        "device": device.name(),
        "threads": device.threads(),
        "parameters": cost.parameters,
        "peak_bytes": cost.peak.by_role.total(),
        "peak_activation_bytes": cost.peak_activations,
        "peak_op": cost.peak.op,
        "peak_layer": cost.peak.layer.to_string(),
        "by_role": roles,
        "reserved_bytes": cost.reserved,
        "resident_peak_bytes": if device.is_plan() { None } else { Some(resident_peak()) },
        "step_seconds": if device.is_plan() { None } else { Some(median(&cost.seconds)) },
    })
}

/// The process's largest resident set so far, in bytes (0 where the system does not tell).
fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// The median without the first, which touches every page for the first time.
fn median(seconds: &[f64]) -> f64 {
    let mut later = seconds[seconds.len().min(2) - 1..].to_vec();
    later.sort_by(f64::total_cmp);
    later[later.len() / 2]
}
