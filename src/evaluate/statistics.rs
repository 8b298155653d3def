//! What scores over cases say: mean, median, spread, an interval around the mean, and differences of pairs.
//!
//! Intervals are percentiles of a bootstrap over the cases: [`RESAMPLES`] means of as many cases, drawn with replacement
//! with a fixed seed. They hold 95 % and stay within the scores' own range, as Student's t would not.

use serde::Serialize;

use super::wilcoxon;
use crate::rng::Rng;

/// Means that an interval is taken from.
pub const RESAMPLES: usize = 10_000;

/// Cases below which no interval is given: means of so few say too little about others.
pub const FEWEST: usize = 5;

/// Some scores in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Scores that are defined; the others do not count.
    pub count: usize,
    /// Their mean; `None` without any.
    pub mean: Option<f64>,
    /// Their median; `None` without any.
    pub median: Option<f64>,
    /// Their standard deviation (n − 1 in the denominator); `None` for fewer than two.
    pub deviation: Option<f64>,
    /// The lowest and the highest; `None` without any.
    pub range: Option<[f64; 2]>,
    /// 95 % interval of the mean; `None` for fewer than [`FEWEST`].
    pub interval: Option<[f64; 2]>,
}

impl Summary {
    /// Of the finite ones of `scores`.
    pub fn of(scores: impl IntoIterator<Item = f64>) -> Self {
        let scores: Vec<f64> = scores.into_iter().filter(|score| score.is_finite()).collect();
        let Some(mean) = mean(&scores) else { return Self::default() };
        let mut sorted = scores.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let square = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>();
        Self {
            count: scores.len(),
            mean: Some(mean),
            median: Some(quantile(&sorted, 0.5)),
            deviation: (scores.len() > 1).then(|| (square / (scores.len() - 1) as f64).sqrt()),
            range: Some([sorted[0], sorted[sorted.len() - 1]]),
            interval: bootstrap(&scores),
        }
    }
}

/// How the scores of the same cases differ between two methods: the first's less the second's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Cases that both have scores of.
    pub pairs: usize,
    /// Mean difference.
    pub mean: f64,
    /// Its 95 % interval; `None` for fewer than [`FEWEST`] pairs.
    pub interval: Option<[f64; 2]>,
    /// p of Wilcoxon's signed-rank test; `None` if no pair differs.
    pub p: Option<f64>,
}

impl Paired {
    /// Of scores of the same cases in the same order; pairs of which one is not finite do not count. `None` without any.
    pub fn of(first: &[f64], second: &[f64]) -> Option<Self> {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).filter(|d| d.is_finite()).collect();
        Some(Self {
            pairs: differences.len(),
            mean: mean(&differences)?,
            interval: bootstrap(&differences),
            p: wilcoxon::p_value(&differences),
        })
    }

    /// Whether the first is better, by an interval that leaves 0 below it.
    pub fn first_is_better(&self) -> bool {
        self.interval.is_some_and(|[low, _]| low > 0.0)
    }

    /// Whether the second is better, by an interval that leaves 0 above it.
    pub fn second_is_better(&self) -> bool {
        self.interval.is_some_and(|[_, high]| high < 0.0)
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The 2.5th and the 97.5th percentile of the means of [`RESAMPLES`] resamples.
fn bootstrap(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < FEWEST {
        return None;
    }
    let mut rng = Rng::named(0, "bootstrap");
    let count = values.len();
    let mut resample = || (0..count).map(|_| values[rng.below(count as u64) as usize]).sum::<f64>() / count as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
    means.sort_unstable_by(f64::total_cmp);
    // Rounding may carry a mean of equal values a last bit beyond them.
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    Some([0.025, 0.975].map(|share| quantile(&means, share).clamp(low, high)))
}

/// The value below which a share of `sorted` lies, between neighbours by linear interpolation as `numpy.quantile`; 0 of nothing.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (low, part) = (place.floor() as usize, place.fract());
    sorted[low] + part * (sorted[(low + 1).min(last)] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_by_hand() {
        let summary = Summary::of([1.0, 2.0, 6.0, f64::NAN, f64::INFINITY]);
        assert_eq!((summary.count, summary.mean, summary.median), (3, Some(3.0), Some(2.0)));
        assert_eq!((summary.deviation, summary.range), (Some(7f64.sqrt()), Some([1.0, 6.0])));
        assert_eq!(summary.interval, None, "three cases are too few");
        assert_eq!(Summary::of([0.5]).deviation, None);
        assert_eq!(Summary::of([]), Summary::default());
    }

    /// Of five cases all 5⁵ resamples are known: the interval's ends lie where 2.5 % of them lie beyond.
    #[test]
    fn intervals_agree_with_all_resamples() {
        let values = [0.1, 0.35, 0.5, 0.85, 0.97];
        let [low, high] = bootstrap(&values).unwrap();
        let all = 5usize.pow(5);
        let mean = |n: usize| (0..5).map(|k| values[n / 5usize.pow(k) % 5]).sum::<f64>() / 5.0;
        let share = |holds: &dyn Fn(f64) -> bool| (0..all).filter(|&n| holds(mean(n))).count() as f64 / all as f64;
        // Four standard errors of a share of 2.5 % in 10,000 draws, and the heaviest mean's own share.
        let error = 4.0 * (0.025f64 * 0.975 / RESAMPLES as f64).sqrt();
        assert!(share(&|m| m < low - 1e-12) <= 0.025 + error && share(&|m| m <= low + 1e-12) >= 0.025 - error, "{low}");
        assert!(
            share(&|m| m > high + 1e-12) <= 0.025 + error && share(&|m| m >= high - 1e-12) >= 0.025 - error,
            "{high}"
        );
    }

    /// For many cases the bootstrap tends to the normal interval.
    #[test]
    fn intervals_of_many_cases_are_the_normal_ones() {
        let mut rng = Rng::new(1);
        let values: Vec<f64> = (0..400).map(|_| f64::from(rng.uniform())).collect();
        let summary = Summary::of(values.iter().copied());
        let half = 1.96 * summary.deviation.unwrap() / 20.0;
        let [low, high] = summary.interval.unwrap();
        let mean = summary.mean.unwrap();
        // Percentiles of 10,000 draws are good to about 3 % of the half width; four times that.
        assert!((low - (mean - half)).abs() < 0.12 * half && (high - (mean + half)).abs() < 0.12 * half);
    }

    #[test]
    fn intervals_stay_within_the_scores() {
        assert_eq!(Summary::of([0.1 + 0.2; 7]).interval, Some([0.1 + 0.2; 2]));
        let [low, high] = Summary::of([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).interval.unwrap();
        assert!((0.0..1.0).contains(&low) && high == 1.0);
    }

    #[test]
    fn pairs_say_who_is_better_only_where_the_interval_does() {
        let (better, worse) = ([0.9, 0.8, 0.85, 0.9, 0.7, 0.8], [0.8, 0.75, 0.8, 0.8, 0.6, 0.7]);
        let found = Paired::of(&better, &worse).unwrap();
        assert!(found.first_is_better() && !found.second_is_better());
        // All six signs are equal: p is 2/2⁶.
        assert_eq!((found.pairs, found.p), (6, Some(2.0 / 64.0)));
        assert!(Paired::of(&worse, &better).unwrap().second_is_better());
        let few = Paired::of(&better[..4], &worse[..4]).unwrap();
        assert!(few.interval.is_none() && !few.first_is_better());
        let equal = Paired::of(&better, &better).unwrap();
        assert!(equal.p.is_none() && !equal.first_is_better() && !equal.second_is_better());
        assert!(Paired::of(&[f64::NAN], &[0.5]).is_none());
    }
}
