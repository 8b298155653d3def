//! The command line: one file a subcommand.

mod borders;
#[cfg(feature = "train")]
mod compare;
#[cfg(all(feature = "train", feature = "report"))]
mod compare_report;
mod convert;
mod device_args;
mod devices;
#[cfg(feature = "train")]
mod evaluate;
#[cfg(feature = "infer")]
mod infer;
mod inspect;
#[cfg(feature = "train")]
mod licences;
#[cfg(feature = "train")]
mod memory;
mod mesh;
#[cfg(feature = "infer")]
mod mesh_output;
mod official;
#[cfg(feature = "train")]
mod oom;
mod output;
mod progress;
#[cfg(feature = "train")]
mod roofline;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod training;

use clap::{Args, Parser, Subcommand};

pub use output::note;

use crate::error::Result;

/// Version and the features built in, as `--version` prints them.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The features that this binary was built with.
pub fn features() -> String {
    let known = [
        ("cuda", cfg!(feature = "cuda")),
        ("infer", cfg!(feature = "infer")),
        ("train", cfg!(feature = "train")),
        ("report", cfg!(feature = "report")),
    ];
    let built: Vec<&str> = known.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect();
    format!("features: {}", if built.is_empty() { "none".into() } else { built.join(", ") })
}

/// Segment 3D medical images with occupancy networks and U-Nets, every byte accounted for.
///
/// Without a subcommand: `ossnet compare`, which trains the networks side by side on the embedded head MRIs and reports
/// what each costs in bytes, time and accuracy.
#[derive(Parser)]
#[command(name = "ossnet", version, long_version = long_version(), args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[cfg(feature = "train")]
    #[command(flatten)]
    compare: compare::CompareArgs,
}

fn long_version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| format!("{VERSION}\n{}", features()))
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "train")]
    /// Train networks side by side and compare memory, time and accuracy
    Compare(Box<compare::CompareArgs>),
    #[cfg(feature = "train")]
    /// Train one network
    Train(Box<train::TrainArgs>),
    #[cfg(feature = "train")]
    /// Score a checkpoint on labelled cases
    Evaluate(evaluate::EvaluateArgs),
    #[cfg(feature = "infer")]
    /// Segment scans with a checkpoint
    Infer(infer::InferArgs),
    #[cfg(feature = "train")]
    /// What one training step costs in bytes, planned or measured
    Memory(memory::MemoryArgs),
    #[cfg(feature = "train")]
    /// How fast a step can be at best on a GPU: a model, not a measurement
    Roofline(roofline::RooflineArgs),
    /// Make a mesh of a segmentation or a probability map
    Mesh(mesh::MeshArgs),
    /// Write the border maps of a data set beside its labels
    Borders(borders::BordersArgs),
    /// Say what a data set holds and what is wrong with it
    Inspect(inspect::InspectArgs),
    /// Convert weights between PyTorch's .pt and .safetensors
    Convert(convert::ConvertArgs),
    /// List what there is to compute on, and why if there is no CUDA device
    Devices(devices::DevicesArgs),
    #[cfg(feature = "train")]
    /// Print the licences of the embedded data
    Licences,
}

/// Flags of every command that computes.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Threads (0: one for each core)
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    threads: usize,
    /// Most bytes the engine may hold, for example 8GiB [default: 0.9 of the machine's or container's memory]
    #[arg(long, value_name = "BYTES", value_parser = crate::memory::parse_bytes, allow_negative_numbers = true)]
    memory_budget: Option<u64>,
    /// Print errors and results only
    #[arg(long)]
    quiet: bool,
    /// Print the result as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

/// Parses the command line and runs it.
///
/// # Errors
/// What the subcommand reports. Usage errors end the process with status 2.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    match cli.command {
        #[cfg(feature = "train")]
        None => compare::run(cli.compare),
        #[cfg(not(feature = "train"))]
        None => Err(crate::Error::Usage("this build only has subcommands; see ossnet --help".into())),
        #[cfg(feature = "train")]
        Some(Command::Compare(args)) => compare::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Train(args)) => train::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Evaluate(args)) => evaluate::run(args),
        #[cfg(feature = "infer")]
        Some(Command::Infer(args)) => infer::run(args),
        #[cfg(feature = "train")]
        Some(Command::Memory(args)) => memory::run(args),
        #[cfg(feature = "train")]
        Some(Command::Roofline(args)) => roofline::run(&args),
        Some(Command::Mesh(args)) => mesh::run(args),
        Some(Command::Borders(args)) => borders::run(args),
        Some(Command::Inspect(args)) => inspect::run(args),
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Devices(args)) => devices::run(args),
        #[cfg(feature = "train")]
        Some(Command::Licences) => licences::run(),
    }
}
