//! What the figures say, in two sentences.

use super::number_format::{duration, score};
use super::results::{BaselineResult, ModelResult, Results};
use crate::memory::format_bytes;

/// The comparison's outcome: the most accurate model, the one with the least memory, and the baselines.
pub fn conclusion(results: &Results) -> String {
    let scored = || results.models.iter().filter(|model| model.dice.is_finite());
    // The first of equals, so that the order of training decides.
    let best = scored().reduce(|best, model| if model.dice > best.dice { model } else { best });
    let leanest = scored().reduce(|least, model| if model.peak_bytes < least.peak_bytes { model } else { least });
    let mut text = match (best, leanest) {
        (Some(best), Some(leanest)) => compared(best, leanest, scored().count()),
        _ => return "No model was evaluated.".into(),
    };
    let baseline = results.baselines.iter().filter(|row| row.dice.is_finite());
    if let Some(baseline) = baseline.reduce(|best, row| if row.dice > best.dice { row } else { best }) {
        text.push_str(&against(baseline, scored().collect::<Vec<_>>().as_slice()));
    }
    let failed = results.models.len() - scored().count();
    if failed > 0 {
        text.push_str(&format!(" {failed} of {} models gave no score.", results.models.len()));
    }
    text
}

fn compared(best: &ModelResult, leanest: &ModelResult, models: usize) -> String {
    let dice = |model: &ModelResult| format!("mean Dice {}", score(model.dice));
    let cost = |model: &ModelResult| format!("a peak of {}", format_bytes(model.peak_bytes));
    if models == 1 {
        let time = duration(best.step_seconds);
        return format!("{} reaches {} with {} and {time} a training step.", best.name, dice(best), cost(best));
    }
    if std::ptr::eq(best, leanest) {
        return format!("{} is both the most accurate ({}) and the leanest ({}).", best.name, dice(best), cost(best));
    }
    let ratio = match best.peak_bytes as f64 / leanest.peak_bytes as f64 {
        ratio if !ratio.is_finite() => String::new(),
        ratio if ratio < 9.95 => format!(", {ratio:.1} times less,"),
        ratio => format!(", {ratio:.0} times less,"),
    };
    format!(
        "{} is the most accurate ({}) with {}; {} needs the least memory ({}{ratio} with {}).",
        best.name,
        dice(best),
        cost(best),
        leanest.name,
        format_bytes(leanest.peak_bytes),
        dice(leanest),
    )
}

fn against(baseline: &BaselineResult, models: &[&ModelResult]) -> String {
    let beaten = |model: &&&ModelResult| model.dice > baseline.dice;
    let (above, total) = (models.iter().filter(beaten).count(), models.len());
    let who = match (above, total) {
        (1, 1) => "which it beats".into(),
        (0, 1) => "which it does not beat".into(),
        (0, _) => "which no model beats".into(),
        (2, 2) => "which both models beat".into(),
        (above, total) if above == total => format!("which all {total} models beat"),
        (above, total) => format!("which {above} of {total} models {}", if above == 1 { "beats" } else { "beat" }),
    };
    format!(" The best baseline ({}) reaches {}, {who}.", baseline.name, score(baseline.dice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn the_sentence_follows_from_the_figures() {
        let text = conclusion(&fixtures::results());
        assert_eq!(
            text,
            "3D residual U-Net is the most accurate (mean Dice 0.921) with a peak of 176.0 MiB; OSS-Net C needs the \
             least memory (48.0 MiB, 3.7 times less, with mean Dice 0.903). The best baseline (mean training mask) \
             reaches 0.790, which all 3 models beat."
        );
    }

    #[test]
    fn one_model_that_wins_everything_and_models_without_scores() {
        let mut results = fixtures::results();
        results.models[1].dice = 0.95;
        assert!(
            conclusion(&results).starts_with("OSS-Net C is both the most accurate (mean Dice 0.950) and the leanest")
        );
        results.models.truncate(2);
        results.models[0].dice = f64::NAN;
        results.models[1].dice = 0.5;
        let text = conclusion(&results);
        assert!(text.starts_with("OSS-Net C reaches mean Dice 0.500 with a peak of 48.0 MiB and"), "{text}");
        assert!(text.ends_with("which it does not beat. 1 of 2 models gave no score."), "{text}");
        assert_eq!(conclusion(&Results::default()), "No model was evaluated.");
    }

    #[test]
    fn zero_bytes_give_no_ratio() {
        let mut results = fixtures::results();
        results.models[1].peak_bytes = 0;
        assert!(conclusion(&results).contains("least memory (0 B with mean Dice"));
    }
}
