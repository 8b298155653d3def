//! A comparison over all folds of a cross-validation: each in a folder of its own, and their cases together.

use std::path::Path;

use super::compare::{
    CompareArgs, LAST, MOST_RESULTS, Place, RESULTS, compare_in, is_unfinished, networks, stamped_results,
};
use super::compare_plan::Plans;
use super::fold_files;
use super::training::checkpoint_path;
use crate::data::{Dataset, Folds};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::files::{RunFolder, read_text, write_atomic};
use crate::models::{Architecture, NetworkConfig};
use crate::report::{BaselineResult, ModelResult, Results};

/// Compares on every fold that is not finished, and writes what all of them say together.
///
/// # Errors
/// As for a single comparison.
pub(super) fn run(
    args: &CompareArgs,
    (device, plans): (&Device, Option<&Plans>),
    dataset: &Dataset,
    folds: &Folds,
    place: &Place<'_>,
) -> Result<Results> {
    let Place { folder, again, ranks, .. } = *place;
    ranks.first(|| fold_files::check(folder, folds))?;
    let (verbosity, count) = (args.run.verbosity(), folds.folds.len());
    let probe = networks(&args.models, dataset.channels.len(), dataset.classes.len(), [64; 3])?;
    let begin = || (place.begin)().and_then(|()| fold_files::write(folder, folds, 0, dataset));
    let mut all = Vec::new();
    for number in 1..=count {
        let path = fold_files::folder_of(folder, number);
        if ranks.first_finds(|| Ok(path.join(LAST).exists()))? {
            if !ranks.is_first() {
                continue;
            }
            let found = path.join(RESULTS);
            let results = Results::from_json(&found, &read_text(&found, MOST_RESULTS)?)?;
            check_finished(&results, (args, plans), &probe, &path)?;
            verbosity.say(format!("fold {number}/{count}: was finished before"));
            all.push(results);
            continue;
        }
        verbosity.say(format!("fold {number}/{count}"));
        // Held while it is trained, by the first rank.
        let _claimed = ranks.first(|| RunFolder::claim(&path, |folder| is_unfinished(folder, &probe)))?;
        let mut part = dataset.clone();
        folds.apply(&mut part, number);
        let begin = || begin().and_then(|()| fold_files::write(&path, folds, number, &part));
        let place = Place { folder: &path, again, begin: &begin, ranks };
        all.push(compare_in(args, (device, plans), &part, &place)?);
    }
    if !ranks.is_first() {
        return Ok(Results::default());
    }
    let results = together(&all, folder)?;
    write_atomic(folder.join(RESULTS), stamped_results(&results, dataset)?.as_bytes())?;
    #[cfg(feature = "report")]
    super::compare_report::write_folds(folder, args, dataset, &results)?;
    Ok(results)
}

/// Refuses results of another comparison.
fn check_finished(
    results: &Results,
    (args, plans): (&CompareArgs, Option<&Plans>),
    networks: &[NetworkConfig],
    folder: &Path,
) -> Result<()> {
    let missing = networks.iter().find(|network| !checkpoint_path(folder, network).exists());
    let wanted_epochs =
        plans.and_then(|plans| plans.configs.first()).map_or(args.sample_epochs(), |config| config.epochs);
    let epochs = results.models.first().map_or(wanted_epochs, |model| model.epochs);
    let (models, wanted) = (results.models.len(), networks.len());
    let problem = match missing {
        Some(network) => format!("compares without {}", network.title()),
        None if models != wanted => format!("compares {models} networks, not {wanted}"),
        None if results.seed != args.seed => format!("was made with seed {}, not {}", results.seed, args.seed),
        None if epochs != wanted_epochs => format!("was made with {epochs} epochs, not {wanted_epochs}"),
        None => return Ok(()),
    };
    Err(Error::data(folder, problem, "give the flags of the comparison that it belongs to, or another folder"))
}

/// The figures of several divisions as those of one: scores are over all cases, a peak is the highest, seconds in all and
/// steps are sums, seconds a step and losses are means. Trivial methods that a fold lacks are left out.
///
/// # Errors
/// [`Error::Data`] if a fold compared other networks than the first.
fn together(folds: &[Results], folder: &Path) -> Result<Results> {
    let Some(first) = folds.first() else { return Ok(Results::default()) };
    let models = first.models.iter().map(|model| {
        let of_fold = |(number, fold): (usize, &Results)| {
            let same = fold.models.iter().find(|other| other.name == model.name).cloned();
            same.ok_or_else(|| {
                let problem = format!("compares without {}, which fold 1 has", model.name);
                let remedy = "give the flags of the comparison that it belongs to, or remove it";
                Error::data(fold_files::folder_of(folder, number), problem, remedy)
            })
        };
        let own: Vec<ModelResult> = (1..).zip(folds).map(of_fold).collect::<Result<_>>()?;
        let mean = |of: fn(&ModelResult) -> f64| own.iter().map(of).sum::<f64>() / own.len() as f64;
        let cases: Vec<_> = own.iter().flat_map(|model| model.cases.clone()).collect();
        let (dice, iou) = evaluate::means(&cases);
        let highest = own.iter().max_by_key(|model| model.peak_bytes).cloned().unwrap_or_default();
        Ok(ModelResult {
            dice,
            iou,
            cases,
            peak_bytes: highest.peak_bytes,
            peak_by_role: highest.peak_by_role,
            scan_peak_bytes: own.iter().map(|model| model.scan_peak_bytes).max().unwrap_or(0),
            step_seconds: mean(|model| model.step_seconds),
            total_seconds: own.iter().map(|model| model.total_seconds).sum(),
            steps: own.iter().map(|model| model.steps).sum(),
            final_loss: mean(|model| model.final_loss),
            ..model.clone()
        })
    });
    let baselines = first.baselines.iter().filter_map(|row| {
        let own = folds.iter().map(|fold| fold.baselines.iter().find(|other| other.name == row.name));
        let cases: Vec<_> = own.collect::<Option<Vec<_>>>()?.into_iter().flat_map(|row| row.cases.clone()).collect();
        let (dice, iou) = evaluate::means(&cases);
        Some(BaselineResult { name: row.name.clone(), dice, iou, cases })
    });
    Ok(Results { models: models.collect::<Result<_>>()?, baselines: baselines.collect(), ..first.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures::results;

    /// Networks are found by their names, in whatever order a fold compared them; nothing that a file says is out of bounds.
    #[test]
    fn folds_are_joined_by_name() {
        let (first, mut second) = (results(), results());
        second.models.reverse();
        second.baselines.truncate(1);
        let joined = together(&[first.clone(), second.clone()], Path::new("cv")).unwrap();
        assert_eq!(joined.models[0].name, first.models[0].name);
        assert_eq!(joined.models[0].dice, first.models[0].dice);
        assert_eq!(joined.models[0].steps, 2 * first.models[0].steps);
        assert_eq!(joined.baselines.len(), 1);
        second.models.pop();
        let error = together(&[first, second], Path::new("cv")).unwrap_err().to_string();
        assert!(error.contains("fold-2") && error.contains("compares without"), "{error}");
    }
}
