//! The end of a training run: its page, its summary, and what is said of both.

use std::path::Path;
use std::time::Duration;

use crate::cli::output::plural;
use crate::cli::provenance::stamped_with;
use crate::data::Dataset;
use crate::error::Result;
use crate::files::write_atomic;
use crate::report::CaseScore;
use crate::train::config::RunConfig;
use crate::train::run::best_path;
use crate::train::trainer::Trainer;
use crate::train::validation;

/// What a run writes last.
pub(super) const SUMMARY: &str = "summary.json";

/// What a run found.
pub(super) struct Trained {
    /// Its `summary.json`.
    pub(super) json: String,
    /// The same for people.
    pub(super) text: String,
}

/// A run that came to its end.
pub(super) struct Ended<'a> {
    pub(super) trainer: &'a Trainer,
    pub(super) dataset: &'a Dataset,
    pub(super) folder: &'a Path,
    pub(super) checkpoint: &'a Path,
    /// Scores of the validation cases.
    pub(super) cases: Vec<CaseScore>,
    /// Time that scoring them took.
    pub(super) scoring: Duration,
    /// What was changed to fit the memory.
    pub(super) changes: Vec<String>,
    /// Cases to look at.
    #[cfg(feature = "report")]
    pub(super) pictures: Vec<crate::report::PicturedCase>,
}

impl Ended<'_> {
    /// Writes the page and, last of all, the summary, and says where the results are.
    pub(super) fn finish(self, config: &RunConfig, training: usize) -> Result<Trained> {
        let Self { trainer, dataset, folder, checkpoint, cases, changes, scoring, .. } = self;
        let (dice, iou) = crate::evaluate::means(&cases);
        let (costs, network) = (trainer.costs(), trainer.network().architecture());
        let best = validation::best(&trainer.history().validations);
        let summary = serde_json::json!({
            "model": network.title(),
            "checkpoint": checkpoint.display().to_string(),
            "parameters": trainer.parameters().count(),
            "steps": trainer.optimizer().steps(),
            "final_loss": trainer.recent_loss(trainer.steps_per_epoch(training)),
            "step_seconds": costs.median_step_seconds(),
            "ahead_bytes": costs.ahead_bytes,
            "data_wait_seconds": trainer.waited().as_secs_f64(),
            "data_wait_share": trainer.waiting_share(),
            "validation_seconds": (trainer.validating() + scoring).as_secs_f64(),
            "validation_share": trainer.validating_share(scoring),
            "peak_bytes": costs.peak_bytes,
            "changed_to_fit": changes,
            "dice": dice,
            "iou": iou,
            "cases": cases,
            "best": best,
            "validations": trainer.history().validations,
        });
        let json = format!("{:#}\n", stamped_with(summary, "runs", Some(dataset))?);
        #[cfg(feature = "report")]
        super::report::write(folder, config, trainer, &cases, scoring, self.pictures)?;
        #[cfg(not(feature = "report"))]
        let _ = config;
        write_atomic(folder.join(SUMMARY), json.as_bytes())?;
        let scores = match cases.len() {
            0 => "no validation case was scored".into(),
            count => format!("mean Dice {dice:.4} on {}", plural(count, "validation case")),
        };
        let best = best.map_or(String::new(), |best| {
            let path = best_path(checkpoint);
            format!("\nbest: {} (epoch {}, Dice {:.4}, IoU {:.4})", path.display(), best.epoch, best.dice, best.iou)
        });
        let page = if cfg!(feature = "report") { "report.html" } else { SUMMARY };
        let text = format!(
            "{}: {scores}, peak {}, {:.3} s a step ({:.1} % waiting for data; validating took {:.1} % of the run)\ncheckpoint: {}{best}\nreport: {}",
            network.title(),
            crate::memory::format_bytes(costs.peak_bytes),
            costs.median_step_seconds(),
            100.0 * trainer.waiting_share(),
            100.0 * trainer.validating_share(scoring),
            checkpoint.display(),
            folder.join(page).display()
        );
        Ok(Trained { json, text })
    }
}
