//! `folds.json`: who validates in which fold of a cross-validation, in every folder that belongs to one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::provenance::SCHEMA_VERSION;
use crate::data::{Dataset, Folds, folds};
use crate::error::{Error, Result};
use crate::files::{read_text, write_atomic};

/// Its name.
pub const NAME: &str = "folds.json";

/// Most bytes of one: a million names.
const MOST: u64 = 1 << 28;

/// Its content.
#[derive(Serialize, Deserialize)]
struct Content {
    schema_version: u64,
    /// The data set's folder.
    data: PathBuf,
    /// The fold that validates here; `null` where all do in turn.
    fold: Option<usize>,
    #[serde(flatten)]
    folds: Folds,
}

/// Writes the folds of `dataset` into a run's folder; `fold` is the one that validates there, 0 for each in turn.
///
/// # Errors
/// [`Error::Data`] if the folder holds a run on other folds; a full disk.
pub fn write(folder: &Path, folds: &Folds, fold: usize, dataset: &Dataset) -> Result<()> {
    check(folder, folds)?;
    let data = std::path::absolute(&dataset.path).unwrap_or_else(|_| dataset.path.clone());
    let fold = (fold > 0).then_some(fold);
    let content = Content { schema_version: SCHEMA_VERSION, data, fold, folds: folds.clone() };
    let text = serde_json::to_string_pretty(&content)
        .map_err(|error| Error::Model(format!("the folds are no JSON ({error}); report this")))?;
    write_atomic(folder.join(NAME), (text + "\n").as_bytes())
}

/// The folds that a run's folder states, and the one that validates there; `None` if it is no part of a cross-validation.
///
/// # Errors
/// A file that is no list of folds.
pub fn read(folder: &Path) -> Result<Option<(Folds, Option<usize>)>> {
    let path = folder.join(NAME);
    if !path.exists() {
        return Ok(None);
    }
    let Content { folds, fold, .. } = serde_json::from_str(&read_text(&path, MOST)?)
        .map_err(|error| Error::data(&path, format!("is no list of folds ({error})"), "name another folder"))?;
    match fold.is_none_or(|number| (1..=folds.folds.len()).contains(&number)) {
        true => Ok(Some((folds, fold))),
        false => Err(Error::data(&path, "names a fold that it does not list", "name another folder")),
    }
}

/// Refuses a folder whose run has other folds.
///
/// # Errors
/// As for [`write`].
pub fn check(folder: &Path, folds: &Folds) -> Result<()> {
    let Some((stored, _)) = read(folder)? else { return Ok(()) };
    let path = folder.join(NAME);
    let remedy = "restore the cases that it was made on, or name another folder";
    let Folds { folds: known, seed, .. } = stored;
    let [count, wanted] = [&known, &folds.folds].map(|folds| folds.iter().map(Vec::len).sum::<usize>());
    let problem = match () {
        () if known.len() != folds.folds.len() => format!("holds {} folds, not {}", known.len(), folds.folds.len()),
        () if seed != folds.seed => format!("was drawn with seed {seed}, not {}", folds.seed),
        () if count != wanted => format!("divides {count} cases, and the data set has {wanted}"),
        () if known != folds.folds => "divides cases of other names".into(),
        () => return Ok(()),
    };
    Err(Error::data(path, problem, remedy))
}

/// Whether a folder is one of a cross-validation, or holds folders of its folds.
pub fn are_in(folder: &Path) -> bool {
    folder.join(NAME).exists() || (1..=folds::MOST).any(|number| folder_of(folder, number).join(NAME).exists())
}

/// The folder of a fold.
pub fn folder_of(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("fold-{number}"))
}
