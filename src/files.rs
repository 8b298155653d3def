//! Files that are either whole or absent, and the folder of a run.
//!
//! A file is written under a temporary name in its own folder, flushed to the disk and renamed: a reader, a crash or a
//! full disk never meets half of it, and an older file of that name survives every failure. What a killed writer leaves is
//! removed by the next (`temporary`), and a run's folder belongs to one process at a time (`lock`).

mod lock;
pub mod name;
mod owner;
mod temporary;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use self::lock::Lock;
use crate::{Error, Result};

/// Opens a regular file for reading. A pipe would make a reader wait for ever, a device never end: both are refused, without
/// waiting.
///
/// # Errors
/// [`Error::File`] if the system refuses, or it is a folder; [`Error::Data`] for a pipe, a socket or a device.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(|source| not_regular(path).unwrap_or_else(|| Error::file(path, source)))?;
    let found = file.metadata().map_err(|source| Error::file(path, source))?;
    match (found.is_file(), found.is_dir()) {
        (true, _) => Ok(file),
        (_, true) => Err(Error::file(path, io::Error::from_raw_os_error(libc::EISDIR))),
        _ => Err(special(path)),
    }
}

/// The error of a path that cannot even be opened because of what it is, as a socket.
fn not_regular(path: &Path) -> Option<Error> {
    let found = path.metadata().ok()?;
    (!found.is_file() && !found.is_dir()).then(|| special(path))
}

fn special(path: &Path) -> Error {
    Error::data(path, "is a pipe, a socket or a device, not a regular file", "give the path of a file")
}

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// As for [`open`], and [`Error::Data`] if it is longer.
pub fn read(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|source| Error::file(path, source))?;
    if bytes.len() as u64 > limit {
        let problem = format!("has more than the {limit} bytes that such a file can have");
        return Err(Error::data(path, problem, "check that it is the right file"));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As for [`read`], and [`Error::Data`] if it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, limit: u64) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path, limit)?).map_err(|_| Error::data(path, "is not UTF-8 text", "save it as UTF-8"))
}

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
pub fn write_atomic_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let named = |source| Error::file(path, source);
    // A rename would put a file in the place of the pipe or device.
    if let Some(error) = not_regular(path) {
        return Err(error);
    }
    let temporary = temporary::beside(path).map_err(named)?;
    temporary::clean_once(folder_of(path));
    let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(named)?;
    let result = fill(file, write).and_then(|()| fs::rename(&temporary, path)).map_err(named);
    match &result {
        Ok(()) => sync_folder_of(path),
        // The cause is what the user needs; that the temporary file cannot be removed either adds nothing.
        Err(_) => drop(fs::remove_file(&temporary)),
    }
    result
}

fn fill(file: File, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut out).and_then(|()| out.flush());
    // Taken apart rather than dropped: dropping would try to write once more what has just failed.
    let (file, _) = out.into_parts();
    written.and_then(|()| file.sync_all())
}

/// Removes a file unless it is not there.
///
/// # Errors
/// [`Error::File`] if the system refuses.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(Error::file(path, source)),
        _ => Ok(()),
    }
}

/// Makes the rename itself durable. Best effort: the content is safe already, and not every system can do it.
fn sync_folder_of(path: &Path) {
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The folder that a run writes to, and that no other process does meanwhile.
///
/// What was created for it and is still empty when this is dropped is removed again: a run that fails before its first
/// file leaves nothing behind.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The folders that did not exist before, innermost first.
    created: Vec<PathBuf>,
    lock: Option<Lock>,
}

impl RunFolder {
    /// Creates the next numbered folder of `base` for a run of `command`: `base/001-compare`, `base/002-train`, …
    ///
    /// `base` is created when missing. Numbers are shared by all commands, so that they tell the order of the runs; two
    /// processes that start together get different ones.
    ///
    /// # Errors
    /// [`Error::File`] when `base` cannot be created, read or written.
    pub fn numbered(base: impl AsRef<Path>, command: &str) -> Result<Self> {
        let mut base = Self::create(base.as_ref())?;
        let mut number = last_number(&base.path).map_err(|source| Error::file(&base.path, source))?;
        loop {
            number += 1;
            let path = base.path.join(format!("{number:03}-{command}"));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let mut created = std::mem::take(&mut base.created);
                    created.insert(0, path.clone());
                    let folder = Self { path, created, lock: None };
                    return folder.locked();
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(Error::file(path, source)),
            }
        }
    }

    /// Takes the folder that the user named (`--out`), creating it when missing.
    ///
    /// `admits` looks at a folder that is not empty and says whether the run may use it, as when it holds an unfinished
    /// run of the same command.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder holds anything else or is in use by another process, [`Error::File`] when it cannot be
    /// created, read or written to.
    pub fn claim(folder: impl AsRef<Path>, admits: impl FnOnce(&Path) -> bool) -> Result<Self> {
        let folder = Self::create(folder.as_ref())?.locked()?;
        let named = |source| Error::file(&folder.path, source);
        // Nobody alive writes here.
        temporary::remove_dead(&folder.path);
        let mut entries = fs::read_dir(&folder.path).map_err(named)?;
        match entries.find(|entry| entry.as_ref().map_or(true, |entry| entry.file_name() != lock::NAME)) {
            Some(Err(source)) => Err(named(source)),
            Some(Ok(_)) if !admits(&folder.path) => Err(Error::data(
                &folder.path,
                "the output folder is not empty and holds nothing of this command to go on with",
                "name an empty or new folder with --out, or omit --out; an interrupted `train` goes on with --resume",
            )),
            _ => Ok(folder),
        }
    }

    /// The part of that name of a folder, whose other parts belong to others; the folder is created when missing.
    ///
    /// # Errors
    /// [`Error::Data`] when another process has the part, [`Error::File`] when the folder cannot be created or written to.
    pub fn claim_part(folder: impl AsRef<Path>, part: &str) -> Result<Self> {
        let mut folder = Self::create(folder.as_ref())?;
        folder.lock = Some(Lock::take_part(&folder.path, part)?);
        Ok(folder)
    }

    /// A folder that others may write to meanwhile, created when missing.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub fn shared(folder: impl AsRef<Path>) -> Result<Self> {
        Self::create(folder.as_ref())
    }

    /// The folder of a file that is to be written, created when missing; others may write to it meanwhile. A file is made in it
    /// and removed, to see that it can be.
    ///
    /// # Errors
    /// [`Error::File`] when the folder cannot be created or takes no files, [`Error::Data`] when `file` is a folder, a pipe or a
    /// device.
    pub fn of_file(file: &Path) -> Result<Self> {
        if file.is_dir() {
            return Err(Error::data(file, "is a folder", "name a file"));
        }
        if let Some(error) = not_regular(file) {
            return Err(error);
        }
        let folder = Self::create(folder_of(file))?;
        let named = |source| Error::file(file, source);
        let probe = temporary::beside(file).map_err(named)?;
        OpenOptions::new().write(true).create_new(true).open(&probe).map_err(named)?;
        fs::remove_file(&probe).map_err(named)?;
        Ok(folder)
    }

    fn create(path: &Path) -> Result<Self> {
        let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        // Made first: if only some of the folders can be created, dropping it removes those.
        let folder = Self { path: path.into(), created: missing.map(PathBuf::from).collect(), lock: None };
        match fs::create_dir_all(path) {
            Ok(()) => Ok(folder),
            Err(source) => Err(Error::file(path, source)),
        }
    }

    /// The same, with its lock.
    fn locked(mut self) -> Result<Self> {
        self.lock = Some(Lock::take(&self.path)?);
        Ok(self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // The folder is empty only without it.
        self.lock = None;
        // The system refuses to remove a folder that is not empty, which is what is wanted.
        self.created.iter().for_each(|folder| drop(fs::remove_dir(folder)));
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
        // Everything is written, and the renaming fails.
        assert!(write_atomic(folder.path().join("taken"), b"x").is_err());
        assert!(write_atomic(folder.path().join(".."), b"x").is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn run_folders_are_numbered_onwards() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("runs");
        let first = RunFolder::numbered(&base, "compare").unwrap();
        let second = RunFolder::numbered(&base, "train").unwrap();
        assert_eq!(first.path(), base.join("001-compare"));
        assert_eq!(second.path(), base.join("002-train"));
        fs::create_dir(base.join("041-compare")).unwrap();
        fs::create_dir(base.join("notes")).unwrap();
        fs::write(base.join("18446744073709551615-odd"), b"").unwrap();
        assert_eq!(RunFolder::numbered(&base, "compare").unwrap().path(), base.join("042-compare"));
    }

    #[test]
    fn a_base_that_is_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("runs");
        fs::write(&base, b"").unwrap();
        assert!(RunFolder::numbered(&base, "compare").unwrap_err().to_string().contains("runs"));
    }

    #[test]
    fn a_folder_is_claimed_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::create_dir(&out).unwrap();
        RunFolder::claim(&out, |_| false).unwrap();
        assert!(out.exists(), "a folder that was there stays");
        fs::write(out.join("checkpoint.safetensors"), b"").unwrap();
        RunFolder::claim(&out, |out| out.join("checkpoint.safetensors").exists()).unwrap();
        let error = RunFolder::claim(&out, |_| false).unwrap_err().to_string();
        assert!(error.contains("not empty") && error.contains("--out"), "{error}");
    }

    #[test]
    fn a_file_is_known_to_be_writable_beforehand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/page.html");
        let made = RunFolder::of_file(&path).unwrap();
        assert!(names(made.path()).is_empty(), "the probe is gone");
        drop(made);
        assert!(names(folder.path()).is_empty());
        fs::write(folder.path().join("file"), b"").unwrap();
        for bad in [folder.path().into(), folder.path().join("file/page.html"), "/proc/none/page.html".into()] {
            assert!(RunFolder::of_file(&bad).is_err(), "{}", bad.display());
        }
    }

    #[test]
    fn created_folders_vanish_with_a_run_that_wrote_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(RunFolder::claim(folder.path().join("a/b"), |_| false).unwrap());
        drop(RunFolder::numbered(folder.path().join("runs"), "train").unwrap());
        assert!(names(folder.path()).is_empty());
        let kept = RunFolder::claim(folder.path().join("a/b"), |_| false).unwrap();
        fs::write(kept.path().join("results.json"), b"{}").unwrap();
        drop(kept);
        assert!(folder.path().join("a/b/results.json").exists());
    }
}
