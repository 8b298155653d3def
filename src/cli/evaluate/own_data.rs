//! What a checkpoint was trained on, from the files of its run.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use crate::cli::compare::RESULTS;
use crate::cli::fold_files;
use crate::cli::progress::Verbosity;
use crate::cli::train::CONFIG;
use crate::data::{Dataset, Warning, embedded};
use crate::error::{Error, Result};
use crate::files::read_text;
use crate::train::config::{RunConfig, SAMPLE};

/// The data of a run.
pub struct OwnData {
    /// The folder, or `sample:TASK`.
    pub data: String,
    /// Seed of the division into training and validation.
    pub seed: u64,
    /// See [`Dataset::ignore_geometry`].
    pub ignore_geometry: bool,
}

/// Most bytes of a file that is looked into.
const MOST: u64 = 1 << 28;

pub(super) fn folder_of(checkpoint: &Path) -> &Path {
    checkpoint.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the run in the checkpoint's folder was trained on; `None` where no file says so.
///
/// # Errors
/// A configuration or results that cannot be read.
pub fn of(checkpoint: &Path) -> Result<Option<OwnData>> {
    let folder = folder_of(checkpoint);
    let (config, results) = (folder.join(CONFIG), folder.join(RESULTS));
    if config.exists() {
        let text = read_text(&config, MOST)?;
        let run = RunConfig::resolve(Some((&config, &text)), Table::new(), false)?;
        let ignore_geometry = run.preprocessing.ignore_geometry;
        return Ok(Some(OwnData { data: run.dataset_path, seed: run.seed, ignore_geometry }));
    }
    if results.exists() {
        let all: Value = serde_json::from_str(&read_text(&results, MOST)?)
            .map_err(|error| Error::data(&results, format!("is no JSON ({error})"), "name the data with --data"))?;
        let data = all["data"]["path"].as_str().map(|path| match embedded_task(path) {
            Some(task) => format!("{SAMPLE}{task}"),
            None => path.to_string(),
        });
        let seed = all["seed"].as_u64().unwrap_or(0);
        return Ok(data.map(|data| OwnData { data, seed, ignore_geometry: false }));
    }
    Ok(None)
}

/// The embedded task that results call by its path in the binary.
fn embedded_task(path: &str) -> Option<&str> {
    path.strip_prefix("sample/").filter(|task| embedded::TASKS.contains(task))
}

/// Divides `dataset` as the run in the checkpoint's folder did, if that was one fold of a cross-validation; returns how to
/// call that.
///
/// # Errors
/// A list of folds that cannot be read.
pub fn divide(checkpoint: &Path, dataset: &mut Dataset, verbosity: Verbosity) -> Result<String> {
    let Some((folds, Some(number))) = fold_files::read(folder_of(checkpoint))? else { return Ok(String::new()) };
    if !folds.divides(dataset) {
        let problem =
            "has other cases than the folds that the checkpoint was trained with: some may have been trained on";
        verbosity.warn(&Warning::new(&dataset.path, problem));
        return Ok(String::new());
    }
    folds.apply(dataset, number);
    Ok(format!(", fold {number}/{}", folds.folds.len()))
}
