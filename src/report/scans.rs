//! The page of segmented scans: slices with outlines, and meshes that turn. One file, no network; its script is in it.

use std::fmt::Write;

use super::contour::outline;
use super::escape::Escaped;
use super::html::styled_document;
use super::image::{self, base64};
use super::plot::embedded;
use super::report_data::{CaseSlices, Slice};
use crate::Result;
use crate::label_table::COLOURS;
use crate::mesh::Mesh;
use crate::packed::packed;

/// One segmented scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SegmentedScan {
    /// Its name.
    pub name: String,
    /// What is said of it, as (what, value): seconds, voxels, …; the same kinds for all scans of a page.
    pub facts: Vec<(String, String)>,
    /// Slices, from [`case_slices`](super::case_slices) with the segmentation as label; predictions are not shown.
    pub slices: CaseSlices,
    /// The classes that were looked for, in the order of their colours.
    pub classes: Vec<SegmentedClass>,
}

/// One class of a scan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SegmentedClass {
    /// Its value among the slices' labels.
    pub value: u8,
    /// Its name.
    pub name: String,
    /// Millilitres.
    pub volume: f64,
    /// Its surface in RAS millimetres; empty if there is none. Ten thousand triangles cost the page 0.1 MB.
    pub mesh: Mesh,
}

/// Most bytes of voxels of a page; scans beyond them have their three slices only.
const STACKS_BYTES: usize = 24 << 20;

/// The page of `scans` as self-contained HTML. `conclusion` is its first sentence, `run` says how it came about (device,
/// version, command).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when a mask or image among the slices does not have its stated size.
pub fn scans_page(scans: &[SegmentedScan], conclusion: &str, run: &str) -> Result<String> {
    let title = match scans {
        [scan] => format!("Segmentation of {}", scan.name),
        _ => format!("Segmentation of {} scans", scans.len()),
    };
    let mut sections = index(scans);
    if !scans.is_empty() {
        sections.push_str(INTRODUCTION);
    }
    let mut left = STACKS_BYTES;
    for (number, scan) in scans.iter().enumerate() {
        let bytes = scan.slices.stack.as_ref().map_or(0, |stack| stack.bytes());
        let scrolls = bytes <= left;
        left -= if scrolls { bytes } else { 0 };
        sections.push_str(&card(scan, number, [scrolls, true])?);
    }
    let _ = writeln!(sections, "<script>\n{}</script>", packed!("src-report-meshes.js"));
    Ok(styled_document(&packed!("src-report-meshes.css"), &title, conclusion, run, &sections))
}

/// The page of labelled scans as they are: slices with outlines, without meshes.
///
/// # Errors
/// As [`scans_page`].
pub fn inspection_page(title: &str, scans: &[SegmentedScan], conclusion: &str, run: &str) -> Result<String> {
    let cards = scans.iter().enumerate().map(|(number, scan)| card(scan, number, [true, false]));
    let sections = format!("{INTRODUCTION}{}", cards.collect::<Result<String>>()?);
    Ok(styled_document(&packed!("src-report-meshes.css"), title, conclusion, run, &sections))
}

/// What the slices are.
const INTRODUCTION: &str = "<p class=\"note\">Slices run through the centre of the segmentation, in radiological view: the patient's \
    right is at the left. Letters name the anatomical directions.<span class=\"scripted\"> Sliders, their arrow keys, and the wheel \
    after a click scroll them.</span></p>\n";

/// The table of all scans, which leads to each.
fn index(scans: &[SegmentedScan]) -> String {
    let Some(first) = scans.first().filter(|_| scans.len() > 1) else { return String::new() };
    let mut html = String::from("<div class=\"scroll index\"><table>\n<thead><tr><th scope=\"col\">Scan</th>");
    for class in &first.classes {
        let _ = write!(html, "<th scope=\"col\">{}<br><small>ml</small></th>", Escaped(&class.name));
    }
    for (what, _) in &first.facts {
        let _ = write!(html, "<th scope=\"col\">{}</th>", Escaped(what));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (number, scan) in scans.iter().enumerate() {
        let _ = write!(html, "<tr><td><a href=\"#scan-{number}\">{}</a></td>", Escaped(&scan.name));
        for class in &scan.classes {
            let _ = write!(html, "<td>{:.1}</td>", class.volume);
        }
        for (_, value) in &scan.facts {
            let _ = write!(html, "<td>{}</td>", Escaped(value));
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody></table></div>\n"
}

/// One scan: heading, slices (which scroll or not) and, if wanted, mesh side by side, classes.
fn card(scan: &SegmentedScan, number: usize, [scrolls, solid]: [bool; 2]) -> Result<String> {
    let hex = |[red, green, blue]: &[u8; 3]| format!("#{red:02x}{green:02x}{blue:02x}");
    let colours: Vec<(u8, String)> =
        scan.classes.iter().zip(COLOURS.iter().cycle()).map(|(class, colour)| (class.value, hex(colour))).collect();
    let facts: Vec<String> = scan.facts.iter().map(|(what, value)| format!("{what} {value}")).collect();
    let mut html = format!("<article class=\"scan\" id=\"scan-{number}\">\n<h2>{}</h2>\n", Escaped(&scan.name));
    let _ = writeln!(
        html,
        "<p class=\"facts\">{}</p>\n<div class=\"views{}\">",
        Escaped(facts.join(" · ")),
        if solid { "" } else { " flat" }
    );
    let _ = writeln!(html, "<div class=\"slices\" style=\"{}\">", image::columns(&scan.slices));
    for slice in &scan.slices.slices {
        let title = format!("{}, {} slice {}", scan.name, slice.plane.name(), slice.index);
        html.push_str(&image::framed(&scan.slices, slice, &title, &film(slice, &colours)?));
        html.push('\n');
    }
    html.push_str("</div>\n");
    let meshes: Vec<(&SegmentedClass, &str)> = scan
        .classes
        .iter()
        .zip(&colours)
        .map(|(class, (_, colour))| (class, colour.as_str()))
        .filter(|(class, _)| !class.mesh.triangles.is_empty())
        .collect();
    if !solid {
    } else if meshes.is_empty() {
        html.push_str(
            "<div class=\"solid\"><p class=\"onmesh\">No mesh: nothing was found, or small pieces only.</p></div>\n",
        );
    } else {
        let _ = writeln!(
            html,
            "<div class=\"solid\"><canvas tabindex=\"0\" role=\"img\" aria-label=\"Mesh of {}: drag or use the arrow keys to turn it, the wheel or + and − \
             to zoom\"></canvas><p class=\"hint\">drag to turn<br>wheel to zoom<br>double click to reset</p></div>",
            Escaped(&scan.name)
        );
        let stored: Vec<serde_json::Value> = meshes.iter().map(|(class, colour)| packed(&class.mesh, colour)).collect();
        html.push_str(&embedded("meshes", &stored.into()));
    }
    html.push_str("</div>\n");
    if let Some(stack) = scan.slices.stack.as_ref().filter(|_| scrolls) {
        let note = stack.note();
        if !note.is_empty() {
            let _ = writeln!(html, "<p class=\"note scripted\">{}</p>", note.trim());
        }
        html.push_str(&embedded("stack", &stack.to_json()));
    }
    html.push_str("<ul class=\"classes\">\n");
    for (class, (_, colour)) in scan.classes.iter().zip(&colours) {
        let triangles = class.mesh.triangles.len();
        let what = format!("{}, {:.1} ml", class.name, class.volume);
        let (box_, size) = match triangles {
            0 => (String::new(), String::new()),
            _ => {
                ("<input type=\"checkbox\" data-mesh checked>".into(), format!(" <small>{triangles} triangles</small>"))
            }
        };
        let _ = writeln!(
            html,
            "<li><label>{box_}<i style=\"background:{colour}\"></i>{}{size}</label></li>",
            Escaped(what)
        );
    }
    Ok(html + "</ul>\n</article>\n")
}

/// What lies on one film: the grey image and each class' outline in its colour.
fn film(slice: &Slice, colours: &[(u8, String)]) -> Result<String> {
    let (width, height, plane) = (slice.width, slice.height, slice.plane.name());
    let uri = image::png_data_uri(&slice.image, width, height)?;
    let mut html = format!(
        "<image data-plane=\"{plane}\" width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" href=\"{uri}\"/>"
    );
    for (value, colour) in colours {
        let mask: Vec<u8> = image::checked(&slice.label, slice)?.iter().map(|label| u8::from(label == value)).collect();
        let from = format!("data-plane=\"{plane}\" data-mask=\"0\" data-value=\"{value}\"");
        let path = outline(&mask, width, height);
        let _ = write!(html, "<path class=\"outline\" {from} stroke=\"{colour}\" d=\"{path}\"/>");
    }
    Ok(html)
}

/// A mesh for the viewer: positions in 16-bit steps from a corner of the bounding box (3 µm at 20 cm), indices as short as
/// they can be; little endian, in base64. Normals are recomputed from the triangles.
fn packed(mesh: &Mesh, colour: &str) -> serde_json::Value {
    let extreme = |pick: fn(f32, f32) -> f32, start: f32| {
        mesh.vertices.iter().fold([start; 3], |best, vertex| [0, 1, 2].map(|i| pick(best[i], vertex[i])))
    };
    let (low, high) = (extreme(f32::min, f32::INFINITY), extreme(f32::max, f32::NEG_INFINITY));
    let step = [0, 1, 2].map(|i| (f64::from(high[i]) - f64::from(low[i])) / 65535.0);
    let positions: Vec<u8> = mesh
        .vertices
        .iter()
        .flat_map(|vertex| {
            [0, 1, 2].map(|i| {
                let steps = (f64::from(vertex[i]) - f64::from(low[i])) / step[i].max(f64::MIN_POSITIVE);
                steps.round().clamp(0.0, 65535.0) as u16
            })
        })
        .flat_map(u16::to_le_bytes)
        .collect();
    let indices = mesh.triangles.as_flattened().iter();
    let indices: Vec<u8> = match mesh.vertices.len() > 65535 {
        true => indices.flat_map(|index| index.to_le_bytes()).collect(),
        false => indices.flat_map(|&index| (index as u16).to_le_bytes()).collect(),
    };
    serde_json::json!({
        "colour": colour,
        "vertices": mesh.vertices.len(),
        "triangles": mesh.triangles.len(),
        "origin": low,
        "step": step,
        "positions": base64(&positions),
        "indices": base64(&indices),
    })
}
