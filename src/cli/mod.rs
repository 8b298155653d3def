//! The command line: one file a subcommand.

mod borders;
#[cfg(feature = "infer")]
mod checkpoints;
#[cfg(feature = "train")]
mod children;
#[cfg(feature = "train")]
mod compare;
#[cfg(feature = "train")]
mod compare_baselines;
#[cfg(feature = "train")]
mod compare_command;
#[cfg(feature = "train")]
mod compare_folds;
#[cfg(feature = "train")]
mod compare_plan;
#[cfg(all(feature = "train", feature = "report"))]
mod compare_report;
mod completions;
mod convert;
#[cfg(feature = "train")]
mod cuda_devices;
mod device_args;
mod devices;
#[cfg(feature = "train")]
mod evaluate;
mod failures;
mod flag_values;
#[cfg(feature = "train")]
mod fold_files;
mod help;
#[cfg(feature = "infer")]
mod infer;
mod inspect;
mod kernels;
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
#[cfg(all(feature = "train", feature = "report"))]
mod pictures;
#[cfg(feature = "train")]
mod plan;
#[cfg(feature = "train")]
mod profile;
mod progress;
mod provenance;
#[cfg(feature = "train")]
mod ranks;
mod refusal;
#[cfg(feature = "train")]
mod roofline;
#[cfg(feature = "train")]
mod train;
#[cfg(feature = "train")]
mod training;

use std::ffi::OsString;
use std::time::Instant;

#[cfg(feature = "infer")]
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};

use output::note_after;
use progress::Shown;

use crate::error::Result;
#[cfg(feature = "infer")]
use crate::files::name;
use crate::memory::{format_bytes, resident_peak};

/// Version and the features built in, as `--version` prints them.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The features that this binary was built with.
pub fn features() -> String {
    let known = [
        ("cuda", cfg!(feature = "cuda")),
        ("infer", cfg!(feature = "infer")),
        ("train", cfg!(feature = "train")),
        ("report", cfg!(feature = "report")),
        ("mpi", cfg!(feature = "mpi")),
    ];
    let built: Vec<&str> = known.into_iter().filter(|(_, built)| *built).map(|(name, _)| name).collect();
    format!("features: {}", if built.is_empty() { "none".into() } else { built.join(", ") })
}

/// Segment 3D medical images with occupancy networks and U-Nets, every byte accounted for.
///
/// Without a command: `ossnet compare`, which trains the networks side by side on the embedded head MRIs and reports
/// what each costs in bytes, time and accuracy.
#[derive(Parser)]
#[command(name = "ossnet", version, long_version = long_version(), after_help = help::TOP, styles = help::STYLES)]
#[command(max_term_width = 120)]
struct Cli {
    /// When to colour help and errors
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "OSSNET_COLOR",
        value_name = "WHEN",
        hide_env = true
    )]
    #[arg(help_heading = "Run")]
    color: ColorChoice,
    #[command(subcommand)]
    command: Option<Command>,
}

fn long_version() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| match provenance::COMMIT {
        Some(commit) => format!("{VERSION}\ncommit: {commit}\n{}", features()),
        None => format!("{VERSION}\n{}", features()),
    })
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "train")]
    /// Train networks side by side and compare memory, time and accuracy
    #[command(after_help = help::COMPARE)]
    Compare(Box<compare::CompareArgs>),
    #[cfg(feature = "train")]
    /// Make a run's configuration of a data set and of budgets of bytes and seconds
    #[command(after_help = help::PLAN)]
    Plan(Box<plan::PlanArgs>),
    #[cfg(feature = "train")]
    /// Train one network
    #[command(after_help = help::TRAIN)]
    Train(Box<train::TrainArgs>),
    #[cfg(feature = "train")]
    /// Score a checkpoint on labelled cases
    #[command(after_help = help::EVALUATE)]
    Evaluate(Box<evaluate::EvaluateArgs>),
    #[cfg(feature = "infer")]
    /// Segment scans with a checkpoint
    #[command(after_help = help::INFER)]
    Infer(Box<infer::InferArgs>),
    #[cfg(feature = "train")]
    /// What one training step costs in bytes, planned or measured
    #[command(after_help = help::MEMORY)]
    Memory(Box<memory::MemoryArgs>),
    #[cfg(feature = "train")]
    /// How fast a step can be at best on a GPU: a model, not a measurement
    #[command(after_help = help::ROOFLINE)]
    Roofline(roofline::RooflineArgs),
    /// Make a mesh of a segmentation or a probability map
    #[command(after_help = help::MESH)]
    Mesh(mesh::MeshArgs),
    /// Write the border maps of a data set beside its labels
    #[command(after_help = help::BORDERS)]
    Borders(borders::BordersArgs),
    /// Say what a data set holds and what is wrong with it
    #[command(after_help = help::INSPECT)]
    Inspect(inspect::InspectArgs),
    /// Convert weights between PyTorch's .pt and .safetensors
    #[command(after_help = help::CONVERT)]
    Convert(convert::ConvertArgs),
    /// List what there is to compute on, and why if there is no CUDA device
    #[command(after_help = help::DEVICES)]
    Devices(devices::DevicesArgs),
    #[cfg(feature = "train")]
    /// Print the licences of the embedded data
    #[command(after_help = help::LICENCES)]
    Licences(licences::LicencesArgs),
    /// Print completions for a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions(completions::CompletionsArgs),
    /// Write the manual's pages
    #[command(after_help = help::MAN)]
    Man(completions::ManArgs),
}

/// Reads a path into text, also one that is none (see [`name::text_of`]).
#[cfg(feature = "infer")]
fn path_text() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(name::text_of)
}

/// Flags of every command that reads files or computes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// Threads (0: one for each core)
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    #[arg(env = "OSSNET_THREADS", hide_env = true)]
    threads: usize,
    /// Most bytes the engine may hold, for example 8GiB [default: 0.9 of the machine's or container's memory]
    #[arg(long, value_name = "BYTES", value_parser = crate::quantities::parse_bytes, allow_negative_numbers = true)]
    #[arg(env = "OSSNET_MEMORY_BUDGET", hide_env = true)]
    memory_budget: Option<u64>,
    /// Print errors and results only
    #[arg(short, long)]
    quiet: bool,
    /// Also say what is computed on, and at the end how long it took and what was resident
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t, value_name = "HOW", env = "OSSNET_PROGRESS", hide_env = true)]
    progress: Shown,
    /// Print the result as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

impl Command {
    /// The flags that most commands have.
    fn run_args(&self) -> Option<&RunArgs> {
        match self {
            #[cfg(feature = "train")]
            Command::Compare(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Plan(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Train(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Evaluate(args) => Some(&args.run),
            #[cfg(feature = "infer")]
            Command::Infer(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Memory(args) => Some(&args.run),
            Command::Mesh(args) => Some(&args.run),
            Command::Borders(args) => Some(&args.run),
            Command::Inspect(args) => Some(&args.run),
            Command::Convert(args) => Some(&args.run),
            Command::Devices(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Roofline(args) => Some(&args.run),
            #[cfg(feature = "train")]
            Command::Licences(_) => None,
            Command::Completions(_) | Command::Man(_) => None,
        }
    }
}

/// The command line, with what the help of every command ends with.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|page| {
        let examples = page.get_after_help().map(|text| format!("{text}\n\n")).unwrap_or_default();
        page.after_help(format!("{examples}{}", help::STATUS))
    })
}

/// Runs the program with these arguments, its own name first; prints the one error that there may be. Returns the exit status.
/// Help and the version end the process at once.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    crate::memory::return_large_blocks();
    let arguments = named(arguments.into_iter().collect());
    let colour = refusal::colour(&arguments);
    let parsed = command_line().color(colour).try_get_matches_from(&arguments);
    let mut in_json = false;
    let (line, code) = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => {
            let run_args = cli.command.as_ref().and_then(Command::run_args);
            in_json = run_args.is_some_and(|run| matches!(run.progress, Shown::Json));
            let verbose = run_args.filter(|run| run.verbose());
            let (verbosity, started) = (verbose.map(RunArgs::verbosity), Instant::now());
            let ended = run(cli);
            if let Some(verbosity) = verbosity {
                let (seconds, resident) = (started.elapsed().as_secs_f64(), format_bytes(resident_peak()));
                verbosity.say(format!("took {seconds:.1} s, resident at most {resident}"));
            }
            match ended {
                Ok(()) => (None, 0),
                Err(error) => (last_word(&error), error.exit_code()),
            }
        }
        // Help and version, which go to standard output.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => (Some(refusal::line(&error, &arguments)), 2),
    };
    if let Some(line) = line.as_ref().filter(|_| in_json) {
        output::note(serde_json::json!({ "error": line, "exit_code": code }).to_string());
    } else if let Some(line) = line {
        let red = refusal::red(colour);
        note_after(format!("{}ossnet:{} ", red.render(), red.render_reset()), line);
    }
    #[cfg(feature = "train")]
    ranks::leave(code);
    code
}

/// What is said of the error that a command ends with, if it is this process that says it.
fn last_word(error: &crate::Error) -> Option<String> {
    #[cfg(feature = "train")]
    return ranks::last_word(error);
    #[cfg(not(feature = "train"))]
    Some(error.to_string())
}

/// The arguments with the command that is meant if none is named: `compare`, unless help or the version are asked for.
fn named(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let top = ["-h", "--help", "-V", "--version", "--color"];
    let first = arguments.get(1).map(|argument| argument.to_string_lossy().into_owned());
    let flag = first.is_none_or(|first| first.starts_with('-') && !top.iter().any(|top| first.starts_with(top)));
    if flag && cfg!(feature = "train") {
        arguments.insert(arguments.len().min(1), "compare".into());
    }
    arguments
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => Err(crate::Error::Usage("no command is named; see ossnet --help".into())),
        #[cfg(feature = "train")]
        Some(Command::Compare(args)) => compare::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Plan(args)) => plan::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Train(args)) => train::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Evaluate(args)) => evaluate::run(*args),
        #[cfg(feature = "infer")]
        Some(Command::Infer(args)) => infer::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Memory(args)) => memory::run(*args),
        #[cfg(feature = "train")]
        Some(Command::Roofline(args)) => roofline::run(&args),
        Some(Command::Mesh(args)) => mesh::run(args),
        Some(Command::Borders(args)) => borders::run(args),
        Some(Command::Inspect(args)) => inspect::run(args),
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Devices(args)) => devices::run(args),
        #[cfg(feature = "train")]
        Some(Command::Licences(args)) => licences::run(&args),
        Some(Command::Completions(args)) => completions::completions(&args, command_line()),
        Some(Command::Man(args)) => completions::man(&args, command_line()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[cfg(feature = "train")]
    #[test]
    fn every_example_in_help_is_a_command_line() {
        let mut command = Cli::command();
        command.build();
        let mut tried = 0;
        for page in std::iter::once(&command).chain(command.get_subcommands()) {
            let text = page.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines().filter(|line| line.starts_with("  ossnet")) {
                // An explanation stands behind several spaces, a redirection behind its sign.
                let example = line.trim().split("   ").next().unwrap().split(" > ").next().unwrap();
                let words: Vec<OsString> = example.split_whitespace().map(OsString::from).collect();
                let parsed = Cli::try_parse_from(named(words));
                assert!(parsed.is_ok(), "{example}: {}", parsed.err().unwrap());
                tried += 1;
            }
        }
        assert!(tried > 20, "{tried}");
    }

    /// Nothing is cut inside a word, and no line is wider than the terminal that help is written for. Every page has examples
    /// and exit statuses.
    #[test]
    fn help_fits_80_columns() {
        let mut names: Vec<String> = command_line().get_subcommands().map(|page| page.get_name().to_string()).collect();
        names.push("ossnet".into());
        for name in names {
            let mut command = command_line().term_width(80).max_term_width(80);
            command.build();
            let page = match &*name {
                "ossnet" => &mut command,
                name => command.find_subcommand_mut(name).unwrap(),
            };
            let after = page.get_after_help().unwrap().to_string();
            assert!(after.starts_with("Examples:\n") && after.contains("\n\nExit status:\n"), "{name}: {after}");
            let text = page.render_long_help().to_string();
            // Examples are written in lines that need no wrapping.
            let widest = text.lines().chain(after.lines()).max_by_key(|line| line.chars().count()).unwrap();
            assert!(widest.chars().count() <= 80, "{name}: {widest}");
        }
    }

    #[test]
    fn without_a_command_the_networks_are_compared() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        if cfg!(feature = "train") {
            assert_eq!(named(words("ossnet")), words("ossnet compare"));
            assert_eq!(named(words("ossnet --seed 1")), words("ossnet compare --seed 1"));
        }
        for text in ["ossnet --help", "ossnet -V", "ossnet --color=never train", "ossnet train -q"] {
            assert_eq!(named(words(text)), words(text));
        }
    }
}
