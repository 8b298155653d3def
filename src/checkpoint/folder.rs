//! The checkpoints that somebody names: files, and folders of runs and of their folds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

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
pub fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, names: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        names.iter().for_each(|name| std::fs::write(folder.join(name), "{}").unwrap());
    }

    fn told(folder: &Path) -> String {
        files(&[folder.into()]).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_stands_for_its_best_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let (run, best) = (folder.path(), folder.path().join("unet3d.best.safetensors"));
        assert!(told(run).contains("holds no checkpoint"));
        write(run, &["unet3d.safetensors", "summary.json"]);
        assert_eq!(files(&[run.into()]).unwrap(), [run.join("unet3d.safetensors")]);
        write(run, &["unet3d.best.safetensors"]);
        let file = run.join("other.pt");
        assert_eq!(files(&[run.into(), file.clone()]).unwrap(), [best, file]);
        write(run, &["o-net.safetensors"]);
        assert!(told(run).contains("several networks (o-net, unet3d)"), "{}", told(run));
    }

    #[test]
    fn a_cross_validation_stands_for_all_its_folds() {
        let folder = tempfile::tempdir().unwrap();
        let folds = [1, 2].map(|number| folder.path().join(format!("fold-{number}")));
        write(&folds[0], &["unet3d.safetensors", "summary.json"]);
        std::fs::write(folds[0].join("folds.json"), r#"{"fold": 0, "folds": [[], []]}"#).unwrap();
        assert!(told(folder.path()).contains("no finished fold 2 of 2"), "{}", told(folder.path()));
        write(&folds[1], &["unet3d.safetensors", "results.json"]);
        let all = files(&[folder.path().into()]).unwrap();
        assert_eq!(all, folds.clone().map(|fold| fold.join("unet3d.safetensors")));
        // A fold's own folder is that of a run.
        assert_eq!(files(&folds[..1]).unwrap(), all[..1]);
    }
}
