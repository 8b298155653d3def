//! Slices of a case with the outlines of its label and of predictions, which scroll where the page's script runs.

use std::fmt::Write;

use super::escape::Escaped;
use super::image;
use super::plot::embedded;
use super::report_data::CaseSlices;
use crate::Result;

/// What the pictures are, above the first of them.
pub(super) const INTRODUCTION: &str = "<p>Three orthogonal slices through the centre of each label, in radiological view (the patient's right is at the left of \
     coronal and axial slices). Letters name the anatomical directions.<span class=\"scripted\"> Scroll with the sliders, with \
     the arrow keys on them, or with the wheel after a click; a click also takes the other two slices there.</span></p>\n\
     <ul class=\"legend\"><li><svg class=\"swatch onfilm\" viewBox=\"0 0 24 12\" aria-hidden=\"true\">\
     <line class=\"truth\" x1=\"2\" y1=\"6\" x2=\"22\" y2=\"6\"/></svg>label</li>\
     <li><svg class=\"swatch onfilm\" viewBox=\"0 0 24 12\" aria-hidden=\"true\">\
     <line class=\"prediction\" x1=\"2\" y1=\"6\" x2=\"22\" y2=\"6\"/></svg>prediction</li></ul>\n";

/// A case that is worth a look, with a prediction for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PicturedCase {
    /// Why it is shown, with its scores: `Worst case: pyradbrain2, Dice 0.912`.
    pub heading: String,
    /// Its slices.
    pub slices: CaseSlices,
}

/// A section of single cases; empty without one.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when a mask or image among the slices does not have its stated size.
pub(super) fn section(cases: &[PicturedCase]) -> Result<String> {
    if cases.is_empty() {
        return Ok(String::new());
    }
    let mut html = format!("<section>\n<h2>Slices</h2>\n{INTRODUCTION}");
    for (number, case) in cases.iter().enumerate() {
        html.push_str(&figures(&case.slices, number, &case.heading, |_| String::new())?);
    }
    Ok(html + "</section>\n")
}

/// The slices of one case, a row a model with its caption. `number` tells the cases of a page apart.
///
/// # Errors
/// As [`section`].
pub(super) fn figures(
    case: &CaseSlices,
    number: usize,
    heading: &str,
    caption: impl Fn(&str) -> String,
) -> Result<String> {
    let mut html =
        format!("<div class=\"case\">\n{}<h3>{}</h3>\n", image::definitions(case, number)?, Escaped(heading));
    for (row, prediction) in case.predictions.iter().enumerate() {
        let _ = writeln!(html, "<figure>\n<div class=\"slices\" style=\"{}\">", image::columns(case));
        for (slice, mask) in case.slices.iter().zip(&prediction.masks) {
            let (plane, index) = (slice.plane.name(), slice.index);
            let title = format!("{}, {plane} slice {index}, {}", case.case, prediction.model);
            html.push_str(&image::picture(case, slice, number, &title, (row + 1, mask))?);
            html.push('\n');
        }
        let caption = caption(&prediction.model);
        let caption = match (caption.as_str(), &case.stack) {
            ("", None) => String::new(),
            (caption, stack) => {
                let note = stack.as_ref().filter(|_| row == 0).map_or(String::new(), |stack| stack.note());
                format!("{caption}{note}")
            }
        };
        let caption = if caption.is_empty() {
            caption
        } else {
            format!("<figcaption>{}</figcaption>\n", Escaped(caption.trim()))
        };
        let _ = writeln!(html, "</div>\n{caption}</figure>");
    }
    if let Some(stack) = &case.stack {
        html.push_str(&embedded("stack", &stack.to_json()));
    }
    Ok(html + "</div>\n")
}
