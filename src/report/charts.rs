//! The charts of the page: curves over a run, memory over a step, peaks, scores.

use std::fmt::Write;

use serde_json::json;

use super::number_format::{MISSING, score, short};
use super::plot::{Chart, Series, begin, beside, labels};
use super::report_data::Timeline;
use super::results::{ModelResult, Results, score_of};
use super::strips::{Panel, Strip, strips};
use super::svg::{ChartAxis, Frame, LETTER, Svg};
use super::{palette, roles};
use crate::evaluate::statistics::Summary;
use crate::memory::format_bytes;
use crate::order;

const MIB: f64 = (1 << 20) as f64;

/// Events beyond which the pointer reads groups of them.
const MOST_READ: usize = 6000;

/// A curve over a run.
pub(super) struct Line<'a> {
    /// Its class in the style sheet, without `line`.
    pub class: String,
    /// What it shows.
    pub name: String,
    /// Step (or scans seen) and value; one that is not finite leaves a gap.
    pub points: &'a [(u64, f64)],
}

/// How curves are drawn.
pub(super) struct CurveStyle {
    /// For screen readers.
    pub description: &'static str,
    /// What is measured.
    pub vertical: &'static str,
    /// Over what.
    pub horizontal: &'static str,
    /// The values are pale, and their moving average is strong.
    pub noisy: bool,
    /// The axis runs from 0 to 1.
    pub scores: bool,
    /// How a value is said.
    pub says: fn(f64) -> String,
}

/// Curves over a run; logarithmic where noisy ones span a decade. `None` without a finite value.
pub(super) fn curves(lines: &[Line<'_>], style: &CurveStyle) -> Option<Chart> {
    let points = || lines.iter().flat_map(|line| line.points).filter(|point| point.1.is_finite());
    let low = points().map(|point| point.1).min_by(f64::total_cmp)?;
    let high = points().map(|point| point.1).max_by(f64::total_cmp)?;
    let last = points().map(|point| point.0).max()?;
    let logarithmic = style.noisy && low > 0.0 && high / low > 10.0;
    let vertical = match (logarithmic, style.scores) {
        (true, _) => ChartAxis::logarithmic(low, high),
        (_, true) => ChartAxis::linear(0.0, 1.0, 5),
        _ => ChartAxis::linear(low.min(0.0), high, 5),
    };
    let smooth: Vec<Vec<(u64, f64)>> =
        lines.iter().map(|line| if style.noisy { moving_average(line.points) } else { line.points.to_vec() }).collect();
    let legend: Vec<(String, String)> = match lines {
        [_] => Vec::new(),
        lines => lines.iter().map(|line| (format!("line {}", line.class), line.name.clone())).collect(),
    };
    let draw = |width: f64| {
        let (mut svg, top) = begin(width, style.description, &legend);
        let horizontal = ChartAxis::linear(0.0, last as f64, labels(width));
        let frame = Frame { left: 56.0, top: top + 30.0, width: beside(width, 56.0), height: 240.0 };
        let name = if logarithmic { format!("{} (logarithmic)", style.vertical) } else { style.vertical.into() };
        frame.draw_left_axis(&mut svg, &vertical, &name);
        frame.draw_bottom_axis(&mut svg, &horizontal, style.horizontal);
        svg.readable(&frame, &horizontal);
        let path = |points: &[(u64, f64)]| {
            let mut path = String::new();
            let mut pen_down = false;
            for (step, value) in thinned(points, width as usize / 2) {
                if value.is_finite() {
                    let x = short(frame.x(horizontal.share(step as f64)));
                    let pen = if pen_down { 'L' } else { 'M' };
                    let _ = write!(path, "{pen}{x} {}", short(frame.y(vertical.share(value))));
                }
                pen_down = value.is_finite();
            }
            path
        };
        for line in lines.iter().filter(|_| style.noisy) {
            svg.path(&format!("line raw {}", line.class), &path(line.points), "");
        }
        for (line, smooth) in lines.iter().zip(&smooth) {
            let said = |point: &(u64, f64)| format!("{} at {} {}", (style.says)(point.1), style.horizontal, point.0);
            let end = line.points.last().map_or(MISSING.into(), said);
            svg.path(&format!("line {}", line.class), &path(smooth), &format!("{}: {end}", line.name));
        }
        svg.finish(frame.bottom() + 44.0)
    };
    let series = lines.iter().zip(&smooth).map(|(line, smooth)| {
        let read = thinned(smooth, 800);
        Series {
            class: format!("line {}", line.class),
            name: line.name.clone(),
            at: read.iter().map(|point| point.0 as f64).collect(),
            says: read
                .iter()
                .map(|point| if point.1.is_finite() { (style.says)(point.1) } else { MISSING.into() })
                .collect(),
        }
    });
    Some(Chart::new(draw, [&format!("{} ", style.horizontal), ""], &series.collect::<Vec<_>>()))
}

/// The mean of the finite losses around each point (a twentieth of the curve); a loss that is not finite stays a gap.
fn moving_average(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let reach = points.len() / 40;
    let mean = |position: usize| {
        let around = &points[position.saturating_sub(reach)..(position + reach + 1).min(points.len())];
        let finite = || around.iter().map(|point| point.1).filter(|loss| loss.is_finite());
        finite().sum::<f64>() / finite().count() as f64
    };
    let smooth =
        |(position, &(step, loss)): (usize, &(u64, f64))| (step, if loss.is_finite() { mean(position) } else { loss });
    points.iter().enumerate().map(smooth).collect()
}

/// At most about `limit` points: means of neighbours. A group with a loss that is not finite stays a gap.
fn thinned(points: &[(u64, f64)], limit: usize) -> Vec<(u64, f64)> {
    let group = points.len().div_ceil(limit).max(1);
    let mean = |group: &[(u64, f64)]| {
        (group[group.len() / 2].0, group.iter().map(|point| point.1).sum::<f64>() / group.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

/// Memory by role over one training step in the order of its events, with the phases as bands and the peak marked; a legend of
/// `legend`'s roles. `None` for a timeline without events.
pub(super) fn memory(timeline: &Timeline, highest: u64, legend: &[(String, String)]) -> Option<Chart> {
    let events = &timeline.events;
    // `max_by_key` would give the last of equals; the peak is where that height was first reached.
    let peak = (0..events.len()).rev().max_by_key(|&event| events[event].total())?;
    let vertical = ChartAxis::linear(0.0, highest as f64 / MIB, 5);
    let horizontal = ChartAxis::span(events.len() as f64);
    let description = format!("Memory by role over one training step of {}", timeline.model);
    let mut order: Vec<(usize, &String)> = timeline.roles.iter().enumerate().collect();
    order::by_key(&mut order, |(_, role)| roles::rank(role) as u128);
    let held = |event: usize, role: usize| events[event].bytes.get(role).copied().unwrap_or(0);
    let draw = |width: f64| {
        let columns = highest_of_groups(timeline, width as usize * 3 / 8);
        let (mut svg, top) = begin(width, &description, legend);
        let frame = Frame { left: 56.0, top: top + 60.0, width: beside(width, 56.0), height: 230.0 };
        let y = |bytes: u64| short(frame.y(vertical.share(bytes as f64 / MIB)));
        let x = |event: usize| frame.x(event as f64 / events.len() as f64);
        for (phase, start, end) in phases(timeline) {
            svg.rect(band(phase), [x(start), frame.top], [x(end) - x(start), frame.height], phase);
            if x(end) - x(start) > LETTER * phase.chars().count() as f64 {
                svg.text("phase", "middle", [(x(start) + x(end)) / 2.0, frame.bottom() + 18.0], phase);
            }
        }
        frame.draw_left_axis(&mut svg, &vertical, "MiB");
        let mut below = vec![0u64; columns.len()];
        for (number, role) in &order {
            let above: Vec<u64> = columns
                .iter()
                .zip(&below)
                .map(|(column, &below)| held(column.highest, *number).saturating_add(below))
                .collect();
            if above != below {
                let mut path = format!("M{} {}", short(x(0)), y(below[0]));
                for (column, &bytes) in columns.iter().zip(&above) {
                    let _ = write!(path, "V{}H{}", y(bytes), short(x(column.end)));
                }
                for (column, &bytes) in columns.iter().zip(&below).rev() {
                    let _ = write!(path, "V{}H{}", y(bytes), short(x(column.start)));
                }
                path.push('Z');
                let title = format!("{}: {} at the peak", roles::display(role), format_bytes(held(peak, *number)));
                svg.path(&format!("area c{}", roles::rank(role)), &path, &title);
            }
            below = above;
        }
        svg.line("axis", [frame.left, frame.bottom()], [frame.left + frame.width, frame.bottom()]);
        let at = [x(peak) + 0.5 * (x(peak + 1) - x(peak)), frame.y(vertical.share(events[peak].total() as f64 / MIB))];
        draw_peak(&mut svg, &frame, timeline, peak, at);
        svg.readable(&frame, &horizontal);
        svg.finish(frame.bottom() + 28.0)
    };
    Some(Chart::with_values(draw, step_values(timeline, &order)))
}

/// The band of a phase: always the same one, whichever phases a step has.
fn band(phase: &str) -> &'static str {
    match phase {
        "forward" | "optimizer" | "evaluate" => "band",
        _ => "band other",
    }
}

/// What is held after each event, by role, and which op asked: for the page's script.
fn step_values(timeline: &Timeline, order: &[(usize, &String)]) -> serde_json::Value {
    let read = highest_of_groups(timeline, MOST_READ);
    let events: Vec<_> = read.iter().map(|column| &timeline.events[column.highest]).collect();
    let mut places: Vec<String> = Vec::new();
    let mut known = std::collections::HashMap::new();
    let notes: Vec<usize> = events
        .iter()
        .map(|event| {
            let parts = [event.op.as_str(), event.layer.as_str(), event.phase.as_str()];
            let place = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
            *known.entry(place.clone()).or_insert_with(|| {
                places.push(place);
                places.len() - 1
            })
        })
        .collect();
    let mib = |bytes: u64| json!((bytes as f64 / MIB * 100.0).round() / 100.0);
    let series = |class: String, name: String, bytes: Vec<u64>| json!({ "class": class, "name": name, "unit": " MiB", "says": bytes.into_iter().map(mib).collect::<Vec<_>>() });
    let mut all = vec![series(String::new(), "in all".into(), events.iter().map(|event| event.total()).collect())];
    for (number, role) in order.iter().rev() {
        let bytes: Vec<u64> = events.iter().map(|event| event.bytes.get(*number).copied().unwrap_or(0)).collect();
        if bytes.iter().any(|&bytes| bytes > 0) {
            all.push(series(format!("area c{}", roles::rank(role)), roles::display(role), bytes));
        }
    }
    // Half an event to the right: where it is drawn.
    let at: Vec<f64> = read.iter().map(|column| column.highest as f64 + 0.5).collect();
    let names: Vec<u64> = events.iter().map(|event| event.index).collect();
    json!({ "x": ["event ", ""], "at": at, "named": names, "notes": notes, "places": places, "series": all })
}

/// Marks the peak and names the op that caused it, where that fits.
fn draw_peak(svg: &mut Svg, frame: &Frame, timeline: &Timeline, peak: usize, [x, y]: [f64; 2]) {
    let event = &timeline.events[peak];
    let place = [event.op.as_str(), event.layer.as_str()].into_iter().filter(|word| !word.is_empty());
    let place = place.chain([event.phase.as_str()]).collect::<Vec<_>>().join(", ");
    let (whole, right) = (format!("peak {}", format_bytes(event.total())), frame.left + frame.width);
    let length = |text: &str| 7.6 * text.chars().count() as f64;
    let named = format!("{whole}: {place}");
    let label = if length(&named) <= right { named } else { whole };
    svg.line("peak", [x, frame.top - 26.0], [x, frame.bottom()]);
    svg.dot("peak", [x, y], 4.0);
    // To the right of its line where it fits, and to the left otherwise; one that fits on neither side starts at the edge.
    let (anchor, at) = if x + 6.0 + length(&label) <= right {
        ("start", x + 6.0)
    } else if x - 6.0 - length(&label) >= 0.0 {
        ("end", x - 6.0)
    } else {
        ("start", 4.0)
    };
    svg.text("strong", anchor, [at, frame.top - 32.0], &label);
}

/// A run of neighbouring events that is drawn as one column.
struct Column {
    start: usize,
    end: usize,
    highest: usize,
}

/// At most about `limit` columns, each standing at its highest event, so that thinning never hides a peak.
fn highest_of_groups(timeline: &Timeline, limit: usize) -> Vec<Column> {
    let count = timeline.events.len();
    let group = count.div_ceil(limit).max(1);
    let column = |start: usize| {
        let end = (start + group).min(count);
        let highest = (start..end).max_by_key(|&event| timeline.events[event].total()).unwrap_or(start);
        Column { start, end, highest }
    };
    (0..count).step_by(group).map(column).collect()
}

/// Runs of events of one phase: the phase, its first event, and the event after its last.
fn phases(timeline: &Timeline) -> Vec<(&str, usize, usize)> {
    let mut runs: Vec<(&str, usize, usize)> = Vec::new();
    for (position, event) in timeline.events.iter().enumerate() {
        match runs.last_mut() {
            Some((phase, _, end)) if *phase == event.phase => *end = position + 1,
            _ => runs.push((&event.phase, position, position + 1)),
        }
    }
    runs
}

/// One stacked bar a model: who held the bytes at the peak of the whole training.
pub(super) fn peaks(models: &[ModelResult], legend: &[(String, String)]) -> Option<Chart> {
    let highest = models.iter().map(|model| model.peak_bytes.max(model.peak_by_role.total())).max()?;
    let draw = |width: f64| {
        let (mut svg, top) = begin(width, "Peak memory of each model by role", legend);
        let axis = ChartAxis::linear(0.0, highest as f64 / MIB, labels(width).min(6));
        // A row is a name above its bar, so that bars are as long on any screen as they can be.
        let frame =
            Frame { left: 8.0, top: top + 8.0, width: beside(width, 8.0) - 78.0, height: 44.0 * models.len() as f64 };
        for (value, _) in &axis.ticks {
            let x = frame.x(axis.share(*value));
            svg.line("grid", [x, frame.top], [x, frame.bottom()]);
        }
        frame.draw_bottom_axis(&mut svg, &axis, "MiB at the peak of training");
        for (number, model) in models.iter().enumerate() {
            let top = frame.top + 44.0 * number as f64 + 4.0;
            svg.text("label strong", "start", [frame.left + 2.0, top + 11.0], &model.name);
            let mut sum = 0u64;
            let mut roles: Vec<_> = model.peak_by_role.0.iter().filter(|(_, bytes)| *bytes > 0).collect();
            order::by_key(&mut roles, |(role, _)| roles::rank(role) as u128);
            for (role, bytes) in roles {
                let start = frame.x(axis.share(sum as f64 / MIB));
                sum = sum.saturating_add(*bytes);
                let end = frame.x(axis.share(sum as f64 / MIB));
                let title = format!("{}: {} {}", model.name, roles::display(role), format_bytes(*bytes));
                svg.rect(&format!("area c{}", roles::rank(role)), [start, top + 16.0], [end - start, 18.0], &title);
            }
            let end = frame.x(axis.share(model.peak_bytes as f64 / MIB));
            svg.text("strong", "start", [end + 6.0, top + 30.0], &format_bytes(model.peak_bytes));
        }
        svg.finish(frame.bottom() + 44.0)
    };
    Some(Chart::plain(draw))
}

/// Cases up to which each has its bars; of more, dots are shown.
const BARS: usize = 8;

/// Dice of every model and baseline, grouped by case; the baselines are grey. Of many cases a row a method, a dot a case.
/// `None` without cases.
pub(super) fn scores(results: &Results) -> Option<Chart> {
    let cases = results.case_names();
    let models = results.models.iter().map(|row| (palette::network(&row.name), &row.name, &row.cases));
    let baselines =
        results.baselines.iter().enumerate().map(|(number, row)| (format!("b{}", number % 3), &row.name, &row.cases));
    let rows: Vec<_> = models.chain(baselines).collect();
    if cases.is_empty() || rows.is_empty() {
        return None;
    }
    let description = "Dice of each model and baseline on each validation case";
    if cases.len() > BARS {
        let methods = rows.iter().map(|(class, name, scores)| Strip {
            class: class.clone(),
            name: name.to_string(),
            values: scores.iter().map(|score| (score.name.as_str(), score.dice)).collect(),
            summary: Summary::of(scores.iter().map(|score| score.dice)),
        });
        let panel = Panel { title: "Dice".into(), rows: methods.collect(), least: Some([0.0, 1.0]) };
        return strips(description, &[panel], 1);
    }
    let axis = ChartAxis::linear(0.0, 1.0, 5);
    let legend: Vec<_> = rows.iter().map(|(class, name, _)| (format!("bar {class}"), name.to_string())).collect();
    let draw = |width: f64| {
        let (mut svg, top) = begin(width, description, &legend);
        let frame = Frame { left: 40.0, top: top + 30.0, width: beside(width, 40.0), height: 220.0 };
        frame.draw_left_axis(&mut svg, &axis, "Dice");
        let group = frame.width / cases.len() as f64;
        // A bar is a share of its group, but not so broad that two models on one case look like walls.
        let bar = (0.86 * group / rows.len() as f64).min(64.0);
        let gap = (0.1 * bar).min(1.5);
        for (number, case) in cases.iter().enumerate() {
            let middle = frame.left + (number as f64 + 0.5) * group;
            if LETTER * case.chars().count() as f64 <= group {
                svg.text("label", "middle", [middle, frame.bottom() + 20.0], case);
            }
            for (position, (class, name, scores)) in rows.iter().enumerate() {
                let x = middle + (position as f64 - rows.len() as f64 / 2.0) * bar;
                let dice = score_of(scores, case).map_or(f64::NAN, |score| score.dice);
                let share = if dice.is_finite() { axis.share(dice) } else { 0.0 };
                let title = format!("{name}, {case}: Dice {}", score(dice));
                let class = format!("bar {class}");
                svg.rect(&class, [x + gap, frame.y(share)], [bar - 2.0 * gap, share * frame.height], &title);
                if bar >= 32.0 {
                    svg.text("value", "middle", [x + bar / 2.0, frame.y(share) - 5.0], &score(dice));
                }
            }
        }
        svg.line("axis", [frame.left, frame.bottom()], [frame.left + frame.width, frame.bottom()]);
        svg.finish(frame.bottom() + 30.0)
    };
    Some(Chart::plain(draw))
}

/// Roles that hold more than this share of the highest bytes are in the legend: less cannot be seen.
const SEEN: f64 = 0.002;

/// Classes and names of the roles that can be seen anywhere in the comparison, in the glossary's order.
pub(super) fn roles_in_use(models: &[ModelResult], timelines: &[Timeline]) -> Vec<(String, String)> {
    let at_peaks = models.iter().flat_map(|model| {
        let roles = model.peak_by_role.0.iter();
        roles.map(|(role, bytes)| (role, *bytes, model.peak_bytes.max(model.peak_by_role.total())))
    });
    let in_steps = timelines.iter().flat_map(|timeline| {
        let highest = timeline.events.iter().map(|event| event.total()).max().unwrap_or(0);
        let most = |role: usize| timeline.events.iter().filter_map(|event| event.bytes.get(role)).max();
        timeline.roles.iter().enumerate().map(move |(number, role)| (role, most(number).copied().unwrap_or(0), highest))
    });
    let seen = at_peaks.chain(in_steps).filter(|(_, bytes, highest)| *bytes as f64 > SEEN * *highest as f64);
    let mut used: Vec<(usize, String)> = Vec::new();
    for (role, ..) in seen {
        let entry = (roles::rank(role), roles::display(role));
        if !used.contains(&entry) {
            used.push(entry);
        }
    }
    order::by_key(&mut used, |(colour, _)| *colour as u128);
    used.into_iter().map(|(colour, name)| (format!("area c{colour}"), name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    #[test]
    fn thinning_keeps_the_peak_and_covers_every_event() {
        let mut timeline = fixtures::evidence().timelines.remove(0);
        let peak = timeline.events.len() / 3 + 1;
        timeline.events[peak].bytes[0] = 1 << 40;
        let columns = highest_of_groups(&timeline, 7);
        assert!(columns.len() <= 7 && columns.iter().any(|column| column.highest == peak));
        assert_eq!((columns[0].start, columns[columns.len() - 1].end), (0, timeline.events.len()));
        assert!(columns.windows(2).all(|pair| pair[0].end == pair[1].start));
    }

    #[test]
    fn the_first_of_equal_peaks_is_named() {
        let mut timeline = fixtures::evidence().timelines.remove(0);
        for (event, op) in [(3, "first"), (8, "second")] {
            timeline.events[event].bytes = vec![1 << 30; timeline.roles.len()];
            timeline.events[event].op = op.into();
        }
        let chart = memory(&timeline, 1 << 34, &[]).unwrap().figure("", "");
        assert!(chart.contains("GiB: first, ") && !chart.contains("GiB: second, "));
    }

    const NOISY: CurveStyle =
        CurveStyle { description: "x", vertical: "loss", horizontal: "step", noisy: true, scores: false, says: score };

    fn lines(points: &[(u64, f64)]) -> [Line<'_>; 1] {
        [Line { class: "m0".into(), name: "x".into(), points }]
    }

    #[test]
    fn a_loss_that_is_not_finite_leaves_a_gap() {
        let points = [(1, 0.9), (2, f64::NAN), (3, 0.5), (4, 0.4)];
        let chart = curves(&lines(&points), &NOISY).unwrap().figure("", "");
        let path = chart.lines().find(|line| line.contains("line raw")).unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(!chart.contains("NaN") && !chart.contains("inf"));
    }

    /// What the pointer reads is what was measured, event by event.
    #[test]
    fn every_event_can_be_read() {
        let timeline = fixtures::evidence().timelines.remove(0);
        let order: Vec<_> = timeline.roles.iter().enumerate().collect();
        let values = step_values(&timeline, &order);
        let events = &timeline.events;
        assert_eq!(values["at"].as_array().unwrap().len(), events.len());
        for (number, event) in events.iter().enumerate() {
            let mib = values["series"][0]["says"][number].as_f64().unwrap();
            assert!((mib - event.total() as f64 / MIB).abs() <= 0.005 + 1e-9, "{number}");
            let place = values["places"][values["notes"][number].as_u64().unwrap() as usize].as_str().unwrap();
            assert!(place.contains(&event.op) && place.ends_with(&event.phase), "{place}");
        }
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        assert_eq!(curves(&lines(&[(1, f64::NAN)]), &NOISY), None);
        assert_eq!(curves(&[], &NOISY), None);
        assert_eq!(memory(&Timeline::default(), 0, &[]), None);
        assert_eq!(peaks(&[], &[]), None);
        assert_eq!(scores(&Results::default()), None);
    }

    #[test]
    fn the_moving_average_keeps_a_constant() {
        let points: Vec<(u64, f64)> = (0..200).map(|step| (step, 0.25)).collect();
        assert_eq!(moving_average(&points), points);
        assert!(thinned(&points, 30).iter().all(|point| point.1 == 0.25));
    }
}
