//! Names of files that are being written, and what becomes of those whose writer died.
//!
//! A temporary is called `.NAME.HOST-PID-START-COUNT.tmp` and lies beside the file that it will be. Whoever writes into a
//! folder for the first time removes from it what dead writers left, and nothing of the living.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::owner::{self, Owner};

/// Age from which on a temporary of another machine is taken for a dead one's.
const FOREIGN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Most characters of a file's name in its temporary's: systems allow 255 bytes in all.
const NAME: usize = 40;

/// A name in the folder of `path` that no other writer of this or another process uses.
pub(super) fn beside(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name =
        path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "this is not the name of a file"))?;
    let name: String = name.to_string_lossy().chars().take(NAME).collect();
    let (me, count) = (Owner::me(), COUNTER.fetch_add(1, Ordering::Relaxed));
    Ok(path.with_file_name(format!(".{name}.{}-{}-{}-{count}.tmp", me.host_tag(), me.pid, me.start)))
}

/// Removes what dead writers left in `folder`, once a process.
pub(super) fn clean_once(folder: &Path) {
    static CLEAN: Mutex<Option<HashSet<OsString>>> = Mutex::new(None);
    let mut clean = CLEAN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if clean.get_or_insert_default().insert(folder.into()) {
        drop(clean);
        remove_dead(folder);
    }
}

/// Removes what dead writers left in `folder`. Best effort: leftovers harm nobody.
pub fn remove_dead(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if is_dead(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Whether `path` is the temporary of a writer that is not alive.
fn is_dead(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(tag) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")) else { return false };
    let Some((_, tag)) = tag.rsplit_once('.') else { return false };
    let number = |text: &str| text.parse::<u64>().ok();
    let pid = |text: &str| text.parse::<u32>().ok();
    match tag.split('-').collect::<Vec<_>>()[..] {
        [host, process, start, count] if number(count).is_some() => {
            let (Some(process), Some(start)) = (pid(process), number(start)) else { return false };
            match host == Owner::me().host_tag() {
                true => !owner::lives(process, start),
                false => host.len() == 8 && u32::from_str_radix(host, 16).is_ok() && is_old(path),
            }
        }
        // As earlier versions called them.
        [process, count] if number(count).is_some() => pid(process).is_some_and(|pid| !owner::lives(pid, 0)),
        _ => false,
    }
}

fn is_old(path: &Path) -> bool {
    let changed = path.symlink_metadata().and_then(|data| data.modified()).ok();
    changed.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > FOREIGN_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn the_deads_go_and_the_livings_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let me = Owner::me();
        let (tag, pid) = (me.host_tag(), me.pid);
        let own = beside(&folder.path().join("a.json")).unwrap();
        let stay = [
            own.file_name().unwrap().to_str().unwrap().to_string(),
            format!(".a.json.{pid}-3.tmp"),
            // Of another machine, and young.
            format!(".a.json.00000000-{dead}-7-3.tmp"),
            // Of other programs.
            format!("a.json.{dead}-3.tmp"),
            ".notes.tmp".into(),
            ".a.12-b.tmp".into(),
            ".x.tmp.swp".into(),
        ];
        let go = [
            format!(".a.json.{tag}-{dead}-0-3.tmp"),
            format!(".a.b.nii.gz.{tag}-{pid}-{}-12.tmp", me.start + 1),
            format!(".a.json.{dead}-3.tmp"),
        ];
        for name in stay.iter().chain(&go) {
            fs::write(folder.path().join(name), b"x").unwrap();
        }
        let old = folder.path().join(format!(".a.json.00000001-{dead}-7-3.tmp"));
        fs::write(&old, b"x").unwrap();
        File::options().write(true).open(&old).unwrap().set_modified(SystemTime::now() - 2 * FOREIGN_AGE).unwrap();
        remove_dead(folder.path());
        assert!(!old.exists());
        stay.iter().for_each(|name| assert!(folder.path().join(name).exists(), "{name}"));
        go.iter().for_each(|name| assert!(!folder.path().join(name).exists(), "{name}"));
    }

    #[test]
    fn long_names_have_temporaries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ä".repeat(120));
        fs::write(beside(&path).unwrap(), b"").unwrap();
    }
}
