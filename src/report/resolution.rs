//! Memory against resolution: curves on logarithmic axes, recorded figures of the peers beside them, and where they meet.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::charts::model_class;
use super::escape::Escaped;
use super::html::{figure, legend};
use super::number_format::short;
use super::svg::{ChartAxis, Frame, Svg};
use crate::memory::format_bytes;
use crate::order;

/// Curves of one setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Heading of the chart.
    pub heading: String,
    /// What was planned, and what the recorded figures are, in a sentence or two.
    pub caption: String,
    /// The models' curves, then the recorded ones.
    pub curves: Vec<Growth>,
    /// Where two of them meet.
    pub meetings: Vec<Crossover>,
}

/// A model's bytes against the side of a cubic volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The model, or what was recorded.
    pub name: String,
    /// Side in voxels, bytes; rising.
    pub points: Vec<(f64, f64)>,
    /// Position of the curve of this program that a recorded one compares with; `None` for the program's own.
    pub recorded_beside: Option<usize>,
}

/// Where two curves meet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Crossover {
    /// The curve that is lower above the meeting.
    pub leaner_above: String,
    /// The other one.
    pub other: String,
    /// Side in voxels.
    pub side: f64,
    /// Bytes.
    pub bytes: f64,
}

/// `OSS-Net C needs less than 3D residual U-Net above 176³ voxels (614.0 MiB)`.
fn sentence(meeting: &Crossover) -> String {
    let Crossover { leaner_above, other, side, bytes } = meeting;
    format!("{leaner_above} needs less than {other} above {side:.0}³ voxels ({})", format_bytes(*bytes as u64))
}

/// All charts; empty without curves.
pub(super) fn section(settings: &[Resolution]) -> String {
    let charts: String = settings.iter().map(drawn).collect();
    if charts.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>Memory against resolution</h2>\n{charts}</section>\n")
}

fn drawn(setting: &Resolution) -> String {
    let Some(chart) = chart(setting) else { return String::new() };
    let entries: Vec<(String, String)> =
        setting.curves.iter().enumerate().map(|(i, curve)| (class(curve, i), curve.name.clone())).collect();
    let legend = legend(entries.iter().map(|(class, name)| (class.clone(), name)));
    let mut html = figure(&setting.heading, &legend, &chart, &setting.caption);
    if !setting.meetings.is_empty() {
        html.push_str("<ul>\n");
        for meeting in &setting.meetings {
            let _ = writeln!(html, "<li>{}.</li>", Escaped(sentence(meeting)));
        }
        html.push_str("</ul>\n");
    }
    html
}

/// A recorded curve has the colour of what it compares with.
fn class(curve: &Growth, position: usize) -> String {
    match curve.recorded_beside {
        None => format!("line {}", model_class(position)),
        Some(beside) => format!("line {} recorded", model_class(beside)),
    }
}

/// Bytes against side, both logarithmic. `None` without a point.
fn chart(setting: &Resolution) -> Option<String> {
    let usable = |point: &&(f64, f64)| point.0 > 0.0 && point.1 > 0.0 && point.0.is_finite() && point.1.is_finite();
    let points = || setting.curves.iter().flat_map(|curve| &curve.points).filter(usable);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let low = points().map(of).min_by(f64::total_cmp)?;
        Some((low, points().map(of).max_by(f64::total_cmp)?))
    };
    let ((left, right), (low, high)) = (range(|point| point.0)?, range(|point| point.1)?);
    let horizontal = ChartAxis::powers(2.0, left, right, 10, |side| format!("{side:.0}³"));
    let vertical = ChartAxis::powers(4.0, low, high, 9, round_bytes);
    let frame = Frame { left: 72.0, top: 30.0, width: 728.0, height: 330.0 };
    let mut svg = Svg::new(820.0, frame.bottom() + 44.0, "Memory against the side of the volume");
    frame.draw_left_axis(&mut svg, &vertical, "peak (logarithmic)");
    frame.draw_bottom_axis(&mut svg, &horizontal, "voxels of the volume (logarithmic)");
    let place = |&(side, bytes): &(f64, f64)| [frame.x(horizontal.share(side)), frame.y(vertical.share(bytes))];
    for (position, curve) in setting.curves.iter().enumerate() {
        let places: Vec<[f64; 2]> = curve.points.iter().filter(usable).map(place).collect();
        let mut path = String::new();
        for (i, [x, y]) in places.iter().enumerate() {
            let _ = write!(path, "{}{} {}", if i == 0 { 'M' } else { 'L' }, short(*x), short(*y));
        }
        svg.path(&class(curve, position), &path, &curve.name);
        if let Some(beside) = curve.recorded_beside {
            places.iter().for_each(|&place| svg.dot(&format!("dot {}", model_class(beside)), place, 3.2));
        }
    }
    for meeting in &setting.meetings {
        svg.dot("meeting", place(&(meeting.side, meeting.bytes)), 4.5);
    }
    for (label, side, bytes) in labels(&setting.meetings) {
        let [x, y] = place(&(side, bytes));
        svg.text("strong", "end", [x - 8.0, y - 9.0], &label);
    }
    // Transparent columns tell every curve's figure at a side.
    let mut sides: Vec<f64> = points().map(|point| point.0).collect();
    sides.sort_unstable_by(f64::total_cmp);
    sides.dedup();
    let edges: Vec<f64> = std::iter::once(left)
        .chain(sides.windows(2).map(|pair| (pair[0] * pair[1]).sqrt()))
        .chain([right])
        .map(|side| frame.x(horizontal.share(side)))
        .collect();
    for (side, edge) in sides.iter().zip(edges.windows(2)) {
        let figure = |curve: &Growth| {
            let point = curve.points.iter().find(|point| point.0 == *side)?;
            Some(format!("\n{}: {}", curve.name, format_bytes(point.1 as u64)))
        };
        let figures: String = setting.curves.iter().filter_map(figure).collect();
        svg.rect("hover", [edge[0], frame.top], [edge[1] - edge[0], frame.height], &format!("{side:.0}³{figures}"));
    }
    Some(svg.finish())
}

/// Where two labels of meetings would overlap, their sides differ by less than this share.
const CLOSE: f64 = 0.12;

/// One label for meetings that are close to each other: text, side and bytes of the first.
fn labels(meetings: &[Crossover]) -> Vec<(String, f64, f64)> {
    let mut sorted: Vec<&Crossover> = meetings.iter().collect();
    order::by_key(&mut sorted, |meeting| order::of_number(meeting.side));
    let mut groups: Vec<Vec<&Crossover>> = Vec::new();
    for meeting in sorted {
        match groups.last_mut() {
            Some(group) if meeting.side < group[0].side * (1.0 + CLOSE) => group.push(meeting),
            _ => groups.push(vec![meeting]),
        }
    }
    let label = |group: Vec<&Crossover>| {
        let (first, last) = (group[0], group[group.len() - 1]);
        let (low, high) = (format!("{:.0}³", first.side), format!("{:.0}³", last.side));
        (if low == high { low } else { format!("{low}–{high}") }, first.side, first.bytes)
    };
    groups.into_iter().map(label).collect()
}

/// `64 MiB` for a power of two.
fn round_bytes(bytes: f64) -> String {
    format_bytes(bytes as u64).replace(".0 ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_meet_where_said_and_odd_points_are_left_out() {
        let curve = |name: &str, points: &[(f64, f64)], recorded_beside| Growth {
            name: name.into(),
            points: points.to_vec(),
            recorded_beside,
        };
        let setting = Resolution {
            heading: "Level 0".into(),
            caption: "<b>".into(),
            curves: vec![
                curve("a", &[(32.0, 1e7), (64.0, 8e7), (128.0, f64::NAN)], None),
                curve("b", &[(32.0, 3e7), (64.0, 4e7)], None),
                curve("peer of b", &[(64.0, 6e7), (96.0, 0.0)], Some(1)),
            ],
            meetings: vec![Crossover { leaner_above: "b".into(), other: "a".into(), side: 48.4, bytes: 3.5e7 }],
        };
        let html = section(&[setting, Resolution::default()]);
        assert!(
            html.contains("b needs less than a above 48³ voxels (33.4 MiB).") && html.contains("&lt;b&gt;"),
            "{html}"
        );
        assert_eq!(html.matches("<svg class=\"chart\"").count(), 1);
        assert_eq!(html.matches("class=\"dot m1\"").count(), 1, "only what was recorded is dotted");
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        assert_eq!(section(&[]), "");
    }
}
