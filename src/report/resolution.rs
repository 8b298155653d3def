//! Memory against resolution: curves on logarithmic axes, recorded figures of the peers beside them, and where they meet.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::escape::Escaped;
use super::number_format::short;
use super::palette;
use super::plot::{self, Chart, Series, begin, beside};
use super::svg::{ChartAxis, Frame};
use crate::memory::format_bytes;
use crate::order;

/// Curves of one setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Heading of the chart: the setting.
    pub heading: String,
    /// Which bytes are shown. Of several settings and quantities the reader chooses one of each.
    #[serde(default)]
    pub quantity: String,
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

/// One chart, with a switch where there are several settings or quantities; empty without curves.
pub(super) fn section(settings: &[Resolution]) -> String {
    let bounds = Bounds::of(settings);
    let drawn: Vec<(&Resolution, String)> =
        settings.iter().filter_map(|setting| Some((setting, drawn(setting, bounds.as_ref()?)?))).collect();
    if drawn.is_empty() {
        return String::new();
    }
    let distinct = |of: fn(&Resolution) -> &String| {
        let mut all: Vec<&String> = Vec::new();
        drawn.iter().map(|(setting, _)| of(setting)).for_each(|name| {
            if !all.contains(&name) {
                all.push(name);
            }
        });
        all
    };
    let (headings, quantities) = (distinct(|setting| &setting.heading), distinct(|setting| &setting.quantity));
    let mut html = String::from("<section>\n<h2>Memory against resolution</h2>\n<div class=\"switch\">\n");
    for (group, legend, names) in [("q", "Bytes", &quantities), ("s", "Setting", &headings)] {
        if names.len() < 2 {
            continue;
        }
        let _ = write!(html, "<fieldset><legend>{legend}</legend>");
        for (i, name) in names.iter().enumerate() {
            let checked = if i == 0 { " checked" } else { "" };
            let name = Escaped(name);
            let _ = write!(
                html,
                "<label><input type=\"radio\" name=\"{group}\" class=\"{group}{i}\"{checked}>{name}</label>"
            );
        }
        html.push_str("</fieldset>\n");
    }
    for (setting, chart) in &drawn {
        let place = |names: &[&String], name: &String| names.iter().position(|other| *other == name).unwrap_or(0);
        let (s, q) = (place(&headings, &setting.heading), place(&quantities, &setting.quantity));
        let _ = writeln!(html, "<div class=\"pane s{s} q{q}\">\n{chart}</div>");
    }
    html + "</div>\n</section>\n"
}

fn drawn(setting: &Resolution, bounds: &Bounds) -> Option<String> {
    let named = [setting.heading.as_str(), setting.quantity.as_str()].into_iter().filter(|part| !part.is_empty());
    let mut html = chart(setting, bounds)?.figure(&named.collect::<Vec<_>>().join(", "), &setting.caption);
    if !setting.meetings.is_empty() {
        html.push_str("<ul>\n");
        for meeting in &setting.meetings {
            let _ = writeln!(html, "<li>{}.</li>", Escaped(sentence(meeting)));
        }
        html.push_str("</ul>\n");
    }
    Some(html)
}

/// A recorded curve has the colour of what it compares with.
fn class(setting: &Resolution, curve: &Growth) -> String {
    let beside = curve.recorded_beside.and_then(|beside| setting.curves.get(beside));
    match curve.recorded_beside {
        None => format!("line {}", palette::network(&curve.name)),
        Some(_) => format!("line {} recorded", palette::network(&beside.unwrap_or(curve).name)),
    }
}

fn usable(point: &&(f64, f64)) -> bool {
    point.0 > 0.0 && point.1 > 0.0 && point.0.is_finite() && point.1.is_finite()
}

/// Ends of the axes: those of all settings, so that the switch shows what changes.
struct Bounds {
    sides: [f64; 2],
    bytes: [f64; 2],
}

impl Bounds {
    /// `None` without a point.
    fn of(settings: &[Resolution]) -> Option<Self> {
        let points =
            || settings.iter().flat_map(|setting| &setting.curves).flat_map(|curve| &curve.points).filter(usable);
        let range = |of: fn(&(f64, f64)) -> f64| {
            let low = points().map(of).min_by(f64::total_cmp)?;
            Some([low, points().map(of).max_by(f64::total_cmp)?])
        };
        Some(Self { sides: range(|point| point.0)?, bytes: range(|point| point.1)? })
    }
}

/// Bytes against side, both logarithmic. `None` without a point.
fn chart(setting: &Resolution, bounds: &Bounds) -> Option<Chart> {
    let points = || setting.curves.iter().flat_map(|curve| &curve.points).filter(usable);
    points().next()?;
    let ([left, right], [low, high]) = (bounds.sides, bounds.bytes);
    let legend: Vec<(String, String)> =
        setting.curves.iter().map(|curve| (class(setting, curve), curve.name.clone())).collect();
    let what = if setting.quantity.is_empty() { "bytes" } else { &setting.quantity };
    let description = format!("Memory against the side of the volume: {what}, {}", setting.heading);
    let draw = |width: f64| {
        let (mut svg, top) = begin(width, &description, &legend);
        let horizontal = ChartAxis::powers(2.0, left, right, plot::labels(width) + 2, |side| format!("{side:.0}³"));
        let vertical = ChartAxis::powers(4.0, low, high, 9, round_bytes);
        let frame = Frame { left: 68.0, top: top + 30.0, width: beside(width, 68.0), height: 330.0 };
        frame.draw_left_axis(&mut svg, &vertical, &format!("{what} (logarithmic)"));
        frame.draw_bottom_axis(&mut svg, &horizontal, "voxels of the volume (logarithmic)");
        svg.readable(&frame, &horizontal);
        let place = |&(side, bytes): &(f64, f64)| [frame.x(horizontal.share(side)), frame.y(vertical.share(bytes))];
        for curve in &setting.curves {
            let places: Vec<[f64; 2]> = curve.points.iter().filter(usable).map(place).collect();
            let mut path = String::new();
            for (i, [x, y]) in places.iter().enumerate() {
                let _ = write!(path, "{}{} {}", if i == 0 { 'M' } else { 'L' }, short(*x), short(*y));
            }
            let class = class(setting, curve);
            svg.path(&class, &path, &curve.name);
            if curve.recorded_beside.is_some() {
                places.iter().for_each(|&place| svg.dot(&class.replace("line", "dot"), place, 3.2));
            }
        }
        for meeting in &setting.meetings {
            svg.dot("meeting", place(&(meeting.side, meeting.bytes)), 4.5);
        }
        for (label, side, bytes) in labels(&setting.meetings) {
            let [x, y] = place(&(side, bytes));
            svg.text("strong halo", "end", [x - 8.0, y - 9.0], &label);
        }
        svg.finish(frame.bottom() + 44.0)
    };
    let series = setting.curves.iter().map(|curve| {
        let points = || curve.points.iter().filter(usable);
        Series {
            class: class(setting, curve),
            name: curve.name.clone(),
            at: points().map(|point| point.0).collect(),
            says: points().map(|point| format_bytes(point.1 as u64)).collect(),
        }
    });
    Some(Chart::new(draw, ["", "³ voxels"], &series.collect::<Vec<_>>()))
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

    fn setting() -> Resolution {
        let curve = |name: &str, points: &[(f64, f64)], recorded_beside| Growth {
            name: name.into(),
            points: points.to_vec(),
            recorded_beside,
        };
        Resolution {
            heading: "Level 0".into(),
            quantity: "reserved".into(),
            caption: "<b>".into(),
            curves: vec![
                curve("a", &[(32.0, 1e7), (64.0, 8e7), (128.0, f64::NAN)], None),
                curve("O-Net", &[(32.0, 3e7), (64.0, 4e7)], None),
                curve("peer of O-Net", &[(64.0, 6e7), (96.0, 0.0)], Some(1)),
            ],
            meetings: vec![Crossover { leaner_above: "O-Net".into(), other: "a".into(), side: 48.4, bytes: 3.5e7 }],
        }
    }

    #[test]
    fn curves_meet_where_said_and_odd_points_are_left_out() {
        let html = section(&[setting(), Resolution::default()]);
        assert!(
            html.contains("O-Net needs less than a above 48³ voxels (33.4 MiB).") && html.contains("&lt;b&gt;"),
            "{html}"
        );
        assert_eq!(html.matches("<svg class=\"chart").count(), 2, "a wide and a narrow one");
        assert_eq!(html.matches("class=\"dot m2 recorded\"").count(), 2, "only what was recorded is dotted");
        assert!(!html.contains("NaN") && !html.contains("inf") && !html.contains("<fieldset"), "{html}");
        assert_eq!(section(&[]), "");
    }

    /// Every combination has its pane on the same axes, and each switch begins with the first.
    #[test]
    fn settings_and_quantities_are_switched() {
        let with = |heading: &str, quantity: &str, factor: f64| {
            let mut setting = Resolution { heading: heading.into(), quantity: quantity.into(), ..setting() };
            setting.curves[0].points[0].1 *= factor;
            setting
        };
        let all = [
            with("0", "reserved", 1.0),
            with("0", "activations", 0.5),
            with("1", "reserved", 0.1),
            with("1", "activations", 0.05),
        ];
        let html = section(&all);
        for pane in ["pane s0 q0", "pane s0 q1", "pane s1 q0", "pane s1 q1"] {
            assert_eq!(html.matches(&format!("<div class=\"{pane}\">")).count(), 1, "{pane}");
        }
        assert_eq!((html.matches("<fieldset>").count(), html.matches(" checked>").count()), (2, 2));
        let ticks = |pane: &str| {
            let part = html.split("<div class=\"pane").find(|part| part.starts_with(pane)).unwrap();
            part.split("class=\"tick\"").skip(1).map(|tick| tick.split("</text>").next().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ticks(" s0 q0"), ticks(" s1 q1"));
    }
}
