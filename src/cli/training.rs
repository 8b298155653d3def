//! What the training commands share: cases in memory, a run to its end, the scores.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::output::{NAME_A_FOLDER, check_folder_name};
use super::progress::{self, Verbosity};
use crate::checkpoint::model;
use crate::data::{Dataset, Folds, Labels, Scanned, Warning, embedded, validate};
use crate::error::{Error, Result};
use crate::evaluate::metrics::ScoreRule;
use crate::files::RunFolder;
use crate::files::name::text_of;
use crate::infer::{Search, SegmenterOptions};
use crate::memory::format_bytes;
use crate::models::{Architecture, Network, NetworkConfig};
use crate::nn::Parameters;
use crate::plan::duration;
use crate::report::{CaseScore, count};
use crate::task::{PadTo, PreparedCase, Task};
use crate::train::case_source::{CaseSource, OnDisk};
use crate::train::config::{DataSource, RunConfig, SAMPLE};
use crate::train::run::{OomHandler, Run, RunObserver, SAVE_EVERY};
use crate::train::trainer::Trainer;
use crate::train::validation::Validation;
use crate::{evaluate, infer, interrupt};

/// The data set that a run's configuration names.
pub fn open_dataset(data: &DataSource<'_>, seed: u64) -> Result<Dataset> {
    match data {
        DataSource::Folder(folder) => Dataset::open(folder, seed),
        DataSource::Embedded(task) => embedded::open(task),
    }
}

/// The data set of a run as it divides it; where every fold validates in turn, as the first of them does.
pub fn open_divided(config: &RunConfig) -> Result<Dataset> {
    let mut dataset = open_dataset(&config.data(), config.seed)?;
    if config.folds > 0 {
        Folds::of(&dataset, config.folds, config.seed)?.apply(&mut dataset, config.fold.max(1));
    }
    dataset.ignore_geometry = config.preprocessing.ignore_geometry;
    Ok(dataset)
}

/// As [`open_folder`], with the cases that are incomplete instead of an error of the first.
pub fn scan_folder(folder: Option<&Path>, seed: u64) -> Result<Scanned> {
    match DataSource::of(&folder.map_or(format!("{SAMPLE}heads"), text_of)) {
        DataSource::Folder(folder) => Dataset::scan(&folder, seed),
        DataSource::Embedded(task) => Ok(Scanned { dataset: embedded::open(task)?, problems: Vec::new() }),
    }
}

/// The data set in `folder` (or the embedded `sample:TASK`), or the embedded heads.
pub fn open_folder(folder: Option<&Path>, seed: u64) -> Result<Dataset> {
    let heads = format!("{SAMPLE}heads");
    open_dataset(&DataSource::of(&folder.map_or(heads, text_of)), seed)
}

/// The folder of a run: `out`, which must be new, empty or (`is_unfinished`) hold a run to go on with; without it the next
/// numbered folder in `runs/`.
pub fn output_folder(
    out: Option<&Path>,
    command: &str,
    is_unfinished: impl FnOnce(&Path) -> bool,
) -> Result<RunFolder> {
    match out {
        Some(folder) => {
            check_folder_name(folder, NAME_A_FOLDER)?;
            RunFolder::claim(folder, is_unfinished)
        }
        None => RunFolder::numbered("runs", command),
    }
}

/// The grid that all training cases of a data set share, if they do.
fn shared_shape(dataset: &Dataset, task: &Task, grid: PadTo) -> Result<Option<[usize; 3]>> {
    match grid {
        PadTo::Largest => task.largest(dataset).map(Some),
        grid => Ok(grid.shape()),
    }
}

/// All cases of a data set in memory: training, on `grid`, and validation, on the same if it is given and each on its own if
/// not: what a network needs around them [`infer::Segmenter`] adds. All headers are looked at before the first voxel.
///
/// # Errors
/// The first case that cannot be used.
pub fn load_cases(
    dataset: &Dataset,
    task: &Task,
    grid: PadTo,
    verbosity: Verbosity,
) -> Result<(Vec<PreparedCase>, Vec<PreparedCase>)> {
    dataset.check_headers()?;
    load_with(dataset, task, grid, verbosity, |_, error| Err(error))
}

/// As [`load_cases`]; a case that cannot be used is left out if `pass_over` agrees.
///
/// # Errors
/// What `pass_over` gives back.
pub fn load_with(
    dataset: &Dataset,
    task: &Task,
    grid: PadTo,
    verbosity: Verbosity,
    mut pass_over: impl FnMut(&crate::data::Case, Error) -> Result<()>,
) -> Result<(Vec<PreparedCase>, Vec<PreparedCase>)> {
    dataset.warnings.iter().for_each(|warning| verbosity.warn(warning));
    let shape = shared_shape(dataset, task, grid)?;
    let mut warnings = Vec::new();
    let mut load = |cases: &[crate::data::Case], shape| {
        let mut prepared = Vec::new();
        for case in cases {
            let read = dataset.read(case, task.preprocessing.axes).and_then(|mut scan| {
                warnings.append(&mut scan.warnings);
                task.prepare(scan, shape)
            });
            match read {
                Ok(case) => prepared.push(case),
                Err(error) => pass_over(case, error)?,
            }
        }
        Ok::<_, Error>(prepared)
    };
    let cases =
        load(&dataset.training, shape).and_then(|training| Ok((training, load(&dataset.validation, grid.shape())?)));
    validate::grouped(warnings).iter().for_each(|warning| verbosity.warn(warning));
    cases
}

/// Training and validation cases of a data set: in memory if they take at most `bytes` there, else on disk, from which they
/// are read as they are needed.
pub fn open_feeds(
    dataset: &Dataset,
    task: &Task,
    grid: PadTo,
    bytes: u64,
    verbosity: Verbosity,
) -> Result<(Box<dyn CaseSource>, Box<dyn CaseSource>)> {
    dataset.check_headers()?;
    let shape = shared_shape(dataset, task, grid)?;
    let (held, largest) = task.held_bytes(dataset, shape)?;
    if held <= bytes {
        let (training, validation) = load_cases(dataset, task, grid, verbosity)?;
        return Ok((Box::new(training), Box::new(validation)));
    }
    dataset.warnings.iter().for_each(|warning| verbosity.warn(warning));
    let (held, bytes) = (format_bytes(held), format_bytes(bytes));
    verbosity
        .say(format!("the cases would take {held} of memory, more than {bytes}: they are read as they are needed"));
    let feed = |cases: &[crate::data::Case], shape| OnDisk::new(dataset, cases, task, shape, largest);
    Ok((Box::new(feed(&dataset.training, shape)), Box::new(feed(&dataset.validation, grid.shape()))))
}

/// The least common multiple, axis by axis, of what several networks need.
pub fn common_multiples(networks: &[NetworkConfig]) -> [usize; 3] {
    networks.iter().fold([1; 3], |common, network| {
        let own = network.multiples();
        [0, 1, 2].map(|axis| lcm(common[axis], own[axis]))
    })
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}

/// The checkpoint of a model in a run's folder. An earlier version called that of a small variant by the published name.
pub fn checkpoint_path(folder: &Path, network: &NetworkConfig) -> PathBuf {
    let slug = network.slug();
    let [path, earlier] =
        [&*slug, slug.trim_end_matches("-small")].map(|name| folder.join(format!("{name}.safetensors")));
    let held = || model::network_of(&earlier).is_ok_and(|held| held.slug() == slug);
    if path != earlier && !path.exists() && earlier.exists() && held() { earlier } else { path }
}

/// Refuses cases that a network learns nothing from.
///
/// # Errors
/// [`Error::Data`] if there are none, or all of them hold nothing but background.
pub fn check_trainable(dataset: &Dataset, task: &Task, training: &dyn CaseSource, verbosity: Verbosity) -> Result<()> {
    if training.is_empty() {
        return Err(Error::data(&dataset.path, "has no training case", "give a data set with labelled cases"));
    }
    warn_of_absent_classes(dataset, task, training, verbosity)?;
    for index in 0..training.len() {
        let case = training.case(index)?;
        if case
            .labels
            .as_ref()
            .is_some_and(|labels| labels.voxels.iter().any(|&class| class > 0 && class != Labels::IGNORED))
        {
            return Ok(());
        }
    }
    Err(Error::data(
        &dataset.path,
        "has no training case with foreground: there is nothing to learn",
        "check the label files",
    ))
}

/// Says which classes no training case holds, where that costs no reading.
fn warn_of_absent_classes(
    dataset: &Dataset,
    task: &Task,
    training: &dyn CaseSource,
    verbosity: Verbosity,
) -> Result<()> {
    if training.reading_bytes() > 0 {
        return Ok(());
    }
    let mut held = [0; 256];
    for index in 0..training.len() {
        if let Some(labels) = &training.case(index)?.labels {
            held.iter_mut().zip(labels.histogram()).for_each(|(held, voxels)| *held += voxels);
        }
    }
    let names = task.class_names.iter().enumerate().skip(1).filter(|(class, _)| held[*class] == 0);
    let absent: Vec<&str> = names.map(|(_, name)| name.as_str()).collect();
    if !absent.is_empty() && absent.len() + 1 < task.class_names.len() {
        let problem = format!("no training case holds the class {}: nothing is learnt of it", absent.join(", "));
        verbosity.warn(&Warning::new(&dataset.path, problem));
    }
    Ok(())
}

/// Trains to the end with a progress bar. The checkpoint at `path` is saved at the end, every minute until then, and after
/// an interrupt, whose error says how to go on: `again`.
pub fn train_to_end(
    trainer: &mut Trainer,
    training: &dyn CaseSource,
    task: &Task,
    path: &Path,
    oom_handler: OomHandler<'_>,
    mut progress: Progress,
    again: &str,
) -> Result<()> {
    let none = Vec::new();
    let mut run = Run {
        training,
        validation: &none,
        task,
        checkpoint: path,
        save_every: SAVE_EVERY,
        begin: None,
        journal: None,
        oom_handler,
    };
    interruptible(run.to_end(trainer, &mut progress), again)?;
    progress.finish(trainer);
    Ok(())
}

/// The outcome of a run; after an interrupt it says how to go on.
pub fn interruptible(outcome: Result<()>, again: &str) -> Result<()> {
    match outcome {
        Err(Error::Interrupted(progress)) => Err(Error::Interrupted(format!("{progress} and saved; {again}"))),
        outcome => outcome,
    }
}

/// A run's progress on the terminal.
pub struct Progress {
    verbosity: Verbosity,
    bar: progress::ProgressTask,
    per_epoch: u64,
    epochs: u64,
    /// Steps left before the end of the run is estimated, and when they began.
    estimating: Option<(u64, Instant)>,
}

/// Steps that the end of a run is estimated from; the first one, which touches every page, is not among them.
const ESTIMATED_FROM: u64 = 5;

impl Progress {
    /// Of `trainer` over `cases` cases, from where it stands.
    pub fn new(verbosity: Verbosity, trainer: &Trainer, cases: usize) -> Self {
        let (per_epoch, epochs) = (trainer.steps_per_epoch(cases), trainer.settings().epochs);
        let mut bar = verbosity.task(&trainer.network().architecture().title(), trainer.total_steps(cases));
        bar.set_position(trainer.optimizer().steps());
        Self { verbosity, bar, per_epoch, epochs, estimating: None }
    }

    /// Says after the first steps when the last is expected.
    pub fn estimate_end(&mut self) {
        self.estimating = Some((ESTIMATED_FROM + 1, Instant::now()));
    }

    fn note_step(&mut self, trainer: &Trainer) {
        let Some((waiting, since)) = &mut self.estimating else { return };
        *waiting -= 1;
        if *waiting == ESTIMATED_FROM {
            *since = Instant::now();
        }
        if *waiting > 0 {
            return;
        }
        let each = since.elapsed().as_secs_f64() / ESTIMATED_FROM as f64;
        let (done, all) = (trainer.optimizer().steps(), self.epochs.saturating_mul(self.per_epoch));
        let left = duration(each * all.saturating_sub(done) as f64);
        let line = format!("expected end  in {left}: {each:.3} s a step, {done} of {} done", count(all));
        self.verbosity.say(line);
        self.estimating = None;
    }

    /// The last word.
    pub fn finish(self, trainer: &Trainer) {
        self.bar.finish(&format!("loss {:.4}", trainer.recent_loss(self.per_epoch)));
    }
}

impl RunObserver for Progress {
    fn stepped(&mut self, trainer: &Trainer) {
        self.note_step(trainer);
        self.bar.advance(&format!("loss {:.4}", trainer.recent_loss(self.per_epoch)));
    }

    fn validated(&mut self, found: &Validation) {
        let Validation { epoch, dice, iou, .. } = found;
        let line = format!("epoch {epoch}/{}: validation Dice {dice:.4}, IoU {iou:.4}", self.epochs);
        self.verbosity.say(line);
    }
}

/// Segments and scores labelled cases, with a progress bar that moves within a case too: scores and predictions, case by case.
/// With `dense` every voxel is asked.
///
/// # Errors
/// [`Error::Interrupted`], which says how to go on (`again`), a case that does not fit, or no memory.
pub fn score_cases(
    network: &dyn Network,
    parameters: &Parameters,
    task: &Task,
    cases: &dyn CaseSource,
    dense: bool,
    verbosity: Verbosity,
    again: &str,
) -> Result<Vec<(CaseScore, Labels)>> {
    let rule = if network.architecture().is_reference() { ScoreRule::REFERENCE } else { ScoreRule::DEFAULT };
    let mut bar = verbosity.task("evaluating", cases.len() as u64);
    let mut scored = Vec::new();
    for index in 0..cases.len() {
        let done = scored.len();
        let told = || format!("{done} of {} cases are scored; {again}", cases.len());
        interrupt::check(told)?;
        let case = cases.case(index)?;
        let predicted = {
            let mut pulse = bar.within(&case.name, 0);
            let mut tick = || {
                pulse();
                interrupt::check(told)
            };
            infer::segment(network, parameters, task, &case, scoring(network, dense), &mut tick)?
        };
        scored.push((evaluate::score(task, &case, &predicted, rule)?, predicted));
        bar.advance(&case.name);
    }
    bar.finish("done");
    Ok(scored)
}

/// How a network answers for its score.
pub fn scoring(network: &dyn Network, dense: bool) -> SegmenterOptions {
    let usual = SegmenterOptions::of(network.architecture());
    SegmenterOptions { search: if dense { Search::dense() } else { usual.search.clone() }, ..usual }
}
