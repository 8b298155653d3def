//! What a run writes about itself while it goes on: `log.jsonl`, one JSON object a line, and TensorBoard events.
//!
//! A process may be killed at any moment. Whoever goes on with the run starts from its last checkpoint, and therefore first
//! forgets what was written of later steps.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::{self, write_atomic};
use crate::train::tensorboard::Events;
use crate::train::trainer::Trainer;
use crate::train::validation::Validation;

/// Name of the log in a run's folder.
pub const LOG: &str = "log.jsonl";

/// The open log and event file of a run.
pub struct RunLog {
    path: PathBuf,
    log: File,
    events: Events,
    /// Steps that it tells of.
    told: u64,
}

impl RunLog {
    /// Goes on with the journal in `folder` after step `step`, or begins it.
    ///
    /// # Errors
    /// [`Error::File`] if the files cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self> {
        let path = folder.join(LOG);
        let named = |error| Error::file(&path, error);
        if path.exists() {
            let text = files::read(&path, u64::MAX)?;
            write_atomic(&path, &up_to(&text, step))?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(named)?;
        Ok(Self { events: Events::create(folder, step)?, log, path, told: step })
    }

    /// A line that tells with what the process begins or ends.
    ///
    /// # Errors
    /// [`Error::File`] on a full disk.
    pub fn note(&mut self, event: &str, step: u64, mut facts: Value) -> Result<()> {
        facts["event"] = event.into();
        facts["step"] = step.into();
        self.line(&facts)
    }

    /// The steps that `trainer` has made over `cases` cases and whose losses are known, from the first that was not told of.
    ///
    /// # Errors
    /// [`Error::File`] on a full disk.
    pub fn steps(&mut self, trainer: &Trainer, cases: usize) -> Result<()> {
        let losses = trainer.losses();
        for step in self.told + 1..=losses.len() as u64 {
            self.step(trainer, step, losses[step as usize - 1], cases)?;
            self.told = step;
        }
        Ok(())
    }

    fn step(&mut self, trainer: &Trainer, step: u64, loss: f32, cases: usize) -> Result<()> {
        let since = trainer.optimizer().steps().saturating_sub(step) as usize;
        let seconds = trainer.costs().step_seconds.iter().rev().nth(since).copied().unwrap_or(f32::NAN);
        let (rate, epoch) = (trainer.rate(step, cases), (step - 1) / trainer.steps_per_epoch(cases) + 1);
        let facts = json!({ "epoch": epoch, "loss": loss, "rate": rate, "seconds": seconds });
        self.note("step", step, facts)?;
        let scalars = [("loss/train", loss), ("rate", rate), ("seconds/step", seconds)];
        self.events.scalars(step, &scalars.map(|(tag, value)| (tag, f64::from(value))))
    }

    /// What a validation found.
    ///
    /// # Errors
    /// [`Error::File`] on a full disk.
    pub fn validation(&mut self, validation: &Validation) -> Result<()> {
        let Validation { epoch, step, dice, iou, ref classes } = *validation;
        let mut facts = json!({ "epoch": epoch, "dice": dice, "iou": iou });
        if !classes.is_empty() {
            facts["classes"] = json!(classes);
        }
        self.note("validation", step, facts)?;
        let tags: Vec<String> = classes.iter().map(|class| format!("validation/dice/{}", class.name)).collect();
        let by_class = tags.iter().zip(classes).map(|(tag, class)| (tag.as_str(), class.dice));
        let scalars = [("validation/dice", dice), ("validation/iou", iou)].into_iter().chain(by_class);
        self.events.scalars(step, &scalars.collect::<Vec<_>>())
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        // One write a line, so that a killed process leaves at most its last line cut short.
        self.log.write_all(format!("{value}\n").as_bytes()).map_err(|error| Error::file(&self.path, error))
    }
}

/// A step that a log tells of.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct LoggedStep {
    /// Its number, from 1.
    pub step: u64,
    /// The learning rate of the weights.
    pub rate: f64,
    /// How long it took.
    pub seconds: f64,
}

/// The steps that the log in `folder` tells of; none without a log.
///
/// # Errors
/// [`Error::File`] if it cannot be read.
pub fn steps(folder: &Path) -> Result<Vec<LoggedStep>> {
    let path = folder.join(LOG);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read(&path, u64::MAX)?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The whole lines of a log that tell of steps up to `step`. A line that is no text, as a torn block leaves it, is dropped.
fn up_to(log: &[u8], step: u64) -> Vec<u8> {
    let lines = log.split_inclusive(|&byte| byte == b'\n').filter(|line| {
        let value: Option<Value> = line.ends_with(b"\n").then(|| serde_json::from_slice(line).ok()).flatten();
        value.and_then(|value| value["step"].as_u64()).is_some_and(|at| at <= step)
    });
    lines.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_steps_and_half_lines_are_forgotten() {
        let log =
            "{\"event\":\"start\",\"step\":0}\n{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.4}\n{\"step\":1,";
        let first = |count| log.split_inclusive('\n').take(count).collect::<String>().into_bytes();
        assert_eq!(up_to(log.as_bytes(), 1), first(2));
        assert_eq!(up_to(log.as_bytes(), 9), first(3));
        assert_eq!(up_to(b"", 9), b"");
    }

    #[test]
    fn steps_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(steps(folder.path()).unwrap(), []);
        let log =
            "{\"event\":\"start\",\"step\":0}\n{\"rate\":0.5,\"seconds\":2.0,\"event\":\"step\",\"step\":1}\n{\"st";
        std::fs::write(folder.path().join(LOG), log).unwrap();
        assert_eq!(steps(folder.path()).unwrap(), [LoggedStep { step: 1, rate: 0.5, seconds: 2.0 }]);
    }

    /// A torn block leaves bytes that are no text: they cost their line.
    #[test]
    fn a_line_that_is_no_text_costs_that_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG);
        std::fs::write(&path, b"{\"step\":1}\n{\"step\":2,\"a\":\"\xff\xfe\n\0\0\xff\n{\"step\":3}\n{\"step\":")
            .unwrap();
        drop(RunLog::open(folder.path(), 5).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":3}\n");
    }
}
