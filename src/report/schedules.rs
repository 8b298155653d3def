//! Time against bytes of the schedules of recomputation.

use std::fmt::Write;

use super::html::{figure, legend};
use super::number_format::{mib, short};
use super::svg::{ChartAxis, Frame, Svg};

/// A schedule.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleDot {
    /// Its text.
    pub name: String,
    /// Most live bytes of a step.
    pub bytes: u64,
    /// Estimated time over that of the fastest.
    pub time: f64,
    /// It is a level.
    pub is_level: bool,
}

/// The curve as a chart, the levels marked on it or beside it; empty without points.
pub(super) fn section(points: &[ScheduleDot]) -> String {
    let on = |point: &&ScheduleDot| !point.is_level;
    let range = |of: fn(&ScheduleDot) -> f64| {
        let low = points.iter().map(of).min_by(f64::total_cmp)?;
        Some((low, points.iter().map(of).max_by(f64::total_cmp)?))
    };
    let (Some(bytes), Some(times)) = (range(|point| point.bytes as f64 / 1048576.0), range(|point| point.time)) else {
        return String::new();
    };
    let (horizontal, vertical) = (ChartAxis::linear(bytes.0, bytes.1, 7), ChartAxis::linear(times.0, times.1, 5));
    let frame = Frame { left: 72.0, top: 30.0, width: 728.0, height: 260.0 };
    let mut svg = Svg::new(820.0, frame.bottom() + 44.0, "Estimated time of a step against its bytes");
    frame.draw_left_axis(&mut svg, &vertical, "estimated time, of the fastest");
    frame.draw_bottom_axis(&mut svg, &horizontal, "MiB at the peak");
    let place = |point: &ScheduleDot| {
        [frame.x(horizontal.share(point.bytes as f64 / 1048576.0)), frame.y(vertical.share(point.time))]
    };
    // A budget between two points is answered with the smaller of them: steps, not slopes.
    let mut path = String::new();
    for (i, [x, y]) in points.iter().filter(on).map(place).enumerate() {
        let _ = match i {
            0 => write!(path, "M{} {}", short(x), short(y)),
            _ => write!(path, "V{}H{}", short(y), short(x)),
        };
    }
    svg.path("line m0", &path, "");
    for point in points {
        let title = format!("recompute {}: {} MiB, time × {:.3}", point.name, mib(point.bytes), point.time);
        let class = if point.is_level { "meeting" } else { "dot m0" };
        svg.titled_dot(class, place(point), if point.is_level { 4.5 } else { 3.2 }, &title);
        if point.is_level {
            let [x, y] = place(point);
            svg.text("strong", "start", [x + 7.0, y - 7.0], &point.name);
        }
    }
    let name = String::from("the fastest schedule for its bytes (numbers: the levels)");
    let caption = "Planned bytes, holes of at most a hundredth apart; times are those of the planned operations and bytes at assumed rates.";
    let chart = figure("", &legend([("line m0".into(), &name)].into_iter()), &svg.finish(), caption);
    format!("<section>\n<h2>What recomputation buys</h2>\n{chart}</section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_marked_and_budgets_between_points_are_steps() {
        let dot = |name: &str, bytes, time, is_level| ScheduleDot { name: name.into(), bytes, time, is_level };
        let points = [
            dot("0", 300 << 20, 1.0, false),
            dot("krk", 250 << 20, 1.25, false),
            dot("rrr", 100 << 20, 1.5, false),
            dot("0", 300 << 20, 1.0, true),
            dot("1", 260 << 20, 1.4, true),
        ];
        let html = section(&points);
        assert_eq!((html.matches("class=\"meeting\"").count(), html.matches("class=\"dot m0\"").count()), (2, 3));
        assert!(html.contains("recompute krk: 250.0 MiB, time × 1.250"), "{html}");
        let path =
            html.split("class=\"chart\"").nth(1).unwrap().split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((path.matches('V').count(), path.matches('H').count()), (2, 2), "{path}");
        assert_eq!(section(&[]), "");
    }
}
