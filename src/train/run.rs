//! A run from where it stands to its end: steps, validations, checkpoints, journal.
//!
//! A process may be killed at any moment: everything that decides what comes next lies in the last checkpoint, which is
//! replaced as a whole. Whatever was done after it is done again, with the same bits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checkpoint::model::Model;
use crate::error::{Error, Result};
use crate::memory::Phase;
use crate::task::Task;
use crate::train::case_source::CaseSource;
use crate::train::run_log::RunLog;
use crate::train::settings::TrainSettings;
use crate::train::trainer::Trainer;
use crate::train::training_state;
use crate::train::validation::{self, Validation};

/// Time between two checkpoints of one run unless it is told otherwise: what a power cut may cost.
pub const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Who hears of a run's progress.
pub trait RunObserver {
    /// A step was made.
    fn stepped(&mut self, trainer: &Trainer);
    /// A validation was made.
    fn validated(&mut self, validation: &Validation);
}

/// What a run works with.
pub struct Run<'a> {
    /// Cases to train on.
    pub training: &'a dyn CaseSource,
    /// Cases to validate on.
    pub validation: &'a dyn CaseSource,
    /// What the network is asked to do.
    pub task: &'a Task,
    /// The checkpoint that the run goes on from.
    pub checkpoint: &'a Path,
    /// Time between two checkpoints.
    pub save_every: Duration,
    /// Opens the journal at a step, once the process has made its first or is interrupted: a run that fails before leaves
    /// nothing behind.
    pub begin: Option<OpenRunLog<'a>>,
    /// The journal, once it is open.
    pub journal: Option<RunLog>,
    /// What is done where a step does not fit after all.
    pub oom_handler: OomHandler<'a>,
}

/// Told of a trainer whose step did not fit and of the error: the settings to go on with, or the error to end with.
pub type OomHandler<'a> = Box<dyn FnMut(&Trainer, Error) -> Result<TrainSettings> + 'a>;

/// See [`Run::begin`].
pub type OpenRunLog<'a> = Box<dyn FnOnce(u64) -> Result<RunLog> + 'a>;

impl Run<'_> {
    /// Trains until all epochs are done. The checkpoint is saved at the end, at intervals until then, after a validation,
    /// and after an interrupt.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after an interrupt, when all is saved; [`Error::NotFinite`] when the numbers run away, with
    /// the last good checkpoint left in place; no memory; a full disk.
    pub fn to_end(&mut self, trainer: &mut Trainer, watch: &mut dyn RunObserver) -> Result<()> {
        let (training, mut saved) = (self.training, Instant::now());
        let mut result = self.validate_if_due(trainer, watch).map(drop);
        while result.is_ok() {
            result = trainer.train(training, |trainer| {
                let save = saved.elapsed() >= self.save_every;
                // What is shown, scored and kept is of steps whose losses are known.
                if save || trainer.losses().is_empty() || self.is_due(trainer) {
                    trainer.catch_up()?;
                }
                self.open_journal(trainer, trainer.optimizer().steps() - 1)?;
                self.tell(trainer)?;
                watch.stepped(trainer);
                if self.validate_if_due(trainer, watch)? || save {
                    self.save(trainer)?;
                    saved = Instant::now();
                }
                Ok(())
            });
            self.tell(trainer)?;
            match result {
                Err(error) => result = self.relieve(trainer, error),
                Ok(()) => break,
            }
        }
        match result {
            Ok(()) => self.save(trainer)?,
            Err(Error::Interrupted(_)) => {
                // Before its first step too: nobody goes on with a checkpoint without the configuration.
                self.open_journal(trainer, trainer.optimizer().steps())?;
                self.save(trainer)?;
            }
            // Weights may be half changed or not finite: the last checkpoint is what is good.
            Err(_) => return result,
        }
        if let Some(journal) = &mut self.journal {
            let end = if result.is_ok() { "end" } else { "interrupt" };
            journal.note(end, trainer.optimizer().steps(), json!({}))?;
        }
        result
    }

    /// Settles with what smaller settings a run goes on of which a step did not fit.
    fn relieve(&mut self, trainer: &mut Trainer, error: Error) -> Result<()> {
        let refused = match &error {
            Error::OutOfMemory(refusal) if refusal.phase != Phase::Evaluate => trainer.ranks().rank(),
            Error::Rank { rank, out_of_memory: true, .. } => *rank,
            _ => return Err(error),
        };
        let ranks = trainer.ranks().clone();
        let settings = match ranks.are_several() {
            false => (self.oom_handler)(trainer, error)?,
            // The rank that was refused memory plans what fits it, for all.
            true => {
                let divided = trainer.settings().ranks;
                let made = ranks.from(refused, || {
                    let settings = (self.oom_handler)(trainer, error)?;
                    serde_json::to_string(&settings).map_err(|error| Error::Model(format!("{error}; report this")))
                })?;
                let settings: TrainSettings =
                    serde_json::from_str(&made).map_err(|error| Error::Model(format!("{error}; report this")))?;
                TrainSettings { ranks: divided, ..settings }
            }
        };
        trainer.go_on_with(settings);
        if let Some(journal) = &mut self.journal {
            journal.note("adapt", trainer.optimizer().steps(), measures(trainer.settings()))?;
        }
        Ok(())
    }

    /// Opens the journal behind step `step`, unless it is open.
    fn open_journal(&mut self, trainer: &Trainer, step: u64) -> Result<()> {
        if let Some(begin) = self.begin.take() {
            let mut journal = begin(step)?;
            let mut facts = measures(trainer.settings());
            facts["cases"] = self.training.len().into();
            journal.note("start", step, facts)?;
            self.journal = Some(journal);
        }
        Ok(())
    }

    /// Tells the journal of the steps whose losses are known.
    fn tell(&mut self, trainer: &Trainer) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.steps(trainer, self.training.len()))
    }

    /// True if an epoch has just ended after which a validation is wanted, unless it was done before an interruption.
    fn is_due(&self, trainer: &Trainer) -> bool {
        let (steps, per_epoch) = (trainer.optimizer().steps(), trainer.steps_per_epoch(self.training.len()));
        let (epoch, every) = (steps / per_epoch, trainer.settings().validate_every);
        let wanted = every > 0 && !self.validation.is_empty();
        let ended = steps > 0 && steps.is_multiple_of(per_epoch);
        let due = every > 0 && (epoch.is_multiple_of(every) || epoch == trainer.settings().epochs);
        let done = trainer.history().validations.last().is_some_and(|last| last.step == steps);
        wanted && ended && due && !done
    }

    /// Validates if that is due.
    fn validate_if_due(&mut self, trainer: &mut Trainer, watch: &mut dyn RunObserver) -> Result<bool> {
        if !self.is_due(trainer) {
            return Ok(false);
        }
        let steps = trainer.optimizer().steps();
        let epoch = steps / trainer.steps_per_epoch(self.training.len());
        let started = Instant::now();
        let found = self.validated(trainer, epoch)?;
        let best = validation::best(&trainer.history().validations).is_none_or(|best| found.iou > best.iou);
        trainer.note_validation(found.clone(), started.elapsed());
        if best && trainer.ranks().is_first() {
            trainer.check_weights()?;
            let (task, path) = (self.task, best_path(self.checkpoint));
            trainer.with_best_weights(|trainer| Model::save(trainer.network(), trainer.parameters(), task, &path))?;
        }
        self.open_journal(trainer, steps)?;
        if let Some(journal) = &mut self.journal {
            journal.validation(&found)?;
        }
        watch.validated(&found);
        Ok(true)
    }

    /// What a validation finds: on the first rank, for all.
    fn validated(&self, trainer: &mut Trainer, epoch: u64) -> Result<Validation> {
        let ranks = trainer.ranks().clone();
        if !ranks.are_several() {
            return validation::validate(trainer, self.task, self.validation, epoch);
        }
        let mut own = None;
        let told = ranks.from(0, || {
            let found = own.insert(validation::validate(trainer, self.task, self.validation, epoch)?);
            serde_json::to_string(found).map_err(|error| Error::Model(format!("{error}; report this")))
        })?;
        // Read from a text a score may be off by a last bit: only the first rank stores it.
        own.map_or_else(
            || serde_json::from_str(&told).map_err(|error| Error::Model(format!("{error}; report this"))),
            Ok,
        )
    }

    /// Saves the checkpoint, on the first rank.
    fn save(&self, trainer: &Trainer) -> Result<()> {
        if !trainer.ranks().is_first() {
            return Ok(());
        }
        trainer.check_weights()?;
        training_state::save(trainer, self.task, self.checkpoint)
    }
}

/// What the memory of a step depends on, for the journal.
fn measures(settings: &TrainSettings) -> Value {
    let TrainSettings { recompute, points, batch_size, accumulate, .. } = settings;
    json!({ "recompute": recompute, "points": points, "batch_size": batch_size, "accumulate": accumulate })
}

/// Where the best weights by validation lie beside a checkpoint: `o-net.best.safetensors` for `o-net.safetensors`.
pub fn best_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("best.safetensors")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::data::embedded;
    use crate::device::Device;
    use crate::models::{Architecture, NetworkConfig};
    use crate::task::PreparedCase;
    use crate::train::presets;

    /// A case whose reading is interrupted.
    struct Interrupted;

    impl CaseSource for Interrupted {
        fn len(&self) -> usize {
            1
        }

        fn case(&self, _: usize) -> Result<Cow<'_, PreparedCase>> {
            Err(Error::Interrupted("nothing is done".into()))
        }

        fn case_bytes(&self) -> u64 {
            0
        }

        fn reading_bytes(&self) -> u64 {
            0
        }
    }

    impl RunObserver for () {
        fn stepped(&mut self, _: &Trainer) {}
        fn validated(&mut self, _: &Validation) {}
    }

    #[test]
    fn an_interrupt_before_the_first_step_leaves_what_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let (checkpoint, configuration) = (folder.path().join("o.safetensors"), folder.path().join("config.toml"));
        let data = embedded::open("heads").unwrap();
        let network = NetworkConfig::sample("o-net", 1, 1, [64, 80, 64]).unwrap();
        let task = Task::of(&data, network.multiples());
        let settings = presets::sample(&network, 1, 0);
        let mut trainer = Trainer::new(&Device::cpu(1, 1 << 30).unwrap(), &network, settings).unwrap();
        let mut run = Run {
            training: &Interrupted,
            validation: &Interrupted,
            task: &task,
            checkpoint: &checkpoint,
            save_every: SAVE_EVERY,
            begin: Some(Box::new(|step| {
                std::fs::write(&configuration, "").unwrap();
                RunLog::open(folder.path(), step)
            })),
            journal: None,
            oom_handler: Box::new(|_, error| Err(error)),
        };
        assert!(matches!(run.to_end(&mut trainer, &mut ()), Err(Error::Interrupted(_))));
        drop(run);
        assert!(checkpoint.exists() && configuration.exists());
    }
}
