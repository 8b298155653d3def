//! Cases one after the other: while one is computed the next is read and the last is written, where the memory admits it.
//!
//! At most one scan is ahead and one answer behind. Both are weighed beforehand, by headers: what does not fit the memory budget
//! beside the case that is computed is not read ahead, or is written before that case begins. Cases end in their order, so that
//! messages and summaries do not tell the two ways apart.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use serde_json::Value;

use super::case::{self, Answer};
use super::outputs::Outputs;
use super::plan;
use super::summary::{Summary, line};
use super::{Batch, is_of_case};
use crate::cli::failures::Failures;
use crate::cli::output::{plural, print};
use crate::cli::progress::{ProgressTask, Verbosity};
use crate::data::prefetch::{self, PrefetchLimits};
use crate::data::{Case, Warning};
use crate::device::Target;
use crate::error::{Error, Result};
use crate::infer::InferencePlan;
use crate::interrupt;
use crate::memory::size::host_budget;

/// A case and its files.
pub(super) type Pending<'a> = (&'a Case, Outputs);

/// What may happen while a case is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beside {
    /// The next case is read.
    next: bool,
    /// The last one is written.
    last: bool,
}

/// Weighs the cases: `plans` in their order, `None` where nothing is known; the network's own memory is another one if the
/// device is none of the host's.
fn weigh(plans: &[Option<InferencePlan>], budget: u64, on_host: bool) -> Vec<Beside> {
    let of = |i: Option<usize>| i.and_then(|i| plans.get(i)).and_then(Option::as_ref);
    (0..plans.len())
        .map(|i| {
            let Some(own) = of(Some(i)) else { return Beside { next: false, last: false } };
            let running = if on_host { own.running_bytes() } else { own.host_bytes };
            // Its scan is brought to the network's grid first.
            let own = running.max(own.reading_bytes);
            let writing = of(i.checked_sub(1)).map_or(0, |last| last.writing_bytes);
            let known = i == 0 || of(i.checked_sub(1)).is_some();
            let last = known && own.saturating_add(writing) <= budget;
            let taken = own.saturating_add(if last { writing } else { 0 });
            let next = of(Some(i + 1)).is_some_and(|next| taken.saturating_add(next.reading_bytes) <= budget);
            Beside { next, last }
        })
        .collect()
}

/// A case whose files are being written on another thread.
struct Behind<'scope> {
    index: usize,
    warnings: Vec<Warning>,
    written: Written<'scope>,
}

enum Written<'scope> {
    Soon(ScopedJoinHandle<'scope, Result<Value>>),
    Now(Result<Value>),
}

/// Where the ends of cases are told.
struct Course<'a> {
    batch: &'a Batch,
    pending: &'a [Pending<'a>],
    folder: &'a Path,
    summary: &'a mut Summary,
    failures: &'a mut Failures,
    broken: &'a mut Vec<String>,
    bar: ProgressTask,
    done: usize,
}

impl Course<'_> {
    /// Waits for the case that is being written, and tells of it.
    fn settle(&mut self, behind: &mut Option<Behind<'_>>) -> Result<()> {
        let Some(Behind { index, warnings, written }) = behind.take() else { return Ok(()) };
        let written = match written {
            Written::Now(written) => written,
            Written::Soon(handle) => handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        };
        let mut entry = match written {
            Ok(entry) => entry,
            Err(error) => return self.fail(index, error),
        };
        let (case, outputs) = &self.pending[index];
        if !warnings.is_empty() {
            entry["warnings"] = warnings.into_iter().map(|warning| warning.problem).collect();
        }
        self.done += 1;
        self.bar.advance(&case.name);
        if !self.batch.args.run.json {
            print(line(&entry, outputs))?;
        }
        self.summary.add(&case.name, entry)
    }

    /// A case that came to nothing.
    fn fail(&mut self, index: usize, error: Error) -> Result<()> {
        let case = self.pending[index].0;
        if let Error::Interrupted(_) = error {
            return Err(Error::Interrupted(self.told()));
        }
        let (passed, problem) = (is_of_case(&error, case, self.folder), error.to_string());
        self.failures.pass_over(&case.name, error, passed)?;
        self.summary.fail(&case.name, problem);
        self.broken.push(case.name.clone());
        self.done += 1;
        self.bar.advance(&case.name);
        Ok(())
    }

    /// How far the work is.
    fn told(&self) -> String {
        let all = plural(self.pending.len(), "scan");
        format!("{} of {all} segmented; add --resume to the command to go on", self.done)
    }
}

impl Batch {
    /// Segments and writes the cases in their order. One that cannot be used goes to `failures`, `broken` and the summary.
    pub(super) fn segment(
        &self,
        pending: &[Pending<'_>],
        folder: &Path,
        summary: &mut Summary,
        failures: &mut Failures,
        broken: &mut Vec<String>,
    ) -> Result<()> {
        let verbosity = self.args.run.verbosity();
        let plans = self.plans(pending, verbosity);
        let beside = self.beside(&plans);
        let (ahead, behind) = (count(&beside, |beside| beside.next), count(&beside, |beside| beside.last));
        if self.args.run.verbose() {
            let scans = plural(pending.len(), "scan");
            verbosity.say(format!(
                "of {scans} {ahead} are read ahead, and {behind} computed while the one before is written"
            ));
        }
        let bar = verbosity.task("segmenting", pending.len() as u64);
        let mut course = Course { batch: self, pending, folder, summary, failures, broken, bar, done: 0 };
        let task = self.networks.task();
        let made = |index: u64| {
            let index = index as usize;
            let early = index > 0 && beside[index - 1].next;
            early.then(|| case::read(task, pending[index].0))
        };
        let limits = PrefetchLimits { items: if ahead > 0 { 2 } else { 1 }, threads: 1 };
        std::thread::scope(|scope| {
            prefetch::ahead(0..pending.len() as u64, limits, made, |queue| {
                let mut behind = None;
                for (index, (case, outputs)) in pending.iter().enumerate() {
                    if interrupt::check(String::new).is_err() {
                        course.settle(&mut behind)?;
                        return interrupt::check(|| course.told());
                    }
                    if !beside[index].last {
                        course.settle(&mut behind)?;
                    }
                    let read = queue.next().flatten().unwrap_or_else(|| case::read(task, case));
                    let mut warnings = Vec::new();
                    let mut passed = course.bar.within(&case.name, plans[index].as_ref().map_or(0, |plan| plan.passes));
                    let mut tick = || {
                        passed();
                        interrupt::check_now(String::new)
                    };
                    let mut warn = |warning| warnings.push(warning);
                    let answer = read.and_then(|read| self.answer(case, outputs, read, &mut tick, &mut warn));
                    drop(passed);
                    // The last case ends before this one is heard of.
                    course.settle(&mut behind)?;
                    warnings.iter().for_each(|warning| verbosity.warn(warning));
                    match answer {
                        Ok(answer) => {
                            let written = written(scope, task, outputs, answer);
                            behind = Some(Behind { index, warnings, written });
                        }
                        Err(error) => course.fail(index, error)?,
                    }
                }
                course.settle(&mut behind)
            })
        })?;
        course.bar.finish("done");
        Ok(())
    }

    /// What may happen beside each case.
    fn beside(&self, plans: &[Option<InferencePlan>]) -> Vec<Beside> {
        // A single case has nothing beside it.
        if plans.len() < 2 {
            return vec![Beside { next: false, last: false }; plans.len()];
        }
        let on_host = matches!(self.networks.model().parameters.device().target(), Target::Cpu { .. });
        weigh(plans, host_budget(), on_host)
    }

    /// What each case takes, where that can be known; of a single case of which nothing is told it is not asked.
    fn plans(&self, pending: &[Pending<'_>], verbosity: Verbosity) -> Vec<Option<InferencePlan>> {
        if pending.len() < 2 && verbosity == Verbosity::Quiet {
            return vec![None; pending.len()];
        }
        let mut known: Vec<(_, Option<InferencePlan>)> = Vec::new();
        pending
            .iter()
            .map(|(case, _)| {
                let key = case
                    .grid(self.networks.task().preprocessing.axes)
                    .ok()
                    .map(|(shape, grid)| (shape, grid.spacing()));
                if let Some((_, plan)) = known.iter().find(|(other, _)| *other == key) {
                    return plan.clone();
                }
                let plan = plan::of_case(&self.args, &self.networks, case).ok();
                known.push((key, plan.clone()));
                plan
            })
            .collect()
    }
}

fn count(beside: &[Beside], what: impl Fn(&Beside) -> bool) -> usize {
    beside.iter().filter(|beside| what(beside)).count()
}

/// Writes an answer on another thread, or here if there is none to be had.
fn written<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    task: &'env crate::task::Task,
    outputs: &'env Outputs,
    answer: Answer,
) -> Written<'scope> {
    let cell = std::sync::Arc::new(Mutex::new(Some(answer)));
    let take = |cell: &Mutex<Option<Answer>>| cell.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = cell.clone();
    let spawned = Builder::new().spawn_scoped(scope, move || match take(&theirs) {
        Some(answer) => case::write(task, outputs, answer),
        None => Err(Error::Device("an answer was lost on its way to the disk; report this".into())),
    });
    match spawned {
        Ok(handle) => Written::Soon(handle),
        Err(error) => Written::Now(match take(&cell) {
            Some(answer) => case::write(task, outputs, answer),
            None => Err(Error::Device(format!("no thread can be started ({error}); end other programs"))),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scan whose network takes `running` bytes.
    fn plan(running: u64) -> Option<InferencePlan> {
        Some(InferencePlan {
            shape: [1; 3],
            network_shape: [1; 3],
            passes: 1,
            strips: 1,
            engine_bytes: running - 10,
            host_bytes: 10,
            reading_bytes: 20,
            scan_bytes: 10,
            writing_bytes: 5,
        })
    }

    #[test]
    fn what_does_not_fit_waits() {
        let plans = [plan(50), plan(80), None, plan(50)];
        let told = |budget, on_host| -> Vec<_> {
            weigh(&plans, budget, on_host).into_iter().map(|beside| (beside.next, beside.last)).collect()
        };
        // Of a case that nothing is known of nothing is read ahead, and nothing is done beside it.
        assert_eq!(told(105, true), [(true, true), (false, true), (false, false), (false, false)]);
        assert_eq!(told(84, true), [(true, true), (false, false), (false, false), (false, false)]);
        assert_eq!(told(69, true), [(false, true), (false, false), (false, false), (false, false)]);
        // A GPU's bytes are others; scans are read into the host's all the same.
        assert_eq!(told(45, false), [(true, true), (false, true), (false, false), (false, false)]);
        assert_eq!(weigh(&[plan(50), plan(50), plan(50)], 75, true)[1], Beside { next: true, last: true });
        // The answer that is written comes before the scan that is read.
        assert_eq!(weigh(&[plan(50), plan(50), plan(50)], 74, true)[1], Beside { next: false, last: true });
        assert_eq!(weigh(&[plan(50), plan(50), plan(50)], 54, true)[1], Beside { next: false, last: false });
    }
}
