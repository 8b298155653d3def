//! The scores of an evaluation for a terminal.

use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES, Scores};
use crate::evaluate::statistics::Summary;
use crate::text::visible_line;

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
    let label = |name: &str, class: &str| {
        let label = if several { format!("{name} {class}") } else { name.to_string() };
        visible_line(&label).into_owned()
    };
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
    let first = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(4);
    let heads = NAMES.map(|(name, unit)| match (name, unit) {
        ("relative_volume_error", _) => "rel. error".to_string(),
        (name, "") => name.replace('_', " "),
        (name, unit) => format!("{} {unit}", name.replace('_', " ")),
    });
    let widths: Vec<usize> = (0..NAMES.len())
        .map(|k| rows.iter().map(|(_, cells)| cells[k].chars().count()).max().unwrap_or(0).max(heads[k].len()))
        .collect();
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
        format!("{name:<first$}{cells}\n")
    };
    line("case", &heads) + &rows.iter().map(|(name, cells)| line(name, cells)).collect::<String>()
}
