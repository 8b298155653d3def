//! The statistics of a comparison as tables, on the terminal and on the page.

#[cfg(feature = "report")]
use std::fmt::Write;

#[cfg(feature = "report")]
use super::escape::Escaped;
use super::number_format::{MISSING, score};
use super::statistics::{PairStatistics, Statistics};
use super::table::wrapped;
use super::text_table::TextTable;
use crate::evaluate::statistics::{FEWEST, Summary};

/// The caption of the scores.
fn scores_caption(cases: usize) -> String {
    format!(
        "Dice over {cases} validation cases; a class counts in the cases whose labels hold it. Interval: 95 % of the mean, \
         bootstrap over the cases{}",
        if cases < FEWEST { format!(" (from {FEWEST} cases on)") } else { String::new() }
    )
}

const PAIRS_CAPTION: &str =
    "Difference of the mean Dice on the same cases, its 95 % interval, and p of Wilcoxon’s signed-rank test";

/// Means and differences for a terminal; nothing if there are fewer cases than an interval needs.
pub(super) fn text(statistics: &Statistics) -> String {
    if statistics.cases < FEWEST {
        return String::new();
    }
    let mut text = format!("\n{}\n{}", wrapped(&scores_caption(statistics.cases)), scores(statistics).render());
    if let Some(pairs) = pairs(statistics) {
        text += &format!("\n{}\n{}", wrapped(PAIRS_CAPTION), pairs.render());
    }
    text
}

fn scores(statistics: &Statistics) -> TextTable {
    let mut grid = TextTable::new(["method", "class", "cases", "mean", "median", "deviation", "range", "interval"]);
    for method in &statistics.methods {
        let whole = if method.classes.is_empty() { "" } else { "all" };
        grid.push(row(&method.name, whole, &method.dice));
        method.classes.iter().for_each(|class| grid.push(row("", &class.name, &class.dice)));
    }
    grid
}

fn row(method: &str, class: &str, dice: &Summary) -> [String; 8] {
    let one = |value: Option<f64>| value.map_or(MISSING.into(), score);
    let count = dice.count.to_string();
    let values = [one(dice.mean), one(dice.median), one(dice.deviation), two(dice.range), two(dice.interval)];
    let [mean, median, deviation, range, interval] = values;
    [method.into(), class.into(), count, mean, median, deviation, range, interval]
}

fn pairs(statistics: &Statistics) -> Option<TextTable> {
    let mut grid = TextTable::new(["difference", "mean", "interval", "p"]);
    let all = || statistics.pairs.iter().chain(&statistics.against_baseline);
    all().for_each(|pair| grid.push(pair_row(pair)));
    all().next().map(|_| grid)
}

fn pair_row(pair: &PairStatistics) -> [String; 4] {
    let of = |value: Option<String>| value.unwrap_or(MISSING.into());
    [
        format!("{} − {}", pair.first, pair.second),
        of(pair.dice.map(|dice| signed(dice.mean))),
        of(pair.dice.map(|dice| two(dice.interval))),
        of(pair.dice.and_then(|dice| dice.p).map(p_value)),
    ]
}

/// Two ends: `0.85 to 0.87`.
pub(super) fn two(ends: Option<[f64; 2]>) -> String {
    ends.map_or(MISSING.into(), |[low, high]| format!("{} to {}", signed(low), signed(high)))
}

/// Three decimals, with a true minus sign.
pub(super) fn signed(value: f64) -> String {
    let text = score(value.abs());
    if value < 0.0 && text != "0.000" { format!("−{text}") } else { text }
}

fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-4 => "< 0.0001".into(),
        p => format!("{p:.4}"),
    }
}

/// The same for the page.
#[cfg(feature = "report")]
pub(super) fn html(statistics: &Statistics) -> String {
    let mut html = table(&scores_caption(statistics.cases), &scores(statistics));
    if let Some(pairs) = pairs(statistics) {
        html += &table(PAIRS_CAPTION, &pairs);
    }
    html
}

#[cfg(feature = "report")]
fn table(caption: &str, grid: &TextTable) -> String {
    let (heads, rows) = grid.cells();
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", Escaped(head))).collect();
    let mut html = format!(
        "<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n",
        Escaped(caption)
    );
    for row in rows {
        let cells: String = row.iter().skip(1).map(|cell| format!("<td>{}</td>", Escaped(cell))).collect();
        let _ = writeln!(html, "<tr><th scope=\"row\">{}</th>{cells}</tr>", Escaped(&row[0]));
    }
    html + "</tbody></table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn few_cases_make_no_statistics_on_the_terminal() {
        assert_eq!(text(&Statistics::of(&fixtures::results())), "");
        let many = Statistics::of(&fixtures::many_cases());
        let text = text(&many);
        assert!(text.contains("3D residual U-Net − mean training mask"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("OSS-Net C ") && line.contains(" to ")), "{text}");
    }

    #[test]
    fn numbers_have_their_signs() {
        assert_eq!(two(Some([-0.0123, 0.5])), "−0.012 to 0.500");
        assert_eq!([signed(-0.0001), signed(-1.0)], ["0.000", "−1.000"]);
        assert_eq!([p_value(3e-7), p_value(0.04)], ["< 0.0001", "0.0400"]);
    }
}
