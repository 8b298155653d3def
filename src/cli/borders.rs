//! `ossnet borders`: writes the border maps of a data set beside its labels, once and for all.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::device_args::DeviceArgs;
use super::failures::{Failures, is_of_case};
use super::output::{plural, print};
use super::provenance::print_json;
use crate::data::border;
use crate::data::border_file::{self, BorderFormat};
use crate::data::{Axes, Case, Dataset, Labels, Scanned, Source, Warning};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::files::name::{file_name, text_of};
use crate::interrupt;
use crate::memory::Role;
use crate::ops;
use crate::order;
use crate::tensor::{DType, Tensor};

/// How maps are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// .nii.gz on the label's grid
    Nifti,
    /// .pt, a tensor as the official code loads it
    Pt,
}

/// Flags of `ossnet borders`.
#[derive(Args, Clone, Debug)]
pub struct BordersArgs {
    /// A data set's folder or a label file
    path: PathBuf,
    /// How the maps are stored
    #[arg(long, value_enum, default_value_t = FormatArg::Nifti)]
    format: FormatArg,
    /// Folder for all maps [default: beside the labels, where training finds them]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make maps that exist anew
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// Writes the maps.
///
/// # Errors
/// Labels that cannot be read, a folder that cannot be written, an interrupt (finished maps stay).
pub fn run(args: BordersArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.device.open(&args.run)?;
    let format = match args.format {
        FormatArg::Nifti => BorderFormat::Nifti,
        FormatArg::Pt => BorderFormat::Torch,
    };
    let Found { labels, ignore, problems } = labels(&args.path)?;
    let place = |label: &Path| {
        let place = border_file::place(label);
        let name = place.file_name().unwrap_or_default();
        border_file::with_ending(&args.out.as_ref().map_or(place.clone(), |out| out.join(name)), format)
    };
    let mut targets: Vec<PathBuf> = labels.iter().map(|label| place(label)).collect();
    if order::set(&targets).len() < targets.len() {
        // Labels of one name in a folder a patient, and one folder for all maps.
        for (target, label) in targets.iter_mut().zip(&labels) {
            let [name, folder] = [target.file_name(), label.parent().and_then(Path::file_name)]
                .map(|part| text_of(part.unwrap_or_default()));
            target.set_file_name(format!("{folder}_{name}"));
        }
    }
    let started = Instant::now();
    let bar = Mutex::new(verbosity.task("borders", labels.len() as u64));
    // On a CUDA device one map is made after the other, each in parallel.
    let written = crate::data::in_parallel(labels.len(), device.threads(), |index| -> Result<bool> {
        let (label, target) = (&labels[index], &targets[index]);
        interrupt::check(|| "finished maps are kept; run the same command again for the others".into())?;
        let wanted = args.overwrite || !target.exists();
        if wanted {
            let mut labels = Labels::read(&Source::File(label.clone()), Axes::Stored)?;
            // What nobody has looked at is no structure.
            labels.voxels.iter_mut().filter(|value| ignore == Some(**value)).for_each(|value| *value = 0);
            if labels.voxels.iter().all(|&value| value == 0) {
                verbosity.warn(&Warning::new(label, "holds no foreground: its border map is empty"));
            }
            border_file::write_map(target, &labels, border_map(&device, &labels)?, format)?;
        }
        let name = file_name(label);
        bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance(&name);
        Ok(wanted)
    });
    let mut failures = Failures::new(labels.len() + problems.len());
    problems.into_iter().try_for_each(|problem| failures.pass_over_file(problem))?;
    let mut made_of = Vec::new();
    for ((written, label), target) in written.into_iter().zip(&labels).zip(&targets) {
        match written {
            Ok(written) => made_of.push((label, target, written)),
            Err(error) => {
                let name = file_name(label);
                let case = Case { name: name.clone(), images: Vec::new(), label: Some(Source::File(label.clone())) };
                let folder = target.parent().unwrap_or(Path::new(""));
                let passed = is_of_case(&error, &case, folder);
                failures.pass_over(&name, error, passed)?;
            }
        }
    }
    if let Ok(bar) = bar.into_inner() {
        bar.finish("done");
    }
    let (seconds, made) = (started.elapsed().as_secs_f64(), made_of.iter().filter(|(_, _, made)| *made).count());
    let remedy = "mend those labels and run the same command again";
    let done = failures.finish(&args.path, "read", remedy);
    if args.run.json {
        let maps = made_of.iter().map(|(label, map, made)| {
            serde_json::json!({"label": label.display().to_string(), "map": map.display().to_string(), "written": made})
        });
        let result = serde_json::json!({"maps": maps.collect::<Vec<_>>(), "seconds": seconds});
        print_json(result, "maps")?;
        return done;
    }
    let kept = made_of.len() - made;
    let kept =
        if kept > 0 { format!(", {kept} were there already (--overwrite makes them anew)") } else { String::new() };
    print(format!("{} written in {seconds:.1} s{kept}", plural(made, "border map")))?;
    done
}

/// The map of `labels`, made on `device`.
fn border_map(device: &Device, labels: &Labels) -> Result<Vec<u8>> {
    if let Target::Cpu { .. } = device.target() {
        // In the files' own memory: no copy in the arena is needed.
        return Ok(border::border_map(&labels.foreground(), labels.shape));
    }
    let label = Tensor::from_typed(device, &labels.shape, DType::U8, Role::Data, &labels.foreground())?;
    ops::border_map::border_map(&label)?.to_typed()
}

/// What maps are made of.
struct Found {
    labels: Vec<PathBuf>,
    /// The value in them of voxels that nobody has looked at.
    ignore: Option<u8>,
    /// Cases that are incomplete.
    problems: Vec<Error>,
}

/// The label files of a data set, or the file itself.
fn labels(path: &Path) -> Result<Found> {
    if !path.is_dir() {
        // Looked at before anything is written.
        crate::data::nifti::read_header(&Source::File(path.into()))?;
        return Ok(Found { labels: vec![path.into()], ignore: None, problems: Vec::new() });
    }
    let Scanned { dataset, problems } = Dataset::scan(path, 0)?;
    let mut files: Vec<PathBuf> =
        dataset.cases().filter_map(|(_, case)| Some(case.label.as_ref()?.path().to_path_buf())).collect();
    // A data set of one case trains and validates on it.
    files.sort_unstable();
    files.dedup();
    if files.is_empty() {
        return Err(Error::data(path, "has no labelled case", "give a data set with labels"));
    }
    Ok(Found { labels: files, ignore: dataset.ignore, problems })
}
