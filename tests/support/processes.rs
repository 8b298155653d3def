//! Runs of several processes, one of which is sent a signal.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cli::Outcome;

/// The lines that tell of an error.
pub fn errors(outcome: &Outcome) -> Vec<&str> {
    outcome.err.lines().filter(|line| line.starts_with("ossnet: ")).collect()
}

/// The process below `launcher` that has `variable`, `NAME=value`, in its environment.
fn process(launcher: &Child, variable: &str) -> Option<i32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
        let variables = fs::read(entry.path().join("environ")).ok()?;
        let is_it = parent == launcher.id().to_string()
            && variables.split(|&byte| byte == 0).any(|own| own == variable.as_bytes());
        is_it.then_some(pid)
    })
}

/// Starts `command`, waits for the file `begun`, and sends `signal` to the process with `variable` in its environment, or to the
/// one that was started. How all ends, and seconds from the signal on.
pub fn signalled(command: &mut Command, begun: &Path, signal: i32, variable: Option<&str>) -> (Outcome, f64) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while !begun.exists() {
        assert!(started.elapsed() < Duration::from_secs(300), "no {}", begun.display());
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    let target = variable.map_or(child.id() as i32, |variable| process(&child, variable).expect("that process"));
    let sent = Instant::now();
    // SAFETY: a signal to a process that this test has started.
    assert_eq!(unsafe { libc::kill(target, signal) }, 0);
    let outcome = child.wait_with_output().unwrap();
    (outcome.into(), sent.elapsed().as_secs_f64())
}
