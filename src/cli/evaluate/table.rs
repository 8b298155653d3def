//! The scores of an evaluation for a terminal.

use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES, Scores};
use crate::evaluate::statistics::Summary;
use crate::report::TextTable;

/// A figure of a summary.
type Figure = fn(&Summary) -> Option<f64>;

/// What is said of each class over the cases: a name and the figure.
const FIGURES: [(&str, Figure); 5] = [
    ("mean", |summary| summary.mean),
    ("95 % from", |summary| summary.interval.map(|interval| interval[0])),
    ("95 % to", |summary| summary.interval.map(|interval| interval[1])),
    ("median", |summary| summary.median),
    ("deviation", |summary| summary.deviation),
];

/// A row a case and class, then means, their 95 % intervals where there are cases enough, medians and deviations.
pub(super) fn table(cases: &[CaseScores], summary: &[ClassSummary]) -> String {
    let several = summary.len() > 1;
    let label = |name: &str, class: &str| if several { format!("{name} {class}") } else { name.to_string() };
    let number = |value: f64| if value.is_finite() { format!("{value:.3}") } else { "–".into() };
    let mut rows = Vec::new();
    for case in cases {
        let row = |scores: &Scores| (label(&case.name, &scores.class), scores.values.map(number).to_vec());
        rows.extend(case.classes.iter().map(row));
    }
    for (name, figure) in FIGURES {
        let of_class = |class: &ClassSummary| class.values.map(|value| figure(&value).map_or("–".into(), number));
        // Of one case the mean says all.
        if (cases.len() > 1 || name == "mean")
            && summary.iter().any(|class| class.values.iter().any(|value| figure(value).is_some()))
        {
            rows.extend(summary.iter().map(|class| (label(name, &class.class), of_class(class).to_vec())));
        }
    }
    let heads = NAMES.map(|(name, unit)| match (name, unit) {
        ("precision", _) => "prec.".to_string(),
        ("relative_volume_error", _) => "rel. error".to_string(),
        (name, "") => name.replace('_', " "),
        (name, unit) => format!("{} {unit}", name.replace('_', " ")),
    });
    let mut grid = TextTable::new(std::iter::once("case".to_string()).chain(heads));
    rows.into_iter().for_each(|(name, cells)| grid.push(std::iter::once(name).chain(cells)));
    grid.render()
}
