//! `ossnet infer`: segments scans with a checkpoint, on each scan's own grid.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::RunArgs;
use super::run::{Grid, display};
use crate::data::{Case, Source};
use crate::error::{Error, Result};
use crate::train::{evaluate, state};

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
/// An unusable checkpoint or scan, no memory, a full disk.
pub fn run(args: InferArgs) -> Result<()> {
    let verbosity = args.run.verbosity();
    let device = args.run.device()?;
    let model = state::load(&device, &args.load_model)?;
    std::fs::create_dir_all(&args.out).map_err(|error| Error::file(&args.out, error))?;
    let mut bar = verbosity.task("segmenting", args.input.len() as u64);
    let grid = Grid::of(&model.network.config());
    let mut summaries = Vec::new();
    for input in &args.input {
        let started = Instant::now();
        let name = case_name(input);
        let case = Case { name: name.clone(), images: vec![Source::File(input.clone())], label: None };
        let scan = case.read(&[], model.task.preprocessing.axes)?;
        let case = model.task.prepare(scan, grid.shape())?;
        let labels = evaluate::predict(&device, &model.network, &model.parameters, &model.task, &case)?;
        let background = model.task.preprocessing.classes.first().copied().unwrap_or(0);
        let foreground = labels.voxels.iter().filter(|&&value| value != background).count();
        let path = args.out.join(format!("{name}.nii.gz"));
        if path.exists() {
            return Err(Error::data(&path, "exists already", "choose another --out"));
        }
        labels.write(&path)?;
        let millilitres = foreground as f64 * case.way.geometry.spacing().iter().product::<f64>() / 1000.0;
        let seconds = started.elapsed().as_secs_f64();
        bar.advance(&name);
        if !args.run.json {
            println!("{}: {millilitres:.1} ml of foreground, {seconds:.1} s", display(&path));
        }
        summaries.push(serde_json::json!({
            "input": display(input), "output": display(&path), "foreground_ml": millilitres, "seconds": seconds,
        }));
    }
    bar.finish("done");
    if args.run.json {
        println!("{:#}", serde_json::Value::from(summaries));
    }
    Ok(())
}

/// The file's name without `.nii` or `.nii.gz`.
fn case_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".nii").unwrap_or(name).to_string()
}
