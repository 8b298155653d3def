//! `ossnet infer`: segments scans with a checkpoint, on each scan's own grid.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::output::print;
use super::run::{DeviceArgs, PrecisionArgs, parse_volume};
use super::scans::SeenArgs;
use crate::checkpoint::model::{self, Model};
use crate::checkpoint::{Array, Data, torch};
use crate::data::{Case, Labels, Volume, nifti};
use crate::error::{Error, Result};
use crate::files::{RunFolder, write_atomic};
use crate::infer::{Options, Refinement, Rule, Search, Segmentation, Segmenter, Windows, inputs};
use crate::interrupt;
use crate::models::{Family, NetworkConfig};
use crate::task::Task;

/// Cells around a mixed one that the default rule evaluates too.
const MARGIN: usize = 1;

/// Flags of `ossnet infer`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The checkpoint (.safetensors, or an official .pt together with --model)
    #[arg(long, value_name = "FILE")]
    load_model: PathBuf,
    /// The network of an official .pt: one for BraTS, by its name
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Scans (.nii, .nii.gz), each with all channels or several files joined by commas; or folders of them
    #[arg(long, required = true, num_args = 1.., value_name = "SCAN")]
    input: Vec<String>,
    /// Folder for the segmentations
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Skip the scans that are segmented in --out already
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    asked: AskedArgs,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    windows: WindowArgs,
    #[command(flatten)]
    seen: SeenArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// What is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Results")]
struct AskedArgs {
    /// Write the probabilities of all voxels as well, which evaluates each of them
    #[arg(long)]
    probabilities: bool,
    /// Write the foreground as PyTorch's bool tensor (.pt) as well
    #[arg(long)]
    occupancy_grid: bool,
    /// Probability above which a voxel is inside, of networks with one output
    #[arg(long, default_value_t = 0.5, value_name = "P", value_parser = parse_probability)]
    threshold: f32,
}

/// How occupancy networks are asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Occupancy networks")]
struct SpaceArgs {
    /// Strides of the lattices that are evaluated one after the other, each where the one before tells [default: 4,2,1]
    #[arg(long, value_name = "S,..,1", value_delimiter = ',')]
    stages: Option<Vec<usize>>,
    /// Evaluate every voxel
    #[arg(long, conflicts_with_all = ["stages", "reference_rule", "seeded"])]
    dense: bool,
    /// Choose points as the official code does [default with official weights]
    #[arg(long)]
    reference_rule: bool,
    /// Begin where the encoder's low-resolution segmentation finds something
    #[arg(long)]
    seeded: bool,
    /// Its probability from which on that is so
    #[arg(long, default_value_t = 0.5, value_name = "P", value_parser = parse_probability, requires = "seeded")]
    seed_threshold: f32,
    /// Cells around a mixed one that are evaluated too, on all lattices but the last [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "reference_rule")]
    margin: Option<usize>,
    /// Evaluate every voxel as well, and tell how many differ
    #[arg(long)]
    verify: bool,
    /// Voxels of the answer along the scan's axes, which may be more than the scan has
    #[arg(long, value_name = "XxYxZ", value_parser = parse_volume, conflicts_with = "spacing")]
    resolution: Option<[usize; 3]>,
    /// Spacing of the answer in mm along the scan's axes, one number or three
    #[arg(long, value_name = "MM[xMMxMM]", value_parser = parse_spacing)]
    spacing: Option<[f64; 3]>,
    /// Points decoded at once [default: as many as the memory budget admits, up to 8192]
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    points_at_once: usize,
}

/// How U-Nets go through a volume.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "U-Nets")]
struct WindowArgs {
    /// Go through the volume in windows of this size [default: all at once]
    #[arg(long, value_name = "XxYxZ", value_parser = parse_volume)]
    window: Option<[usize; 3]>,
    /// Share of a window that neighbouring ones have in common
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", requires = "window")]
    overlap: f64,
    /// Average over mirrored volumes (test-time augmentation)
    #[arg(long)]
    tta: bool,
}

/// Reads a number from 0 to 1.
fn parse_probability(text: &str) -> Result<f32, String> {
    let value = text.parse::<f32>().ok().filter(|value| (0.0..=1.0).contains(value));
    value.ok_or_else(|| format!("'{text}' is no probability; write for example 0.5"))
}

/// Reads `0.5` or `1x1x3`.
fn parse_spacing(text: &str) -> Result<[f64; 3], String> {
    let parts: Option<Vec<f64>> =
        text.split('x').map(|part| part.trim().parse().ok().filter(|&mm: &f64| mm > 0.0 && mm.is_finite())).collect();
    match parts.as_deref() {
        Some(&[mm]) => Ok([mm; 3]),
        Some(&[x, y, z]) => Ok([x, y, z]),
        _ => Err(format!("'{text}' is no spacing in mm; write for example 0.5 or 1x1x3")),
    }
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
    Segmenter::new(&model.network, &model.parameters, &model.task, options.clone())?;
    let cases = inputs::cases(&args.input, &model.task.preprocessing.channels)?;
    let folder = RunFolder::claim(&args.out, |_| true)?;
    let mut summary = Summary::open(folder.path())?;
    let mut pending = Vec::new();
    for case in &cases {
        let outputs = Outputs::of(&args, folder.path(), &case.name, &model.task);
        match outputs.all().iter().find(|path| path.exists()) {
            Some(_) if args.resume && outputs.all().iter().all(|path| path.exists()) => {}
            Some(path) if !args.resume => {
                let remedy = "choose another --out, or go on with --resume";
                return Err(Error::data(path, "exists already", remedy));
            }
            _ => pending.push((case, outputs)),
        }
    }
    let mut bar = verbosity.task("segmenting", pending.len() as u64);
    for (done, (case, outputs)) in pending.iter().enumerate() {
        let mut tick =
            || interrupt::check(|| format!("{done} of {} scans are segmented; go on with --resume", pending.len()));
        tick()?;
        let entry = segment(&args, &model, &options, case, outputs, &mut tick)?;
        bar.advance(&case.name);
        if !args.run.json {
            print(line(&entry, outputs))?;
        }
        summary.add(&case.name, entry)?;
    }
    bar.finish("done");
    #[cfg(feature = "report")]
    if args.seen.report {
        page(&args, &model, folder.path(), &cases, &summary)?;
    }
    if args.run.json {
        print(format!("{:#}", serde_json::Value::from(summary.entries)))?;
    }
    Ok(())
}

/// Writes `report.html` of all scans, those of earlier runs included.
#[cfg(feature = "report")]
fn page(args: &InferArgs, model: &Model, folder: &Path, cases: &[Case], summary: &Summary) -> Result<()> {
    use super::scans::page::{self, Segmented};

    let scans = cases.iter().map(|case| {
        let entry = summary.entries.iter().find(|entry| entry["case"] == case.name);
        let labels = Outputs::of(args, folder, &case.name, &model.task).labels;
        Ok(Segmented { case, labels, entry: entry.ok_or_else(|| page::missing(folder, &case.name))? })
    });
    let scans = scans.collect::<Result<Vec<_>>>()?;
    let mut tick = || interrupt::check(|| "all scans are segmented; report.html comes with --resume".into());
    let title = model.network.config().title();
    let options = args.seen.shape.options();
    page::write(model.parameters.device(), folder, &title, &model.task, options, &scans, &mut tick)
}

impl InferArgs {
    /// The settings for a network.
    fn options(&self, model: &Model) -> Result<Options> {
        let config = model.network.config();
        let (space, asked) = (&self.space, &self.asked);
        if matches!(config, NetworkConfig::OssNet(_)) && (self.windows.window.is_some() || self.windows.tta) {
            let problem = format!(
                "--window and --tta are for U-Nets, and {} holds {}",
                self.load_model.display(),
                config.title()
            );
            return Err(Error::Usage(format!("{problem}; leave them away")));
        }
        if self.seen.refines() && (!matches!(config, NetworkConfig::OssNet(_)) || config.classes() > 1) {
            let problem = format!(
                "--refine needs an occupancy network with one output, and {} has {} outputs",
                config.title(),
                config.classes()
            );
            return Err(Error::Usage(format!("{problem}; leave it away")));
        }
        let staged = space.stages.is_some() || space.reference_rule || space.seeded;
        if asked.probabilities && staged {
            return Err(Error::Usage(
                "--probabilities evaluates every voxel; leave --stages, --reference-rule and --seeded away".into(),
            ));
        }
        let reference = space.reference_rule || (config.is_reference() && space.margin.is_none());
        let search = match space.dense || asked.probabilities {
            true => Search::dense(),
            false => Search {
                stages: space.stages.clone().unwrap_or_else(|| Search::hierarchical().stages),
                rule: if reference { Rule::Reference } else { Rule::Mixed { margin: space.margin.unwrap_or(MARGIN) } },
                seeded: space.seeded,
            },
        };
        Ok(Options {
            search,
            windows: Windows { size: self.windows.window, overlap: self.windows.overlap, mirror: self.windows.tta },
            threshold: asked.threshold,
            seed_threshold: space.seed_threshold,
            most_points: space.points_at_once,
            shape: None,
            probabilities: asked.probabilities,
            verify: space.verify,
        })
    }

    /// The shape of a scan's answer along the axes in memory, if it is not the scan's own.
    fn shape(&self, image: &Volume) -> Result<Option<[usize; 3]>> {
        let geometry = &image.geometry;
        let stored = match (self.space.resolution, self.space.spacing) {
            (None, None) => return Ok(None),
            (Some(shape), _) => shape,
            (None, Some(wanted)) => {
                let (own, spacing) = (geometry.stored.shape, geometry.stored.affine().spacing());
                let sides = [0, 1, 2].map(|k| (own[k] as f64 * spacing[k] / wanted[k]).round().max(1.0));
                if sides.iter().any(|&side| side > 65_536.0) {
                    let problem = format!("--spacing {wanted:?} mm makes {sides:?} voxels of a scan of {own:?}");
                    return Err(Error::Usage(format!("{problem}; choose a coarser one")));
                }
                sides.map(|side| side as usize)
            }
        };
        Ok(Some(geometry.orientation.shape(stored)))
    }
}

/// The files of one case.
struct Outputs {
    labels: PathBuf,
    probabilities: Option<PathBuf>,
    occupancy: Option<PathBuf>,
    meshes: Vec<PathBuf>,
}

impl Outputs {
    fn of(args: &InferArgs, folder: &Path, name: &str, task: &Task) -> Self {
        Self {
            meshes: args.seen.files(folder, name, task),
            labels: folder.join(format!("{name}.nii.gz")),
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

/// Reads, segments and writes one case; the segmentation comes last, so that it tells that all is done.
fn segment(
    args: &InferArgs,
    model: &Model,
    options: &Options,
    case: &Case,
    outputs: &Outputs,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<serde_json::Value> {
    let started = Instant::now();
    let scan = case.read(&[], model.task.preprocessing.axes)?;
    let options = Options { shape: args.shape(&scan.image)?, ..options.clone() };
    let segmenter = Segmenter::new(&model.network, &model.parameters, &model.task, options)?;
    let found = segmenter.segment(&case.name, scan.image, tick)?;
    if let (Some(path), Some(probabilities)) = (&outputs.probabilities, &found.probabilities) {
        nifti::write_volume(path, probabilities)?;
    }
    if let Some(path) = &outputs.occupancy {
        write_occupancy(path, &model.task, &found.labels)?;
    }
    let device = model.parameters.device();
    let folder = outputs.labels.parent().unwrap_or(Path::new("."));
    let field = found.probabilities.as_ref().map(|volume| (volume, args.asked.threshold));
    let refined = |mesh, refinement: &Refinement| {
        // Read again: the image is not held while the network runs.
        let image = case.read(&[], model.task.preprocessing.axes)?.image;
        let refinement = Refinement { threshold: f64::from(args.asked.threshold), ..*refinement };
        segmenter.refine(&case.name, image, mesh, &refinement, tick)
    };
    let place = (device, folder, case.name.as_str());
    let meshes = args.seen.write(place, &model.task, &found.labels, field, refined)?;
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

/// A case's line in the summary.
fn entry(model: &Model, case: &Case, outputs: &Outputs, found: &Segmentation, seconds: f64) -> serde_json::Value {
    let task = &model.task;
    let values = &task.preprocessing.classes;
    let millilitres = found.labels.geometry.affine.determinant().abs() / 1000.0;
    let counts = found.labels.histogram();
    let background = values.first().copied().unwrap_or(0);
    let by_class: serde_json::Map<String, serde_json::Value> = values
        .iter()
        .enumerate()
        .skip(1)
        .map(|(class, &value)| {
            let name = task.class_names.get(class).cloned().unwrap_or_else(|| format!("class {value}"));
            (name, (counts[usize::from(value)] as f64 * millilitres).into())
        })
        .collect();
    let foreground = found.labels.len() as u64 - counts[usize::from(background)];
    let points: u64 = found.evaluated.iter().sum();
    let inputs: Vec<String> = case.images.iter().map(|source| source.path().display().to_string()).collect();
    let (evaluated, what) = match model.network.config() {
        NetworkConfig::OssNet(_) => (&found.evaluated[..], "points"),
        NetworkConfig::UNet(_) => (&[][..], "passes"),
    };
    let mut entry = serde_json::json!({
        "case": case.name,
        "input": inputs.join(","),
        "output": outputs.labels.display().to_string(),
        "shape": found.labels.geometry.stored.shape,
        "foreground_ml": foreground as f64 * millilitres,
        "ml_by_class": by_class,
        "seconds": seconds,
        "inference_seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
        what: points,
    });
    if !evaluated.is_empty() {
        entry["points_by_stage"] = evaluated.into();
    }
    if let Some(verification) = found.verification {
        entry["verification"] = serde_json::json!(verification);
    }
    entry
}

/// The same for a reader.
fn line(entry: &serde_json::Value, outputs: &Outputs) -> String {
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(0.0);
    let mut line = format!(
        "{}: {:.1} ml of foreground, {:.1} s",
        outputs.labels.display(),
        number(&entry["foreground_ml"]),
        number(&entry["seconds"])
    );
    if let Some(points) = entry["points"].as_u64() {
        line += &format!(", {points} points");
    }
    if let Some(dense) = entry.get("verification") {
        line += &format!(
            "; {} voxels differ from all {} points evaluated, in {:.1} s",
            dense["different_voxels"],
            dense["points"],
            number(&dense["seconds"])
        );
    }
    line
}

/// `inference.json`: what was found of each case in a folder, and what it cost.
struct Summary {
    path: PathBuf,
    entries: Vec<serde_json::Value>,
}

impl Summary {
    /// That of earlier runs into the folder, if there is one.
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("inference.json");
        let entries = match path.exists() {
            false => Vec::new(),
            true => {
                let text = std::fs::read_to_string(&path).map_err(|error| Error::file(&path, error))?;
                let remedy = "choose another --out, or remove it";
                serde_json::from_str(&text)
                    .map_err(|error| Error::data(&path, format!("is no list of segmentations ({error})"), remedy))?
            }
        };
        Ok(Self { path, entries })
    }

    /// One more case, or a case again.
    fn add(&mut self, name: &str, entry: serde_json::Value) -> Result<()> {
        self.entries.retain(|other| other["case"] != name);
        self.entries.push(entry);
        write_atomic(&self.path, format!("{:#}\n", serde_json::Value::from(self.entries.clone())).as_bytes())
    }
}
