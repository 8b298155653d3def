//! What the figures say, in a few sentences. None names a winner that the interval of the difference does not carry.

use super::number_format::{duration, score};
use super::results::{ModelResult, Results};
use super::statistics::Statistics;
use super::statistics_table::{signed, two};
use crate::evaluate::statistics::{FEWEST, Paired};
use crate::memory::format_bytes;
use crate::order;

/// The comparison's outcome: accuracy, memory, and what the networks are worth beside the best baseline.
pub fn conclusion(results: &Results) -> String {
    let statistics = Statistics::of(results);
    let scored: Vec<&ModelResult> = results.models.iter().filter(|model| model.dice.is_finite()).collect();
    // The first of equals, so that the order of training decides.
    let best = scored.iter().copied().reduce(|best, model| if model.dice > best.dice { model } else { best });
    let Some(best) = best else { return "No model was evaluated.".into() };
    let mut text = match scored.len() {
        1 => alone(best, &statistics),
        _ => accuracy(best, &scored, &statistics) + &memory(best, &scored),
    };
    text += &against_baseline(results, &scored, &statistics);
    let failed = results.models.len() - scored.len();
    if failed > 0 {
        text.push_str(&format!(" {failed} of {} models gave no score.", results.models.len()));
    }
    text
}

fn cases(count: usize) -> String {
    if count == 1 { "1 case".into() } else { format!("{count} cases") }
}

fn alone(model: &ModelResult, statistics: &Statistics) -> String {
    let interval = statistics.methods.iter().find(|method| method.name == model.name).and_then(|m| m.dice.interval);
    let interval = interval.map_or(String::new(), |ends| format!(", 95 % interval {}", two(Some(ends))));
    format!(
        "{} reaches mean Dice {} on {}{interval}, with {} and {} for a scan in training.",
        model.name,
        score(model.dice),
        cases(statistics.cases),
        format_bytes(model.scan_bytes()),
        duration(model.scan_seconds())
    )
}

/// The means, and which of them differ.
fn accuracy(best: &ModelResult, scored: &[&ModelResult], statistics: &Statistics) -> String {
    let mut ranked = scored.to_vec();
    order::by_key_descending(&mut ranked, |model| order::of_number(model.dice));
    let means: Vec<String> = ranked.iter().map(|model| format!("{} {}", model.name, score(model.dice))).collect();
    let text = format!("Mean Dice on {}: {}.", cases(statistics.cases), means.join(", "));
    if statistics.pairs.iter().all(|pair| pair.dice.is_none_or(|dice| dice.pairs < FEWEST)) {
        return text + " So few cases do not tell which network is more accurate.";
    }
    let compared = ranked.iter().filter(|model| !std::ptr::eq(**model, best));
    let compared = compared.map(|model| (&model.name, statistics.pair(&best.name, &model.name)));
    let (worse, alike): (Vec<_>, Vec<_>) =
        compared.partition(|(_, pair)| pair.is_some_and(|pair| pair.first_is_better()));
    let list = |pairs: &[(&String, Option<Paired>)]| {
        let one = |(name, pair): &(&String, Option<Paired>)| match pair {
            Some(Paired { mean, interval: Some(ends), .. }) => {
                format!("{name} (difference {}, 95 % interval {})", signed(*mean), two(Some(*ends)))
            }
            _ => name.to_string(),
        };
        pairs.iter().map(one).collect::<Vec<_>>().join(" and ")
    };
    let worse = match worse.is_empty() {
        true => String::new(),
        false => format!(" {} is more accurate than {}.", best.name, list(&worse)),
    };
    let alike = match alike.is_empty() {
        true => String::new(),
        false => format!(" These cases do not tell {} from {}.", best.name, list(&alike)),
    };
    text + &worse + &alike
}

fn memory(best: &ModelResult, scored: &[&ModelResult]) -> String {
    let leanest =
        scored.iter().copied().reduce(|least, row| if row.scan_bytes() < least.scan_bytes() { row } else { least });
    let Some(leanest) = leanest else { return String::new() };
    let least = format!(" {} needs the least memory for a scan ({}", leanest.name, format_bytes(leanest.scan_bytes()));
    let ratio = best.scan_bytes() as f64 / leanest.scan_bytes() as f64;
    match std::ptr::eq(best, leanest) {
        true => least + ").",
        false if !ratio.is_finite() => format!("{least}; {} {}).", best.name, format_bytes(best.scan_bytes())),
        false => format!("{least}; {} {}, {ratio:.1} times as much).", best.name, format_bytes(best.scan_bytes())),
    }
}

/// Which networks are no better than the best trivial method.
fn against_baseline(results: &Results, scored: &[&ModelResult], statistics: &Statistics) -> String {
    let Some(baseline) = statistics.against_baseline.first().map(|pair| &pair.second) else { return String::new() };
    let dice = results.baselines.iter().find(|row| row.name == *baseline).map_or(f64::NAN, |row| row.dice);
    let few = statistics.against_baseline.iter().any(|pair| pair.dice.is_none_or(|dice| dice.pairs < FEWEST));
    let beats = |model: &&&ModelResult| match few {
        // With so few cases nothing but the means can be compared.
        true => model.dice > dice,
        false => {
            let pair = statistics.against_baseline.iter().find(|pair| pair.first == model.name);
            pair.and_then(|pair| pair.dice).is_some_and(|pair| pair.first_is_better())
        }
    };
    let (above, below): (Vec<_>, Vec<_>) = scored.iter().partition(beats);
    let names = |models: &[&&ModelResult]| models.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(" and ");
    let higher = if few { "score higher on these cases" } else { "are better" };
    let above = match above.len() {
        0 => String::new(),
        1 => format!("; {} {}", names(&above), if few { "scores higher on these cases" } else { "is better" }),
        count if count == scored.len() => format!("; all {count} networks {higher}"),
        _ => format!("; {} {higher}", names(&above)),
    };
    let below = match below.len() {
        0 => String::new(),
        1 => format!(" {} is no better than that: it has not learnt the task.", names(&below)),
        _ => format!(" {} are no better than that: they have not learnt the task.", names(&below)),
    };
    format!(" The best trivial method ({baseline}) reaches {}{above}.{below}", score(dice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn few_cases_name_no_winner() {
        assert_eq!(
            conclusion(&fixtures::results()),
            "Mean Dice on 2 cases: 3D residual U-Net 0.921, OSS-Net C 0.903, O-Net 0.861. So few cases do not tell which \
             network is more accurate. OSS-Net C needs the least memory for a scan (48.0 MiB; 3D residual U-Net 176.0 MiB, 3.7 times \
             as much). The best trivial method (mean training mask) reaches 0.790; all 3 networks score higher on these \
             cases."
        );
    }

    #[test]
    fn many_cases_name_who_is_better_and_who_cannot_be_told_apart() {
        let text = conclusion(&fixtures::many_cases());
        assert!(text.contains("3D residual U-Net is more accurate than O-Net (difference 0.0"), "{text}");
        assert!(text.contains("These cases do not tell 3D residual U-Net from OSS-Net C (difference 0.00"), "{text}");
        assert!(text.ends_with("reaches 0.790; all 3 networks are better."), "{text}");
    }

    #[test]
    fn a_network_that_has_not_learnt_is_called_that() {
        let mut results = fixtures::many_cases();
        for (case, mask) in results.models[0].cases.iter_mut().zip(&results.baselines[0].cases) {
            case.dice = mask.dice;
        }
        let text = conclusion(&results);
        assert!(text.contains("O-Net is no better than that: it has not learnt the task."), "{text}");
        assert!(text.contains("; OSS-Net C and 3D residual U-Net are better."), "{text}");
    }

    #[test]
    fn one_model_and_models_without_scores() {
        let mut results = fixtures::results();
        results.models.truncate(2);
        results.models[0].dice = f64::NAN;
        results.models[1].dice = 0.5;
        let text = conclusion(&results);
        assert!(text.starts_with("OSS-Net C reaches mean Dice 0.500 on 2 cases, with 48.0 MiB and"), "{text}");
        assert!(text.contains("OSS-Net C is no better than that"), "{text}");
        assert!(text.ends_with("1 of 2 models gave no score."), "{text}");
        assert_eq!(conclusion(&Results::default()), "No model was evaluated.");
        let many = Results { models: vec![fixtures::many_cases().models[0].clone()], ..Results::default() };
        assert!(conclusion(&many).contains("on 24 cases, 95 % interval 0."));
    }

    #[test]
    fn zero_bytes_give_no_ratio() {
        let mut results = fixtures::results();
        results.models[1].peak_bytes = 0;
        assert!(conclusion(&results).contains("least memory for a scan (0 B; 3D residual U-Net 176.0 MiB)."));
    }
}
