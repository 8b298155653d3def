//! The charts of the page: losses, memory over a step, peaks, scores.

use std::fmt::Write;

use super::number_format::{MISSING, score, short};
use super::report_data::{LossCurve, Timeline};
use super::results::{ModelResult, Results, score_of};
use super::roles;
use super::svg::{ChartAxis, Frame, Svg};
use crate::memory::format_bytes;
use crate::order;

const WIDTH: f64 = 820.0;
const MIB: f64 = (1 << 20) as f64;

/// Number of line styles in the style sheet (`m0` …).
const LINE_STYLES: usize = 8;

/// Class of the `position`-th model in every chart and legend.
pub(super) fn model_class(position: usize) -> String {
    format!("m{}", position % LINE_STYLES)
}

/// Position of a model in the results, which fixes its colour; `otherwise` for one that is not there.
fn position_of(models: &[ModelResult], name: &str, otherwise: usize) -> usize {
    models.iter().position(|model| model.name == name).unwrap_or(otherwise)
}

/// Loss against step: the losses as they were, pale, and their moving average. Logarithmic when it spans a decade.
/// `None` without a finite loss.
pub(super) fn losses(curves: &[LossCurve], models: &[ModelResult]) -> Option<String> {
    let smooth: Vec<Vec<(u64, f64)>> = curves.iter().map(|curve| moving_average(&curve.points)).collect();
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
    let low = points().map(|point| point.1).min_by(f64::total_cmp)?;
    let high = points().map(|point| point.1).max_by(f64::total_cmp)?;
    let last = points().map(|point| point.0).max()?;
    let logarithmic = low > 0.0 && high / low > 10.0;
    let vertical =
        if logarithmic { ChartAxis::logarithmic(low, high) } else { ChartAxis::linear(low.min(0.0), high, 5) };
    let horizontal = ChartAxis::linear(0.0, last as f64, 8);
    let frame = Frame { left: 56.0, top: 30.0, width: WIDTH - 72.0, height: 260.0 };
    let mut svg = Svg::new(WIDTH, frame.bottom() + 44.0, "Training loss against optimiser step");
    frame.draw_left_axis(&mut svg, &vertical, if logarithmic { "loss (logarithmic)" } else { "loss" });
    frame.draw_bottom_axis(&mut svg, &horizontal, "optimiser step");
    let path = |points: &[(u64, f64)]| {
        let mut path = String::new();
        let mut pen_down = false;
        for (step, loss) in thinned(points, 400) {
            if loss.is_finite() {
                let x = short(frame.x(horizontal.share(step as f64)));
                let _ =
                    write!(path, "{}{x} {}", if pen_down { 'L' } else { 'M' }, short(frame.y(vertical.share(loss))));
            }
            pen_down = loss.is_finite();
        }
        path
    };
    for (number, curve) in curves.iter().enumerate() {
        let class = model_class(position_of(models, &curve.model, number));
        svg.path(&format!("line raw {class}"), &path(&curve.points), "");
    }
    for (number, (curve, smooth)) in curves.iter().zip(&smooth).enumerate() {
        let class = model_class(position_of(models, &curve.model, number));
        let end = curve.points.last().map_or(MISSING.into(), |point| format!("{:.4} at step {}", point.1, point.0));
        svg.path(&format!("line {class}"), &path(smooth), &format!("{}: {end}", curve.model));
    }
    Some(svg.finish())
}

/// Scores of 0 to 1 against optimiser step, one named curve each. `None` without a finite score.
pub(super) fn score_curves(curves: &[LossCurve], description: &str) -> Option<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
    let last = points().map(|point| point.0).max()?;
    let (vertical, horizontal) = (ChartAxis::linear(0.0, 1.0, 5), ChartAxis::linear(0.0, last as f64, 8));
    let frame = Frame { left: 56.0, top: 30.0, width: WIDTH - 72.0, height: 220.0 };
    let mut svg = Svg::new(WIDTH, frame.bottom() + 44.0, description);
    frame.draw_left_axis(&mut svg, &vertical, "score");
    frame.draw_bottom_axis(&mut svg, &horizontal, "optimiser step");
    for (number, curve) in curves.iter().enumerate() {
        let mut path = String::new();
        for (step, score) in curve.points.iter().filter(|point| point.1.is_finite()) {
            let (x, y) = (frame.x(horizontal.share(*step as f64)), frame.y(vertical.share(*score)));
            let _ = write!(path, "{}{} {}", if path.is_empty() { 'M' } else { 'L' }, short(x), short(y));
        }
        let end = curve.points.last().map_or(MISSING.into(), |point| format!("{} at step {}", score(point.1), point.0));
        svg.path(&format!("line {}", model_class(number)), &path, &format!("{}: {end}", curve.model));
    }
    Some(svg.finish())
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

/// Memory by role over one training step in the order of its events, with the phases as bands and the peak marked.
/// `None` for a timeline without events.
pub(super) fn memory(timeline: &Timeline, highest: u64) -> Option<String> {
    let events = &timeline.events;
    // `max_by_key` would give the last of equals; the peak is where that height was first reached.
    let peak = (0..events.len()).rev().max_by_key(|&event| events[event].total())?;
    let columns = highest_of_groups(timeline, 300);
    let frame = Frame { left: 56.0, top: 60.0, width: WIDTH - 72.0, height: 230.0 };
    let vertical = ChartAxis::linear(0.0, highest as f64 / MIB, 5);
    let y = |bytes: u64| short(frame.y(vertical.share(bytes as f64 / MIB)));
    let x = |event: usize| frame.x(event as f64 / events.len() as f64);
    let description = format!("Memory by role over one training step of {}", timeline.model);
    let mut svg = Svg::new(WIDTH, frame.bottom() + 28.0, &description);

    for (number, (phase, start, end)) in phases(timeline).into_iter().enumerate() {
        let class = if number % 2 == 0 { "band" } else { "band other" };
        svg.rect(class, [x(start), frame.top], [x(end) - x(start), frame.height], phase);
        if x(end) - x(start) > 7.0 * phase.chars().count() as f64 {
            svg.text("phase", "middle", [(x(start) + x(end)) / 2.0, frame.bottom() + 18.0], phase);
        }
    }
    frame.draw_left_axis(&mut svg, &vertical, "MiB");

    let mut below = vec![0u64; columns.len()];
    let mut order: Vec<(usize, &String)> = timeline.roles.iter().enumerate().collect();
    order::by_key(&mut order, |(_, role)| roles::rank(role) as u128);
    for (number, role) in order {
        let held = |event: usize| events[event].bytes.get(number).copied().unwrap_or(0);
        let above: Vec<u64> =
            columns.iter().zip(&below).map(|(column, &below)| held(column.highest).saturating_add(below)).collect();
        if above != below {
            let mut path = format!("M{} {}", short(x(0)), y(below[0]));
            for (column, &bytes) in columns.iter().zip(&above) {
                let _ = write!(path, "V{}H{}", y(bytes), short(x(column.end)));
            }
            for (column, &bytes) in columns.iter().zip(&below).rev() {
                let _ = write!(path, "V{}H{}", y(bytes), short(x(column.start)));
            }
            path.push('Z');
            let title = format!("{}: {} at the peak", roles::display(role), format_bytes(held(peak)));
            svg.path(&format!("area c{}", roles::rank(role)), &path, &title);
        }
        below = above;
    }
    svg.line("axis", [frame.left, frame.bottom()], [frame.left + frame.width, frame.bottom()]);
    draw_peak(
        &mut svg,
        &frame,
        timeline,
        peak,
        [x(peak) + 0.5 * (x(peak + 1) - x(peak)), frame.y(vertical.share(events[peak].total() as f64 / MIB))],
    );
    // Transparent columns on top tell what happened where.
    for column in highest_of_groups(timeline, 100) {
        let event = &events[column.highest];
        let title = format!(
            "event {}: {} in {}, {}: {}",
            event.index,
            event.op,
            event.layer,
            event.phase.as_str(),
            format_bytes(event.total())
        );
        svg.rect("hover", [x(column.start), frame.top], [x(column.end) - x(column.start), frame.height], &title);
    }
    Some(svg.finish())
}

/// Marks the peak and names the op that caused it.
fn draw_peak(svg: &mut Svg, frame: &Frame, timeline: &Timeline, peak: usize, [x, y]: [f64; 2]) {
    let event = &timeline.events[peak];
    let place = [event.op.as_str(), event.layer.as_str()].into_iter().filter(|word| !word.is_empty());
    let place = place.chain([event.phase.as_str()]).collect::<Vec<_>>().join(", ");
    let mut label = format!("peak {}: {place}", format_bytes(event.total()));
    // What would not fit in the width of the chart; the tooltip has it all.
    if let Some((end, _)) = label.char_indices().nth(100) {
        label.truncate(end);
        label.push('…');
    }
    svg.line("peak", [x, frame.top - 26.0], [x, frame.bottom()]);
    svg.dot("peak", [x, y], 4.0);
    // The label stands to the right of its line where it fits, at about 7.6 units a character, and to the left
    // otherwise; one that fits on neither side starts at the frame.
    let (length, right) = (7.6 * label.chars().count() as f64, frame.left + frame.width);
    let (anchor, at) = if x + 6.0 + length <= right {
        ("start", x + 6.0)
    } else if x - 6.0 - length >= 0.0 {
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
pub(super) fn peaks(models: &[ModelResult]) -> Option<String> {
    let highest = models.iter().map(|model| model.peak_bytes.max(model.peak_by_role.total())).max()?;
    let axis = ChartAxis::linear(0.0, highest as f64 / MIB, 6);
    // 7 units a character at the size of `.label`.
    let longest = models.iter().map(|model| model.name.chars().count()).max()?.min(32) as f64;
    let left = 16.0 + 7.2 * longest;
    let frame = Frame { left, top: 8.0, width: WIDTH - left - 88.0, height: 34.0 * models.len() as f64 };
    let mut svg = Svg::new(WIDTH, frame.bottom() + 44.0, "Peak memory of each model by role");
    for (value, _) in &axis.ticks {
        let x = frame.x(axis.share(*value));
        svg.line("grid", [x, frame.top], [x, frame.bottom()]);
    }
    frame.draw_bottom_axis(&mut svg, &axis, "MiB at the peak of training");
    for (number, model) in models.iter().enumerate() {
        let top = frame.top + 34.0 * number as f64 + 6.0;
        svg.text("label", "end", [frame.left - 8.0, top + 15.0], &model.name);
        let mut sum = 0u64;
        let mut roles: Vec<_> = model.peak_by_role.0.iter().filter(|(_, bytes)| *bytes > 0).collect();
        order::by_key(&mut roles, |(role, _)| roles::rank(role) as u128);
        for (role, bytes) in roles {
            let start = frame.x(axis.share(sum as f64 / MIB));
            sum = sum.saturating_add(*bytes);
            let end = frame.x(axis.share(sum as f64 / MIB));
            let title = format!("{}: {} {}", model.name, roles::display(role), format_bytes(*bytes));
            svg.rect(&format!("area c{}", roles::rank(role)), [start, top], [end - start, 22.0], &title);
        }
        let end = frame.x(axis.share(model.peak_bytes as f64 / MIB));
        svg.text("strong", "start", [end + 6.0, top + 15.0], &format_bytes(model.peak_bytes));
    }
    Some(svg.finish())
}

/// Dice of every model and baseline, grouped by case; the baselines are grey. `None` without cases.
pub(super) fn scores(results: &Results) -> Option<String> {
    let cases = results.case_names();
    let models = results.models.iter().enumerate().map(|(number, row)| (model_class(number), &row.name, &row.cases));
    let baselines =
        results.baselines.iter().enumerate().map(|(number, row)| (format!("b{}", number % 3), &row.name, &row.cases));
    let rows: Vec<_> = models.chain(baselines).collect();
    if cases.is_empty() || rows.is_empty() {
        return None;
    }
    let axis = ChartAxis::linear(0.0, 1.0, 5);
    let frame = Frame { left: 56.0, top: 30.0, width: WIDTH - 72.0, height: 220.0 };
    let mut svg = Svg::new(WIDTH, frame.bottom() + 30.0, "Dice of each model and baseline on each validation case");
    frame.draw_left_axis(&mut svg, &axis, "Dice");
    let group = frame.width / cases.len() as f64;
    // A bar is a share of its group, but not so broad that two models on one case look like walls.
    let bar = (0.86 * group / rows.len() as f64).min(64.0);
    let gap = (0.1 * bar).min(1.5);
    for (number, case) in cases.iter().enumerate() {
        let middle = frame.left + (number as f64 + 0.5) * group;
        if 7.2 * case.chars().count() as f64 <= group {
            svg.text("label", "middle", [middle, frame.bottom() + 20.0], case);
        }
        for (position, (class, name, scores)) in rows.iter().enumerate() {
            let x = middle + (position as f64 - rows.len() as f64 / 2.0) * bar;
            let dice = score_of(scores, case).map_or(f64::NAN, |score| score.dice);
            let share = if dice.is_finite() { axis.share(dice) } else { 0.0 };
            let title = format!("{name}, {case}: Dice {}", score(dice));
            let class = format!("bar {class}");
            svg.rect(&class, [x + gap, frame.y(share)], [bar - 2.0 * gap, share * frame.height], &title);
            if bar >= 30.0 {
                svg.text("value", "middle", [x + bar / 2.0, frame.y(share) - 5.0], &score(dice));
            }
        }
    }
    svg.line("axis", [frame.left, frame.bottom()], [frame.left + frame.width, frame.bottom()]);
    Some(svg.finish())
}

/// Names of the roles that hold bytes anywhere in the comparison, each with its colour, in the glossary's order.
pub(super) fn roles_in_use(models: &[ModelResult], timelines: &[Timeline]) -> Vec<(String, usize)> {
    let at_peaks = models.iter().flat_map(|model| &model.peak_by_role.0);
    let at_peaks = at_peaks.filter(|(_, bytes)| *bytes > 0).map(|(role, _)| role);
    let in_steps = timelines.iter().flat_map(|timeline| {
        let held =
            |role: usize| timeline.events.iter().any(|event| event.bytes.get(role).is_some_and(|&bytes| bytes > 0));
        timeline.roles.iter().enumerate().filter(move |(number, _)| held(*number)).map(|(_, role)| role)
    });
    let mut used: Vec<(String, usize)> = Vec::new();
    for role in at_peaks.chain(in_steps) {
        let entry = (roles::display(role), roles::rank(role));
        if !used.contains(&entry) {
            used.push(entry);
        }
    }
    order::by_key(&mut used, |(_, colour)| *colour as u128);
    used
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
        let chart = memory(&timeline, 1 << 34).unwrap();
        assert!(chart.contains("GiB: first, ") && !chart.contains("GiB: second, "));
    }

    #[test]
    fn a_loss_that_is_not_finite_leaves_a_gap() {
        let points = vec![(1, 0.9), (2, f64::NAN), (3, 0.5), (4, 0.4)];
        let chart = losses(&[LossCurve { model: "x".into(), points }], &[]).unwrap();
        let path = chart.lines().find(|line| line.contains("line raw")).unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(!chart.contains("NaN") && !chart.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        let nan = LossCurve { model: "x".into(), points: vec![(1, f64::NAN)] };
        assert_eq!(losses(&[nan], &[]), None);
        assert_eq!(losses(&[], &[]), None);
        assert_eq!(memory(&Timeline::default(), 0), None);
        assert_eq!(peaks(&[]), None);
        assert_eq!(scores(&Results::default()), None);
    }

    #[test]
    fn the_moving_average_keeps_a_constant() {
        let points: Vec<(u64, f64)> = (0..200).map(|step| (step, 0.25)).collect();
        assert_eq!(moving_average(&points), points);
        assert!(thinned(&points, 30).iter().all(|point| point.1 == 0.25));
    }
}
