//! Cases to be looked at, as the pages want them.

use crate::data::Labels;
use crate::error::Result;
use crate::evaluate;
use crate::order;
use crate::report::{self, CaseScore, CaseSlices, PicturedCase};
use crate::task::{PreparedCase, Task};
use crate::train::case_source::CaseSource;

/// Slices of a labelled case with what networks made of it, by name.
///
/// # Errors
/// A case without labels.
pub(super) fn slices(task: &Task, case: &PreparedCase, predictions: &[(&str, &Labels)]) -> Result<CaseSlices> {
    // Pictures know 0 as nothing: neither background nor what is not scored has an outline.
    let background = task.preprocessing.classes.first().copied();
    let shown = |labels: &Labels, ignore: Option<u8>| -> Vec<u8> {
        let nothing = |value: u8| Some(value) == background || Some(value) == ignore;
        labels.voxels.iter().map(|&value| if nothing(value) { 0 } else { value }).collect()
    };
    let label = shown(evaluate::truth_of(case)?, case.ignore);
    let masks: Vec<(&str, Vec<u8>)> = predictions.iter().map(|(name, labels)| (*name, shown(labels, None))).collect();
    let masks: Vec<(&str, &[u8])> = masks.iter().map(|(name, mask)| (*name, mask.as_slice())).collect();
    let volume = report::ImageVolume {
        image: &case.image,
        label: &label,
        shape: case.way.shape,
        spacing: case.way.geometry.spacing(),
        axes: ['R', 'A', 'S'],
    };
    report::case_slices(&case.name, &volume, &masks)
}

/// The worst case by Dice and the median one, each with its position and its heading; a single case is only itself. Cases
/// without a score are left out; the first of equals is taken.
pub(super) fn worst_and_median(scores: &[CaseScore]) -> Vec<(usize, String)> {
    let mut ranked: Vec<usize> = (0..scores.len()).filter(|&i| scores[i].dice.is_finite()).collect();
    order::by_key(&mut ranked, |&i| order::of_number(scores[i].dice));
    let heading = |what: &str, i: usize| (i, format!("{what}: {}, Dice {:.3}", scores[i].name, scores[i].dice));
    match ranked[..] {
        [] => Vec::new(),
        [only] => vec![heading("Case", only)],
        [worst, .., best] if ranked.len() == 2 => vec![heading("Worse case", worst), heading("Better case", best)],
        [worst, ..] => {
            vec![heading("Worst case", worst), heading("Median case", ranked[(ranked.len() - 1) / 2])]
        }
    }
}

/// The worst and the median of the cases that `name` was scored on.
///
/// # Errors
/// A case that cannot be read any more.
pub(super) fn of_scored(
    name: &str,
    task: &Task,
    cases: &dyn CaseSource,
    scored: &[(CaseScore, Labels)],
) -> Result<Vec<PicturedCase>> {
    let scores: Vec<CaseScore> = scored.iter().map(|(score, _)| score.clone()).collect();
    let picture = |(i, heading): (usize, String)| {
        Ok(PicturedCase { heading, slices: slices(task, &*cases.case(i)?, &[(name, &scored[i].1)])? })
    };
    worst_and_median(&scores).into_iter().map(picture).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_and_the_median_are_shown() {
        let scores = |dice: &[f64]| -> Vec<CaseScore> {
            let score = |(i, &dice): (usize, &f64)| CaseScore { name: format!("c{i}"), dice, ..CaseScore::default() };
            dice.iter().enumerate().map(score).collect()
        };
        let shown = |dice: &[f64]| worst_and_median(&scores(dice));
        assert_eq!(
            shown(&[0.9, f64::NAN, 0.2, 0.7]),
            [(2, "Worst case: c2, Dice 0.200".into()), (3, "Median case: c3, Dice 0.700".into())]
        );
        assert_eq!(shown(&[0.9, 0.9, 0.9])[1].0, 1);
        assert_eq!(shown(&[0.9, 0.5]).iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 0]);
        assert_eq!((shown(&[0.9]).len(), shown(&[f64::NAN]).len(), shown(&[]).len()), (1, 0, 0));
    }
}
