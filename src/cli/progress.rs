//! Progress on standard error: a bar on a terminal, plain lines in a log, JSON for programs, nothing when quiet.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use super::output::note;
use crate::data::Warning;
use crate::text::{plural, visible_line};

/// Seconds between plain lines in a log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Between two looks at the clock of a bar.
const TICK: Duration = Duration::from_millis(500);

/// The bar that is on the terminal, if one is: whatever else is written comes above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Runs `write`, which writes whole lines to the terminal, while no bar is on it.
pub fn above_bars<R>(write: impl FnOnce() -> R) -> R {
    let shown = SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    match shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Nothing.
    Quiet,
    /// Lines, for logs.
    Lines,
    /// Bars, for terminals.
    Bars,
    /// An object a line, for programs: of every step, message and warning.
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// An object a line on standard error
    Json,
}

impl Verbosity {
    /// Bars if standard error is a terminal, else lines; nothing if `quiet`.
    pub fn detect(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars,
            (false, false) => Self::Lines,
        }
    }

    /// A line that is always worth saying.
    pub fn say(self, line: impl AsRef<str>) {
        match self {
            Self::Quiet => {}
            Self::Json => note(json!({ "message": line.as_ref() }).to_string()),
            Self::Lines | Self::Bars => note(line),
        }
    }

    /// Something to look at that does not stop the work. Two steps of a command may find it; it is told once.
    pub fn warn(self, warning: &Warning) {
        static TOLD: Mutex<BTreeSet<(PathBuf, String)>> = Mutex::new(BTreeSet::new());
        // One step may know a file by its whole path and another by where the user stands.
        let path = std::path::absolute(&warning.path).unwrap_or_else(|_| warning.path.clone());
        let told = (path, warning.problem.clone());
        if !TOLD.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(told) {
            return;
        }
        match self {
            Self::Json => note(json!({ "warning": warning.to_string() }).to_string()),
            _ => self.say(format!("warning: {warning}")),
        }
    }

    /// The driver has compiled `done` kernels of `all` that were asked for, and takes long.
    pub fn compiling(self, done: usize, all: usize) {
        match (self, done == all) {
            (Self::Bars, over) => {
                let line = if over { String::new() } else { format!("compiling kernels, {done} of {all}") };
                let mut terminal = std::io::stderr().lock();
                // Nobody can be told that standard error takes nothing.
                let _ = write!(terminal, "\r\x1b[2K{line}").and_then(|()| terminal.flush());
            }
            (_, true) => self.say(format!("compiled {all} kernels, which the driver keeps (docs/cuda.md)")),
            (_, false) => {}
        }
    }

    /// A task of `length` steps.
    pub fn task(self, name: &str, length: u64) -> ProgressTask {
        let bar = match self {
            Self::Bars => ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()),
            _ => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{prefix:>18} {bar:20} {pos:>5}/{len} {elapsed} {left}{wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        // Before the first step nobody knows how long one takes.
        let left = |state: &ProgressState, out: &mut dyn fmt::Write| {
            let unknown = state.pos() == 0;
            let _ = if unknown { Ok(()) } else { write!(out, "(left {:#}) ", HumanDuration(state.eta())) };
        };
        bar.set_style(style.with_key("left", left));
        bar.set_prefix(visible_line(name).into_owned());
        if self == Self::Bars {
            bar.enable_steady_tick(TICK);
            *SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(bar.clone());
        }
        ProgressTask {
            verbosity: self,
            name: name.into(),
            length,
            position: 0,
            bar,
            started: Instant::now(),
            said: None,
        }
    }
}

/// One bar.
pub struct ProgressTask {
    verbosity: Verbosity,
    name: String,
    length: u64,
    position: u64,
    bar: ProgressBar,
    started: Instant,
    said: Option<Instant>,
}

impl ProgressTask {
    /// One step further.
    pub fn advance(&mut self, message: &str) {
        self.position += 1;
        self.bar.set_position(self.position);
        self.bar.set_message(visible_line(message).into_owned());
        let due = self.said.is_none_or(|said| said.elapsed() >= LOG_EVERY);
        let each = self.verbosity == Verbosity::Json;
        if (each || self.verbosity == Verbosity::Lines && due) && self.position < self.length {
            self.said = Some(Instant::now());
            self.line(message);
        }
    }

    /// To be called after each piece of a step that takes long, `name`, so that it is seen to move: tells how many there were,
    /// and of `all`, if that is known (not 0), how long the rest takes.
    pub fn within<'a>(&'a mut self, name: &'a str, all: u64) -> impl FnMut() + 'a {
        let (mut pieces, begin) = (0u64, Instant::now());
        move || {
            pieces += 1;
            // The first waits for the encoder: it says nothing of the others.
            let message = if (2..=all).contains(&pieces) {
                let left = begin.elapsed().mul_f64((all - pieces) as f64 / pieces as f64).as_secs_f64();
                format!("{pieces}/{all} passes (left {left:.0} s), {name}")
            } else {
                format!("{name}, {}", plural(pieces as usize, "pass"))
            };
            self.bar.set_message(visible_line(&message).into_owned());
            self.bar.tick();
            let spoken = matches!(self.verbosity, Verbosity::Lines | Verbosity::Json);
            if spoken && self.said.unwrap_or(self.started).elapsed() >= LOG_EVERY {
                self.said = Some(Instant::now());
                self.line(&message);
            }
        }
    }

    /// Says how many steps there are, once that is known.
    pub fn set_length(&mut self, length: u64) {
        self.length = length;
        self.bar.set_length(length);
    }

    /// Starts at `position`, as a resumed run does.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// The last word.
    pub fn finish(self, message: &str) {
        self.clear();
        if self.verbosity != Verbosity::Quiet {
            self.line(message);
        }
    }

    fn clear(&self) {
        if self.verbosity == Verbosity::Bars {
            *SHOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
            self.bar.finish_and_clear();
        }
    }

    fn line(&self, message: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        if self.verbosity == Verbosity::Json {
            let Self { name, position, length, .. } = self;
            let line = json!({ "task": name, "done": position, "of": length, "seconds": seconds, "message": message });
            return note(line.to_string());
        }
        note(format!("{}: {}/{} after {seconds:.0} s, {message}", self.name, self.position, self.length));
    }
}

/// An error, too, is written below what was done, not upon it.
impl Drop for ProgressTask {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_is_seen_to_move() {
        let mut task = Verbosity::Quiet.task("evaluating", 3);
        task.advance("case_0");
        {
            let mut pulse = task.within("case_1", 0);
            (0..2).for_each(|_| pulse());
        }
        assert_eq!((task.position, task.bar.position(), task.bar.message().as_str()), (1, 1, "case_1, 2 passes"));
        for (calls, told) in [(1, "case_1, 1 pass"), (4, "4/4 passes (left 0 s), case_1"), (5, "case_1, 5 passes")] {
            let mut pulse = task.within("case_1", 4);
            (0..calls).for_each(|_| pulse());
            drop(pulse);
            assert_eq!(task.bar.message(), told);
        }
    }
}
