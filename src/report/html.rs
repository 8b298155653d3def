//! The page: one file, no network. Its script adds values under the pointer, pictures to take away and slices that scroll;
//! without it the page says the same.

use std::fmt::Write;

use super::charts::{self, CurveStyle, Line};
use super::escape::Escaped;
use super::number_format::{MISSING, TimeUnit, count, mib, score, short};
use super::report_data::{CaseFacts, CaseSlices, ReportData, RunFacts, Timeline};
use super::results::{CaseScore, ModelResult, Results, score_of};
use super::statistics::Statistics;
use super::table::role_names;
use super::text_table::TextTable;
use super::{conclusion, palette, resolution, roles, slices, statistics_table};
use crate::Result;
use crate::memory::format_bytes;
use crate::packed::packed;

/// Most bytes that the slices of several cases may take, so that the page stays under 4 MB and easy to send.
const SLICES_BYTES: usize = 5 << 19;

/// Beyond this number, the scores of single cases get a table of their own.
const CASE_COLUMNS: usize = 4;

/// The report as a self-contained HTML page.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when a mask or image among the slices does not have its stated size.
pub fn page(results: &Results, evidence: &ReportData) -> Result<String> {
    let title = match evidence.facts.data_set.as_str() {
        "" => "Comparison".to_string(),
        data_set => format!("Comparison on {data_set}"),
    };
    let sections = [
        scores_section(results),
        loss_section(evidence),
        memory_section(results, evidence),
        resolution::section(&evidence.resolution),
        slices_section(results, &evidence.slices)?,
        run_section(results, &evidence.facts),
    ];
    // A figure is not parted from its unit.
    let conclusion = conclusion(results).replace(" MiB", "\u{a0}MiB");
    Ok(document(&title, &conclusion, &run_line(results), &sections.concat()))
}

/// `template` with each `{{name}}` replaced; the values themselves are not searched.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let mut page = String::new();
    for piece in template.split("{{") {
        match piece.split_once("}}") {
            None => page.push_str(piece),
            Some((name, rest)) => {
                let value = values.iter().find(|(key, _)| *key == name);
                page.push_str(value.map_or("", |(_, value)| value));
                page.push_str(rest);
            }
        }
    }
    page
}

fn run_line(results: &Results) -> String {
    let threads = if results.threads == 1 { "1 thread".into() } else { format!("{} threads", results.threads) };
    format!("{}, {threads}, seed {}, ossnet {}", results.device, results.seed, results.version)
}

// ---------------------------------------------------------------- scores

fn scores_section(results: &Results) -> String {
    let mut html = String::from("<section>\n<h2>Accuracy and cost</h2>\n");
    let statistics = Statistics::of(results);
    html.push_str(&main_table(results, &statistics));
    if statistics.cases > 0 {
        html.push_str(&statistics_table::html(&statistics));
    }
    html.push_str(&role_table(results));
    if let Some(chart) = charts::scores(results) {
        html.push_str(
            &chart.figure("Dice by case", "Dice on each validation case, over all voxels. Baselines are grey."),
        );
    }
    html.push_str(&case_table(results));
    html + "</section>\n"
}

/// Models and baselines with all figures.
fn main_table(results: &Results, statistics: &Statistics) -> String {
    let cases = results.case_names();
    let columns = if cases.len() <= CASE_COLUMNS { cases.as_slice() } else { &[] };
    let mut html = String::from(
        "<div class=\"scroll\"><table>\n<caption>Scores are means over the validation cases, evaluated at all voxels. \
         The best figure of a column is coloured, a score only if it differs from every other network’s by more than \
         chance (95 % intervals of the differences). One scan: the peak of a training step of one scan (planned), and the median \
         seconds of a step over its scans. Total: training and scoring.</caption>\n<thead><tr><th scope=\"col\">Model</th>\
         <th scope=\"col\">Parameters</th><th scope=\"col\">Dice</th><th scope=\"col\">IoU</th>",
    );
    for case in columns {
        let _ = write!(html, "<th scope=\"col\">Dice<br><small>{}</small></th>", Escaped(case));
    }
    let models = &results.models;
    let (scan, total) = (
        TimeUnit::of(models.iter().map(|model| model.scan_seconds())),
        TimeUnit::of(models.iter().map(|model| model.total_seconds)),
    );
    let _ = write!(
        html,
        "<th scope=\"col\">Scans<br><small>a step</small></th><th scope=\"col\">One scan<br><small>MiB</small></th>\
         <th scope=\"col\">One scan<br><small>{}</small></th><th scope=\"col\">Total<br><small>{}</small></th></tr></thead>\n<tbody>\n",
        scan.name(),
        total.name(),
    );
    let best_dice = models.iter().map(|model| model.dice).fold(f64::NEG_INFINITY, f64::max);
    let best_iou = models.iter().map(|model| model.iou).fold(f64::NEG_INFINITY, f64::max);
    let least_bytes = models.iter().map(ModelResult::scan_bytes).min();
    let fastest = models.iter().map(ModelResult::scan_seconds).fold(f64::INFINITY, f64::min);
    for model in models {
        let class = palette::network(&model.name);
        let _ = write!(html, "<tr><th scope=\"row\">{}{}</th>", swatch(&format!("bar {class}")), Escaped(&model.name));
        html.push_str(&cell(&count(model.parameters), false));
        let leads = statistics.is_most_accurate(&model.name, models.len());
        html.push_str(&cell(&score(model.dice), leads && model.dice == best_dice));
        html.push_str(&cell(&score(model.iou), leads && model.iou == best_iou));
        html.push_str(&case_cells(&model.cases, columns));
        html.push_str(&cell(&count(model.scans_per_step), false));
        html.push_str(&cell(&mib(model.scan_bytes()), Some(model.scan_bytes()) == least_bytes));
        html.push_str(&cell(&scan.figure(model.scan_seconds()), model.scan_seconds() == fastest));
        html.push_str(&cell(&total.figure(model.total_seconds), false));
        html.push_str("</tr>\n");
    }
    for (number, row) in results.baselines.iter().enumerate() {
        let swatch = swatch(&format!("bar b{}", number % 3));
        let _ = write!(html, "<tr class=\"baseline\"><th scope=\"row\">{swatch}{}</th>", Escaped(&row.name));
        html.push_str(&cell(MISSING, false));
        html.push_str(&cell(&score(row.dice), false));
        html.push_str(&cell(&score(row.iou), false));
        html.push_str(&case_cells(&row.cases, columns));
        html.push_str(&cell(MISSING, false).repeat(4));
        html.push_str("</tr>\n");
    }
    html + "</tbody></table></div>\n"
}

pub(super) fn cell(text: &str, best: bool) -> String {
    if best { format!("<td class=\"best\">{}</td>", Escaped(text)) } else { format!("<td>{}</td>", Escaped(text)) }
}

fn case_cells(scores: &[CaseScore], cases: &[&str]) -> String {
    let dice = |case: &&str| cell(&score(score_of(scores, case).map_or(f64::NAN, |score| score.dice)), false);
    cases.iter().map(dice).collect()
}

/// Who held the bytes at the peak: roles as rows.
fn role_table(results: &Results) -> String {
    let (models, names) = (&results.models, role_names(results));
    if names.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<div class=\"scroll\"><table>\n<caption>Bytes held at the peak of training by role, MiB</caption>\n\
         <thead><tr><th scope=\"col\">Role</th>",
    );
    for model in models {
        let _ = write!(html, "<th scope=\"col\">{}</th>", Escaped(&model.name));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for role in names {
        let swatch = swatch(&format!("area c{}", roles::rank(role)));
        let _ = write!(html, "<tr><th scope=\"row\">{swatch}{}</th>", Escaped(roles::display(role)));
        let cells = models.iter().map(|model| cell(&mib(model.peak_by_role.get(role)), false));
        html.extend(cells);
        html.push_str("</tr>\n");
    }
    html.push_str("<tr class=\"total\"><th scope=\"row\">total</th>");
    html.extend(models.iter().map(|model| cell(&mib(model.peak_bytes), false)));
    html + "</tr>\n</tbody></table></div>\n"
}

/// Scores by case and class, folded away: needed with many cases or several classes only.
fn case_table(results: &Results) -> String {
    let models = results.models.iter().map(|row| (&row.name, &row.cases));
    let rows: Vec<_> = models.chain(results.baselines.iter().map(|row| (&row.name, &row.cases))).collect();
    let classes = rows.iter().any(|(_, cases)| cases.iter().any(|case| !case.classes.is_empty()));
    if !classes && results.case_names().len() <= CASE_COLUMNS {
        return String::new();
    }
    let mut html = String::from(
        "<details><summary>Scores by case and class</summary>\n<div class=\"scroll\"><table>\n<thead><tr>\
         <th scope=\"col\">Model</th><th scope=\"col\">Case</th><th scope=\"col\">Class</th><th scope=\"col\">Dice</th>\
         <th scope=\"col\">IoU</th></tr></thead>\n<tbody>\n",
    );
    for (name, case) in rows.iter().flat_map(|(name, cases)| cases.iter().map(move |case| (name, case))) {
        let all = std::iter::once(("all", case.dice, case.iou));
        let classes = case.classes.iter().map(|class| (class.name.as_str(), class.dice, class.iou));
        for (class, dice, iou) in all.chain(classes) {
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", Escaped(name));
            html.extend([&case.name, class, &score(dice), &score(iou)].map(|text| cell(text, false)));
            html.push_str("</tr>\n");
        }
    }
    html + "</tbody></table></div></details>\n"
}

// ---------------------------------------------------------------- loss and memory

fn loss_section(evidence: &ReportData) -> String {
    let line = |curve: &'_ super::report_data::LossCurve| (palette::network(&curve.model), curve.model.clone());
    let lines: Vec<Line<'_>> = evidence
        .losses
        .iter()
        .map(|curve| {
            let (class, name) = line(curve);
            Line { class, name, points: &curve.points }
        })
        .collect();
    let style = CurveStyle {
        description: "Training loss against scans seen",
        vertical: "loss",
        horizontal: "scans seen",
        noisy: true,
        scores: false,
        says: |loss| format!("{loss:.4}"),
    };
    let Some(chart) = charts::curves(&lines, &style) else { return String::new() };
    let caption = "Pale: the loss of each step; strong: its moving average. Models that are trained with different losses \
                   are comparable in shape only.";
    format!("<section>\n<h2>Training loss</h2>\n{}</section>\n", chart.figure("", caption))
}

fn memory_section(results: &Results, evidence: &ReportData) -> String {
    let roles = charts::roles_in_use(&results.models, &evidence.timelines);
    if roles.is_empty() {
        return String::new();
    }
    let mut html = String::from("<section>\n<h2>Memory</h2>\n");
    if let Some(chart) = charts::peaks(&results.models, &roles) {
        html.push_str(&chart.figure("Peak of training, side by side", ""));
    }
    let highest = |line: &Timeline| line.events.iter().map(|event| event.total()).max().unwrap_or(0);
    for timeline in &evidence.timelines {
        let roles = charts::roles_in_use(&[], std::slice::from_ref(timeline));
        if let Some(chart) = charts::memory(timeline, highest(timeline), &roles) {
            let caption = format!(
                "{} allocations and releases of one training step in their order; the highest holds {}. Every chart has \
                 its own scale.",
                count(timeline.events.len() as u64),
                format_bytes(highest(timeline))
            );
            html.push_str(&chart.figure(&format!("One training step of {}", timeline.model), &caption));
        }
    }
    html + &glossary() + "</section>\n"
}

/// What the roles mean.
pub(super) fn glossary() -> String {
    let mut html = String::from("<h3>What the roles mean</h3>\n<dl>\n");
    for (position, roles::Entry { name, meaning, .. }) in roles::GLOSSARY.iter().enumerate() {
        let swatch = swatch(&format!("area c{position}"));
        let _ = writeln!(html, "<div><dt>{swatch}{name}</dt><dd>{meaning}</dd></div>");
    }
    html + "</dl>\n"
}

// ---------------------------------------------------------------- slices

fn slices_section(results: &Results, cases: &[CaseSlices]) -> Result<String> {
    if cases.is_empty() {
        return Ok(String::new());
    }
    let mut html = format!("<section>\n<h2>Slices</h2>\n{}", slices::INTRODUCTION);
    let all = results.case_names().len().max(cases.len());
    let mut shown = 0;
    for (number, case) in cases.iter().enumerate() {
        let caption = |name: &str| {
            let model = results.models.iter().find(|model| model.name == name);
            let dice = model.and_then(|model| score_of(&model.cases, &case.case)).map(|score| score.dice);
            format!("{name}: Dice {} over the whole volume.", score(dice.unwrap_or(f64::NAN)))
        };
        let figures = slices::figures(case, number, &case.case, caption)?;
        if number > 0 && html.len() + figures.len() > SLICES_BYTES {
            break;
        }
        html.push_str(&figures);
        shown = number + 1;
    }
    if shown < all {
        let _ = writeln!(html, "<p class=\"note\">The first {shown} of {all} cases are shown.</p>");
    }
    Ok(html + "</section>\n")
}

// ---------------------------------------------------------------- the run

fn run_section(results: &Results, facts: &RunFacts) -> String {
    let mut html = String::from("<section>\n<h2>What was run and how to repeat it</h2>\n");
    if !facts.command.is_empty() {
        let _ = writeln!(html, "<pre><code>{}</code></pre>", Escaped(&facts.command));
    }
    let names = results.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    let epochs = if facts.epochs == 1 { "1 epoch".into() } else { format!("{} epochs", count(facts.epochs)) };
    let (trained, again) = match results.budget.as_str() {
        "" => (format!("trained from scratch for {epochs} on the training cases and scored"), ""),
        budget => {
            let settings = "set up by the data and trained from scratch on the training cases under equal budgets";
            let again = if budget.contains("measured") { " with the planned runs in its folder" } else { "" };
            (format!("{settings} ({budget}), and scored"), again)
        }
    };
    let what = format!(
        "{names}: each {trained} on the validation cases, on {}. \
         The same command{again} on the same machine gives the same bits, whatever the number of threads; times vary.",
        run_line(results)
    );
    let _ = writeln!(html, "<p>{}</p>", Escaped(what));
    if !facts.description.is_empty() {
        let _ = writeln!(
            html,
            "<p>Data: {}: {}.</p>",
            Escaped(&facts.data_set),
            Escaped(facts.description.trim_end_matches('.'))
        );
    }
    html.push_str(&list("What the scores can and cannot say", &facts.caveats));
    html.push_str(&list("Warnings of this run", &facts.warnings));
    if !facts.cases.is_empty() {
        html.push_str(
            "<h3>Cases</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">Case</th><th scope=\"col\">Use</th>\
             <th scope=\"col\">Voxels</th><th scope=\"col\">Spacing<br><small>mm</small></th></tr></thead>\n<tbody>\n",
        );
        for CaseFacts { name, validation, shape, spacing } in &facts.cases {
            let _ = write!(html, "<tr><th scope=\"row\">{}</th>", Escaped(name));
            let shape = shape.map(|n| n.to_string()).join(" × ");
            let spacing = spacing.map(short).join(" × ");
            let used = if *validation { "validation" } else { "training" };
            html.extend([used, &shape, &spacing].map(|text| cell(text, false)));
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
    }
    html + "</section>\n"
}

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", Escaped(item))).collect();
    format!("<h3>{}</h3>\n<ul>\n{items}</ul>\n", Escaped(title))
}

// ---------------------------------------------------------------- parts

/// A page of sections below a title, an answer in a sentence or two, and what was run: one file, no network.
pub(super) fn document(title: &str, conclusion: &str, run: &str, sections: &str) -> String {
    styled_document("", title, conclusion, run, sections)
}

/// The same with more rules of style.
pub(super) fn styled_document(more: &str, title: &str, conclusion: &str, run: &str, sections: &str) -> String {
    let style = [packed!("src-report-style.css").as_str(), more].map(str::trim_end).join("\n");
    let values = [
        ("title", Escaped(title).to_string()),
        ("style", style.trim_end().into()),
        ("conclusion", Escaped(conclusion).to_string()),
        ("run", Escaped(run).to_string()),
        ("sections", format!("{}<script>\n{}</script>\n", sections, packed!("src-report-viewer.js"))),
    ];
    filled(include_str!("template.html"), &values)
}

/// A table as it is on the terminal, with its caption; the first column names the rows.
pub(super) fn table(table: &TextTable, caption: &str) -> String {
    let (heads, rows) = table.cells();
    let cells = |tag: &str, row: &[String]| {
        let text = |(i, text): (usize, &String)| match (i, tag) {
            (0, _) | (_, "th") => {
                format!("<th scope=\"{}\">{}</th>", if tag == "th" { "col" } else { "row" }, Escaped(text))
            }
            _ => cell(text, false),
        };
        row.iter().enumerate().map(text).collect::<String>()
    };
    let rows: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", row))).collect();
    format!(
        "<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
        Escaped(caption),
        cells("th", heads)
    )
}

/// A sample of a filled area.
pub(super) fn swatch(class: &str) -> String {
    format!(
        "<svg class=\"swatch\" viewBox=\"0 0 24 12\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <rect class=\"{class}\" width=\"24\" height=\"12\" rx=\"2\"/></svg>"
    )
}

#[cfg(test)]
mod tests;
