//! A chart on the page: drawn for wide screens and for narrow ones, with the values that the pointer reads.

use serde_json::{Value, json};

use super::escape::Escaped;
use super::svg::Svg;

/// Widths that a chart is drawn for, in CSS pixels: a column of text, a phone.
const WIDTHS: [f64; 2] = [820.0, 380.0];

/// A chart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Chart {
    drawings: String,
    readout: Option<Value>,
}

/// The values of one curve.
pub(super) struct Series {
    /// Its classes in the style sheet, as in the legend.
    pub class: String,
    /// Its name; without one the values say all.
    pub name: String,
    /// Where they lie on the horizontal axis; rising.
    pub at: Vec<f64>,
    /// What is said at each.
    pub says: Vec<String>,
}

impl Chart {
    /// What `draw` makes for each width. `says` has the words before and behind a place on the horizontal axis.
    pub fn new(draw: impl Fn(f64) -> String, says: [&str; 2], series: &[Series]) -> Self {
        let one = |series: &Series| {
            let Series { class, name, at, says } = series;
            json!({ "class": class, "name": name, "at": at, "says": says })
        };
        let series: Vec<Value> = series.iter().map(one).collect();
        Self::with_values(draw, json!({ "x": says, "series": series }))
    }

    /// The same with the values as the page's script takes them.
    pub fn with_values(draw: impl Fn(f64) -> String, values: Value) -> Self {
        Self { readout: Some(values), ..Self::plain(draw) }
    }

    /// One without a horizontal axis that could be read.
    pub fn plain(draw: impl Fn(f64) -> String) -> Self {
        Self { drawings: WIDTHS.map(draw).concat(), readout: None }
    }

    /// The chart with its heading and caption, each of which may be empty.
    pub fn figure(&self, heading: &str, caption: &str) -> String {
        let heading = if heading.is_empty() { String::new() } else { format!("<h3>{}</h3>\n", Escaped(heading)) };
        let caption =
            if caption.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>\n", Escaped(caption)) };
        let values = self.readout.as_ref().map_or(String::new(), |values| embedded("values", values));
        format!(
            "{heading}<figure class=\"plot\">\n<div class=\"charts\">\n{}</div>\n{values}{caption}</figure>\n",
            self.drawings
        )
    }
}

/// Data for the page's script. Text within may hold "</script>".
pub(super) fn embedded(class: &str, data: &Value) -> String {
    format!(
        "<script type=\"application/json\" class=\"{class}\">{}</script>\n",
        data.to_string().replace('<', "\\u003c")
    )
}

/// The width that a picture of `width` has for its data, with `left` of it for labels.
pub(super) fn beside(width: f64, left: f64) -> f64 {
    width - left - 22.0
}

/// Labels that a horizontal axis of a picture has room for.
pub(super) fn labels(width: f64) -> usize {
    (width / 100.0) as usize
}

/// A picture of `width`, and where its legend ends.
pub(super) fn begin(width: f64, description: &str, legend: &[(String, String)]) -> (Svg, f64) {
    let mut svg = Svg::new(width, description);
    let top = svg.legend(legend);
    (svg, top)
}
