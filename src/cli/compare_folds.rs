//! A comparison over all folds of a cross-validation: each in a folder of its own, and their cases together.

use std::path::Path;

use super::compare::{
    CompareArgs, LAST, MOST_RESULTS, Place, RESULTS, compare_in, is_unfinished, networks, stamped_results,
};
use super::fold_files;
use super::training::checkpoint_path;
use crate::data::{Dataset, Folds};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::files::{RunFolder, read_text, write_atomic};
use crate::models::NetworkConfig;
use crate::report::{BaselineResult, ModelResult, Results};

/// Compares on every fold that is not finished, and writes what all of them say together.
///
/// # Errors
/// As for a single comparison.
pub(super) fn run(
    args: &CompareArgs,
    device: &Device,
    dataset: &Dataset,
    folds: &Folds,
    folder: &Path,
    again: &str,
) -> Result<Results> {
    fold_files::check(folder, folds)?;
    let (verbosity, count) = (args.run.verbosity(), folds.folds.len());
    let probe = networks(&args.models, dataset.channels.len(), dataset.classes.len(), [64; 3])?;
    let begin = || fold_files::write(folder, folds, 0, dataset);
    let mut all = Vec::new();
    for number in 1..=count {
        let path = fold_files::folder_of(folder, number);
        if path.join(LAST).exists() {
            let found = path.join(RESULTS);
            let results = Results::from_json(&found, &read_text(&found, MOST_RESULTS)?)?;
            check_finished(&results, args, &probe, &path)?;
            verbosity.say(format!("fold {number}/{count}: was finished before"));
            all.push(results);
            continue;
        }
        verbosity.say(format!("fold {number}/{count}"));
        let claimed = RunFolder::claim(&path, |folder| is_unfinished(folder, &probe))?;
        let mut part = dataset.clone();
        folds.apply(&mut part, number);
        let begin = || begin().and_then(|()| fold_files::write(claimed.path(), folds, number, &part));
        all.push(compare_in(args, device, &part, &Place { folder: claimed.path(), again, begin: &begin })?);
    }
    let results = together(&all);
    write_atomic(folder.join(RESULTS), stamped_results(&results, dataset)?.as_bytes())?;
    #[cfg(feature = "report")]
    super::compare_report::write_folds(folder, args, dataset, &results)?;
    Ok(results)
}

/// Refuses results of another comparison.
fn check_finished(results: &Results, args: &CompareArgs, networks: &[NetworkConfig], folder: &Path) -> Result<()> {
    let missing = networks.iter().find(|network| !checkpoint_path(folder, network).exists());
    let epochs = results.models.first().map_or(args.epochs, |model| model.epochs);
    let (models, wanted) = (results.models.len(), networks.len());
    let problem = match missing {
        Some(network) => format!("compares without {}", network.title()),
        None if models != wanted => format!("compares {models} networks, not {wanted}"),
        None if results.seed != args.seed => format!("was made with seed {}, not {}", results.seed, args.seed),
        None if epochs != args.epochs => format!("was made with {epochs} epochs, not {}", args.epochs),
        None => return Ok(()),
    };
    Err(Error::data(folder, problem, "give the flags of the comparison that it belongs to, or another folder"))
}

/// The figures of several divisions as those of one: scores are over all cases, a peak is the highest, seconds in all and
/// steps are sums, seconds a step and losses are means.
fn together(folds: &[Results]) -> Results {
    let Some(first) = folds.first() else { return Results::default() };
    let mean = |of: &dyn Fn(&Results) -> f64| folds.iter().map(of).sum::<f64>() / folds.len() as f64;
    let model = |(index, model): (usize, &ModelResult)| {
        let of = |fold: &Results| fold.models[index].clone();
        let highest = folds.iter().map(of).max_by_key(|model| model.peak_bytes).unwrap_or_default();
        let cases: Vec<_> = folds.iter().flat_map(|fold| fold.models[index].cases.clone()).collect();
        let (dice, iou) = evaluate::means(&cases);
        ModelResult {
            dice,
            iou,
            cases,
            peak_bytes: highest.peak_bytes,
            peak_by_role: highest.peak_by_role,
            step_seconds: mean(&|fold| fold.models[index].step_seconds),
            total_seconds: folds.iter().map(|fold| fold.models[index].total_seconds).sum(),
            steps: folds.iter().map(|fold| fold.models[index].steps).sum(),
            final_loss: mean(&|fold| fold.models[index].final_loss),
            ..model.clone()
        }
    };
    let baseline = |(index, row): (usize, &BaselineResult)| {
        let cases: Vec<_> = folds.iter().flat_map(|fold| fold.baselines[index].cases.clone()).collect();
        let (dice, iou) = evaluate::means(&cases);
        BaselineResult { name: row.name.clone(), dice, iou, cases }
    };
    Results {
        models: first.models.iter().enumerate().map(model).collect(),
        baselines: first.baselines.iter().enumerate().map(baseline).collect(),
        ..first.clone()
    }
}
