//! The page of an evaluation: every score by case and class, means with 95 % confidence intervals.

use std::fmt::Write;

use super::escape::Escaped;
use super::html::filled;
use super::number_format::MISSING;
use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES};
use crate::evaluate::statistics::Summary;

/// The scores of `model` on `data_set` as a self-contained HTML page; `tolerance` is the surface Dice's, in mm.
pub fn evaluation_page(
    model: &str,
    data_set: &str,
    tolerance: f64,
    cases: &[CaseScores],
    summary: &[ClassSummary],
) -> String {
    let conclusion = summary.iter().map(|class| format!("{}: Dice {}", class.class, interval(&class.values[0])));
    let values = [
        ("title", Escaped(format!("{model} on {data_set}")).to_string()),
        ("style", include_str!("style.css").trim_end().into()),
        ("conclusion", Escaped(conclusion.collect::<Vec<_>>().join("; ")).to_string()),
        ("run", format!("{} cases; surface Dice at a tolerance of {tolerance} mm", cases.len())),
        ("sections", means(summary) + &by_case(cases)),
    ];
    filled(include_str!("template.html"), &values)
}

fn heads(html: &mut String) {
    for (name, unit) in NAMES {
        let unit = if unit.is_empty() { String::new() } else { format!("<br><small>{unit}</small>") };
        let _ = write!(html, "<th scope=\"col\">{}{unit}</th>", name.replace('_', " "));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
}

fn means(summary: &[ClassSummary]) -> String {
    let mut html = String::from(
        "<section>\n<h2>Means</h2>\n<div class=\"scroll\"><table>\n<caption>Mean over the cases and half the width of its \
         95 % confidence interval (Student’s t); in brackets the number of cases where the score is defined, if that is not \
         all of them.</caption>\n<thead><tr><th scope=\"col\">Class</th>",
    );
    heads(&mut html);
    for class in summary {
        let most = class.values.iter().map(|value| value.count).max().unwrap_or(0);
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", Escaped(&class.class));
        for value in &class.values {
            let count = if value.count < most { format!(" ({})", value.count) } else { String::new() };
            let _ = write!(html, "<td>{}{count}</td>", interval(value));
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody></table></div>\n</section>\n"
}

fn by_case(cases: &[CaseScores]) -> String {
    let mut html = String::from(
        "<section>\n<h2>Cases</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Case</th>\
         <th scope=\"col\">Class</th>",
    );
    heads(&mut html);
    for case in cases {
        for scores in &case.classes {
            let (name, class) = (Escaped(&case.name), Escaped(&scores.class));
            let _ = write!(html, "<tr><th scope=\"row\">{name}</th><td>{class}</td>");
            scores.values.iter().for_each(|&value| {
                let text = if value.is_finite() { format!("{value:.3}") } else { MISSING.into() };
                let _ = write!(html, "<td>{text}</td>");
            });
            html.push_str("</tr>\n");
        }
    }
    html + "</tbody></table></div>\n</section>\n"
}

fn interval(summary: &Summary) -> String {
    match (summary.mean, summary.half_width) {
        (Some(mean), Some(half)) => format!("{mean:.3} ± {half:.3}"),
        (Some(mean), None) => format!("{mean:.3}"),
        _ => MISSING.into(),
    }
}
