//! The page of a training run: what it leaves, as the report wants it.

use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::files::write_atomic;
use crate::report::{CaseScore, LossCurve, PicturedCase, TrainingRun, training_page};
use crate::train::config::RunConfig;
use crate::train::run_log;
use crate::train::trainer::Trainer;
use crate::train::validation::Validation;

/// Writes `report.html` into `folder`.
///
/// # Errors
/// A full disk.
pub fn write(
    folder: &Path,
    config: &RunConfig,
    trainer: &Trainer,
    cases: &[CaseScore],
    scoring: Duration,
    pictures: Vec<PicturedCase>,
) -> Result<()> {
    let (dice, iou) = crate::evaluate::means(cases);
    let (costs, title) = (trainer.costs(), trainer.network().architecture().title());
    let curve = |name: &str, of: fn(&Validation) -> f64| LossCurve {
        model: name.into(),
        points: trainer.history().validations.iter().map(|found| (found.step, of(found))).collect(),
    };
    let validations = &trainer.history().validations;
    let names = validations.iter().flat_map(|found| &found.classes).map(|class| &class.name);
    let mut classes: Vec<LossCurve> = Vec::new();
    for name in names {
        if classes.iter().all(|curve| curve.model != *name) {
            let dice =
                |found: &Validation| found.classes.iter().find(|class| class.name == *name).map(|class| class.dice);
            let points = validations.iter().filter_map(|found| Some((found.step, dice(found)?)));
            classes.push(LossCurve { model: name.clone(), points: points.collect() });
        }
    }
    let steps = run_log::steps(folder)?;
    let facts = [
        ("Parameters", trainer.parameters().count().to_string()),
        ("Steps", trainer.optimizer().steps().to_string()),
        ("Seconds a step (median)", format!("{:.3}", costs.median_step_seconds())),
        ("Seconds of all steps", format!("{:.1}", costs.training_seconds())),
        ("Waiting for data", format!("{:.1} % of the time of steps", 100.0 * trainer.waiting_share())),
        ("Validating", format!("{:.1} % of the run", 100.0 * trainer.validating_share(scoring))),
        ("Most bytes held", crate::memory::format_bytes(costs.peak_bytes)),
        ("Made by", costs.peak_op.clone()),
        ("Seed", trainer.settings().seed.to_string()),
    ];
    let run = TrainingRun {
        title: format!("{title} on {}", config.dataset_path.rsplit(['/', '\\']).next().unwrap_or_default()),
        conclusion: match cases.len() {
            0 => "No validation case was scored.".into(),
            count => format!(
                "Mean Dice {dice:.4} and IoU {iou:.4} on {}, over all voxels.",
                crate::cli::output::plural(count, "validation case")
            ),
        },
        facts: facts.map(|(name, value)| (name.to_string(), value)).to_vec(),
        loss: (1..).zip(trainer.losses().iter().map(|&loss| f64::from(loss))).collect(),
        network: title,
        classes,
        rate: steps.iter().map(|step| (step.step, step.rate)).collect(),
        seconds: steps.iter().map(|step| (step.step, step.seconds)).collect(),
        pictures,
        validations: vec![curve("Dice", |found| found.dice), curve("IoU", |found| found.iou)],
        cases: cases.to_vec(),
        configuration: config.to_toml()?,
    };
    write_atomic(folder.join("report.html"), training_page(&run)?.as_bytes())
}
