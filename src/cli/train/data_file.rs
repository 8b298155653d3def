//! `data.json`: the scans that a run was begun with, for whoever goes on with it.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::progress::Verbosity;
use crate::cli::provenance::stamped_with;
use crate::data::{Dataset, Warning};
use crate::error::Result;
use crate::files::{read_text, write_atomic};

/// Its name.
pub(super) const NAME: &str = "data.json";

/// Most bytes of one.
const MOST: u64 = 1 << 20;

/// What stands in `data.json`: data set, cases, hash, and who wrote it.
///
/// # Errors
/// A scan that cannot be read.
pub(super) fn facts(dataset: &Dataset) -> Result<Value> {
    let cases = json!({ "training_cases": dataset.training.len(), "validation_cases": dataset.validation.len() });
    stamped_with(cases, "", Some(dataset))
}

/// Warns if `facts` are of other scans than those the run in `folder` was begun with. Runs of earlier versions do not tell.
pub(super) fn warn_of_others(folder: &Path, facts: &Value, verbosity: Verbosity) {
    let path = folder.join(NAME);
    let before: Option<Value> = read_text(&path, MOST).ok().and_then(|text| serde_json::from_str(&text).ok());
    if before.is_none_or(|before| before["data"]["hash"] == facts["data"]["hash"]) {
        return;
    }
    let now = facts["data"]["path"].as_str().unwrap_or("the data set");
    let problem = format!(
        "tells of other scans than {now} holds (names, lengths or the first 64 KiB of a file differ); the run goes on with those"
    );
    verbosity.warn(&Warning::new(&path, problem));
}

/// Writes them into a run's folder.
///
/// # Errors
/// A full disk.
pub(super) fn write(folder: &Path, facts: &Value) -> Result<()> {
    write_atomic(folder.join(NAME), format!("{facts:#}\n").as_bytes())
}
