//! What the scores of a comparison say about other cases: means with intervals, by method and class, and differences of
//! methods on the same cases.

use serde::Serialize;

use super::results::{CaseScore, Results, score_of};
use crate::evaluate::statistics::{Paired, Summary};

/// The statistics of one comparison, from its scores alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Validation cases.
    pub cases: usize,
    /// Networks in the order of the results, then baselines.
    pub methods: Vec<MethodStatistics>,
    /// Each pair of networks.
    pub pairs: Vec<PairStatistics>,
    /// Each network against the best baseline, if there is one.
    pub against_baseline: Vec<PairStatistics>,
}

/// One method over the cases.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MethodStatistics {
    /// The method.
    pub name: String,
    /// Dice by case.
    pub dice: Summary,
    /// Intersection over union by case.
    pub iou: Summary,
    /// By class, where there are several.
    pub classes: Vec<ClassStatistics>,
}

/// One class over the cases whose labels hold it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClassStatistics {
    /// The class.
    pub name: String,
    /// Cases whose labels lack it: they do not count.
    pub absent: usize,
    /// Dice in the others.
    pub dice: Summary,
}

/// Two methods on the same cases.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairStatistics {
    /// The first.
    pub first: String,
    /// The second.
    pub second: String,
    /// Dice of the first less that of the second; `None` if they have no case in common.
    pub dice: Option<Paired>,
}

impl Statistics {
    /// Of the scores in `results`.
    pub fn of(results: &Results) -> Self {
        let models = results.models.iter().map(|row| (&row.name, &row.cases));
        let baselines = results.baselines.iter().map(|row| (&row.name, &row.cases));
        let (models, baselines): (Vec<_>, Vec<_>) = (models.collect(), baselines.collect());
        let methods: Vec<MethodStatistics> =
            models.iter().chain(&baselines).map(|(name, cases)| method(name, cases)).collect();
        let pair = |(first, own): (&String, &Vec<CaseScore>), (second, other): (&String, &Vec<CaseScore>)| {
            let dice = |scores: &[CaseScore], case: &str| score_of(scores, case).map_or(f64::NAN, |score| score.dice);
            let names = own.iter().map(|score| score.name.as_str());
            let (a, b): (Vec<f64>, Vec<f64>) = names.map(|name| (dice(own, name), dice(other, name))).unzip();
            PairStatistics { first: first.clone(), second: second.clone(), dice: Paired::of(&a, &b) }
        };
        let pairs = (0..models.len()).flat_map(|i| (i + 1..models.len()).map(move |j| (i, j)));
        let pairs = pairs.map(|(i, j)| pair(models[i], models[j])).collect();
        let best = results.baselines.iter().enumerate().filter(|(_, row)| row.dice.is_finite());
        // The first of equals.
        let best = best.reduce(|best, row| if row.1.dice > best.1.dice { row } else { best });
        let against_baseline =
            best.map_or(Vec::new(), |(best, _)| models.iter().map(|model| pair(*model, baselines[best])).collect());
        Self { cases: results.case_names().len(), methods, pairs, against_baseline }
    }

    /// How network `first` does beside `second`, by name.
    pub fn pair(&self, first: &str, second: &str) -> Option<Paired> {
        let turned = |pair: Paired| Paired {
            mean: -pair.mean,
            interval: pair.interval.map(|[low, high]| [-high, -low]),
            ..pair
        };
        self.pairs.iter().find_map(|pair| match (pair.first == first, pair.second == first) {
            (true, _) if pair.second == second => pair.dice,
            (_, true) if pair.first == second => pair.dice.map(turned),
            _ => None,
        })
    }

    /// Whether `network` has a better mean than every other network of the comparison, by intervals of the differences that
    /// leave 0 out.
    pub fn is_most_accurate(&self, network: &str, networks: usize) -> bool {
        let others = self.methods.iter().take(networks).filter(|other| other.name != network);
        let mut compared = others.peekable();
        compared.peek().is_some()
            && compared.all(|other| self.pair(network, &other.name).is_some_and(|pair| pair.first_is_better()))
    }
}

fn method(name: &str, cases: &[CaseScore]) -> MethodStatistics {
    let mut names: Vec<&str> = Vec::new();
    for class in cases.iter().flat_map(|case| &case.classes) {
        if !names.contains(&class.name.as_str()) {
            names.push(&class.name);
        }
    }
    let class = |name: &str| {
        let all = || cases.iter().flat_map(|case| &case.classes).filter(|class| class.name == name);
        let held = all().filter(|class| !class.absent).map(|class| class.dice);
        ClassStatistics {
            name: name.into(),
            absent: all().filter(|class| class.absent).count(),
            dice: Summary::of(held),
        }
    };
    MethodStatistics {
        name: name.into(),
        dice: Summary::of(cases.iter().map(|case| case.dice)),
        iou: Summary::of(cases.iter().map(|case| case.iou)),
        classes: names.into_iter().map(class).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ClassScore, ModelResult};

    fn model(name: &str, dice: &[f64]) -> ModelResult {
        let case = |(i, &dice): (usize, &f64)| CaseScore {
            name: format!("case {i}"),
            dice,
            iou: dice / (2.0 - dice),
            classes: vec![
                ClassScore { name: "organ".into(), dice, ..ClassScore::default() },
                ClassScore { name: "lesion".into(), dice: 1.0, iou: 1.0, absent: i > 0 },
            ],
        };
        ModelResult { name: name.into(), cases: dice.iter().enumerate().map(case).collect(), ..ModelResult::default() }
    }

    #[test]
    fn pairs_are_of_the_same_cases_and_absent_classes_do_not_count() {
        let mut results = Results {
            models: vec![model("A", &[0.9, 0.8, 0.7, 0.9, 0.8]), model("B", &[0.8, 0.7, 0.6, 0.8, 0.75])],
            ..Results::default()
        };
        // Another order of the cases changes nothing.
        results.models[1].cases.reverse();
        let statistics = Statistics::of(&results);
        assert_eq!((statistics.cases, statistics.pairs.len()), (5, 1));
        let pair = statistics.pair("A", "B").unwrap();
        assert!((pair.mean - 0.09).abs() < 1e-12 && pair.first_is_better());
        let turned = statistics.pair("B", "A").unwrap();
        assert!(turned.second_is_better() && (turned.mean + 0.09).abs() < 1e-12);
        assert!(statistics.is_most_accurate("A", 2) && !statistics.is_most_accurate("B", 2));
        let lesion = &statistics.methods[0].classes[1];
        assert_eq!((lesion.absent, lesion.dice.count, lesion.dice.mean), (4, 1, Some(1.0)));
        assert_eq!(statistics.methods[0].classes[0].dice.mean, statistics.methods[0].dice.mean);
        assert!(
            !Statistics::of(&Results { models: vec![model("A", &[0.9; 6])], ..Results::default() })
                .is_most_accurate("A", 1)
        );
    }
}
