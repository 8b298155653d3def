//! One process for each of several CUDA devices, started by this one as a launcher would: it computes nothing itself.

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::output::note_after;
use crate::device::collective::{Launch, RENDEZVOUS};
use crate::error::{Error, Result};
use crate::interrupt;

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the others may take to end by themselves, with a line that says why, when one has failed.
const GRACE: Duration = Duration::from_secs(6);

/// Exit status of a process that signal 0 would have ended, as shells count.
const SIGNALLED: i32 = 128;

/// Runs this program's own command line once for each of `devices`; the exit status of the first that has failed, or 0.
///
/// # Errors
/// A process that cannot be started.
pub fn run_on(devices: &[usize]) -> Result<u8> {
    // Free a moment ago: the first process takes it at once.
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let port =
        port.map_err(|error| Error::Device(format!("no free port on this machine ({error}); try again")))?.port();
    let mut children: Vec<Child> = Vec::new();
    for rank in 0..devices.len() {
        match start(rank, devices.len(), port) {
            Ok(child) => children.push(child),
            Err(error) => {
                children.iter_mut().for_each(end);
                return Err(Error::Device(format!(
                    "cannot start a process for each device ({error}); start one process"
                )));
            }
        }
    }
    let (mut ended, mut level, mut failed) = (vec![None; devices.len()], 0, None);
    loop {
        for (child, ended) in children.iter_mut().zip(&mut ended) {
            *ended = ended.or_else(|| child.try_wait().ok().flatten());
        }
        if failed.is_none() {
            failed = first_failure(&ended).map(|rank| (rank, Instant::now()));
        }
        if ended.iter().all(Option::is_some) {
            break;
        }
        if failed.is_some_and(|(_, since)| since.elapsed() > GRACE) {
            children.iter_mut().for_each(end);
        }
        let now = interrupt::level();
        if now > level {
            level = now;
            let alive = children.iter().zip(&ended).filter(|(_, ended)| ended.is_none());
            alive.for_each(|(child, _)| pass_on(child, level));
        }
        std::thread::sleep(PAUSE);
    }
    let Some((rank, _)) = failed else { return Ok(0) };
    // A process that has failed by itself has said why, and so have the others when one died beside them.
    if ended.iter().flatten().all(|status| status.success() || status.code().is_none()) {
        let problem = format!("rank {rank} (CUDA device {}) has died ({})", devices[rank], reason(ended[rank]));
        note_after("ossnet: ", format!("{problem}, and ended all; go on with --resume"));
    }
    Ok(ended[rank].map_or(1, code))
}

/// The process that has failed; of several one that a signal has ended, as it took the others with it.
fn first_failure(ended: &[Option<ExitStatus>]) -> Option<usize> {
    let find = |is_it: fn(&ExitStatus) -> bool| ended.iter().position(|status| status.as_ref().is_some_and(is_it));
    find(|status| status.code().is_none()).or_else(|| find(|status| !status.success()))
}

/// A process's exit status as a shell would count it.
fn code(status: ExitStatus) -> u8 {
    status.code().unwrap_or_else(|| SIGNALLED + signal(status)) as u8
}

fn reason(status: Option<ExitStatus>) -> String {
    status.map_or_else(String::new, |status| status.to_string())
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> i32 {
    std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> i32 {
    0
}

/// Process number `rank`, with the variables of torchrun.
fn start(rank: usize, size: usize, port: u16) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut arguments = std::env::args_os();
    let own = arguments.next();
    command.args(arguments).stdin(Stdio::null());
    // Else a launcher of this one process would be heard first.
    Launch::sizes().for_each(|name| _ = command.env_remove(name));
    for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", size), ("LOCAL_WORLD_SIZE", size)] {
        command.env(name, value.to_string());
    }
    command.env(RENDEZVOUS, format!("127.0.0.1:{port}"));
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        // As it was called: under that name Python finds its environment.
        own.map(|own| command.arg0(own));
        // Ctrl-C of a terminal reaches this process alone, which passes it on once.
        command.process_group(0);
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        // SAFETY: one system call between fork and exec: the process ends with this one, however that ends.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
    command.spawn()
}

/// Ends a process that does not end by itself. One that has ended already is no failure.
fn end(child: &mut Child) {
    let _ = child.kill();
}

/// Sends a process the signal that asks for what this one was asked for.
#[cfg(unix)]
fn pass_on(child: &Child, level: u8) {
    let signal = if level > 1 { libc::SIGINT } else { libc::SIGTERM };
    // SAFETY: a child that was not waited for: its number is no other's.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

#[cfg(not(unix))]
fn pass_on(_: &Child, _: u8) {}
