//! The checkpoints that a command is given: files, and folders of runs and of their folds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::model::Model;
use crate::error::{Error, Result};
use crate::files::read_text;

/// Most bytes of a list of folds.
const MOST: u64 = 1 << 28;

/// What the name of a checkpoint ends with, and that of the best weights of a run.
const ENDINGS: [&str; 2] = [".safetensors", ".best.safetensors"];

/// The files that `given` names. A run's folder stands for its checkpoint (the best one, if validations chose it), the folder of
/// a cross-validation for those of all its folds.
///
/// # Errors
/// A folder without a checkpoint, with those of several networks, or with folds that are not finished.
pub(super) fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in given {
        match path.is_dir() {
            false => found.push(path.clone()),
            true => found.extend(of_folder(path)?),
        }
    }
    Ok(found)
}

fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let Some(count) = folds_in(folder)? else { return Ok(vec![of_run(folder)?]) };
    let of_fold = |number: usize| {
        let own = folder.join(format!("fold-{number}"));
        // What a run writes last.
        if !["summary.json", "results.json"].iter().any(|name| own.join(name).exists()) {
            let problem = format!("has no finished fold {number} of {count}");
            return Err(Error::data(folder, problem, "finish it, or name the checkpoints of those that are"));
        }
        of_run(&own)
    };
    (1..=count).map(of_fold).collect()
}

/// The number of folds whose folders lie in `folder`, if any do.
fn folds_in(folder: &Path) -> Result<Option<usize>> {
    let lists = [folder.to_path_buf(), folder.join("fold-1")].map(|folder| folder.join("folds.json"));
    let Some(list) = lists.iter().find(|list| list.exists()) else { return Ok(None) };
    let all: Value = serde_json::from_str(&read_text(list, MOST)?)
        .map_err(|error| Error::data(list, format!("is no list of folds ({error})"), "name the checkpoints"))?;
    // One fold that was trained alone has the list beside its own checkpoint.
    let alone = all["fold"].is_u64() && *list == lists[0];
    Ok(all["folds"].as_array().filter(|_| !alone).map(Vec::len))
}

/// The one checkpoint in a run's folder.
fn of_run(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::file(folder, error))?;
    let mut networks: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(ENDINGS[0]) else { continue };
        let network = stem.trim_end_matches(".best").to_string();
        if name.ends_with(ENDINGS[1]) || !networks.contains_key(&network) {
            networks.insert(network, path);
        }
    }
    match networks.len() {
        1 => Ok(networks.into_values().next().unwrap_or_default()),
        0 => Err(Error::data(folder, "holds no checkpoint", "name a file, or the folder of a run")),
        _ => {
            let names: Vec<String> = networks.into_keys().collect();
            let problem = format!("holds checkpoints of several networks ({})", names.join(", "));
            Err(Error::data(folder, problem, "name the files of one"))
        }
    }
}

/// What pages and lines call `count` networks of which `first` is one.
#[cfg(any(feature = "train", feature = "report"))]
pub(super) fn title(first: &Model, count: usize) -> String {
    let title = first.network.architecture().title();
    if count == 1 { title } else { format!("{title} (mean of {count} checkpoints)") }
}

/// Refuses networks whose answers cannot be averaged; they lie at `paths`.
///
/// # Errors
/// [`Error::Data`] that names the first that does not fit.
pub(super) fn check(models: &[Model], paths: &[PathBuf]) -> Result<()> {
    let Some((first, others)) = models.split_first() else { return Ok(()) };
    match others
        .iter()
        .zip(paths.iter().skip(1))
        .find_map(|(other, path)| Some((first.task.mismatch(&other.task)?, path)))
    {
        None => Ok(()),
        Some((problem, path)) => {
            let problem = format!("{problem} as {} does", paths[0].display());
            Err(Error::data(path, problem, "average checkpoints of one data set and one choice of classes"))
        }
    }
}
