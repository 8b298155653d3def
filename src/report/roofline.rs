//! The page of `ossnet roofline`: each op's rate against its operations a byte, below the ceilings of a device.

use std::fmt::Write;

use super::html::{document, table};
use super::number_format::short;
use super::palette;
use super::plot::{self, Chart, begin, beside};
use super::svg::{ChartAxis, Frame};
use super::text_table::TextTable;

/// What the page shows.
#[derive(Debug, Clone, Default)]
pub struct RooflinePage {
    /// Heading.
    pub title: String,
    /// The network, whose colour the first series has.
    pub network: String,
    /// The answer, in a sentence or two.
    pub conclusion: String,
    /// What was modelled, and what is assumed.
    pub run: String,
    /// Bytes a second through the memory.
    pub bandwidth: f64,
    /// Names of the arithmetic ceilings with their operations a second, the highest first.
    pub ceilings: Vec<(String, f64)>,
    /// Names of the series of marks.
    pub series: Vec<String>,
    /// The marks.
    pub marks: Vec<RooflineMark>,
    /// All figures.
    pub table: TextTable,
}

/// An op in a phase.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RooflineMark {
    /// Position of its series.
    pub series: usize,
    /// Its name.
    pub name: String,
    /// Operations for each byte.
    pub intensity: f64,
    /// Operations a second.
    pub rate: f64,
    /// Its share of the seconds of its series.
    pub share: f64,
}

/// The page: one file, no network.
pub fn roofline_page(page: &RooflinePage) -> String {
    let mut sections = String::new();
    if let Some(chart) = chart(page) {
        let caption = "Both axes are logarithmic. A mark's area is its share of the time; its figures appear under the pointer. \
                       Ops without arithmetic are in the table only.";
        let _ = write!(sections, "<section>\n<h2>Roofline</h2>\n{}</section>\n", chart.figure("", caption));
    }
    let caption = "Sums of one step, the longest at best first.";
    let _ = write!(sections, "<section>\n<h2>Ops</h2>\n{}</section>\n", table(&page.table, caption));
    document(&page.title, &page.conclusion, &page.run, &sections)
}

/// The class of a series: the network's, then ink.
fn class(page: &RooflinePage, series: usize) -> String {
    if series == 0 { palette::network(&page.network) } else { "ink".into() }
}

/// `None` without a mark.
fn chart(page: &RooflinePage) -> Option<Chart> {
    let usable =
        |mark: &&RooflineMark| [mark.intensity, mark.rate].iter().all(|value| *value > 0.0 && value.is_finite());
    let marks: Vec<&RooflineMark> = page.marks.iter().filter(usable).collect();
    let highest = page.ceilings.first()?.1;
    // Left of the ridge and right of it there is something to see.
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (left, right) = range(&mut marks.iter().map(|mark| mark.intensity).chain([highest / page.bandwidth]));
    let (low, _) = range(&mut marks.iter().map(|mark| mark.rate));
    if marks.is_empty() || page.bandwidth <= 0.0 {
        return None;
    }
    let entries: Vec<(String, String)> =
        page.series.iter().enumerate().map(|(i, name)| (format!("dot {}", class(page, i)), name.clone())).collect();
    let draw = |width: f64| draw(page, &marks, [left, right, low, highest], width, &entries);
    Some(Chart::plain(draw))
}

fn draw(
    page: &RooflinePage,
    marks: &[&RooflineMark],
    ends: [f64; 4],
    width: f64,
    legend: &[(String, String)],
) -> String {
    let [left, right, low, highest] = ends;
    let (mut svg, top) = begin(width, "Operations a second against operations a byte", legend);
    let horizontal = if width < 600.0 {
        ChartAxis::powers(10.0, left / 1.5, right * 1.5, plot::labels(width) + 1, short)
    } else {
        ChartAxis::logarithmic(left / 1.5, right * 1.5)
    };
    // Labels of seven digits at most, which the frame has room for.
    let (unit, of_unit) = if highest < 1e14 { ("GFLOP/s", 1e9) } else { ("TFLOP/s", 1e12) };
    let vertical = ChartAxis::powers(10.0, low / 1.2, highest * 1.2, 9, |rate| short(rate / of_unit));
    let frame = Frame { left: 68.0, top: top + 30.0, width: beside(width, 68.0), height: 360.0 };
    frame.draw_left_axis(&mut svg, &vertical, &format!("{unit} (logarithmic)"));
    frame.draw_bottom_axis(&mut svg, &horizontal, "operations a byte (logarithmic)");
    let place = |intensity: f64, rate: f64| [frame.x(horizontal.share(intensity)), frame.y(vertical.share(rate))];
    let ends = [horizontal.ticks[0].0, horizontal.ticks[horizontal.ticks.len() - 1].0];
    let bottom = vertical.ticks[0].0;

    // The memory's roof rises from the frame's edge to the highest ceiling.
    let start = (bottom / page.bandwidth).max(ends[0]);
    let ridge = highest / page.bandwidth;
    let [from, to] = [place(start, start * page.bandwidth), place(ridge, highest)];
    svg.line("roof", from, to);
    let memory = format!("memory, {} GB/s", short(page.bandwidth / 1e9));
    svg.text("value halo", "start", [from[0] + 16.0, (from[1] - 6.0).max(frame.top + 10.0)], &memory);
    for (name, rate) in &page.ceilings {
        let [x, y] = place((rate / page.bandwidth).max(ends[0]), *rate);
        svg.line("roof", [x, y], [frame.x(1.0), y]);
        svg.text("value halo", "end", [frame.x(1.0), y - 5.0], &format!("{name}, {} TFLOP/s", short(rate / 1e12)));
    }
    for mark in marks {
        let RooflineMark { series, name, intensity, rate, share } = mark;
        let title = format!(
            "{name}, {}: {} operations a byte, {} GFLOP/s, {} % of the time",
            page.series.get(*series).map_or("", String::as_str),
            short(*intensity),
            short(rate / 1e9),
            short(100.0 * share)
        );
        // Areas are to each other as times are; the smallest can still be pointed at.
        let radius = (20.0 * share.max(0.0).sqrt()).max(3.0);
        svg.titled_dot(&format!("dot faint {}", class(page, *series)), place(*intensity, *rate), radius, &title);
    }
    svg.finish(frame.bottom() + 44.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> RooflinePage {
        let mark = |name: &str, intensity: f64, rate: f64| RooflineMark {
            series: 0,
            name: name.into(),
            intensity,
            rate,
            share: 0.25,
        };
        RooflinePage {
            title: "A step".into(),
            bandwidth: 1e12,
            ceilings: vec![("f32".into(), 1e13)],
            series: vec!["expected".into()],
            marks: vec![mark("<conv>", 100.0, 8e12), mark("norm", 0.5, 4e11), mark("copy", 0.0, 0.0)],
            table: TextTable::new(["op", "ms"]),
            ..RooflinePage::default()
        }
    }

    /// The numbers of an attribute of the elements of a class.
    fn numbers(html: &str, class: &str, attribute: &str) -> Vec<f64> {
        let elements = html.split('<').filter(|element| element.contains(&format!("class=\"{class}")));
        elements
            .map(|element| {
                let value = element.split(&format!(" {attribute}=\"")).nth(1).unwrap();
                value.split('"').next().unwrap().parse().unwrap()
            })
            .collect()
    }

    #[test]
    fn marks_lie_below_their_roofs_and_names_are_escaped() {
        let html = roofline_page(&page());
        let html = html[..html.find("chart narrow").unwrap()].to_string();
        assert!(
            html.contains("&lt;conv&gt;, expected: 100 operations a byte, 8000 GFLOP/s, 25 % of the time"),
            "{html}"
        );
        // The roofs: memory (rising to the ridge), then f32 (level from there).
        let (x1, y1, x2, y2) = (
            numbers(&html, "roof", "x1"),
            numbers(&html, "roof", "y1"),
            numbers(&html, "roof", "x2"),
            numbers(&html, "roof", "y2"),
        );
        assert_eq!((x1.len(), y1[1], x2[0], y2[0]), (2, y2[1], x1[1], y1[1]));
        let (x, y) = (numbers(&html, "dot faint", "cx"), numbers(&html, "dot faint", "cy"));
        assert_eq!(x.len(), 2, "a copy has no rate");
        // 8e12 of 1e13 lies under the level roof; 4e11 under 0.5 × 1e12. Downwards is larger.
        assert!(y[0] > y1[1] && x[0] > x1[1]);
        let roof = y1[0] + (x[1] - x1[0]) / (x2[0] - x1[0]) * (y2[0] - y1[0]);
        let decade = (y1[0] - y2[0]) / ((1e13f64).log10() - (y_value(&html, y1[0])).log10());
        assert!((y[1] - roof - decade * (5e11f64 / 4e11).log10()).abs() < 0.5, "{} {roof}", y[1]);
    }

    /// The rate at a height of the chart, read from the labels of its axis.
    fn y_value(html: &str, y: f64) -> f64 {
        let ticks: Vec<(f64, f64)> = html
            .split("<text ")
            .filter(|element| element.contains("text-anchor=\"end\"") && element.contains("class=\"tick\""))
            .map(|element| {
                let height: f64 = element.split(" y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap();
                let label = element.split('>').nth(1).unwrap().split('<').next().unwrap();
                (height - 4.0, label.parse::<f64>().unwrap() * 1e9)
            })
            .collect();
        let ((h0, v0), (h1, v1)) = (ticks[0], ticks[1]);
        10f64.powf(v0.log10() + (y - h0) / (h1 - h0) * (v1.log10() - v0.log10()))
    }

    #[test]
    fn without_marks_there_is_a_table() {
        let html = roofline_page(&RooflinePage { marks: Vec::new(), ..page() });
        assert!(!html.contains("<svg class=\"chart") && html.contains("<h2>Ops</h2>"));
    }
}
