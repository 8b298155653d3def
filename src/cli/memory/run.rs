//! A whole run: what its configuration, its data set or its folder says is what is planned.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::{Table, Value};

use super::super::output::print;
use super::super::plan;
use super::super::provenance::print_json;
use super::super::training::open_divided;
use super::{MemoryArgs, Where, refuse};
use crate::checkpoint::model;
use crate::device::{Device, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::memory::default_cpu_budget;
use crate::models::RecomputeChoice;
use crate::plan::forecast::{RunForecast, forecast, settled, some_cases};
use crate::plan::phases::largest;
use crate::plan::{Budget, Request};
use crate::planner::HostOverhead;
use crate::planner::json::target_text;
use crate::report::{TextTable, count, counted, mib, role_name};
use crate::train::config::{Preset, RunConfig};
use crate::train::costs::Costs;
use crate::train::setup::Setup;

/// What a run's own configuration says, and what asks for something else than a run.
const OTHERS: [&str; 16] = [
    "volume",
    "batch",
    "channels",
    "outputs",
    "step",
    "optimizer",
    "precision",
    "on_oom",
    "sweep",
    "fit",
    "compare_to",
    "by_layer",
    "schedules",
    "snapshot",
    "csv",
    "trace",
];

/// The run that is meant.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Your own run")]
pub(super) struct OwnRunArgs {
    /// Plan the run of this configuration, as `train --config` would make it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "run_folder", "model", "points", "recompute", "pprof"])]
    #[arg(conflicts_with_all = OTHERS)]
    config: Option<PathBuf>,
    /// Plan the run of --model on this data set, as `train --data` would make it
    #[arg(short, long, value_name = "DIR", conflicts_with_all = ["run_folder", "pprof"])]
    #[arg(conflicts_with_all = OTHERS)]
    data: Option<String>,
    /// Plan the run in this folder again: its figures are those of its costs.json
    #[arg(long = "run", value_name = "FOLDER", conflicts_with_all = ["model", "points", "recompute", "pprof"])]
    #[arg(conflicts_with_all = OTHERS)]
    run_folder: Option<PathBuf>,
    /// With --config or --run: plan one of N processes that divide each step (mpirun -n N ossnet train, train --cuda-devices)
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "data")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    ranks: u16,
}

/// Most bytes of a configuration.
const MOST_CONFIG: u64 = 1 << 20;

impl OwnRunArgs {
    /// Refuses to divide a step that is no run's.
    pub(super) fn check(&self) -> Result<()> {
        match self.ranks > 1 && !self.is_given() {
            true => Err(Error::Usage("--ranks plans a process of a run; add --config FILE or --run FOLDER".into())),
            false => Ok(()),
        }
    }

    /// True if a run is meant.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some() || self.data.is_some() || self.run_folder.is_some()
    }
}

/// Prints what the run costs.
///
/// # Errors
/// A configuration or data that cannot be read, a network that the data do not admit.
pub(super) fn run(args: &MemoryArgs) -> Result<()> {
    refuse(args.device != Where::Plan, "--device", "--config, --data and --run, which plan")?;
    #[cfg(feature = "report")]
    refuse(args.page().is_some(), "--html", "--config, --data and --run")?;
    let own = &args.own;
    let (config, checkpoint) = match (&own.config, &own.run_folder) {
        (Some(file), _) => (read(file, Table::new())?, None),
        (None, Some(folder)) => {
            let config = read(&folder.join("config.toml"), Table::new())?;
            let network = config.network(1, 1, [256; 3])?;
            let path = super::super::training::checkpoint_path(folder, &network);
            (config, path.exists().then_some(path))
        }
        (None, None) => (of_data(args)?, None),
    };
    let answer = match config.preset {
        Preset::Auto if own.data.is_some() => by_data(args, &config)?,
        _ => planned(args, &config, checkpoint.as_deref())?,
    };
    match args.run.json {
        true => print_json(answer.json(), "runs"),
        false => print(text(&answer)),
    }
}

/// The configuration in a file.
fn read(path: &Path, flags: Table) -> Result<RunConfig> {
    let text = read_text(path, MOST_CONFIG)?;
    RunConfig::resolve(Some((path, &text)), flags, false)
}

/// The configuration of `train --model NAME --data DIR`.
fn of_data(args: &MemoryArgs) -> Result<RunConfig> {
    RunConfig::resolve(None, flags(args), false)
}

/// What the flags say, as `train`'s would.
fn flags(args: &MemoryArgs) -> Table {
    let mut flags = Table::new();
    let mut say = |key: &str, value: Value| drop(flags.insert(key.into(), value));
    say("model", args.model.clone().into());
    say("dataset_path", args.own.data.clone().unwrap_or_default().into());
    if let Some(points) = args.points {
        say("training_samples", Value::Integer(points as i64));
    }
    if let Some(recompute) = args.recompute {
        say("recompute", recompute.to_string().into());
    }
    flags
}

/// The run that `train` would make of the data, but for its epochs, which it chooses after some real steps: here one. Where time
/// is so short that it takes fewer points a step, this has more.
fn by_data(args: &MemoryArgs, config: &RunConfig) -> Result<RunForecast> {
    let verbosity = args.run.verbosity();
    let dataset = open_divided(config)?;
    dataset.check_headers()?;
    let fingerprint = plan::fingerprint(&dataset, verbosity)?;
    let mut given = flags(args);
    ["model", "dataset_path"].into_iter().for_each(|key| drop(given.remove(key)));
    let request = Request {
        model: &config.model,
        data: &config.dataset_path,
        seed: config.seed,
        budget: Budget { seconds: 0.0, epochs: Some(1) },
        given,
    };
    let device = Device::plan_for(args.target(), args.run.memory_budget.unwrap_or_else(default_cpu_budget));
    Ok(plan::planned_run(&fingerprint, &dataset, &device, &request, verbosity)?.forecast)
}

fn planned(args: &MemoryArgs, config: &RunConfig, checkpoint: Option<&Path>) -> Result<RunForecast> {
    let dataset = open_divided(config)?;
    let loaded = Some(config.load_model.as_str()).filter(|path| !path.is_empty()).map(Path::new);
    let reference = checkpoint.or(loaded).map_or(Ok(false), model::is_reference)?;
    let mut setup = Setup::of(config, &dataset, reference)?;
    setup.settings = setup.settings.divided(args.own.ranks.into(), dataset.training.len())?;
    let cases = some_cases(&setup, &dataset)?;
    let target = args.target();
    config.precision.check(target, "--plan-for cuda")?;
    let budget = args.run.memory_budget.unwrap_or_else(default_cpu_budget);
    // What `auto` became in the run is no question of today's budget.
    let taken = checkpoint.and_then(|path| Costs::load(path).recompute).map(RecomputeChoice::Level);
    let choice = match config.recompute() {
        RecomputeChoice::Auto => taken.unwrap_or(RecomputeChoice::Auto),
        given => given,
    };
    let settings = settled(&setup, &cases, choice, target, args.run.memory_budget.unwrap_or(UNLIMITED))?;
    forecast(&setup, settings, &cases, &dataset, target, budget)
}

fn text(answer: &RunForecast) -> String {
    let settings = &answer.settings;
    let points =
        if answer.has_points { format!(", {}", counted(settings.points as u64, "point")) } else { String::new() };
    let mut text = format!(
        "{}: a run of {}, {} voxels, batch {}{}, recompute {}, planned for {}\n{} parameters\n\n",
        answer.network,
        counted(answer.steps(), "step"),
        super::shape_text(answer.shape),
        settings.batch_size,
        points,
        settings.recompute,
        target_text(answer.target),
        count(answer.parameters as u64)
    );
    if settings.ranks > 1 {
        text += &format!(
            "one of {} processes, which divide the {} passes of each step\n\n",
            settings.ranks, settings.accumulate
        );
    }
    let mut grid = TextTable::new(["a training step, as costs.json has it", "MiB"]);
    for (role, bytes) in &answer.costs.peak_by_role {
        grid.push([role_name(role), mib(*bytes)]);
    }
    grid.push([format!("peak, {}", answer.costs.peak_op), mib(answer.costs.peak_bytes)]);
    grid.push(["highest sum of saved, transient and workspace".into(), mib(answer.costs.peak_activations)]);
    text += &grid.render();
    let mut grid = TextTable::new(["on the device", "MiB"]);
    grid.push(["reserved by training steps, holes included".into(), mib(answer.reserved)]);
    if let Some(bytes) = answer.validation {
        grid.push(["reserved by the validation of a case, about (not beside them)".into(), mib(bytes)]);
    }
    let cases = if answer.held {
        "volumes and labels of all cases"
    } else {
        "volumes and labels of a batch (the others stay on disk)"
    };
    device_and_host(grid, (&answer.host, answer.target), answer.device_bytes(), cases, &mut text);
    text += "\n";
    text + &phase_text(answer)
}

/// The run in phases.
fn phase_text(answer: &RunForecast) -> String {
    let mut grid = TextTable::new(["phase", "device MiB", "host MiB"]);
    answer.phases.iter().for_each(|phase| grid.push([phase.name.to_string(), mib(phase.device), mib(phase.host)]));
    let largest = largest(&answer.phases, answer.target).map_or("", |phase| phase.name);
    format!("{}\nMost is needed in {largest}.\n", grid.render())
}

/// Ends the device's table and adds the host's: two sums, for on CUDA they are two memories.
pub(super) fn device_and_host(
    mut device: TextTable,
    (host, target): (&HostOverhead, Target),
    on_device: u64,
    cases: &str,
    text: &mut String,
) {
    let context = host.on_device(target);
    if context > 0 {
        device.push(["CUDA context (assumed)".into(), mib(context - host.communicator)]);
    }
    if host.communicator > 0 {
        device.push(["NCCL's communicator (assumed)".into(), mib(host.communicator)]);
    }
    device.push(["device, in all".into(), mib(on_device)]);
    let mut grid = TextTable::new(["on the host", "MiB"]);
    grid.push([cases.to_string(), mib(host.cases)]);
    grid.push(["batches on their way".into(), mib(host.staging)]);
    if host.results > 0 {
        grid.push(["probabilities and labels".into(), mib(host.results)]);
    }
    grid.push(["program, stacks, packed products".into(), mib(host.machinery(target))]);
    grid.push(["host, in all".into(), mib(host.all_host(target))]);
    *text += &format!("\n{}\n{}", device.render(), grid.render());
}
