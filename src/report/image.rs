//! Slices of a volume as pictures: orthogonal planes in anatomical orientation, PNG data URIs, outlines on top.

use std::fmt::Write;

use super::contour::outline;
use super::escape::Escaped;
use super::number_format::short;
use super::report_data::{CaseSlices, ModelMasks, Plane, Slice};
use super::stack::{self, Along};
use crate::{Error, Result};

/// A scan on its own grid, for [`case_slices`].
#[derive(Debug, Clone, Copy)]
pub struct ImageVolume<'a> {
    /// Intensities, `shape` in C order; values that are not finite are shown black.
    pub image: &'a [f32],
    /// Classes of the label (0 is background), `shape` in C order.
    pub label: &'a [u8],
    /// Voxels along the three axes.
    pub shape: [usize; 3],
    /// Millimetres between voxels along the three axes.
    pub spacing: [f64; 3],
    /// Anatomical direction in which each axis' index grows, one of R, L, A, P, S, I: `['R', 'A', 'S']` for a RAS volume.
    pub axes: [char; 3],
}

/// The sagittal, coronal and axial slice of `case` through the centroid of the label (the volume's centre without one),
/// with the same pixels of each prediction (name of the model, classes on the volume's grid), and the volume for scrolling.
///
/// The grey window runs from the 0.5th to the 99.5th percentile of the whole volume, so that the slices compare.
///
/// # Errors
/// [`Error::Shape`] when a length does not fit `shape`, an axis is empty, or `axes` does not name three different
/// anatomical axes.
pub fn case_slices(case: &str, volume: &ImageVolume, predictions: &[(&str, &[u8])]) -> Result<CaseSlices> {
    let voxels = volume.shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)).unwrap_or(0);
    let lengths = predictions.iter().map(|(_, mask)| mask.len()).chain([volume.image.len(), volume.label.len()]);
    if voxels == 0 || lengths.into_iter().any(|length| length != voxels) {
        return Err(Error::shape("slices", format!("image, label and predictions must all fill {:?}", volume.shape)));
    }
    let [right, anterior, superior] = anatomical_axes(volume.axes)?;
    let centre = centroid(volume);
    let cut = |plane, normal: Axis, columns, rows| Cut {
        plane,
        shape: volume.shape,
        normal: normal.number,
        index: centre[normal.number],
        columns,
        rows,
    };
    // The picture's columns and rows with the direction in which they grow: see `Plane::marks`.
    let cuts = [
        cut(Plane::Sagittal, right, anterior.towards('P'), superior.towards('I')),
        cut(Plane::Coronal, anterior, right.towards('L'), superior.towards('I')),
        cut(Plane::Axial, superior, right.towards('L'), anterior.towards('P')),
    ];
    let window = Window::of(volume.image);
    let slice = |cut: &Cut| Slice {
        plane: cut.plane,
        index: cut.index,
        width: cut.width(),
        height: cut.height(),
        pixel: [volume.spacing[cut.columns.axis], volume.spacing[cut.rows.axis]],
        image: cut.pixels(volume.image).map(|value| window.grey(value)).collect(),
        label: cut.pixels(volume.label).collect(),
    };
    let masks = |&(model, mask): &(&str, &[u8])| ModelMasks {
        model: model.into(),
        masks: cuts.each_ref().map(|cut| cut.pixels(mask).collect()),
    };
    let along = |axis: Axis, towards| Along {
        axis: axis.number,
        length: volume.shape[axis.number],
        mirrored: axis.towards(towards).mirrored,
    };
    let axes = [along(right, 'L'), along(anterior, 'P'), along(superior, 'I')];
    let all: Vec<&[u8]> = std::iter::once(volume.label).chain(predictions.iter().map(|(_, mask)| *mask)).collect();
    let stack = stack::pack(volume.shape, axes, centre, |place| window.grey(volume.image[place]), &all);
    Ok(CaseSlices {
        case: case.into(),
        slices: cuts.each_ref().map(slice),
        predictions: predictions.iter().map(masks).collect(),
        stack: Some(stack),
    })
}

/// An axis of the volume and the anatomical direction in which its index grows.
#[derive(Clone, Copy)]
struct Axis {
    number: usize,
    grows: char,
}

/// An axis of the volume as an axis of the picture, mirrored or not.
#[derive(Clone, Copy)]
struct Direction {
    axis: usize,
    mirrored: bool,
}

impl Axis {
    fn towards(self, direction: char) -> Direction {
        Direction { axis: self.number, mirrored: self.grows != direction }
    }
}

/// The volume's axes along right–left, anterior–posterior and superior–inferior.
fn anatomical_axes(axes: [char; 3]) -> Result<[Axis; 3]> {
    let find = |letters: [char; 2]| {
        let number = axes.iter().position(|axis| letters.contains(axis))?;
        Some(Axis { number, grows: axes[number] })
    };
    match (find(['R', 'L']), find(['A', 'P']), find(['S', 'I'])) {
        (Some(right), Some(anterior), Some(superior)) => Ok([right, anterior, superior]),
        _ => Err(Error::shape("slices", format!("axes {axes:?} are not one each of R/L, A/P and S/I"))),
    }
}

/// The voxel nearest to the centroid of the label's foreground.
fn centroid(volume: &ImageVolume) -> [usize; 3] {
    let [_, b, c] = volume.shape;
    let mut sum = [0u64; 3];
    let mut voxels = 0u64;
    for (index, _) in volume.label.iter().enumerate().filter(|(_, class)| **class != 0) {
        for (sum, position) in sum.iter_mut().zip([index / (b * c), index / c % b, index % c]) {
            *sum += position as u64;
        }
        voxels += 1;
    }
    match voxels {
        0 => volume.shape.map(|n| n / 2),
        voxels => sum.map(|sum| ((sum + voxels / 2) / voxels) as usize),
    }
}

/// One slice of a volume, turned into the picture's orientation.
struct Cut {
    plane: Plane,
    shape: [usize; 3],
    normal: usize,
    index: usize,
    columns: Direction,
    rows: Direction,
}

impl Cut {
    fn width(&self) -> usize {
        self.shape[self.columns.axis]
    }

    fn height(&self) -> usize {
        self.shape[self.rows.axis]
    }

    /// The pixels of the slice of `data`, row by row.
    fn pixels<'a, T: Copy>(&'a self, data: &'a [T]) -> impl Iterator<Item = T> + 'a {
        let strides = [self.shape[1] * self.shape[2], self.shape[2], 1];
        let place = move |direction: Direction, position: usize| {
            let size = self.shape[direction.axis];
            strides[direction.axis] * if direction.mirrored { size - 1 - position } else { position }
        };
        let origin = strides[self.normal] * self.index;
        (0..self.height()).flat_map(move |row| {
            (0..self.width()).map(move |column| data[origin + place(self.rows, row) + place(self.columns, column)])
        })
    }
}

/// Grey window.
struct Window {
    low: f32,
    high: f32,
}

impl Window {
    /// From the 0.5th to the 99.5th percentile of the finite values.
    fn of(image: &[f32]) -> Self {
        let mut values: Vec<f32> = image.iter().copied().filter(|value| value.is_finite()).collect();
        if values.is_empty() {
            return Window { low: 0.0, high: 1.0 };
        }
        let last = values.len() - 1;
        let mut percentile = |share: f64| {
            let rank = (share * last as f64).round() as usize;
            *values.select_nth_unstable_by(rank, f32::total_cmp).1
        };
        let (low, high) = (percentile(0.005), percentile(0.995));
        if low < high { Window { low, high } } else { Window { low: percentile(0.0), high: percentile(1.0) } }
    }

    fn grey(&self, value: f32) -> u8 {
        // In f64, so that a window as wide as f32 does not overflow.
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        let share = (f64::from(value) - low) / (high - low).max(f64::MIN_POSITIVE);
        // NaN becomes 0 in the cast.
        (share.clamp(0.0, 1.0) * 255.0).round() as u8
    }
}

/// Grey levels (`[height, width]`) as a PNG in a data URI.
///
/// # Errors
/// [`Error::Shape`] when `pixels` does not fill the picture, or the picture is empty.
pub(super) fn png_data_uri(pixels: &[u8], width: usize, height: usize) -> Result<String> {
    let refuse = |problem: String| Error::shape("png", problem);
    let size = |n: usize| u32::try_from(n).map_err(|_| refuse(format!("{n} pixels in a row are too many")));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size(width)?, size(height)?);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(|error| refuse(error.to_string()))?;
    writer.write_image_data(pixels).map_err(|error| refuse(error.to_string()))?;
    writer.finish().map_err(|error| refuse(error.to_string()))?;
    Ok(format!("data:image/png;base64,{}", base64(&bytes)))
}

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { DIGITS[value] as char } else { '=' });
        }
    }
    text
}

/// Shared definitions of a case's pictures: the grey image and the label's outline of each plane, stored once however
/// many models show them. `number` tells the cases of a page apart.
pub(super) fn definitions(case: &CaseSlices, number: usize) -> Result<String> {
    let mut html = String::from("<svg class=\"definitions\" width=\"0\" height=\"0\" aria-hidden=\"true\"><defs>\n");
    for slice in &case.slices {
        let (width, height, plane) = (slice.width, slice.height, slice.plane.name());
        let uri = png_data_uri(&slice.image, width, height)?;
        let path = outline(checked(&slice.label, slice)?, width, height);
        let _ = write!(
            html,
            "<image id=\"scan-{number}-{plane}\" data-plane=\"{plane}\" width=\"{width}\" height=\"{height}\" preserveAspectRatio=\"none\" \
             href=\"{uri}\"/>\n<path id=\"truth-{number}-{plane}\" data-plane=\"{plane}\" data-mask=\"0\" class=\"truth\" d=\"{path}\"/>\n",
        );
    }
    html.push_str("</defs></svg>\n");
    Ok(html)
}

/// Millimetres that a slice is wide and high. Spacing that a damaged header makes useless is taken as 1 mm.
fn extent(slice: &Slice) -> [f64; 2] {
    let [dx, dy] = pixel(slice);
    [slice.width as f64 * dx, slice.height as f64 * dy]
}

fn pixel(slice: &Slice) -> [f64; 2] {
    slice.pixel.map(|size| if size.is_finite() && size > 0.0 { size } else { 1.0 })
}

/// Millimetres around a slice for the marks: the same for all slices of a case.
fn margin(case: &CaseSlices) -> f64 {
    0.06 * case.slices.iter().flat_map(extent).fold(0.0, f64::max)
}

/// Style of the grid that shows the slices of `case` side by side at one scale.
pub(super) fn columns(case: &CaseSlices) -> String {
    let widths = case.slices.each_ref().map(|slice| format!("{}fr", short(extent(slice)[0] + 2.0 * margin(case))));
    format!("grid-template-columns:{}", widths.join(" "))
}

/// One slice of `case` with the label's outline and that of `prediction` (the stack's mask of that number), as an SVG figure in
/// millimetres.
pub(super) fn picture(
    case: &CaseSlices,
    slice: &Slice,
    number: usize,
    title: &str,
    (mask, prediction): (usize, &[u8]),
) -> Result<String> {
    let path = outline(checked(prediction, slice)?, slice.width, slice.height);
    let plane = slice.plane.name();
    let content = format!(
        "<use href=\"#scan-{number}-{plane}\"/><use href=\"#truth-{number}-{plane}\"/>\
         <path class=\"prediction\" data-plane=\"{plane}\" data-mask=\"{mask}\" d=\"{path}\"/>"
    );
    Ok(framed(case, slice, title, &content))
}

/// An SVG figure in millimetres of `content`, which is drawn in pixels of the slice, with the anatomical directions around.
pub(super) fn framed(case: &CaseSlices, slice: &Slice, title: &str, content: &str) -> String {
    let ([dx, dy], [width, height], margin) = (pixel(slice), extent(slice), margin(case));
    let [left, right, top, bottom] = slice.plane.marks();
    let mut svg = format!(
        "<svg class=\"slice\" data-plane=\"{plane}\" role=\"img\" aria-label=\"{title}\" viewBox=\"{} {} {} {}\">\
         <title>{title}</title>\n<rect class=\"film\" x=\"{0}\" y=\"{1}\" width=\"{2}\" height=\"{3}\"/>\n\
         <g transform=\"scale({} {})\">{content}</g>\n",
        short(-margin),
        short(-margin),
        short(width + 2.0 * margin),
        short(height + 2.0 * margin),
        dx,
        dy,
        title = Escaped(title),
        plane = slice.plane.name(),
    );
    let marks = [
        (left, -margin / 2.0, height / 2.0),
        (right, width + margin / 2.0, height / 2.0),
        (top, width / 2.0, -margin / 2.0),
        (bottom, width / 2.0, height + margin / 2.0),
    ];
    for (mark, x, y) in marks {
        let _ = write!(
            svg,
            "<text class=\"mark\" x=\"{}\" y=\"{}\" font-size=\"{}\">{mark}</text>",
            short(x),
            short(y + 0.25 * margin),
            short(0.7 * margin)
        );
    }
    svg + "</svg>"
}

pub(super) fn checked<'a>(mask: &'a [u8], slice: &Slice) -> Result<&'a [u8]> {
    if mask.len() == slice.width * slice.height {
        return Ok(mask);
    }
    let problem = format!("a mask of {} pixels for a slice of {} × {}", mask.len(), slice.width, slice.height);
    Err(Error::shape("slices", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume whose value at (i, j, k) is 100 i + 10 j + k, with the label at one voxel.
    fn counted(shape: [usize; 3], labelled: [usize; 3]) -> (Vec<f32>, Vec<u8>) {
        let mut image = Vec::new();
        let mut label = Vec::new();
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                for k in 0..shape[2] {
                    image.push((100 * i + 10 * j + k) as f32);
                    label.push(u8::from([i, j, k] == labelled));
                }
            }
        }
        (image, label)
    }

    #[test]
    fn ras_planes_are_turned_to_the_marks() {
        let (image, label) = counted([3, 4, 2], [2, 1, 1]);
        let volume = ImageVolume {
            image: &image,
            label: &label,
            shape: [3, 4, 2],
            spacing: [1.0, 2.0, 3.0],
            axes: ['R', 'A', 'S'],
        };
        let case = case_slices("x", &volume, &[("perfect", &label)]).unwrap();
        let [sagittal, coronal, axial] = &case.slices;
        assert_eq!([sagittal.index, coronal.index, axial.index], [2, 1, 1]);
        assert_eq!((sagittal.width, sagittal.height, sagittal.pixel), (4, 2, [2.0, 3.0]));
        assert_eq!((coronal.width, coronal.height, coronal.pixel), (3, 2, [1.0, 3.0]));
        assert_eq!((axial.width, axial.height, axial.pixel), (3, 4, [1.0, 2.0]));
        // Sagittal: anterior (large j) left, superior (large k) top. Label at j = 1 of 4, k = 1: row 0, column 2.
        assert_eq!(sagittal.label, [0, 0, 1, 0, 0, 0, 0, 0]);
        // Coronal: right (large i) left, superior top. Label at i = 2: row 0, column 0.
        assert_eq!(coronal.label, [1, 0, 0, 0, 0, 0]);
        // Axial: right left, anterior top. Label at i = 2, j = 1: row 2, column 0.
        assert_eq!(axial.label, [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(case.predictions[0].model, "perfect");
        assert_eq!(case.predictions[0].masks, case.slices.each_ref().map(|slice| slice.label.clone()));
        // The axial corners are the largest value, 231, and the second smallest, 1, in a window from 0 to 231.
        assert_eq!((axial.image[0], axial.image[11]), (255, 1));
    }

    #[test]
    fn every_orientation_gives_the_same_picture() {
        // The same head stored as RAS and as PIL (axes permuted and all flipped).
        let (image, label) = counted([3, 4, 2], [0, 3, 0]);
        let ras = ImageVolume {
            image: &image,
            label: &label,
            shape: [3, 4, 2],
            spacing: [1.0, 2.0, 3.0],
            axes: ['R', 'A', 'S'],
        };
        let mut turned_image = vec![0.0; 24];
        let mut turned_label = vec![0; 24];
        for i in 0..3 {
            for j in 0..4 {
                for k in 0..2 {
                    let (from, to) = ((i * 4 + j) * 2 + k, ((3 - j) * 2 + (1 - k)) * 3 + (2 - i));
                    turned_image[to] = image[from];
                    turned_label[to] = label[from];
                }
            }
        }
        let pil = ImageVolume {
            image: &turned_image,
            label: &turned_label,
            shape: [4, 2, 3],
            spacing: [2.0, 3.0, 1.0],
            axes: ['P', 'I', 'L'],
        };
        let expected = case_slices("x", &ras, &[]).unwrap().slices;
        let slices = case_slices("x", &pil, &[]).unwrap().slices;
        for (slice, expected) in slices.iter().zip(&expected) {
            assert_eq!((&slice.image, &slice.label, slice.pixel), (&expected.image, &expected.label, expected.pixel));
        }
    }

    #[test]
    fn bad_volumes_are_errors() {
        let good =
            ImageVolume { image: &[0.0; 8], label: &[0; 8], shape: [2; 3], spacing: [1.0; 3], axes: ['R', 'A', 'S'] };
        assert!(case_slices("x", &good, &[("m", &[0; 7])]).is_err());
        assert!(case_slices("x", &ImageVolume { image: &[0.0; 7], ..good }, &[]).is_err());
        assert!(case_slices("x", &ImageVolume { axes: ['R', 'L', 'S'], ..good }, &[]).is_err());
        assert!(case_slices("x", &ImageVolume { image: &[], label: &[], shape: [0, 2, 2], ..good }, &[]).is_err());
        assert!(case_slices("x", &ImageVolume { shape: [usize::MAX, 2, 2], ..good }, &[]).is_err());
        let case = case_slices("x", &good, &[]).unwrap();
        assert!(picture(&case, &case.slices[0], 0, "", (1, &[0; 3])).is_err());
    }

    #[test]
    fn the_window_survives_odd_intensities() {
        let constant = Window::of(&[3.0; 10]);
        assert_eq!(constant.grey(3.0), 0);
        let wild = Window::of(&[f32::NAN, f32::MIN, 0.0, f32::MAX, f32::INFINITY]);
        assert_eq!([f32::NAN, f32::MIN, f32::MAX].map(|value| wild.grey(value)), [0, 0, 255]);
        assert_eq!(Window::of(&[f32::NAN]).grey(f32::NAN), 0);
        // A few lesion voxels among a thousand zeros: the percentiles coincide, the extremes serve.
        let mut sparse = vec![0.0; 1000];
        sparse[7] = 5.0;
        assert_eq!(Window::of(&sparse).grey(5.0), 255);
    }

    #[test]
    fn base64_matches_rfc_4648() {
        let vectors = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_png_decodes_to_its_pixels() {
        let pixels = [0u8, 50, 100, 150, 200, 255];
        let uri = png_data_uri(&pixels, 3, 2).unwrap();
        let digits = uri.strip_prefix("data:image/png;base64,").unwrap();
        let value = |digit: u8| match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let mut bytes = Vec::new();
        for group in digits.as_bytes().chunks(4) {
            let bits = group.iter().fold(0u32, |bits, &digit| bits << 6 | u32::from(value(digit)));
            bytes.extend(&bits.to_be_bytes()[1..]);
        }
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut decoded = [0; 6];
        let info = reader.next_frame(&mut decoded).unwrap();
        assert_eq!((info.width, info.height, decoded), (3, 2, pixels));
        assert!(png_data_uri(&pixels, 4, 2).is_err());
        assert!(png_data_uri(&[], 0, 0).is_err());
    }
}
