//! `--overwrite`: a run in the place of another.

use std::fs;
use std::path::Path;

use super::ended::SUMMARY;
use super::{CONFIG, TrainArgs, data_file};
use crate::cli::fold_files;
use crate::cli::output::{NAME_A_FOLDER, check_folder_name};
use crate::error::{Error, Result};
use crate::files::RunFolder;
use crate::text::for_a_shell;
use crate::train::config::RunConfig;
use crate::train::run_log::LOG;

impl TrainArgs {
    /// Refuses to begin in a folder that holds a run already, unless `--overwrite` says to replace it.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be written; [`Error::Data`] that names the ways out; [`Error::Usage`] for `--overwrite` of a
    /// whole cross-validation.
    pub(super) fn check_out(&self, config: &RunConfig) -> Result<()> {
        let Some(folder) = &self.out else { return Ok(()) };
        check_folder_name(folder, NAME_A_FOLDER)?;
        // Before cases are read and steps rehearsed.
        drop(RunFolder::of_file(&folder.join(CONFIG))?);
        if !folder.join(CONFIG).exists() {
            return Ok(());
        }
        let all_folds = config.folds > 0 && config.fold == 0;
        match (all_folds, self.overwrite) {
            (true, true) => {
                let problem = format!("--overwrite replaces one run, and {} has folds", folder.display());
                Err(Error::Usage(format!("{problem}; omit it to go on with them, or name another --out")))
            }
            // Folds that are there are gone on with.
            (true, false) | (false, true) => Ok(()),
            (false, false) => {
                // Of a run that is going on that is said.
                drop(RunFolder::claim(folder, |_| true)?);
                let remedy = format!(
                    "go on with it (ossnet train --resume {}), replace it with --overwrite, or name another --out",
                    for_a_shell(folder)
                );
                Err(Error::data(folder, "holds a run already", remedy))
            }
        }
    }
}

/// Removes what an earlier run wrote into `folder`; files of others stay.
///
/// # Errors
/// [`Error::File`] for the first that cannot be removed.
pub fn remove_run(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| Error::file(folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::file(folder, error))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if is_of_a_run(&name) && !path.is_dir() {
            fs::remove_file(&path).map_err(|error| Error::file(&path, error))?;
        }
    }
    Ok(())
}

/// Whether `ossnet train` writes files of that name.
fn is_of_a_run(name: &str) -> bool {
    [CONFIG, SUMMARY, LOG, fold_files::NAME, data_file::NAME, "report.html"].contains(&name)
        || name.ends_with(".safetensors")
        || name.ends_with(".costs.json")
        || name.starts_with("events.out.tfevents.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, others) = (
            ["config.toml", "log.jsonl", "unet3d.safetensors", "unet3d.best.safetensors", "unet3d.costs.json"],
            [".ossnet.lock", "notes.txt", "seg.nii.gz"],
        );
        ours.iter().chain(&others).for_each(|name| fs::write(folder.path().join(name), b"").unwrap());
        remove_run(folder.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, others);
    }
}
