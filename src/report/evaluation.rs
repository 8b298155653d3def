//! The page of an evaluation: every score by case and class, means with 95 % intervals, medians, deviations, and the worst and
//! the median case.

use std::fmt::Write;

use super::escape::Escaped;
use super::html::document;
use super::number_format::MISSING;
use super::slices::{self, PicturedCase};
use super::strips::{Panel, Strip, strips};
use crate::Result;
use crate::evaluate::scores::{CaseScores, ClassSummary, NAMES, left_out};
use crate::evaluate::statistics::{FEWEST, Summary};

/// The scores of `model` on `data_set` as a self-contained HTML page; `tolerance` is the surface Dice's, in mm, `pictures` are
/// cases to look at.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when a mask or image among the slices does not have its stated size.
pub fn evaluation_page(
    model: &str,
    data_set: &str,
    tolerance: f64,
    (cases, summary): (&[CaseScores], &[ClassSummary]),
    pictures: &[PicturedCase],
) -> Result<String> {
    let conclusion = summary.iter().map(|class| {
        let dice = &class.values[0];
        match (dice.mean, dice.interval) {
            (Some(mean), Some([low, high])) => {
                format!("{}: Dice {mean:.3} (95 % interval {low:.3} to {high:.3})", class.class)
            }
            (mean, _) => format!("{}: Dice {}", class.class, number(mean)),
        }
    });
    let conclusion = conclusion.collect::<Vec<_>>().join("; ");
    let count = if cases.len() == 1 { "1 case".into() } else { format!("{} cases", cases.len()) };
    let run = format!("{count}; surface Dice at a tolerance of {tolerance} mm");
    let sections = [means(summary), spread(cases, summary), slices::section(pictures)?, by_case(cases)].concat();
    Ok(document(&format!("{model} on {data_set}"), &conclusion, &run, &sections))
}

/// A strip plot of each score: its classes, a dot a case.
fn spread(cases: &[CaseScores], summary: &[ClassSummary]) -> String {
    let panel = |(number, (name, unit)): (usize, &(&str, &str))| {
        let rows = summary.iter().enumerate().map(|(k, class)| {
            let held = cases.iter().filter_map(|case| Some((case, case.classes.get(k)?)));
            let held = held.filter(|(_, scores)| scores.true_ml > 0.0);
            Strip {
                class: format!("k{}", k % 8),
                name: class.class.clone(),
                values: held.map(|(case, scores)| (case.name.as_str(), scores.values[number])).collect(),
                summary: class.values[number],
            }
        });
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        // Errors have their zero in the picture, overlaps their best value.
        let least = if name.ends_with("error") || ["hd95", "assd"].contains(name) { [0.0; 2] } else { [1.0; 2] };
        Panel { title: format!("{}{unit}", name.replace('_', " ")), rows: rows.collect(), least: Some(least) }
    };
    let panels: Vec<Panel<'_>> = NAMES.iter().enumerate().map(panel).collect();
    let Some(chart) = strips("Every score of every case, by class", &panels, 3) else { return String::new() };
    let caption =
        "A dot is a case whose label holds the class. The upright stroke is the mean, the bar its 95 % interval.";
    format!("<section>\n<h2>Spread</h2>\n{}</section>\n", chart.figure("", caption))
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
        "<section>\n<h2>Means</h2>\n<div class=\"scroll\"><table>\n<caption>Over the cases whose labels hold the class; below the mean \
         its 95 % interval (bootstrap over the cases, from {FEWEST} cases on).</caption>\n<thead><tr>\
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
        (Some(mean), Some([low, high])) => format!("{mean:.3}<br><small>{low:.3} to {high:.3}</small>"),
        (Some(mean), None) => format!("{mean:.3}"),
        _ => MISSING.into(),
    }
}
