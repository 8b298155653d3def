//! What recomputation buys: the time of a step against its bytes, a mark for each schedule, and the same as a table.

use std::fmt::Write;

use super::html::table;
use super::number_format::short;
use super::plot::{Chart, Series, begin, beside, labels};
use super::svg::{ChartAxis, Frame};
use super::text_table::TextTable;
use crate::memory::format_bytes;
use crate::order;

const MIB: f64 = (1 << 20) as f64;

/// Schedules of recomputation of one step.
#[derive(Debug, Clone, Default)]
pub struct Schedules {
    /// All of them, in words.
    pub table: TextTable,
    /// Those of the curve and the levels beside it.
    pub marks: Vec<ScheduleMark>,
}

/// One schedule. Times are multiples of the fastest one's.
#[derive(Debug, Clone, Default)]
pub struct ScheduleMark {
    /// A level or a letter for each unit.
    pub name: String,
    /// Peak of the step.
    pub bytes: u64,
    /// Estimated time.
    pub estimated: f64,
    /// Measured time, where the step ran.
    pub measured: Option<f64>,
    /// On the curve; a level beside it is both slower and larger than another schedule.
    pub best: bool,
}

/// Chart and table.
pub(super) fn section(schedules: &Schedules) -> String {
    let caption = "Planned bytes. Estimated times are those of the planned operations and bytes at assumed rates. Hollow marks: levels \
                   than which another schedule is both faster and leaner.";
    let mut html = String::from("<section>\n<h2>What recomputation buys</h2>\n");
    html.push_str(&chart(&schedules.marks).map_or_else(String::new, |chart| chart.figure("", caption)));
    let _ = writeln!(html, "{}</section>", table(&schedules.table, ""));
    html
}

/// `None` where there is nothing to choose.
fn chart(marks: &[ScheduleMark]) -> Option<Chart> {
    let mut curve: Vec<&ScheduleMark> = marks.iter().filter(|mark| mark.best).collect();
    order::by_key(&mut curve, |mark| mark.bytes.into());
    let [leanest, .., largest] = curve[..] else { return None };
    let times = || marks.iter().flat_map(|mark| [Some(mark.estimated), mark.measured]).flatten();
    let bytes = || marks.iter().map(|mark| mark.bytes as f64 / MIB);
    let (low, high) = (times().fold(1.0, f64::min), times().fold(1.0, f64::max));
    let most = bytes().fold(largest.bytes as f64 / MIB, f64::max);
    let ran = marks.iter().any(|mark| mark.measured.is_some());
    let kinds = [("k0", "estimated", true), ("k1", "measured", ran)];
    let legend = kinds.iter().filter(|kind| kind.2).map(|(class, name, _)| (format!("line {class}"), name.to_string()));
    let legend: Vec<(String, String)> = legend.collect();
    let time = |class: &str, mark: &ScheduleMark| if class == "k0" { Some(mark.estimated) } else { mark.measured };
    let draw = |width: f64| {
        let (mut svg, top) =
            begin(width, "Time of a training step against its bytes, a mark for each schedule", &legend);
        let horizontal = ChartAxis::linear(leanest.bytes as f64 / MIB, most, labels(width));
        let vertical = ChartAxis::linear(low, high, 5);
        let frame = Frame { left: 56.0, top: top + 30.0, width: beside(width, 56.0), height: 260.0 };
        frame.draw_left_axis(&mut svg, &vertical, "time, as a multiple of the fastest schedule's");
        frame.draw_bottom_axis(&mut svg, &horizontal, "peak, MiB");
        svg.readable(&frame, &horizontal);
        let x = |mark: &ScheduleMark| frame.x(horizontal.share(mark.bytes as f64 / MIB));
        for (class, kind, _) in kinds {
            let mut path = String::new();
            for (mark, time) in curve.iter().filter_map(|mark| Some((mark, time(class, mark)?))) {
                let pen = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{pen}{} {}", short(x(mark)), short(frame.y(vertical.share(time))));
            }
            svg.path(&format!("line {class}"), &path, kind);
            for (mark, time) in marks.iter().filter_map(|mark| Some((mark, time(class, mark)?))) {
                let look = if mark.best { format!("dot {class}") } else { "peak".into() };
                let said = format!("{}: {}, {kind} × {time:.3}", mark.name, format_bytes(mark.bytes));
                svg.titled_dot(&look, [x(mark), frame.y(vertical.share(time))], 4.0, &said);
            }
        }
        svg.finish(frame.bottom() + 44.0)
    };
    let series = kinds.iter().filter(|kind| kind.2).map(|(class, name, _)| {
        let read = || curve.iter().filter_map(|mark| Some((mark, time(class, mark)?)));
        Series {
            class: format!("line {class}"),
            name: name.to_string(),
            at: read().map(|(mark, _)| mark.bytes as f64 / MIB).collect(),
            says: read().map(|(mark, time)| format!("× {time:.3}, {}", mark.name)).collect(),
        }
    });
    Some(Chart::new(draw, ["", " MiB"], &series.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(name: &str, bytes: u64, estimated: f64, measured: Option<f64>, best: bool) -> ScheduleMark {
        ScheduleMark { name: name.into(), bytes: bytes << 20, estimated, measured, best }
    }

    #[test]
    fn the_curve_has_a_mark_for_each_schedule_and_time() {
        let marks = [
            mark("0", 90, 1.0, Some(1.0), true),
            mark("rk", 60, 1.1, Some(1.3), true),
            mark("2", 70, 1.4, Some(1.2), false),
            mark("rr", 40, 1.5, Some(1.6), true),
        ];
        let html = section(&Schedules { table: TextTable::new(["recompute"]), marks: marks.to_vec() });
        // Two widths, two kinds of time.
        assert_eq!(html.matches("<circle").count(), 2 * 2 * marks.len(), "{html}");
        assert_eq!(html.matches("rk: 60.0 MiB, measured × 1.300").count(), 2);
        assert_eq!(html.matches("class=\"peak\"").count(), 2 * 2);
        assert!(html.contains("× 1.500, rr"));
        let planned = marks.clone().map(|mark| ScheduleMark { measured: None, ..mark });
        let html = section(&Schedules { table: TextTable::new(["recompute"]), marks: planned.to_vec() });
        assert!(!html.contains("measured ×") && html.matches("<circle").count() == 2 * marks.len());
    }

    #[test]
    fn one_schedule_is_no_curve() {
        let alone = Schedules { table: TextTable::new(["recompute"]), marks: vec![mark("0", 90, 1.0, None, true)] };
        assert!(!section(&alone).contains("<svg") && section(&alone).contains("<table"));
    }
}
