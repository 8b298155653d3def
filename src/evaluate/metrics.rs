//! Dice and intersection over union, from counts that are exact.

/// When a prediction counts as inside, and what nothing against nothing scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRule {
    /// Inside above this probability.
    pub threshold: f32,
    /// Inside at the threshold too.
    pub ties_inside: bool,
    /// Score of an empty prediction of an empty label.
    pub empty: f64,
}

impl ScoreRule {
    /// Strictly above one half; nothing found where nothing is scores 1.
    pub const DEFAULT: ScoreRule = ScoreRule { threshold: 0.5, ties_inside: false, empty: 1.0 };
    /// The official code's: the same, but scores 0.
    pub const REFERENCE: ScoreRule = ScoreRule { empty: 0.0, ..ScoreRule::DEFAULT };

    /// Whether a probability counts as inside; NaN never does.
    pub fn inside(&self, probability: f32) -> bool {
        probability > self.threshold || (self.ties_inside && probability == self.threshold)
    }
}

/// How predicted and true voxels of one class meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confusion {
    /// Predicted and true.
    pub true_positive: u64,
    /// Predicted, not true.
    pub false_positive: u64,
    /// True, not predicted.
    pub false_negative: u64,
    /// Neither.
    pub true_negative: u64,
}

impl Confusion {
    /// Counts pairs of (predicted, true).
    pub fn count(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        // Indexed by predicted and true; no branch on the data.
        let mut counts = [0u64; 4];
        pairs.into_iter().for_each(|(predicted, truth)| counts[(predicted as usize) << 1 | truth as usize] += 1);
        let [true_negative, false_negative, false_positive, true_positive] = counts;
        Self { true_positive, false_positive, false_negative, true_negative }
    }

    /// Probabilities against labels (0: background).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn of_probabilities(probabilities: &[f32], labels: &[u8], rule: &ScoreRule) -> Self {
        assert_eq!(probabilities.len(), labels.len(), "one label for each probability");
        Self::count(probabilities.iter().zip(labels).map(|(&p, &y)| (rule.inside(p), y > 0)))
    }

    /// Predicted against true classes, for the class `class`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn of_class(predicted: &[u8], labels: &[u8], class: u8) -> Self {
        assert_eq!(predicted.len(), labels.len(), "one label for each prediction");
        Self::count(predicted.iter().zip(labels).map(|(&p, &y)| (p == class, y == class)))
    }

    /// `2·|A∩B| / (|A| + |B|)`, or the rule's score if both are empty.
    pub fn dice(&self, rule: &ScoreRule) -> f64 {
        let sizes = 2 * self.true_positive + self.false_positive + self.false_negative;
        if sizes == 0 { rule.empty } else { 2.0 * self.true_positive as f64 / sizes as f64 }
    }

    /// `|A∩B| / |A∪B|`, or the rule's score if both are empty.
    pub fn iou(&self, rule: &ScoreRule) -> f64 {
        let union = self.true_positive + self.false_positive + self.false_negative;
        if union == 0 { rule.empty } else { self.true_positive as f64 / union as f64 }
    }

    /// Share of the predicted voxels that are true, or the rule's score if none is predicted and none true (0 if some are).
    pub fn precision(&self, rule: &ScoreRule) -> f64 {
        self.share(self.false_positive, self.false_negative, rule)
    }

    /// Share of the true voxels that are predicted, or the rule's score if none is true and none predicted (0 if some are).
    pub fn recall(&self, rule: &ScoreRule) -> f64 {
        self.share(self.false_negative, self.false_positive, rule)
    }

    fn share(&self, missed: u64, other: u64, rule: &ScoreRule) -> f64 {
        match (self.true_positive + missed, other) {
            (0, 0) => rule.empty,
            (0, _) => 0.0,
            (all, _) => self.true_positive as f64 / all as f64,
        }
    }
}

/// One [`Confusion`] for each of the classes `0..classes`.
///
/// # Panics
/// If the lengths differ.
pub fn by_class(predicted: &[u8], labels: &[u8], classes: u8) -> Vec<Confusion> {
    (0..classes).map(|class| Confusion::of_class(predicted, labels, class)).collect()
}

/// The mean; NaN of nothing.
pub fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let probabilities = [0.9, 0.5, 0.2, 0.7, 0.1, f32::NAN];
        let labels = [1, 1, 1, 0, 0, 1];
        let counts = Confusion::of_probabilities(&probabilities, &labels, &ScoreRule::DEFAULT);
        let expected = Confusion { true_positive: 1, false_positive: 1, false_negative: 3, true_negative: 1 };
        assert_eq!(counts, expected);
        assert_eq!(counts.dice(&ScoreRule::DEFAULT), 2.0 / 6.0);
        assert_eq!(counts.iou(&ScoreRule::DEFAULT), 1.0 / 5.0);
        assert_eq!(counts.precision(&ScoreRule::DEFAULT), 0.5);
        assert_eq!(counts.recall(&ScoreRule::DEFAULT), 0.25);
        let ties = ScoreRule { ties_inside: true, ..ScoreRule::DEFAULT };
        assert_eq!(Confusion::of_probabilities(&probabilities, &labels, &ties).true_positive, 2);
    }

    #[test]
    fn nothing_against_nothing() {
        let nothing = Confusion::of_probabilities(&[0.1, 0.2], &[0, 0], &ScoreRule::DEFAULT);
        let scores =
            |rule: &ScoreRule| [nothing.dice(rule), nothing.iou(rule), nothing.precision(rule), nothing.recall(rule)];
        assert_eq!(scores(&ScoreRule::DEFAULT), [1.0; 4]);
        assert_eq!(scores(&ScoreRule::REFERENCE), [0.0; 4]);
        let missed = Confusion::of_probabilities(&[0.1, 0.2], &[0, 1], &ScoreRule::DEFAULT);
        assert_eq!([missed.dice(&ScoreRule::DEFAULT), missed.precision(&ScoreRule::DEFAULT)], [0.0; 2]);
    }

    #[test]
    fn classes() {
        let counts = by_class(&[0, 1, 2, 2, 1], &[0, 1, 2, 1, 1], 3);
        let dice: Vec<f64> = counts.iter().map(|c| c.dice(&ScoreRule::DEFAULT)).collect();
        assert_eq!(dice, [1.0, 0.8, 2.0 / 3.0]);
        assert_eq!(mean(&[1.0, 0.5]), 0.75);
    }
}
