//! `ossnet memory`: what a step costs in bytes, planned or measured, and what would fit.

mod compared;
mod fit;
mod measured;
mod run;
mod single;
mod sweep;
mod write;

#[cfg(feature = "report")]
pub(super) use sweep::resolution_of;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::device_args::DeviceChoice;
use super::oom::OnOom;
use super::output::new_files;
use super::profile::ProfileArgs;
use crate::device::{CudaTarget, Device, Target, UNLIMITED};
use crate::error::{Error, Result};
use crate::models::RecomputeChoice;
use crate::nn::optim::{Lookahead, OptimizerSettings, UpdateRule};
use crate::planner::gpus::{SPEEDS, Speed};
use crate::planner::{Workload, remedies, schedules, this_cpu};
use crate::quantities::parse_shape;
use crate::tape::Precision;
use crate::train::dry_run::{StepKind, StepProfile, StepSizes};

/// Where the step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// Nowhere: the same code goes through the motions and counts.
    Plan,
    /// On a device of this machine.
    On(DeviceChoice),
}

impl FromStr for Where {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "plan" => Ok(Where::Plan),
            place => place.parse().map(Where::On).map_err(|problem: String| problem.replace("write ", "write plan, ")),
        }
    }
}

/// What is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlanFor {
    /// A CPU with this machine's instruction set.
    Cpu,
    /// A CUDA device.
    Cuda(CudaTarget),
}

impl PlanFor {
    /// A CUDA device of no particular kind.
    const CUDA: Self = Self::Cuda(CudaTarget::KNOWN[0].1);
}

impl FromStr for PlanFor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(PlanFor::Cpu),
            "cuda" => Ok(PlanFor::CUDA),
            name => {
                let gpu = CudaTarget::named(name).or_else(|| Some(Speed::named(name).ok()?.target));
                gpu.map(PlanFor::Cuda).ok_or_else(|| {
                    let gpus = SPEEDS.iter().map(|speed| speed.name);
                    let known = ["cpu", "cuda"].into_iter().chain(CudaTarget::KNOWN.iter().map(|(name, _)| *name));
                    format!("'{text}' is nothing to plan for; {}", crate::suggest::remedy(text, known.chain(gpus)))
                })
            }
        }
    }
}

/// What is done in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StepName {
    /// Loss, gradients, update
    Train,
    /// The score of a labelled case: every voxel is asked
    Eval,
    /// The segmentation of a scan by the hierarchical search, at worst
    Infer,
}

/// The optimiser of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OptimizerName {
    /// Lookahead around RAdam, the official training's
    LookaheadRadam,
    /// RAdam
    Radam,
    /// Adam
    Adam,
    /// Momentum
    Sgd,
}

/// What `--compare-to` compares a step with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum CompareTo {
    /// Its plan with its run on this machine.
    Measured,
    /// The step with another, whose costs are in this file.
    File(PathBuf),
}

impl FromStr for CompareTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "measured" => Ok(CompareTo::Measured),
            file => Ok(CompareTo::File(file.into())),
        }
    }
}

/// What a network is made for, apart from the volume.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Step")]
pub(super) struct DataArgs {
    /// Channels of the images (4: as BraTS)
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    channels: u16,
    /// Outputs of the network: 1 for inside against outside, else one a class, background included
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    outputs: u16,
}

impl DataArgs {
    /// The same work on such data.
    pub(super) fn of(self, workload: Workload) -> Workload {
        workload.with_data(usize::from(self.channels), usize::from(self.outputs))
    }
}

/// Flags of `ossnet memory`.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Model, for example oss-net-c, o-net, unet3d
    #[arg(short, long, default_value = "oss-net-c", value_name = "NAME", help_heading = "Step")]
    model: String,
    /// Full-resolution volume
    #[arg(long, default_value = "256x256x160", value_name = "XxYxZ", value_parser = parse_shape, help_heading = "Step")]
    volume: [usize; 3],
    /// Points a volume of a training step (occupancy networks), or decoded at once in inference [default: 16384, or as many
    /// as the budget admits up to 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32), help_heading = "Step")]
    points: Option<u64>,
    /// Volumes (of a 2D network: slices) a step
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    #[arg(help_heading = "Step")]
    batch: u64,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    own: run::OwnRunArgs,
    /// What is done
    #[arg(long, value_enum, default_value_t = StepName::Train, help_heading = "Step")]
    step: StepName,
    /// Recompute level of training: 0 (fastest) to 3 (leanest), a schedule, or auto: the fastest that fits the budget [default: 0]
    #[arg(long, value_name = "LEVEL", help_heading = "Step")]
    recompute: Option<RecomputeChoice>,
    /// Number format of the step; tf32 and bf16 on CUDA, and in plans for it
    #[arg(long, value_enum, default_value_t = Precision::F32, help_heading = "Step")]
    precision: Precision,
    /// Optimiser of training
    #[arg(long, value_enum, default_value_t = OptimizerName::LookaheadRadam, help_heading = "Step")]
    optimizer: OptimizerName,
    /// Plan the step, or run it
    #[arg(long, default_value = "plan", value_name = "plan|cpu|cuda", help_heading = "Where")]
    device: Where,
    /// The device that a plan is made for: cpu, cuda, an architecture (sm_90) or a GPU (h100) [default: cpu; cuda for --fit gpus]
    #[arg(long, value_name = "TARGET", help_heading = "Where")]
    plan_for: Option<PlanFor>,
    /// Steps to run; the last one is shown
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    #[arg(help_heading = "Where")]
    steps: u64,
    /// Memory against resolution: cubes of these sides, a range or a list, for example 32..1024 or 64,96,224
    #[arg(long, value_name = "SIDES", group = "question", help_heading = "Other questions")]
    sweep: Option<sweep::Sides>,
    /// Models of the sweep, separated by commas
    #[arg(
        long,
        default_value = "o-net,oss-net-c,unet3d",
        value_delimiter = ',',
        value_name = "NAMES",
        requires = "sweep",
        help_heading = "Other questions"
    )]
    models: Vec<String>,
    /// The largest volume, points and batch that fit these bytes, for example 8GiB, or `gpus` for a list of well-known ones
    #[arg(long, value_name = "BYTES|gpus", value_parser = fit::parse_room, group = "question", help_heading = "Other questions")]
    fit: Option<fit::MemoryLimit>,
    /// Plan and run the step, and show both side by side (`measured`); or show what grew against a step that was written with
    /// --json to a file
    #[arg(long, value_name = "measured|FILE", group = "question", help_heading = "Other questions")]
    compare_to: Option<CompareTo>,
    /// A table of the layers: bytes forward, backward, retained, transient, and the largest buffer of each
    #[arg(long, conflicts_with_all = ["sweep", "fit", "compare_to"], help_heading = "Other questions")]
    by_layer: bool,
    /// A table of schedules of recomputation, from the fastest to the leanest, with their bytes and estimated times
    #[arg(long, conflicts_with_all = ["sweep", "fit", "compare_to", "by_layer"], help_heading = "Other questions")]
    schedules: bool,
    /// Where the budget does not suffice, or the device refuses
    #[arg(long, value_enum, default_value_t = OnOom::Fail, help_heading = "Where")]
    on_oom: OnOom,
    /// Write the log of the step (of a sweep: the curves) as comma-separated values
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    csv: Option<PathBuf>,
    /// Write a page with plots, one file
    #[cfg(feature = "report")]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    html: Option<PathBuf>,
    /// Write the step for a timeline viewer (ui.perfetto.dev, chrome://tracing)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sweep", "fit"], help_heading = "Files")]
    trace: Option<PathBuf>,
    /// Write the step as a heap profile for pprof (go tool pprof -http : FILE)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sweep", "fit"], help_heading = "Files")]
    pprof: Option<PathBuf>,
    /// Write the step as a PyTorch memory snapshot (drop FILE on pytorch.org/memory_viz)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sweep", "fit"], help_heading = "Files")]
    snapshot: Option<PathBuf>,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Replace files that exist
    #[arg(long, help_heading = "Files")]
    overwrite: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Answers.
///
/// # Errors
/// An unknown model, a volume that it does not admit, no memory, a file that exists or cannot be written.
pub fn run(args: MemoryArgs) -> Result<()> {
    let _folders = new_files(args.files(), args.overwrite)?;
    match args.device {
        Where::Plan => args.precision.check(args.target(), "--plan-for cuda")?,
        Where::On(DeviceChoice::Cpu) => args.precision.check(this_cpu(args.run.threads), "--device cuda")?,
        Where::On(DeviceChoice::Cuda(_)) => {}
    }
    let single = args.sweep.is_none() && args.fit.is_none() && args.compare_to.is_none() && !args.own.is_given();
    if args.profile.profile.is_some() && !(single && matches!(args.device, Where::On(_))) {
        return Err(Error::Usage(
            "--profile takes the time of one step that runs; add --device cpu or --device cuda".into(),
        ));
    }
    if single || args.fit.is_some() || args.compare_to.is_some() {
        let without = args.points.is_some() && !args.workload(&args.model)?.has_points();
        refuse(without, "--points", &format!("--model {}, which is trained on voxels", args.model))?;
    }
    args.own.check()?;
    if args.own.is_given() {
        return run::run(&args);
    }
    if let Some(sides) = &args.sweep {
        return sweep::run(&args, sides);
    }
    if let Some(room) = args.fit {
        return fit::run(&args, room);
    }
    match &args.compare_to {
        Some(CompareTo::Measured) => measured::run(&args),
        Some(CompareTo::File(path)) => compared::run(&args, path),
        None => single::run(&args),
    }
}

impl MemoryArgs {
    /// What the flags ask to be done with the network `model`.
    fn workload(&self, model: &str) -> Result<Workload> {
        let step = match self.step {
            StepName::Train => StepKind::Train,
            StepName::Eval => StepKind::Evaluate,
            StepName::Infer => StepKind::Infer,
        };
        let recompute = match self.recompute {
            Some(RecomputeChoice::Level(level)) => level,
            Some(RecomputeChoice::Auto) | None => Default::default(),
        };
        let sizes = StepSizes {
            recompute,
            precision: self.precision,
            step,
            optimizer: self.optimizer.settings(),
            ..StepSizes::new(self.volume, self.batch as usize, self.points() as usize)
        };
        Ok(self.data.of(Workload::official(model, sizes)?))
    }

    /// The workload of `--model`, its volume checked, with `--recompute auto` and `--on-oom adapt` settled for a budget;
    /// and what was changed.
    fn settled(&self, target: Target, budget: u64) -> Result<(Workload, Option<String>)> {
        let mut workload = self.workload(&self.model)?;
        workload.check()?;
        if self.recompute == Some(RecomputeChoice::Auto) && workload.sizes.step == StepKind::Train {
            workload = schedules::fastest(&workload, target, budget, || workload.schedules(target))?;
        }
        match self.on_oom {
            OnOom::Fail => Ok((workload, None)),
            OnOom::Adapt => {
                let (workload, change) = remedies::adapt(&workload, target, budget)?;
                Ok((workload, change.map(|remedy| remedy.change)))
            }
        }
    }

    /// Settles the step and takes it on `device`, `steps` times: the workload, what was changed, and what it cost. Where the
    /// device refuses memory that its budget would allow, its budget becomes what it has, and `--on-oom adapt` settles anew.
    fn taken(&self, device: &Device, steps: usize) -> Result<(Workload, Option<String>, StepProfile)> {
        loop {
            let (target, budget) = (device.target(), device.budget());
            let (workload, change) = self.settled(target, budget)?;
            match workload.dry_run(device, steps) {
                Ok(cost) => return Ok((workload, change, cost)),
                Err(Error::OutOfMemory(_)) if self.on_oom == OnOom::Adapt && device.budget() < budget => {}
                Err(error) => return Err(remedies::explain(error, &workload, target, device.budget())),
            }
        }
    }

    /// Points of a step; 0 in inference stands for as many as the budget admits.
    fn points(&self) -> u64 {
        self.points.unwrap_or(if self.step == StepName::Train { 16384 } else { 0 })
    }

    /// The device that is planned for.
    fn target(&self) -> Target {
        let usual = if self.fit == Some(fit::MemoryLimit::Gpus) { PlanFor::CUDA } else { PlanFor::Cpu };
        match self.plan_for.unwrap_or(usual) {
            PlanFor::Cpu => this_cpu(self.run.threads),
            PlanFor::Cuda(cuda) => Target::Cuda(cuda),
        }
    }

    /// The device of `--device`.
    fn device(&self) -> Result<Device> {
        match self.device {
            Where::On(place) => self.run.open(place),
            // A plan has no memory to run out of unless a budget is asked for.
            Where::Plan => Ok(Device::plan_for(self.target(), self.run.memory_budget.unwrap_or(UNLIMITED))),
        }
    }

    /// True if a page is wanted.
    fn has_page(&self) -> bool {
        #[cfg(feature = "report")]
        let wanted = self.html.is_some();
        #[cfg(not(feature = "report"))]
        let wanted = false;
        wanted
    }

    /// All files that are wanted.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files = [&self.csv, &self.trace, &self.pprof, &self.snapshot, &self.profile.profile].into_iter();
        #[cfg(feature = "report")]
        let files = files.chain([&self.html]);
        files.flatten()
    }

    /// The page's file, if one is wanted.
    #[cfg(feature = "report")]
    fn page(&self) -> Option<&std::path::Path> {
        self.html.as_deref()
    }
}

impl OptimizerName {
    fn settings(self) -> OptimizerSettings {
        let (rule, lookahead) = match self {
            OptimizerName::LookaheadRadam => (UpdateRule::radam(), Some(Lookahead::default())),
            OptimizerName::Radam => (UpdateRule::radam(), None),
            OptimizerName::Adam => (UpdateRule::adam(), None),
            OptimizerName::Sgd => (UpdateRule::Sgd { momentum: 0.9, weight_decay: 0.0 }, None),
        };
        OptimizerSettings { rule, lookahead, ..OptimizerSettings::default() }
    }
}

/// `256×256×160`.
fn shape_text(volume: [usize; 3]) -> String {
    volume.map(|side| side.to_string()).join("×")
}

/// Refuses flags that a question does not answer to.
fn refuse(given: bool, flag: &str, with: &str) -> Result<()> {
    match given {
        true => Err(Error::Usage(format!("{flag} says nothing with {with}; leave one of them out"))),
        false => Ok(()),
    }
}
