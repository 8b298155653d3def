//! Cross-validation: in which of N parts of a data set each labelled case validates.
//!
//! The parts follow from the names of the cases, their number and a seed, on any machine and in any order of the files.
//! Scans of one patient stay together: names that share what stands before their last separator (`_`, `-` or `.`), if that
//! ends with a number, as in `BRATS-GLI-00017-000` and `BRATS-GLI-00017-001`. What more than one fold's share of the cases
//! has in common (`site1_001`, `site1_002`, …) names no patient: then every case stands for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dataset::{Case, Dataset, Split};
use crate::order;
use crate::rng::Rng;
use crate::{Error, Result};

/// Most folds that are drawn.
pub const MOST: usize = 1000;

/// One of several folds: the second of five is written `2/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// From 1.
    pub number: usize,
    /// How many there are.
    pub count: usize,
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let fold = parts.and_then(|(number, count)| {
            Some(Self { number: number.trim().parse().ok()?, count: count.trim().parse().ok()? })
        });
        fold.filter(|fold| (2..=MOST).contains(&fold.count) && (1..=fold.count).contains(&fold.number))
            .ok_or_else(|| format!("'{text}' names no fold, the K of 1 to N in K/N, with N of 2 to {MOST}; write for example 2/5 for the second of five"))
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// What the cases of a fold have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupedBy {
    /// Nothing.
    Case,
    /// Scans of a patient are in one fold.
    Patient,
}

/// The parts of a data set that validate in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folds {
    /// Seed of the draw.
    pub seed: u64,
    /// What is kept together.
    pub grouped_by: GroupedBy,
    /// Names of the cases that validate in each fold, sorted. Sizes differ by one case at most where every case stands for
    /// itself.
    pub folds: Vec<Vec<String>>,
}

impl Folds {
    /// Draws `count` folds of all labelled cases of a data set, whatever division it declares.
    ///
    /// # Errors
    /// [`Error::Data`] if there are fewer cases than folds.
    pub fn of(dataset: &Dataset, count: usize, seed: u64) -> Result<Self> {
        let names: BTreeSet<&str> = order::set(labelled(dataset).map(|case| case.name.as_str()));
        if names.len() < count {
            let problem = format!("has {} labelled cases, too few for {count} folds", names.len());
            return Err(Error::data(&dataset.path, problem, "give a smaller number of folds"));
        }
        Ok(Self::draw(&names, count, seed))
    }

    /// Draws `count` folds of these names.
    pub fn draw(names: &BTreeSet<&str>, count: usize, seed: u64) -> Self {
        let patients = patients(names, count);
        let grouped_by = if patients.is_some() { GroupedBy::Patient } else { GroupedBy::Case };
        let groups = patients.unwrap_or_else(|| names.iter().map(|name| (*name, vec![*name])).collect());
        let place = |stem: &str| Rng::named(seed, &format!("fold {stem}")).next_u64();
        let mut groups: Vec<(u64, &str, Vec<&str>)> =
            groups.into_iter().map(|(stem, names)| (place(stem), stem, names)).collect();
        groups.sort_unstable();
        let mut folds = vec![Vec::new(); count];
        for (_, _, names) in groups {
            // The first of the smallest.
            if let Some(fold) = folds.iter_mut().min_by_key(|fold: &&mut Vec<String>| fold.len()) {
                fold.extend(names.into_iter().map(String::from));
            }
        }
        folds.iter_mut().for_each(|fold| fold.sort_unstable());
        Self { seed, grouped_by, folds }
    }

    /// Whether these are folds of just the labelled cases of a data set.
    pub fn divides(&self, dataset: &Dataset) -> bool {
        let divided: BTreeSet<&str> = order::set(self.folds.iter().flatten().map(String::as_str));
        order::set(labelled(dataset).map(|case| case.name.as_str())) == divided
    }

    /// Divides the data set's labelled cases: those of fold `number` (from 1) validate, the others train, both by name.
    ///
    /// # Panics
    /// If there is no such fold.
    pub fn apply(&self, dataset: &mut Dataset, number: usize) {
        let validating: BTreeSet<&str> = order::set(self.folds[number - 1].iter().map(String::as_str));
        let cases: BTreeMap<&str, &Case> = order::map(labelled(dataset).map(|case| (case.name.as_str(), case)));
        let (validation, training): (Vec<&Case>, Vec<&Case>) =
            cases.into_values().partition(|case| validating.contains(case.name.as_str()));
        let [training, validation] = [training, validation].map(|cases| cases.into_iter().cloned().collect());
        (dataset.training, dataset.validation) = (training, validation);
        dataset.split = Split::Fold { seed: self.seed };
        dataset.warnings.retain(|warning| !warning.is_of_the_division());
    }
}

/// The cases that train or validate.
fn labelled(dataset: &Dataset) -> impl Iterator<Item = &Case> {
    dataset.training.iter().chain(&dataset.validation)
}

/// Names by the stem that they share, if stems name patients.
fn patients<'a>(names: &BTreeSet<&'a str>, count: usize) -> Option<BTreeMap<&'a str, Vec<&'a str>>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let stem = name.rsplit_once(['_', '-', '.']).map(|(stem, _)| stem);
        let stem = stem.filter(|stem| stem.ends_with(|end: char| end.is_ascii_digit()));
        groups.entry(stem.unwrap_or(name)).or_default().push(name);
    }
    let largest = groups.values().map(Vec::len).max().unwrap_or(0);
    let names_patients = largest > 1 && groups.len() >= count && largest <= names.len().div_ceil(count);
    names_patients.then_some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(names: &[String], count: usize, seed: u64) -> Folds {
        Folds::draw(&names.iter().map(String::as_str).collect(), count, seed)
    }

    #[test]
    fn every_case_validates_once_whatever_the_order() {
        let mut names: Vec<String> = (0..23).map(|i| format!("hippocampus_{i:03}")).collect();
        let folds = drawn(&names, 5, 3);
        assert_eq!(folds.grouped_by, GroupedBy::Case);
        let mut sizes: Vec<usize> = folds.folds.iter().map(Vec::len).collect();
        sizes.sort();
        assert_eq!(sizes, [4, 4, 5, 5, 5]);
        let mut all: Vec<String> = folds.folds.concat();
        all.sort();
        assert_eq!(all, names);
        names.reverse();
        assert_eq!(drawn(&names, 5, 3), folds);
        assert_ne!(drawn(&names, 5, 4).folds, folds.folds);
    }

    /// The draw is part of what a published result can be repeated with: it must not change.
    #[test]
    fn the_draw_is_the_same_for_ever() {
        let names: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(String::from).to_vec();
        let hash = |name: &str| Rng::named(0, &format!("fold {name}")).next_u64();
        let mut order = names.clone();
        order.sort_by_key(|name| hash(name));
        let folds = drawn(&names, 2, 0).folds;
        for (place, name) in order.iter().enumerate() {
            assert!(folds[place % 2].contains(name), "{name} in {folds:?}");
        }
    }

    #[test]
    fn scans_of_a_patient_stay_together() {
        let names: Vec<String> = (0..10)
            .flat_map(|patient| (0..1 + patient % 3).map(move |scan| format!("GLI-{patient:05}-{scan:03}")))
            .collect();
        let folds = drawn(&names, 4, 0);
        assert_eq!(folds.grouped_by, GroupedBy::Patient);
        for patient in 0..10 {
            let holding = folds
                .folds
                .iter()
                .filter(|fold| fold.iter().any(|name| name.starts_with(&format!("GLI-{patient:05}"))));
            assert_eq!(holding.count(), 1, "patient {patient}");
        }
        let sizes: Vec<usize> = folds.folds.iter().map(Vec::len).collect();
        assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 3, "{sizes:?}");
    }

    #[test]
    fn what_most_cases_share_is_no_patient() {
        for stem in ["BraTS20_Training", "site1", "2019"] {
            let names: Vec<String> = (0..12).map(|i| format!("{stem}_{i:03}")).collect();
            assert_eq!(drawn(&names, 4, 0).grouped_by, GroupedBy::Case, "{stem}");
        }
        let sites: Vec<String> = (0..12).map(|i| format!("site{}_{i:03}", i % 2)).collect();
        assert_eq!(drawn(&sites, 3, 0).grouped_by, GroupedBy::Case);
    }

    #[test]
    fn folds_are_written_as_a_fraction() {
        assert_eq!("2/5".parse(), Ok(Fold { number: 2, count: 5 }));
        assert_eq!(Fold { number: 2, count: 5 }.to_string(), "2/5");
        for text in ["", "2", "0/5", "6/5", "1/1", "a/b", "1/2000"] {
            assert!(text.parse::<Fold>().is_err_and(|error| error.contains("2/5")), "{text}");
        }
    }
}
