//! `ossnet infer`: segments scans with a checkpoint, on each scan's own grid.

mod flags;
mod summary;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use self::flags::{OutputArgs, SpaceArgs, WindowArgs};
use self::summary::{Summary, entry, line, of_labels};
use super::RunArgs;
use super::device_args::{DeviceArgs, PrecisionArgs};
use super::failures::{Failures, is_of_case};
use super::mesh_output::MeshOutputArgs;
use super::output::{plural, print};
use super::provenance::print_json;
use crate::checkpoint::model::{self, Model};
use crate::checkpoint::{Array, Data, torch};
use crate::data::{Axes, Case, Labels, Source, Warning, nifti};
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::infer::inputs::{self, Inputs};
use crate::infer::{Refinement, Segmenter, SegmenterOptions};
use crate::models::{Family, NetworkConfig};
use crate::task::Task;
use crate::{interrupt, label_table};

/// Flags of `ossnet infer`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The checkpoint (.safetensors, or an official .pt together with --model)
    #[arg(short, long, value_name = "FILE")]
    load_model: PathBuf,
    /// The network of an official .pt: one for BraTS, by its name
    #[arg(short, long, value_name = "NAME")]
    model: Option<String>,
    /// Scans (.nii, .nii.gz, .hdr), each with all channels or several files joined by commas; or folders of them
    #[arg(short, long, required = true, num_args = 1.., value_name = "SCAN")]
    input: Vec<String>,
    /// Folder for the segmentations; of one scan, a name that ends in .nii or .nii.gz is that of its segmentation
    #[arg(short, long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Skip the scans that are segmented in --out already
    #[arg(long)]
    resume: bool,
    /// Segment scans anew whose segmentations are in --out already
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
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
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Segments.
///
/// # Errors
/// An unusable checkpoint or scan, an output that exists, an interrupt, no memory, a full disk.
pub fn run(args: InferArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let precision = args.precision.on(&device)?;
    let mut model = match &args.model {
        None => model::load(&device, &args.load_model)?,
        Some(name) => {
            let config = NetworkConfig::official(name, Family::Brats)?.into_reference();
            model::load_official(&device, &args.load_model, config, Task::official_brats())?
        }
    };
    model.network.set_precision(precision);
    let options = args.options(&model)?;
    // Checked before anything is written.
    Segmenter::new(&*model.network, &model.parameters, &model.task, options.clone())?;
    let Inputs { cases, problems } = inputs::find(&args.input, &model.task.preprocessing.channels)?;
    let target = Target::of(&args, cases.len() + problems.len())?;
    let mut failures = Failures::new(cases.len() + problems.len());
    problems.into_iter().try_for_each(|problem| failures.pass_over_file(problem))?;
    // All headers before the first scan: hours later nobody looks any more.
    let mut sound = Vec::new();
    for case in &cases {
        let checked = case.check_headers(false).and_then(|channels| model.task.check_channels(&case.name, channels));
        match checked {
            Ok(()) => sound.push(case),
            Err(error) => failures.pass_over(&case.name, error, true)?,
        }
    }
    if sound.is_empty() {
        return failures.finish(&args.out, "segmented", AGAIN);
    }
    // Whoever names one file may write others beside it at the same time.
    let folder = match target.file {
        Some(_) => RunFolder::shared(&target.folder)?,
        None => RunFolder::claim(&target.folder, |_| true)?,
    };
    let mut summary = if target.file.is_some() { Summary::unwritten() } else { Summary::open(folder.path())? };
    let mut pending = Vec::new();
    for &case in &sound {
        let outputs = Outputs::of(&args, &target, &case.name, &model.task);
        match outputs.all().iter().find(|path| path.exists()) {
            Some(_) if args.resume && outputs.all().iter().all(|path| path.exists()) => {
                // Killed between the last file and the line that tells of it.
                if !summary.has(&case.name) {
                    let labels = Labels::read(&Source::File(outputs.labels.clone()), Axes::Canonical)?;
                    summary.add(&case.name, of_labels(&model.task, case, &outputs, &labels))?;
                }
            }
            Some(path) if !args.resume && !args.overwrite => {
                let remedy = "choose another --out, go on with --resume, or replace it with --overwrite";
                return Err(Error::data(path, "exists already", remedy));
            }
            _ => pending.push((case, outputs)),
        }
    }
    let mut broken = Vec::new();
    let mut bar = verbosity.task("segmenting", pending.len() as u64);
    for (done, (case, outputs)) in pending.iter().enumerate() {
        let mut tick = || {
            interrupt::check(|| {
                format!("{done} of {} segmented; add --resume to the command to go on", plural(pending.len(), "scan"))
            })
        };
        tick()?;
        let mut warnings = Vec::new();
        let mut warn = |warning: Warning| {
            bar.suspend(|| verbosity.warn(&warning));
            warnings.push(warning.problem);
        };
        let mut entry = match segment(&args, &model, &options, case, outputs, &mut tick, &mut warn) {
            Ok(entry) => entry,
            Err(error) => {
                let passed = is_of_case(&error, case, folder.path());
                failures.pass_over(&case.name, error, passed)?;
                broken.push(case.name.as_str());
                bar.advance(&case.name);
                continue;
            }
        };
        if !warnings.is_empty() {
            entry["warnings"] = warnings.into();
        }
        bar.advance(&case.name);
        if !args.run.json {
            print(line(&entry, outputs))?;
        }
        summary.add(&case.name, entry)?;
    }
    bar.finish("done");
    #[cfg(feature = "report")]
    if args.seen.report {
        let shown: Vec<&Case> = sound.into_iter().filter(|case| !broken.contains(&case.name.as_str())).collect();
        page(&args, &model, &target, &shown, &summary)?;
    }
    if args.run.json {
        print_json(summary.entries.into(), "cases")?;
    }
    failures.finish(folder.path(), "segmented", AGAIN)
}

/// What to do about scans that were passed over.
const AGAIN: &str = "mend those scans and go on with --resume";

/// Writes `report.html` of all scans, those of earlier runs included.
#[cfg(feature = "report")]
fn page(args: &InferArgs, model: &Model, target: &Target, cases: &[&Case], summary: &Summary) -> Result<()> {
    use super::mesh_output::page::{self, Segmented};
    let folder = target.folder.as_path();

    let scans = cases.iter().map(|&case| {
        let entry = summary.entries.iter().find(|entry| entry["case"] == case.name);
        let labels = Outputs::of(args, target, &case.name, &model.task).labels;
        Ok(Segmented { case, labels, entry: entry.ok_or_else(|| page::missing(folder, &case.name))? })
    });
    let scans = scans.collect::<Result<Vec<_>>>()?;
    let mut tick = || interrupt::check(|| "all scans are segmented; report.html comes with --resume".into());
    let title = model.network.architecture().title();
    let options = args.seen.shape.options();
    page::write(model.parameters.device(), folder, &title, &model.task, options, &scans, &mut tick)
}

/// Where segmentations go.
struct Target {
    folder: PathBuf,
    /// The file of the only one.
    file: Option<PathBuf>,
}

impl Target {
    /// What `--out` means for so many cases.
    fn of(args: &InferArgs, cases: usize) -> Result<Self> {
        let name = args.out.file_name().unwrap_or_default().to_string_lossy();
        if !(name.ends_with(".nii") || name.ends_with(".nii.gz")) || args.out.is_dir() {
            return Ok(Self { folder: args.out.clone(), file: None });
        }
        if cases != 1 {
            let problem = format!("--out {} is one file, and there are {cases} scans", args.out.display());
            return Err(Error::Usage(format!("{problem}; name a folder")));
        }
        #[cfg(feature = "report")]
        if args.seen.report {
            return Err(Error::Usage("--report needs a folder for report.html; let --out be one".into()));
        }
        let folder = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.into(), file: Some(args.out.clone()) })
    }

    /// What a case's files are called.
    fn stem(&self, name: &str) -> String {
        let Some(file) = &self.file else { return name.into() };
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        file.trim_end_matches(".gz").trim_end_matches(".nii").into()
    }
}

/// What the label tables of a folder are called.
const TABLE: &str = "labels";

/// The files of one case.
struct Outputs {
    /// What their names begin with.
    name: String,
    /// What the names of the label tables begin with.
    table: String,
    labels: PathBuf,
    probabilities: Option<PathBuf>,
    occupancy: Option<PathBuf>,
    meshes: Vec<PathBuf>,
}

impl Outputs {
    fn of(args: &InferArgs, target: &Target, name: &str, task: &Task) -> Self {
        let (folder, name) = (target.folder.as_path(), target.stem(name));
        let name = name.as_str();
        Self {
            name: name.into(),
            meshes: args.seen.files(folder, name, task),
            table: if target.file.is_some() { name.into() } else { TABLE.into() },
            labels: target.file.clone().unwrap_or_else(|| folder.join(format!("{name}.nii.gz"))),
            probabilities: args.asked.probabilities.then(|| folder.join(format!("{name}_probabilities.nii.gz"))),
            occupancy: args.asked.occupancy_grid.then(|| folder.join(format!("{name}_occupancy.pt"))),
        }
    }

    fn all(&self) -> Vec<&Path> {
        [Some(&self.labels), self.probabilities.as_ref(), self.occupancy.as_ref()]
            .into_iter()
            .flatten()
            .chain(&self.meshes)
            .map(PathBuf::as_path)
            .collect()
    }
}

/// Reads, segments and writes one case; the segmentation comes last, so that it tells that all is done. `warn` hears what is
/// odd about the scan.
fn segment(
    args: &InferArgs,
    model: &Model,
    options: &SegmenterOptions,
    case: &Case,
    outputs: &Outputs,
    tick: &mut dyn FnMut() -> Result<()>,
    warn: &mut dyn FnMut(Warning),
) -> Result<serde_json::Value> {
    let started = Instant::now();
    let scan = case.read(&[], model.task.preprocessing.axes)?;
    model.task.check(&case.name, &scan.image)?;
    scan.warnings.into_iter().for_each(&mut *warn);
    if let Some(problem) = model.task.preprocessing.unusual_spacing(scan.image.shape, &scan.image.geometry)? {
        warn(Warning::new(case.images[0].path(), problem));
    }
    let options = SegmenterOptions { shape: args.shape(&scan.image)?, ..options.clone() };
    let segmenter = Segmenter::new(&*model.network, &model.parameters, &model.task, options)?;
    let found = segmenter.segment(&case.name, scan.image, tick)?;
    if let (Some(path), Some(probabilities)) = (&outputs.probabilities, &found.probabilities) {
        nifti::write_volume(path, probabilities)?;
    }
    if let Some(path) = &outputs.occupancy {
        write_occupancy(path, &model.task, &found.labels)?;
    }
    let device = model.parameters.device();
    let folder = outputs.labels.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let field = found.probabilities.as_ref().map(|volume| (volume, args.asked.threshold()));
    let refined = |mesh, refinement: &Refinement| {
        // Read again: the image is not held while the network runs.
        let image = case.read(&[], model.task.preprocessing.axes)?.image;
        let refinement = Refinement { threshold: f64::from(args.asked.threshold()), ..*refinement };
        segmenter.refine(&case.name, image, mesh, &refinement, tick)
    };
    let place = (device, folder, outputs.name.as_str());
    let meshes = args.seen.write(place, &model.task, &found.labels, field, refined)?;
    label_table::write(folder, &outputs.table, &label_table::labels(&model.task))?;
    found.labels.write(&outputs.labels)?;
    let mut entry = entry(model, case, outputs, &found, started.elapsed().as_secs_f64());
    if !meshes.is_empty() {
        entry["meshes"] = meshes.into();
    }
    Ok(entry)
}

/// What is not background, as a bool tensor `[X, Y, Z]` along the axes of the scan's file.
fn write_occupancy(path: &Path, task: &Task, labels: &Labels) -> Result<()> {
    let background = task.preprocessing.classes.first().copied().unwrap_or(0);
    let shape = labels.geometry.stored.shape;
    let packed = labels.geometry.orientation.pack(&labels.voxels, shape, 1);
    let [nx, ny, nz] = shape;
    let value = |at: usize| packed[at / (ny * nz) + nx * (at / nz % ny + ny * (at % nz))];
    let occupied = (0..nx * ny * nz).map(|at| u8::from(value(at) != background)).collect();
    match Array::new(shape, Data::Bool(occupied)) {
        Some(array) => torch::write_tensor(path, array.view()),
        None => Err(Error::shape("occupancy grid", format!("{shape:?} voxels do not fit {}", labels.len()))),
    }
}
