//! Scores of several checkpoints that answer together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::own_data;
use crate::checkpoint::model::Model;
use crate::cli::fold_files;
use crate::cli::progress::Verbosity;
use crate::cli::training::scoring;
use crate::data::{Case, Dataset, Labels, Warning};
use crate::error::{Error, Result};
use crate::evaluate::metrics::ScoreRule;
use crate::infer::{Ensemble, Segmenter};
use crate::report::CaseScore;
use crate::task::PreparedCase;
use crate::{evaluate, interrupt};

/// Segments and scores labelled cases, which are read again as each network's own preprocessing wants them.
///
/// # Errors
/// As for one network.
pub(super) fn score(
    (first, others): (&Model, &[Model]),
    dataset: &Dataset,
    cases: &[PreparedCase],
    (rule, dense): (ScoreRule, bool),
    verbosity: Verbosity,
) -> Result<Vec<(CaseScore, Labels)>> {
    let others = others.iter().map(|model| member(model, dense)).collect::<Result<_>>()?;
    let ensemble = Ensemble::new(member(first, dense)?, others)?;
    let task = &first.task;
    let all: Vec<&Case> = dataset.training.iter().chain(&dataset.validation).collect();
    let (mut bar, mut scored) = (verbosity.task("evaluating", cases.len() as u64), Vec::new());
    for case in cases {
        let done = scored.len();
        let told = || format!("{done} of {} cases are scored; run the command again", cases.len());
        interrupt::check(told)?;
        let stored = all.iter().find(|stored| stored.name == case.name);
        let stored =
            stored.ok_or_else(|| Error::Model(format!("case {} is not in the data set; report this", case.name)))?;
        let image = dataset.read(stored, task.preprocessing.axes)?.image;
        let predicted = {
            let mut pulse = bar.within(&case.name, 0);
            let mut tick = || {
                pulse();
                interrupt::check(told)
            };
            ensemble.segment(&case.name, image, &mut tick)?.labels
        };
        scored.push((evaluate::score(task, case, &predicted, rule)?, predicted));
        bar.advance(&case.name);
    }
    bar.finish("done");
    Ok(scored)
}

fn member(model: &Model, dense: bool) -> Result<Segmenter<'_>> {
    let options = scoring(&*model.network, dense);
    Segmenter::new(&*model.network, &model.parameters, &model.task, options)
}

/// Refuses checkpoints that were trained on several data sets, where the data set is to be theirs.
///
/// # Errors
/// [`Error::Data`] that names the first other one.
pub(super) fn check_data(files: &[PathBuf]) -> Result<()> {
    let Some((first, others)) = files.split_first() else { return Ok(()) };
    let data = |path: &Path| Ok::<_, Error>(own_data::of(path)?.map(|own| own.data));
    let own = data(first)?;
    for path in others {
        if data(path)? != own {
            let problem = format!("was trained on other data than {}", first.display());
            return Err(Error::data(path, problem, "name the data to score on with --data"));
        }
    }
    Ok(())
}

/// Warns of cases that some of the checkpoints were trained on, as far as their folds tell.
///
/// # Errors
/// A list of folds that cannot be read.
pub(super) fn warn_of_training(
    files: &[PathBuf],
    cases: &[PreparedCase],
    dataset: &Dataset,
    verbosity: Verbosity,
) -> Result<()> {
    let mut trained: BTreeSet<String> = BTreeSet::new();
    for path in files {
        let Some((folds, Some(number))) = fold_files::read(own_data::folder_of(path))? else { continue };
        let others = folds.folds.into_iter().zip(1..).filter(|(_, other)| *other != number);
        trained.extend(others.flat_map(|(names, _)| names));
    }
    let count = cases.iter().filter(|case| trained.contains(&case.name)).count();
    if count > 0 {
        let problem = format!(
            "{count} of {} cases were trained on by some of these checkpoints: the scores are not those of unseen cases",
            cases.len()
        );
        verbosity.warn(&Warning::new(&dataset.path, problem));
    }
    Ok(())
}
