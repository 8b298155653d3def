//! The tables on the terminal.

use crate::order;

use super::number_format::{MISSING, TimeUnit, count, mib, score};
use super::results::{CaseScore, ModelResult, Results, score_of};
use super::statistics::Statistics;
use super::text_table::{TextTable, WIDTH};
use super::{conclusion, roles, statistics_table};

/// The scores and costs of all models, the baselines, and the peak by role, as aligned plain text.
///
/// Columns for single cases are left out when they would make lines wider than 80 characters (they are in
/// `results.json`); the roles are spread over several blocks instead.
pub fn table(results: &Results) -> String {
    let cases = results.case_names();
    let with_cases = scores(results, &cases);
    let main = if with_cases.fits() { with_cases } else { scores(results, &[]) };
    let mut text = main.render() + &statistics_table::text(&Statistics::of(results));
    if results.models.iter().any(|model| !model.peak_by_role.0.is_empty()) {
        text.push_str(&format!("{COSTS}\n\nBytes at the peak of training, MiB\n"));
        text.push_str(&by_role(results).render());
    }
    let threads = if results.threads == 1 { "1 thread".into() } else { format!("{} threads", results.threads) };
    let run = format!("{}, {threads}, seed {}, ossnet {}", results.device, results.seed, results.version);
    let budget = match results.budget.is_empty() {
        true => String::new(),
        false => format!("{}\n", wrapped(&format!("Equal budgets: {}.", results.budget))),
    };
    format!("{text}\n{}\n{budget}{run}\n", wrapped(&conclusion(results)))
}

/// What the columns of costs are.
const COSTS: &str = "Costs are of a training step: MiB of one scan (planned), time for each scan.";

fn scores(results: &Results, cases: &[&str]) -> TextTable {
    let heads = ["model", "parameters", "Dice", "IoU"].map(String::from).into_iter();
    let heads = heads.chain(cases.iter().map(|case| format!("Dice {case}")));
    let models = &results.models;
    let scan = TimeUnit::of(models.iter().map(ModelResult::scan_seconds));
    let total = TimeUnit::of(models.iter().map(|model| model.total_seconds));
    let costs = ["MiB/scan".to_string(), format!("{}/scan", scan.name()), format!("total {}", total.name())];
    let mut grid = TextTable::new(heads.chain(costs));
    let by_case = |scores: &[CaseScore]| {
        let dice = |case: &&str| score(score_of(scores, case).map_or(f64::NAN, |score| score.dice));
        cases.iter().map(dice).collect::<Vec<_>>()
    };
    for model in &results.models {
        let mut row = vec![model.name.clone(), count(model.parameters), score(model.dice), score(model.iou)];
        row.extend(by_case(&model.cases));
        row.extend([mib(model.scan_bytes()), scan.figure(model.scan_seconds()), total.figure(model.total_seconds)]);
        grid.push(row);
    }
    for baseline in &results.baselines {
        let mut row = vec![baseline.name.clone(), MISSING.into(), score(baseline.dice), score(baseline.iou)];
        row.extend(by_case(&baseline.cases));
        row.extend([MISSING; 3].map(String::from));
        grid.push(row);
    }
    grid
}

/// Roles as rows, models as columns.
fn by_role(results: &Results) -> TextTable {
    let models = &results.models;
    let mut grid = TextTable::new(std::iter::once("role".into()).chain(models.iter().map(|model| model.name.clone())));
    for role in role_names(results) {
        let bytes = models.iter().map(|model| mib(model.peak_by_role.get(role)));
        grid.push(std::iter::once(roles::display(role)).chain(bytes));
    }
    grid.push(std::iter::once("total".into()).chain(models.iter().map(|model| mib(model.peak_bytes))));
    grid
}

/// Roles that hold bytes at the peak of some model, in the glossary's order.
pub(super) fn role_names(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (role, _) in results.models.iter().flat_map(|model| &model.peak_by_role.0) {
        if !names.contains(&role.as_str()) {
            names.push(role);
        }
    }
    names.retain(|role| results.models.iter().any(|model| model.peak_by_role.get(role) > 0));
    order::by_key(&mut names, |role| roles::rank(role) as u128);
    names
}

/// `text` broken at blanks so that no line is wider than the tables.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().filter(|line| line.chars().count() + word.chars().count() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.into()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    const EXPECTED: &str = "\
model               parameters   Dice    IoU  MiB/scan  ms/scan  total s
──────────────────  ──────────  ─────  ─────  ────────  ───────  ───────
O-Net                  412,673  0.861  0.756      88.0    210.0     48.2
OSS-Net C              398,213  0.903  0.823      48.0    160.0     41.7
3D residual U-Net    1,198,034  0.921  0.854     176.0    390.0    136.9
mean training mask           –  0.790  0.650         –        –        –
best threshold               –  0.650  0.650         –        –        –
Costs are of a training step: MiB of one scan (planned), time for each scan.

Bytes at the peak of training, MiB
role                   O-Net  OSS-Net C  3D residual U-Net
─────────────────────  ─────  ─────────  ─────────────────
parameters               2.0        2.0                5.0
optimiser state          4.0        4.0               10.0
normalisation buffers      0          0                1.0
data                     4.0        4.0                4.0
gradients                2.0        2.0                5.0
saved activations       52.0       22.0              110.0
transient               18.0        9.0               33.0
workspace                6.0        5.0                8.0
total                   88.0       48.0              176.0

Mean Dice on 2 cases: 3D residual U-Net 0.921, OSS-Net C 0.903, O-Net 0.861. So
few cases do not tell which network is more accurate. OSS-Net C needs the least
memory for a scan (48.0 MiB; 3D residual U-Net 176.0 MiB, 3.7 times as much).
The best trivial method (mean training mask) reaches 0.790; all 3 networks score
higher on these cases.
cpu (AVX-512), 2 threads, seed 7, ossnet 0.1.0 (train, report)
";

    #[test]
    fn the_demo_prints_as_expected() {
        let text = table(&fixtures::results());
        assert_eq!(text, EXPECTED);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn columns_are_aligned_whatever_the_alphabet() {
        let mut results = fixtures::results();
        results.models[0].name = "Überblick–Netz".into();
        let text = table(&results);
        let widths: Vec<usize> = text.lines().take(3).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{text}");
    }

    #[test]
    fn missing_figures_are_dashes() {
        let mut results = fixtures::results();
        results.models[0].dice = f64::NAN;
        results.models[0].step_seconds = f64::INFINITY;
        results.models[0].cases.clear();
        let text = table(&results);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(text.lines().nth(2).unwrap().matches(MISSING).count() == 2, "{text}");
    }

    #[test]
    fn many_cases_and_models_stay_within_the_width() {
        let mut results = fixtures::results();
        let model = results.models[0].clone();
        for number in 0..9 {
            let mut model = model.clone();
            model.name = format!("another model {number}");
            for case in 0..12 {
                model.cases.push(CaseScore { name: format!("case {case}"), dice: 0.5, ..CaseScore::default() });
            }
            results.models.push(model);
        }
        let text = table(&results);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("another model 8"));
    }
}
