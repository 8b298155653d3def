//! Strip plots: a dot a case, and what the cases say together.

use super::number_format::{MISSING, score};
use super::plot::{Chart, labels};
use super::svg::{ChartAxis, Frame, Svg};
use crate::evaluate::statistics::Summary;

/// One row of a strip plot: a dot a case.
pub(super) struct Strip<'a> {
    /// Its class in the style sheet, without `dot`.
    pub class: String,
    /// What is scored.
    pub name: String,
    /// Cases and their scores; those that are not finite are left out.
    pub values: Vec<(&'a str, f64)>,
    /// What they say together.
    pub summary: Summary,
}

/// One score.
pub(super) struct Panel<'a> {
    /// The score with its unit.
    pub title: String,
    /// The strips.
    pub rows: Vec<Strip<'a>>,
    /// Ends that the axis has at least.
    pub least: Option<[f64; 2]>,
}

/// Strip plots, `across` of them side by side on wide screens: dots are cases, the bar is the mean's 95 % interval (where there
/// is one), the tick its mean. `None` without a finite value.
pub(super) fn strips(description: &str, panels: &[Panel<'_>], across: usize) -> Option<Chart> {
    const ROW: f64 = 34.0;
    let finite = |panel: &&Panel<'_>| panel.rows.iter().any(|row| row.values.iter().any(|value| value.1.is_finite()));
    let panels: Vec<&Panel<'_>> = panels.iter().filter(finite).collect();
    let most = panels.iter().map(|panel| panel.rows.len()).max()?;
    let draw = |width: f64| {
        let across = if width < 600.0 { 1 } else { across };
        let cell = [width / across as f64, 58.0 + ROW * most as f64];
        let mut svg = Svg::new(width, description);
        for (number, panel) in panels.iter().enumerate() {
            let (left, top) = ((number % across) as f64 * cell[0], (number / across) as f64 * cell[1]);
            let values =
                || panel.rows.iter().flat_map(|row| &row.values).map(|value| value.1).filter(|value| value.is_finite());
            let [least, most] = panel.least.unwrap_or([f64::INFINITY, f64::NEG_INFINITY]);
            let axis = ChartAxis::linear(
                values().fold(least, f64::min),
                values().fold(most, f64::max),
                labels(cell[0]).min(5),
            );
            let frame = Frame {
                left: left + 14.0,
                top: top + 26.0,
                width: cell[0] - 36.0,
                height: ROW * panel.rows.len() as f64,
            };
            svg.text("label strong", "start", [left + 4.0, top + 16.0], &panel.title);
            for (value, label) in &axis.ticks {
                let x = frame.x(axis.share(*value));
                svg.line("grid", [x, frame.top], [x, frame.bottom()]);
                svg.text("tick", "middle", [x, frame.bottom() + 16.0], label);
            }
            for (position, row) in panel.rows.iter().enumerate() {
                let middle = frame.top + ROW * (position as f64 + 0.5) + 5.0;
                for (index, (case, value)) in row.values.iter().enumerate().filter(|(_, value)| value.1.is_finite()) {
                    // Dots that would hide one another lie in five lanes.
                    let lane = ((index * 2) % 5) as f64 * 3.0 - 6.0;
                    let title = format!("{case}, {}: {}", row.name, score(*value));
                    svg.titled_dot(
                        &format!("dot faint {}", row.class),
                        [frame.x(axis.share(*value)), middle + lane],
                        3.4,
                        &title,
                    );
                }
                let mean = row.summary.mean.map(|mean| frame.x(axis.share(mean)));
                if let Some([low, high]) = row.summary.interval {
                    let ends = [low, high].map(|end| frame.x(axis.share(end)));
                    svg.line("interval", [ends[0], middle], [ends[1], middle]);
                }
                if let Some(x) = mean {
                    svg.line("mean", [x, middle - 9.0], [x, middle + 9.0]);
                }
                let said = row.summary.mean.map_or(MISSING.into(), |mean| format!("{}  {}", row.name, score(mean)));
                svg.text("tick halo", "start", [frame.left + 2.0, middle - 11.0], &said);
            }
        }
        svg.finish(cell[1] * panels.len().div_ceil(across) as f64)
    };
    Some(Chart::plain(draw))
}
