//! The least that a legible plot needs: an SVG writer, axes with round ticks, and the frame of a chart.
//!
//! Written here rather than with a plotting crate because the page wants what those do not give: colours that follow
//! the reader's light or dark scheme (classes, styled by the page), tooltips, and text that stays text.

use std::fmt::Write;

use super::escape::Escaped;
use super::number_format::short;

/// An SVG picture in the making. Lengths are in user units, about a CSS pixel where the picture has its own width.
pub(super) struct Svg {
    width: f64,
    /// The description for screen readers.
    description: String,
    /// Where the data lie, for the page's script.
    frame: String,
    text: String,
}

/// Below this width a picture is one for a narrow screen.
const NARROW_BELOW: f64 = 600.0;

/// Width of a letter of a label, at most on average.
pub(super) const LETTER: f64 = 7.2;

impl Svg {
    /// An empty picture with a description for screen readers.
    pub fn new(width: f64, description: &str) -> Self {
        Svg { width, description: description.into(), frame: String::new(), text: String::new() }
    }

    /// Draws samples of classes with their names, in rows from the top; returns the height that they take.
    pub fn legend(&mut self, entries: &[(String, String)]) -> f64 {
        let (mut x, mut y) = (4.0, 16.0);
        for (class, name) in entries {
            let length = 30.0 + LETTER * name.chars().count() as f64;
            if x > 4.0 && x + length > self.width {
                (x, y) = (4.0, y + 20.0);
            }
            match class.split(' ').next() {
                Some("line") => self.path(class, &format!("M{} {}h24", short(x), short(y - 4.0)), ""),
                Some("dot") => self.dot(class, [x + 12.0, y - 4.0], 5.0),
                _ => self.rect(class, [x, y - 10.0], [24.0, 12.0], ""),
            }
            self.text("label", "start", [x + 30.0, y], name);
            x += length + 14.0;
        }
        if entries.is_empty() { 0.0 } else { y + 6.0 }
    }

    /// Tells the page's script where along the width which values lie.
    pub fn readable(&mut self, frame: &Frame, horizontal: &ChartAxis) {
        let places = [frame.left, frame.width, frame.top, frame.bottom()].map(short).join(" ");
        self.frame = format!(
            " data-frame=\"{places} {} {} {}\"",
            horizontal.low,
            horizontal.high,
            u8::from(horizontal.logarithmic)
        );
    }

    /// A straight line.
    pub fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(short);
        let _ = writeln!(self.text, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    /// A path with a tooltip (none if `title` is empty).
    pub fn path(&mut self, class: &str, data: &str, title: &str) {
        self.element(&format!("path class=\"{class}\" d=\"{data}\""), title);
    }

    /// A rectangle with a tooltip (none if `title` is empty).
    pub fn rect(&mut self, class: &str, [x, y]: [f64; 2], [width, height]: [f64; 2], title: &str) {
        let [x, y, width, height] = [x, y, width.max(0.0), height.max(0.0)].map(short);
        let head = format!("rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
        self.element(&head, title);
    }

    /// A dot.
    pub fn dot(&mut self, class: &str, centre: [f64; 2], radius: f64) {
        self.titled_dot(class, centre, radius, "");
    }

    /// A dot with a text that appears under the pointer.
    pub fn titled_dot(&mut self, class: &str, [x, y]: [f64; 2], radius: f64, title: &str) {
        let [x, y, radius] = [x, y, radius].map(short);
        self.element(&format!("circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\""), title);
    }

    /// Text whose `anchor` (`start`, `middle` or `end`) lies at a point of the baseline.
    pub fn text(&mut self, class: &str, anchor: &str, [x, y]: [f64; 2], text: &str) {
        let (x, y, text) = (short(x), short(y), Escaped(text));
        let _ =
            writeln!(self.text, "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    /// The finished element.
    pub fn finish(self, height: f64) -> String {
        let Svg { width, description, frame, text } = self;
        let (kind, label) = (if width < NARROW_BELOW { "narrow" } else { "wide" }, Escaped(description));
        let (width, height) = (short(width), short(height));
        format!(
            "<svg class=\"chart {kind}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\"{frame}>\n{text}</svg>\n"
        )
    }

    fn element(&mut self, head: &str, title: &str) {
        let name = head.split(' ').next().unwrap_or_default();
        let _ = match title {
            "" => writeln!(self.text, "<{head}/>"),
            title => writeln!(self.text, "<{head}><title>{}</title></{name}>", Escaped(title)),
        };
    }
}

/// A range of values with round ticks; the outermost ticks are its ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChartAxis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Values with their labels, rising.
    pub ticks: Vec<(f64, String)>,
}

impl ChartAxis {
    /// A linear axis from the round value below `low` to the one above `high`, with about `count` intervals.
    pub fn linear(low: f64, high: f64, count: usize) -> Self {
        let (low, high) = usable(low, high);
        let step = round_step((high - low) / count.max(1) as f64);
        let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let tick = |multiple: f64| (multiple * step, linear_label(multiple * step, decimals));
        let intervals = (last - first).max(1.0) as usize;
        let ticks: Vec<_> = (0..=intervals).map(|interval| tick(first + interval as f64)).collect();
        ChartAxis { low: first * step, high: (first + intervals as f64) * step, logarithmic: false, ticks }
    }

    /// A linear axis from 0 to exactly `end`, without ticks.
    pub fn span(end: f64) -> Self {
        ChartAxis { low: 0.0, high: end, logarithmic: false, ticks: Vec::new() }
    }

    /// A logarithmic axis around the positive values `low` and `high`: ticks at 1, 2, 5 within two decades, at powers
    /// of ten beyond.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        let clean = |value: f64| if value.is_finite() { value.clamp(1e-300, LARGEST) } else { 1.0 };
        let (low, high) = (clean(low.min(high)), clean(low.max(high)));
        let first = low.log10().floor() as i32;
        let last = (high.log10().ceil() as i32).max(first + 1);
        // Whole decades when there are many: every one, every second, … so that at most nine labels result.
        let stride = (last - first + 7) / 8;
        let mut ticks = Vec::new();
        for decade in (first..=last + stride - 1).step_by(stride as usize) {
            let fine: &[f64] = if last - first <= 2 && decade < last { &[1.0, 2.0, 5.0] } else { &[1.0] };
            // 5e-1 by parsing, not by powi: the nearest number, so that labels are short.
            ticks.extend(fine.iter().filter_map(|digit| format!("{digit}e{decade}").parse::<f64>().ok()));
        }
        let below = ticks.iter().rposition(|&tick| tick <= low * (1.0 + 1e-9)).unwrap_or(0);
        let above = ticks.iter().position(|&tick| tick >= high * (1.0 - 1e-9)).unwrap_or(ticks.len() - 1);
        let ticks = &ticks[below.min(ticks.len() - 2)..=above.max(below + 1).min(ticks.len() - 1)];
        ChartAxis {
            low: ticks[0],
            high: ticks[ticks.len() - 1],
            logarithmic: true,
            ticks: ticks.iter().map(|&tick| (tick, log_label(tick))).collect(),
        }
    }

    /// A logarithmic axis whose ends and ticks are powers of `base` around the positive values `low` and `high`; every
    /// second, third, … where there would be more than `most`.
    pub fn powers(base: f64, low: f64, high: f64, most: usize, label: impl Fn(f64) -> String) -> Self {
        let clean = |value: f64| if value.is_finite() { value.clamp(1e-300, LARGEST) } else { 1.0 };
        let power = |value: f64| clean(value).ln() / base.ln();
        let first = (power(low.min(high)) + 1e-9).floor() as i32;
        let last = ((power(low.max(high)) - 1e-9).ceil() as i32).max(first + 1);
        let stride = (last - first + 1).unsigned_abs().div_ceil(most.max(1) as u32) as usize;
        let mut exponents: Vec<i32> = (first..=last).step_by(stride).collect();
        if exponents[exponents.len() - 1] < last {
            exponents.push(exponents[exponents.len() - 1] + stride as i32);
        }
        let ticks: Vec<_> = exponents.into_iter().map(|power| base.powi(power)).map(|x| (x, label(x))).collect();
        ChartAxis { low: ticks[0].0, high: ticks[ticks.len() - 1].0, logarithmic: true, ticks }
    }

    /// Where `value` lies between the ends: 0 at the low one, 1 at the high one.
    pub fn share(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

/// Beyond this, tick arithmetic would overflow; no byte count or loss that a reader can use lies there.
const LARGEST: f64 = 1e300;

/// Ends that an axis can be built on: finite, and with a positive distance.
fn usable(low: f64, high: f64) -> (f64, f64) {
    let clean = |value: f64| if value.is_finite() { value.clamp(-LARGEST, LARGEST) } else { 0.0 };
    let (low, high) = (clean(low.min(high)), clean(low.max(high)));
    let least = 1e-9 * low.abs().max(high.abs()).max(1e-290);
    if high - low < least {
        (low, low + least.max(if low == 0.0 { 1.0 } else { low.abs() * 0.1 }))
    } else {
        (low, high)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * decade >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    digit * decade
}

fn linear_label(value: f64, decimals: usize) -> String {
    if value != 0.0 && (value.abs() >= 1e6 || decimals > 6) {
        format!("{value:.1e}")
    } else {
        format!("{value:.decimals$}")
    }
}

fn log_label(value: f64) -> String {
    if (1e-4..1e6).contains(&value) { format!("{value}") } else { format!("{value:e}") }
}

/// The rectangle in which a chart's data lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// Left edge.
    pub left: f64,
    /// Top edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Frame {
    /// Horizontal position of a share of the width.
    pub fn x(&self, share: f64) -> f64 {
        self.left + share * self.width
    }

    /// Vertical position of a share of the height, upwards.
    pub fn y(&self, share: f64) -> f64 {
        self.top + (1.0 - share) * self.height
    }

    /// The bottom edge.
    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Draws the vertical axis: a grid line and a label for each tick, and what is measured above them.
    pub fn draw_left_axis(&self, svg: &mut Svg, axis: &ChartAxis, name: &str) {
        for (value, label) in &axis.ticks {
            let y = self.y(axis.share(*value));
            svg.line("grid", [self.left, y], [self.left + self.width, y]);
            svg.text("tick", "end", [self.left - 6.0, y + 4.0], label);
        }
        svg.text("name", "start", [4.0, self.top - 12.0], name);
    }

    /// Draws the horizontal axis: a mark and a label for each tick, and what is measured below them.
    pub fn draw_bottom_axis(&self, svg: &mut Svg, axis: &ChartAxis, name: &str) {
        svg.line("axis", [self.left, self.bottom()], [self.left + self.width, self.bottom()]);
        for (value, label) in &axis.ticks {
            let x = self.x(axis.share(*value));
            svg.line("axis", [x, self.bottom()], [x, self.bottom() + 4.0]);
            svg.text("tick", "middle", [x, self.bottom() + 18.0], label);
        }
        svg.text("name", "end", [self.left + self.width, self.bottom() + 36.0], name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values over many magnitudes and both signs from a fixed multiplicative generator.
    fn values(count: usize) -> impl Iterator<Item = f64> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut draw = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..count).map(move |_| (draw() - 0.5) * 10f64.powf(draw() * 24.0 - 12.0))
    }

    #[test]
    fn linear_ticks_rise_evenly_around_the_data_and_are_few() {
        let low: Vec<f64> = values(4000).collect();
        for (pair, count) in low.chunks(2).zip((2..9).cycle()) {
            let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let axis = ChartAxis::linear(low, high, count);
            let ticks: Vec<f64> = axis.ticks.iter().map(|tick| tick.0).collect();
            let step = ticks[1] - ticks[0];
            let slack = 1e-6 * step;
            assert!(ticks[0] <= low + slack && ticks[ticks.len() - 1] >= high - slack, "{low} {high} {ticks:?}");
            // A step is at least the exact one, so `count` intervals and one more for the rounding at each end.
            assert!((2..=count + 3).contains(&ticks.len()), "{low} {high} {count} {ticks:?}");
            assert!(ticks.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() < slack), "{ticks:?}");
            let digit = step / 10f64.powf(step.log10().floor());
            assert!([1.0, 2.0, 5.0, 10.0].iter().any(|round| (digit - round).abs() < 1e-3), "{step}");
            assert!(axis.share(low) >= 0.0 && axis.share(high) <= 1.0 && axis.share(low) <= axis.share(high));
        }
    }

    #[test]
    fn logarithmic_ticks_rise_around_the_data_and_are_few() {
        let pairs: Vec<f64> = values(4000).map(f64::abs).collect();
        for pair in pairs.chunks(2) {
            let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let axis = ChartAxis::logarithmic(low, high);
            let ticks: Vec<f64> = axis.ticks.iter().map(|tick| tick.0).collect();
            assert!((2..=10).contains(&ticks.len()), "{low} {high} {ticks:?}");
            assert!(ticks.is_sorted() && ticks[0] <= low * 1.0001 && ticks[ticks.len() - 1] >= high * 0.9999);
        }
    }

    #[test]
    fn labels_are_what_a_reader_expects() {
        let labels = |axis: ChartAxis| axis.ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(labels(ChartAxis::linear(0.0, 0.93, 5)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(ChartAxis::linear(0.0, 230.0, 5)), ["0", "50", "100", "150", "200", "250"]);
        assert_eq!(labels(ChartAxis::logarithmic(0.04, 0.7)), ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]);
        assert_eq!(labels(ChartAxis::logarithmic(0.001, 100.0)), ["0.001", "0.01", "0.1", "1", "10", "100"]);
    }

    #[test]
    fn powers_enclose_the_data_and_are_few() {
        let labels = |axis: ChartAxis| axis.ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        let side = |value: f64| format!("{value}");
        assert_eq!(labels(ChartAxis::powers(2.0, 32.0, 1024.0, 8, side)), ["32", "64", "128", "256", "512", "1024"]);
        assert_eq!(labels(ChartAxis::powers(4.0, 20.0, 1000.0, 3, side)), ["16", "256", "4096"]);
        for (low, high) in [(0.0, 0.0), (f64::NAN, 3.0), (7.0, 7.0), (1.0, f64::INFINITY), (1e-30, 1e30)] {
            let axis = ChartAxis::powers(2.0, low, high, 8, side);
            assert!((2..=10).contains(&axis.ticks.len()), "{low} {high} {axis:?}");
            assert!(axis.ticks.windows(2).all(|pair| pair[0].0 < pair[1].0), "{axis:?}");
        }
    }

    #[test]
    fn odd_ranges_still_give_an_axis() {
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (f64::NAN, 1.0), (f64::MIN, f64::MAX), (0.0, 1e-320), (2.0, 1.0)] {
            for axis in [ChartAxis::linear(low, high, 5), ChartAxis::logarithmic(low, high)] {
                assert!((2..20).contains(&axis.ticks.len()), "{low} {high} {axis:?}");
                assert!(axis.ticks.iter().all(|tick| tick.0.is_finite()), "{low} {high} {axis:?}");
            }
        }
    }

    #[test]
    fn titles_are_escaped() {
        let mut svg = Svg::new(10.0, "a < b");
        svg.path("x", "M0 0", "<script>");
        let text = svg.finish(10.0);
        assert!(text.contains("a &lt; b") && text.contains("<title>&lt;script&gt;</title></path>"), "{text}");
    }
}
