//! One process a folder: a lock that the system takes back when its owner dies, however it dies.
//!
//! The file `.ossnet.lock` is locked for as long as its owner runs (`flock`) and says who that is. A lock whose owner is dead
//! is free, and is taken over by whoever comes next. Where a file system knows no locks, what the file says decides.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::owner::Owner;
use crate::{Error, Result};

/// Its name in the folder.
pub(super) const NAME: &str = ".ossnet.lock";

/// A folder that belongs to this process until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// Holds the system's lock.
    _file: File,
}

impl Lock {
    /// Takes the lock of `folder`.
    ///
    /// # Errors
    /// [`Error::Data`] that names the owner if another process has it; [`Error::File`] if the folder refuses.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        Self::take_part(folder, "")
    }

    /// Takes the lock of a part of a folder, of which others take others; the part's name is in the lock's.
    ///
    /// # Errors
    /// As there.
    pub(super) fn take_part(folder: &Path, part: &str) -> Result<Self> {
        let path = match part {
            "" => folder.join(NAME),
            part => folder.join(format!("{NAME}-{part}")),
        };
        let named = |source: io::Error| match source.kind() {
            // Of a folder that refuses, the folder is what the user knows.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::file(folder, source),
            _ => Error::file(&path, source),
        };
        loop {
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
            let mut file = options.open(&path).map_err(named)?;
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => return Err(in_use(folder, part, &mut file)),
                Err(TryLockError::Error(_)) => {
                    refuse_owned(folder, part, &mut file)?;
                    false
                }
            };
            // Its owner may have removed the file between our opening and locking it: then it locks nothing.
            if !is_at(&file, &path) {
                continue;
            }
            let owner = serde_json::to_string(Owner::me()).unwrap_or_default();
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(owner.as_bytes()));
            let lock = Self { path: path.clone(), _file: file };
            // Beside the system's lock it is for readers only: a full disk is told of where something is lost.
            return if locked { Ok(lock) } else { written.map(|()| lock).map_err(named) };
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held, so that nobody else's is removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the open file is still the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), path.metadata()), (Ok(open), Ok(there)) if place(&open) == place(&there))
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// What the file says of its owner.
fn owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The error of a folder that belongs to somebody.
fn in_use(folder: &Path, part: &str, file: &mut File) -> Error {
    let whose = owner(file).map_or("another process".into(), |Owner { host, pid, .. }| {
        format!("process {pid} on {}", host.escape_debug())
    });
    let what = if part.is_empty() { "is in use".into() } else { format!("part {part} is in use") };
    Error::data(folder, format!("{what} by {whose}"), "wait for its end, or name another folder")
}

/// Where the system knows no locks: refuses a folder whose owner lives, or whose owner nothing is known of.
fn refuse_owned(folder: &Path, part: &str, file: &mut File) -> Result<()> {
    let Some(owner) = owner(file).filter(|owner| owner != Owner::me()) else { return Ok(()) };
    match owner.lives() {
        Some(false) => Ok(()),
        Some(true) => Err(in_use(folder, part, file)),
        None => {
            let Owner { host, pid, .. } = owner;
            let problem =
                format!("was left by process {pid} on {}, of which nothing is known here", host.escape_debug());
            let dash = if part.is_empty() { "" } else { "-" };
            Err(Error::data(folder, problem, format!("if it runs no more, remove {NAME}{dash}{part} there")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_and_the_next_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(first);
        assert!(!folder.path().join(NAME).exists());
        drop(Lock::take(folder.path()).unwrap());
    }

    #[test]
    fn parts_belong_to_different_owners() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take_part(folder.path(), "1-of-2").unwrap();
        let _second = Lock::take_part(folder.path(), "2-of-2").unwrap();
        let error = Lock::take_part(folder.path(), "1-of-2").unwrap_err().to_string();
        assert!(error.contains("part 1-of-2 is in use by process"), "{error}");
        drop(first);
        drop(Lock::take_part(folder.path(), "1-of-2").unwrap());
    }

    #[test]
    fn what_a_dead_owner_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        for left in [r#"{"host":"elsewhere","pid":1,"start":7}"#, "", "nonsense"] {
            fs::write(folder.path().join(NAME), left).unwrap();
            let lock = Lock::take(folder.path()).unwrap();
            let said: Owner = serde_json::from_str(&fs::read_to_string(folder.path().join(NAME)).unwrap()).unwrap();
            assert_eq!(said, *Owner::me());
            drop(lock);
        }
    }

    /// The rule for file systems without locks.
    #[test]
    fn without_locks_the_owner_decides() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = |owner: &Owner| {
            let path = folder.path().join(NAME);
            fs::write(&path, serde_json::to_string(owner).unwrap()).unwrap();
            refuse_owned(folder.path(), "", &mut File::open(path).unwrap()).map_err(|error| error.to_string())
        };
        let me = Owner::me();
        verdict(me).unwrap();
        verdict(&Owner { start: me.start + 1, ..me.clone() }).unwrap();
        let parent = Owner { pid: std::os::unix::process::parent_id(), start: 0, ..me.clone() };
        assert!(verdict(&parent).unwrap_err().contains("in use"));
        assert!(
            verdict(&Owner { host: "elsewhere".into(), ..me.clone() }).unwrap_err().contains("remove .ossnet.lock")
        );
    }
}
