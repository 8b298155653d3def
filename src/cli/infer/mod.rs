//! `ossnet infer`: segments scans with a checkpoint, on each scan's own grid.

mod case;
mod flags;
mod merge;
mod outputs;
mod pipeline;
mod plan;
mod shard;
mod summary;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;

use self::flags::{OutputArgs, SpaceArgs, WindowArgs};
use self::outputs::{Outputs, Target};
use self::shard::ShardArgs;
use self::summary::{Summary, fingerprint, of_labels};
use super::checkpoints;
use super::device_args::{DeviceArgs, PrecisionArgs};
use super::failures::{Failures, file_of, is_of_case};
use super::mesh_output::MeshOutputArgs;
#[cfg(feature = "train")]
use super::output::new_files;
use super::output::note;
#[cfg(feature = "train")]
use super::profile::ProfileArgs;
use super::provenance::print_json;
use super::{RunArgs, path_text};
use crate::checkpoint::model::{self, Model};
use crate::data::{Axes, Case, Labels, Source};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::infer::inputs::{self, Inputs};
use crate::infer::{Ensemble, Segmenter, SegmenterOptions};
use crate::interrupt;
use crate::models::{Family, NetworkConfig};
use crate::task::Task;

/// Flags of `ossnet infer`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The checkpoint (.safetensors, or an official .pt together with --model), or the folder of its run. Of several, or of a
    /// folder with folds, probabilities are averaged
    #[arg(short, long, visible_alias = "checkpoint", value_name = "FILE", required_unless_present = "merge")]
    #[arg(num_args = 1..)]
    load_model: Vec<PathBuf>,
    /// The network of an official .pt: one for BraTS, by its name
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
    /// Scans (.nii, .nii.gz, .hdr), each with all channels or several files joined by commas; folders of them; or lists (.txt), one
    /// of these a line
    #[arg(short, long, required_unless_present = "merge", num_args = 1.., value_name = "SCAN", value_parser = path_text())]
    input: Vec<String>,
    /// Folder for the segmentations; of one scan, a name that ends in .nii or .nii.gz is that of its segmentation
    #[arg(short, long, value_name = "DIR|FILE", required_unless_present_any = ["merge", "plan"])]
    out: Option<PathBuf>,
    /// Say what each scan will take, and segment none
    #[arg(long, conflicts_with_all = ["out", "resume", "overwrite", "merge"])]
    plan: bool,
    /// Skip the scans that are segmented in --out already
    #[arg(long)]
    resume: bool,
    /// Segment again the scans whose segmentations are in --out already
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    #[command(flatten)]
    shards: ShardArgs,
    /// Make one summary of those of all shards in this folder, and say what is missing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["load_model", "input", "out", "resume", "overwrite"])]
    #[arg(help_heading = "Cohorts", conflicts_with_all = ["shard", "num_parts"])]
    merge: Option<PathBuf>,
    #[command(flatten)]
    asked: OutputArgs,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    windows: WindowArgs,
    #[command(flatten)]
    seen: MeshOutputArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[cfg(feature = "train")]
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl InferArgs {
    /// The first checkpoint, which the parser asks for.
    fn weights(&self) -> &Path {
        self.load_model.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Where results go, which the parser asks for.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }

    /// The networks in these files, whose answers can be averaged.
    fn load(&self, device: &Device, files: &[PathBuf]) -> Result<Vec<Model>> {
        let precision = self.precision.on(device)?;
        let load = |path: &PathBuf| {
            let mut model = match &self.model {
                None => model::load(device, path)?,
                Some(name) => {
                    let config = NetworkConfig::official(name, Family::Brats)?.into_reference();
                    model::load_official(device, path, config, Task::official_brats())?
                }
            };
            model.network.set_precision(precision);
            Ok(model)
        };
        let models = files.iter().map(load).collect::<Result<Vec<_>>>()?;
        checkpoints::check(&models, files)?;
        Ok(models)
    }
}

/// Segments.
///
/// # Errors
/// An unusable checkpoint or scan, an output that exists, an interrupt, no memory, a full disk.
pub fn run(args: InferArgs) -> Result<()> {
    if let Some(folder) = &args.merge {
        return merge::run(folder, args.run.json);
    }
    interrupt::listen();
    #[cfg(feature = "train")]
    let _folders = new_files(&args.profile.profile, args.overwrite)?;
    let shard = args.shards.get()?;
    #[cfg(feature = "report")]
    if shard.is_some() && args.seen.report {
        let problem = "--report is one page of all scans, and a shard has some of them";
        return Err(Error::Usage(format!("{problem}; add it with --resume and without --shard when all are done")));
    }
    let device = args.device.open(&args.run)?;
    let files = checkpoints::files(&args.load_model)?;
    let networks = Networks::of(&args, args.load(&device, &files)?)?;
    let task = networks.task();
    let Inputs { mut cases, mut problems } = inputs::find(&args.input, &task.preprocessing.channels)?;
    if let Some(shard) = shard {
        cases.retain(|case| shard.has(&case.name));
        problems.retain(|problem| shard.has(&file_of(problem)));
    }
    let count = cases.len() + problems.len();
    if args.plan {
        return plan::run(&args, &networks, &cases, problems);
    }
    let target = Target::of(&args, count, shard.is_some())?;
    let mut failures = if shard.is_some() { Failures::of_part(count) } else { Failures::new(count) };
    let (mut planned, mut unsound) = (Vec::new(), Vec::new());
    for problem in problems {
        let name = file_of(&problem);
        unsound.push((name.clone(), problem.to_string()));
        planned.push(name);
        failures.pass_over_file(problem)?;
    }
    // All headers before the first scan: hours later nobody looks any more.
    let mut sound = Vec::new();
    for case in &cases {
        planned.push(case.name.clone());
        let checked = case.check_headers(false).and_then(|channels| task.check_channels(&case.name, channels));
        match checked {
            Ok(()) => sound.push(case),
            Err(error) => {
                unsound.push((case.name.clone(), error.to_string()));
                failures.pass_over(&case.name, error, true)?;
            }
        }
    }
    if sound.is_empty() && shard.is_none() {
        return failures.finish(args.out(), "segmented", AGAIN);
    }
    // Whoever names one file may write others beside it at the same time.
    let folder = match (&target.file, shard) {
        (Some(_), _) => RunFolder::shared(&target.folder)?,
        (None, Some(shard)) => RunFolder::claim_part(&target.folder, &shard.tag())?,
        (None, None) => RunFolder::claim(&target.folder, |_| true)?,
    };
    let mut summary = match (target.sidecar(), &sound[..]) {
        (Some(path), [case]) => Summary::beside(path, &case.name)?,
        _ => Summary::open(folder.path(), shard.map(|shard| (shard, planned)))?,
    };
    unsound.into_iter().for_each(|(name, problem)| summary.fail(&name, problem));
    let weights = files.iter().map(|path| fingerprint(path)).collect::<Result<Vec<_>>>()?.join("+");
    let batch = Batch { args, networks, target, weights };
    let pending = batch.pending(&sound, &mut summary)?;
    if shard.is_some() {
        // From now on a merge knows what the shard has to do.
        summary.flush()?;
    }
    let mut broken = Vec::new();
    #[cfg(feature = "train")]
    batch.args.profile.start(&device);
    let ended = batch.segment(&pending, folder.path(), &mut summary, &mut failures, &mut broken);
    // Whatever ended the work, the summary tells what was done.
    let flushed = summary.flush();
    ended?;
    flushed?;
    let Batch { args, networks, target, .. } = &batch;
    #[cfg(feature = "train")]
    args.profile.finish(&device, &args.run)?;
    #[cfg(feature = "report")]
    if args.seen.report {
        let shown: Vec<&Case> = sound.into_iter().filter(|case| !broken.contains(&case.name)).collect();
        page(args, networks, target, &shown, &summary)?;
    }
    #[cfg(not(feature = "report"))]
    let _ = (networks, target);
    if args.run.json {
        print_json(summary.entries.into(), "cases")?;
    }
    failures.finish(folder.path(), "segmented", AGAIN)
}

/// What to do about scans that were passed over.
const AGAIN: &str = "mend those scans and go on with --resume";

/// The networks that answer together, one or several, each with its settings.
struct Networks {
    first: (Model, SegmenterOptions),
    others: Vec<(Model, SegmenterOptions)>,
}

impl Networks {
    /// Checked before anything is written.
    fn of(args: &InferArgs, models: Vec<Model>) -> Result<Self> {
        let (several, mut all) = (models.len() > 1, Vec::new());
        for model in models {
            let options = args.options(&model)?;
            all.push((model, options));
        }
        if several && args.seen.refines() {
            return Err(Error::Usage("--refine follows one network; name one checkpoint, or omit it".into()));
        }
        let mut all = all.into_iter();
        let first = all.next().ok_or_else(|| Error::Usage("no checkpoint is named; give --load-model".into()))?;
        let networks = Self { first, others: all.collect() };
        networks.ensemble(None)?;
        Ok(networks)
    }

    /// All of them for one answer, of `shape` if that is not the scan's.
    fn ensemble(&self, shape: Option<[usize; 3]>) -> Result<Ensemble<'_>> {
        let of = |options: &SegmenterOptions| SegmenterOptions { shape, ..options.clone() };
        let others = self.others.iter().map(|(model, options)| segmenter(model, of(options)));
        let others = others.collect::<Result<_>>()?;
        Ensemble::new(segmenter(&self.first.0, of(&self.first.1))?, others)
    }

    /// The first, which tells what all have in common.
    fn model(&self) -> &Model {
        &self.first.0
    }

    fn task(&self) -> &Task {
        &self.first.0.task
    }

    /// What a page calls them.
    #[cfg(feature = "report")]
    fn title(&self) -> String {
        checkpoints::title(self.model(), self.others.len() + 1)
    }
}

fn segmenter(model: &Model, options: SegmenterOptions) -> Result<Segmenter<'_>> {
    Segmenter::new(&*model.network, &model.parameters, &model.task, options)
}

/// Scans to be segmented alike.
struct Batch {
    args: InferArgs,
    networks: Networks,
    target: Target,
    /// What tells the checkpoints from others.
    weights: String,
}

impl Batch {
    /// The cases that are not done, with their files. What is done is completed in the summary.
    fn pending<'a>(&self, sound: &[&'a Case], summary: &mut Summary) -> Result<Vec<(&'a Case, Outputs)>> {
        let Self { args, target, weights, .. } = self;
        let (task, mut pending, mut claimed) = (self.networks.task(), Vec::new(), HashMap::new());
        for &case in sound {
            let outputs = Outputs::of(args, target, &case.name, task);
            for path in outputs.all() {
                if let Some(other) = claimed.insert(path.to_path_buf(), &case.name) {
                    let problem = format!("{} would be a file of {other} and of {}", path.display(), case.name);
                    return Err(Error::Usage(format!("{problem}; segment them one by one, each with its own --out")));
                }
            }
            match outputs.all().iter().find(|path| path.exists()) {
                Some(path) if args.resume && outputs.are_there() => {
                    let known = summary.of(&case.name).map(|entry| entry["weights"].as_str().map(str::to_owned));
                    match known {
                        Some(Some(made_with)) if made_with != *weights => {
                            let problem = format!("was made with other weights ({made_with}, these are {weights})");
                            let remedy = "choose another --out, or replace it with --overwrite";
                            return Err(Error::data(path, problem, remedy));
                        }
                        Some(_) => {}
                        // Killed between the last file and the line that tells of it.
                        None => match Labels::read(&Source::File(outputs.labels.clone()), Axes::Canonical) {
                            Ok(labels) => {
                                summary.add(&case.name, of_labels(task, case, &outputs, &labels)?)?;
                            }
                            Err(error) => {
                                note(format!("warning: {error} (segmented anew)"));
                                pending.push((case, outputs));
                            }
                        },
                    }
                }
                Some(path) if !args.resume && !args.overwrite => {
                    let remedy = "choose another --out, go on with --resume, or replace it with --overwrite";
                    return Err(Error::data(path, "exists already", remedy));
                }
                _ => pending.push((case, outputs)),
            }
        }
        Ok(pending)
    }
}

/// Writes `report.html` of all scans, those of earlier runs included.
#[cfg(feature = "report")]
fn page(args: &InferArgs, networks: &Networks, target: &Target, cases: &[&Case], summary: &Summary) -> Result<()> {
    use super::mesh_output::page::{self, Segmented};
    let folder = target.folder.as_path();

    let scans = cases.iter().map(|&case| {
        let entry = summary.of(&case.name);
        let labels = Outputs::of(args, target, &case.name, networks.task()).labels;
        Ok(Segmented { case, labels, entry: entry.ok_or_else(|| page::missing(folder, &case.name))? })
    });
    let scans = scans.collect::<Result<Vec<_>>>()?;
    let mut tick = || interrupt::check(|| "all scans are segmented; report.html comes with --resume".into());
    let title = networks.title();
    let options = args.seen.shape.options();
    page::write(networks.model().parameters.device(), folder, &title, networks.task(), options, &scans, &mut tick)
}
