//! Who writes: a process, told apart from a later one of the same number and from one on another machine.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) host: String,
    pub(super) pid: u32,
    /// When it started, in the system's ticks since it booted: a number may be given again, to a process of another start.
    pub(super) start: u64,
}

impl Owner {
    /// This process.
    pub(super) fn me() -> &'static Owner {
        static ME: OnceLock<Owner> = OnceLock::new();
        ME.get_or_init(|| {
            let pid = std::process::id();
            Owner { host: host(), pid, start: start_of(pid).unwrap_or(0) }
        })
    }

    /// Whether it still runs; `None` if it belongs to another machine, of whose processes nothing is known here.
    pub(super) fn lives(&self) -> Option<bool> {
        (self.host == Self::me().host).then(|| lives(self.pid, self.start))
    }

    /// The machine, for the names of files.
    pub(super) fn host_tag(&self) -> String {
        let mut crc = flate2::Crc::new();
        crc.update(self.host.as_bytes());
        format!("{:08x}", crc.sum())
    }
}

/// Whether process `pid` of this machine runs and began at `start` (0: whenever).
pub(super) fn lives(pid: u32, start: u64) -> bool {
    match start_of(pid) {
        Some(own) => start == 0 || own == start,
        None => !cfg!(target_os = "linux") && exists(pid),
    }
}

/// When a process of this machine started, if there is one and the system tells.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold anything; the start is the 22nd.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(unix)]
fn exists(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: signal 0 is sent to nobody; the call only looks whether the process is there.
    let found = unsafe { libc::kill(pid, 0) };
    found == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

#[cfg(not(unix))]
fn exists(_pid: u32) -> bool {
    // Nothing is known: what may belong to the living stays.
    true
}

#[cfg(unix)]
fn host() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is as long as is said, and one byte more stays zero.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) } != 0;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    if failed { "unknown".into() } else { String::from_utf8_lossy(&name[..end]).into_owned() }
}

#[cfg(not(unix))]
fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_dead() {
        let me = Owner::me();
        assert_eq!(me.lives(), Some(true));
        assert_eq!(Owner { start: me.start + 1, ..me.clone() }.lives(), Some(!cfg!(target_os = "linux")));
        assert_eq!(Owner { host: "elsewhere".into(), ..me.clone() }.lives(), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert_eq!(Owner { pid, start: 0, ..me.clone() }.lives(), Some(false));
    }
}
