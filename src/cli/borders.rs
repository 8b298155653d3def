//! `ossnet borders`: writes the border maps of a data set beside its labels, once and for all.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::RunArgs;
use super::device_args::DeviceArgs;
use super::output::print;
use super::provenance::print_json;
use crate::data::border;
use crate::data::border_file::{self, BorderFormat};
use crate::data::{Axes, Dataset, Labels, Source};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::memory::Role;
use crate::ops;
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
    let labels = labels(&args.path)?;
    let place = |label: &Path| {
        let place = border_file::place(label);
        let name = place.file_name().unwrap_or_default();
        border_file::with_ending(&args.out.as_ref().map_or(place.clone(), |out| out.join(name)), format)
    };
    let targets: Vec<PathBuf> = labels.iter().map(|label| place(label)).collect();
    let started = Instant::now();
    let bar = Mutex::new(verbosity.task("borders", labels.len() as u64));
    // On a CUDA device one map is made after the other, each in parallel.
    let written = crate::data::in_parallel(labels.len(), device.threads(), |index| -> Result<bool> {
        let (label, target) = (&labels[index], &targets[index]);
        interrupt::check(|| "finished maps are kept; run the same command again for the others".into())?;
        let wanted = args.overwrite || !target.exists();
        if wanted {
            let labels = Labels::read(&Source::File(label.clone()), Axes::Stored)?;
            border_file::write_map(target, &labels, border_map(&device, &labels)?, format)?;
        }
        let name = label.file_name().unwrap_or_default().to_string_lossy();
        bar.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance(&name);
        Ok(wanted)
    });
    let written = written.into_iter().collect::<Result<Vec<bool>>>()?;
    if let Ok(bar) = bar.into_inner() {
        bar.finish("done");
    }
    let (seconds, made) = (started.elapsed().as_secs_f64(), written.iter().filter(|made| **made).count());
    if args.run.json {
        let maps = labels.iter().zip(&targets).zip(&written).map(|((label, map), made)| {
            serde_json::json!({"label": label.display().to_string(), "map": map.display().to_string(), "written": made})
        });
        let result = serde_json::json!({"maps": maps.collect::<Vec<_>>(), "seconds": seconds});
        return print_json(result, "maps");
    }
    let kept = written.len() - made;
    let kept =
        if kept > 0 { format!(", {kept} were there already (--overwrite makes them anew)") } else { String::new() };
    print(format!("{made} border maps written in {seconds:.1} s{kept}"))
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

/// The label files of a data set, or the file itself.
fn labels(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        // Looked at before anything is written.
        crate::data::nifti::read_header(&Source::File(path.into()))?;
        return Ok(vec![path.into()]);
    }
    let dataset = Dataset::open(path, 0)?;
    let mut files: Vec<PathBuf> =
        dataset.cases().filter_map(|(_, case)| Some(case.label.as_ref()?.path().to_path_buf())).collect();
    // A data set of one case trains and validates on it.
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(Error::data(path, "has no labelled case", "give a data set with labels"));
    }
    Ok(files)
}
