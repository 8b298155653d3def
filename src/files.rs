//! Files that are either whole or absent, and the folder of a run.
//!
//! A file is written under a temporary name in its own folder, flushed to the disk and renamed: a reader, a crash or a
//! full disk never meets half of it, and an older file of that name survives every failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes `bytes` to `path`, replacing what was there, or leaves everything as it was.
///
/// # Errors
/// [`Error::File`] naming `path` if the folder is missing or refuses, or the disk is full.
pub fn write_atomic(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |out| out.write_all(bytes))
}

/// As [`write_atomic`], for content that is produced piece by piece.
///
/// # Errors
/// [`Error::File`] naming `path`, with what `write` or the operating system said.
pub fn write_atomic_with(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    let named = |source| Error::file(path, source);
    let temporary = temporary_beside(path).map_err(named)?;
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(named)?;
    let result = fill(file, write).and_then(|()| fs::rename(&temporary, path)).map_err(named);
    match &result {
        Ok(()) => sync_folder_of(path),
        // The cause is what the user needs; that the temporary file cannot be removed either adds nothing.
        Err(_) => drop(fs::remove_file(&temporary)),
    }
    result
}

fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A name in the folder of `path` that no other writer of this or another process uses.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name =
        path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "this is not the name of a file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temporary))
}

/// Makes the rename itself durable. Best effort: the content is safe already, and not every system can do it.
fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// Creates the next numbered folder of `base` for a run of `command`: `base/001-compare`, `base/002-train`, …
///
/// `base` is created when missing. Numbers are shared by all commands, so that they tell the order of the runs; two
/// processes that start together get different ones.
///
/// # Errors
/// [`Error::File`] when `base` cannot be created, read or written.
pub fn new_run_folder(base: impl AsRef<Path>, command: &str) -> Result<PathBuf> {
    let base = base.as_ref();
    fs::create_dir_all(base).map_err(|source| Error::file(base, source))?;
    let mut number = last_number(base).map_err(|source| Error::file(base, source))?;
    loop {
        number += 1;
        let folder = base.join(format!("{number:03}-{command}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(source) => return Err(Error::file(folder, source)),
        }
    }
}

/// The largest number that starts the name of an entry of `base`, 0 without any.
fn last_number(base: &Path) -> io::Result<u64> {
    let mut last = 0;
    for entry in fs::read_dir(base)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.split_once('-')).and_then(|(number, _)| number.parse().ok());
        // A number so large that it has no successor is not one of ours.
        last = last.max(number.filter(|&number| number < u64::MAX).unwrap_or(0));
    }
    Ok(last)
}

/// What [`claim_folder`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The folder was created, or was there and empty.
    Fresh,
    /// The folder holds a run to go on with.
    Resume,
}

/// Takes the folder that the user named (`--out`) for a run, creating it when missing.
///
/// `is_resumable` looks at a folder that is not empty and says whether it holds an unfinished run of the same command.
///
/// # Errors
/// [`Error::Data`] when the folder holds anything else, [`Error::File`] when it cannot be created or read.
pub fn claim_folder(folder: impl AsRef<Path>, is_resumable: impl FnOnce(&Path) -> bool) -> Result<Claim> {
    let folder = folder.as_ref();
    let named = |source| Error::file(folder, source);
    fs::create_dir_all(folder).map_err(named)?;
    match fs::read_dir(folder).map_err(named)?.next() {
        None => Ok(Claim::Fresh),
        Some(Err(source)) => Err(named(source)),
        Some(Ok(_)) if is_resumable(folder) => Ok(Claim::Resume),
        Some(Ok(_)) => Err(Error::data(
            folder,
            "the output folder is not empty and holds no run to resume",
            "name an empty or new folder with --out, or leave --out away for a new numbered folder",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two!").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two!");
        assert_eq!(names(folder.path()), ["results.json"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        write_atomic(&path, b"old").unwrap();
        let error = write_atomic_with(&path, |out| {
            out.write_all(b"half")?;
            Err(ErrorKind::StorageFull.into())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("results.json") && error.contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["results.json"]);
    }

    #[test]
    fn a_missing_folder_a_folder_as_target_and_a_nameless_path_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(folder.path().join("none/x.json"), b"").unwrap_err().to_string();
        assert!(error.contains("x.json") && error.contains("check the path"), "{error}");
        fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomic(folder.path().join("taken"), b"x").is_err());
        assert!(write_atomic(folder.path().join(".."), b"x").is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn run_folders_are_numbered_onwards() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("runs");
        assert_eq!(new_run_folder(&base, "compare").unwrap(), base.join("001-compare"));
        assert_eq!(new_run_folder(&base, "train").unwrap(), base.join("002-train"));
        fs::create_dir(base.join("041-compare")).unwrap();
        fs::create_dir(base.join("notes")).unwrap();
        fs::write(base.join("18446744073709551615-odd"), b"").unwrap();
        assert_eq!(new_run_folder(&base, "compare").unwrap(), base.join("042-compare"));
    }

    #[test]
    fn a_base_that_is_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("runs");
        fs::write(&base, b"").unwrap();
        assert!(new_run_folder(&base, "compare").unwrap_err().to_string().contains("runs"));
    }

    #[test]
    fn a_folder_is_claimed_fresh_resumed_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        assert_eq!(claim_folder(&out, |_| false).unwrap(), Claim::Fresh);
        assert_eq!(claim_folder(&out, |_| false).unwrap(), Claim::Fresh);
        fs::write(out.join("checkpoint.safetensors"), b"").unwrap();
        assert_eq!(claim_folder(&out, |out| out.join("checkpoint.safetensors").exists()).unwrap(), Claim::Resume);
        let error = claim_folder(&out, |_| false).unwrap_err().to_string();
        assert!(error.contains("not empty") && error.contains("--out"), "{error}");
    }
}
