//! The checkpoints that a command is given, whose answers are averaged.

use std::path::PathBuf;

use crate::checkpoint::model::Model;
use crate::error::{Error, Result};

pub(super) use crate::checkpoint::folder::files;

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
