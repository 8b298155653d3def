//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes `path` through a temporary file of the same folder, which is flushed to the disk and then renamed.
///
/// Whatever goes wrong, a crash of the machine included, `path` holds either its previous content or all of the new
/// one. The temporary file is removed if `write` fails.
///
/// # Errors
/// [`Error::File`] if the folder cannot be written to, the disk is full, or `write` fails.
pub fn write(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let failed = |error| Error::file(path, error);
    let temporary = Temporary::beside(path).map_err(failed)?;
    let file = File::create(&temporary.0).map_err(failed)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, file);
    let written = write(&mut buffered).and_then(|()| buffered.flush());
    // Taken apart rather than dropped: dropping would try to write once more what has just failed.
    let (file, _) = buffered.into_parts();
    written.and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    fs::rename(&temporary.0, path).map_err(failed)?;
    sync_folder(path);
    Ok(())
}

/// Makes the renaming itself survive a power cut. Not every file system can do that, and the file is complete either
/// way, so a refusal is no error.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// A name that no other writer uses; the file under it, if it is still there, goes when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> io::Result<Temporary> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is not the name of a file"))?
            .to_string_lossy();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Temporary(path.with_file_name(format!(".{name}.{}-{count}.partial", std::process::id()))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the renaming there is nothing under this name, and that is as it should be.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        write(&path, |file| file.write_all(b"old")).unwrap();
        let error = write(&path, |file| {
            file.write_all(b"new, but the disk is f")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(matches!(&error, Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_that_cannot_be_written_to_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        for path in [folder.path().join("missing/weights"), file.join("weights"), "/".into(), "..".into()] {
            let error = write(&path, |file| file.write_all(b"content")).unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{}: {error}", path.display());
        }
        // A folder in the way: everything is written, and the renaming fails.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(matches!(write(&taken, |file| file.write_all(b"content")), Err(Error::File { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
