//! The page of an evaluation: every score by case and class, means with 95 % intervals, medians, deviations.

use std::fmt::Write;

use super::escape::Escaped;
use super::html::document;
use super::number_format::MISSING;
use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES, left_out};
use crate::evaluate::statistics::{FEWEST, Summary};

/// The scores of `model` on `data_set` as a self-contained HTML page; `tolerance` is the surface Dice's, in mm.
pub fn evaluation_page(
    model: &str,
    data_set: &str,
    tolerance: f64,
    cases: &[CaseScores],
    summary: &[ClassSummary],
) -> String {
    let conclusion = summary.iter().map(|class| format!("{}: Dice {}", class.class, interval(&class.values[0])));
    let conclusion = conclusion.collect::<Vec<_>>().join("; ");
    let run = format!("{} cases; surface Dice at a tolerance of {tolerance} mm", cases.len());
    document(&format!("{model} on {data_set}"), &conclusion, &run, &(means(summary) + &by_case(cases)))
}

fn heads(html: &mut String) {
    for (name, unit) in NAMES {
        let unit = if unit.is_empty() { String::new() } else { format!("<br><small>{unit}</small>") };
        let _ = write!(html, "<th scope=\"col\">{}{unit}</th>", name.replace('_', " "));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
}

fn means(summary: &[ClassSummary]) -> String {
    let mut html = format!(
        "<section>\n<h2>Means</h2>\n<div class=\"scroll\"><table>\n<caption>Over the cases whose labels hold the class; in \
         brackets the 95 % interval of the mean (bootstrap over the cases, from {FEWEST} cases on).</caption>\n<thead><tr>\
         <th scope=\"col\">Class</th><th scope=\"col\">Cases</th><th scope=\"col\">Figure</th>"
    );
    heads(&mut html);
    for class in summary {
        let figures: [(&str, Figure); 3] = [
            ("mean", interval),
            ("median", |value| number(value.median)),
            ("deviation", |value| number(value.deviation)),
        ];
        for (name, figure) in figures {
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", Escaped(&class.class));
            let _ = write!(html, "<td>{}</td><td>{name}</td>", class.cases);
            class.values.iter().for_each(|value| html.push_str(&format!("<td>{}</td>", figure(value))));
            html.push_str("</tr>\n");
        }
    }
    html.push_str("</tbody></table></div>\n");
    let notes = left_out(summary);
    if !notes.is_empty() {
        let items: String = notes.iter().map(|note| format!("<li>{}</li>\n", Escaped(note))).collect();
        html += &format!("<ul>\n{items}</ul>\n");
    }
    html + "</section>\n"
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

/// How a summary is written in a cell.
type Figure = fn(&Summary) -> String;

fn number(value: Option<f64>) -> String {
    value.map_or(MISSING.to_string(), |value| format!("{value:.3}"))
}

fn interval(summary: &Summary) -> String {
    match (summary.mean, summary.interval) {
        (Some(mean), Some([low, high])) => format!("{mean:.3} ({low:.3} to {high:.3})"),
        (Some(mean), None) => format!("{mean:.3}"),
        _ => MISSING.into(),
    }
}
