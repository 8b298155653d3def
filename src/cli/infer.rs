//! `ossnet infer`: segments scans with a checkpoint, on each scan's own grid.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::output::print;
use crate::checkpoint::model;
use crate::data::{Case, Source};
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::task::Grid;
use crate::{infer, interrupt};

/// Flags of `ossnet infer`.
#[derive(Args, Clone, Debug)]
pub struct InferArgs {
    /// The checkpoint (.safetensors)
    #[arg(long, value_name = "FILE")]
    load_model: PathBuf,
    /// Scans (.nii, .nii.gz); a network of several channels takes one file with all of them
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    input: Vec<PathBuf>,
    /// Folder for the segmentations
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    run: RunArgs,
}

/// Segments.
///
/// # Errors
/// An unusable checkpoint or scan, an output that exists, an interrupt, no memory, a full disk.
pub fn run(args: InferArgs) -> Result<()> {
    interrupt::listen();
    let verbosity = args.run.verbosity();
    let device = args.run.device()?;
    let model = model::load(&device, &args.load_model)?;
    let folder = RunFolder::claim(&args.out, |_| true)?;
    let outputs = outputs(&args.input, folder.path())?;
    let mut bar = verbosity.task("segmenting", args.input.len() as u64);
    let grid = Grid::of(&model.network.config());
    let background = model.task.preprocessing.classes.first().copied().unwrap_or(0);
    let mut summaries = Vec::new();
    for (input, path) in args.input.iter().zip(&outputs) {
        interrupt::check(|| {
            format!("{} of {} scans are segmented; run again with the others", summaries.len(), outputs.len())
        })?;
        let started = Instant::now();
        let name = case_name(input);
        let case = Case { name: name.clone(), images: vec![Source::File(input.clone())], label: None };
        let scan = case.read(&[], model.task.preprocessing.axes)?;
        let case = model.task.prepare(scan, grid.shape())?;
        let labels = infer::segment(&device, &model.network, &model.parameters, &model.task, &case)?;
        labels.write(path)?;
        let foreground = labels.voxels.iter().filter(|&&value| value != background).count();
        let millilitres = foreground as f64 * case.way.geometry.spacing().iter().product::<f64>() / 1000.0;
        let seconds = started.elapsed().as_secs_f64();
        bar.advance(&name);
        if !args.run.json {
            print(format!("{}: {millilitres:.1} ml of foreground, {seconds:.1} s", path.display()))?;
        }
        summaries.push(serde_json::json!({
            "input": input.display().to_string(),
            "output": path.display().to_string(),
            "foreground_ml": millilitres,
            "seconds": seconds,
        }));
    }
    bar.finish("done");
    if args.run.json {
        print(format!("{:#}", serde_json::Value::from(summaries)))?;
    }
    Ok(())
}

/// Where the segmentation of each scan goes.
///
/// # Errors
/// [`Error::Data`] for a file that exists, [`Error::Usage`] for two scans of one name.
fn outputs(inputs: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut outputs: Vec<PathBuf> = Vec::new();
    for input in inputs {
        let path = folder.join(format!("{}.nii.gz", case_name(input)));
        if path.exists() {
            return Err(Error::data(&path, "exists already", "choose another --out"));
        }
        if outputs.contains(&path) {
            let problem = format!("--input names two scans whose segmentation would be {}", path.display());
            return Err(Error::Usage(format!("{problem}; segment them one by one with another --out")));
        }
        outputs.push(path);
    }
    Ok(outputs)
}

/// The file's name without `.nii` or `.nii.gz`.
fn case_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".nii").unwrap_or(name).to_string()
}
