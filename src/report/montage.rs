//! Slices of several cases in one picture: a row a case, label outlines in colour.

use super::report_data::Slice;
use crate::label_table::COLOURS;
use crate::{Error, Result};

/// Sides of a tile, in pixels.
const TILE: usize = 192;
/// Pixels between tiles.
const GAP: usize = 4;

/// A PNG of `rows` of slices, each scaled into a square tile with its proportions in millimetres kept. `classes` has the label
/// values in the order of their colours, without background.
///
/// # Errors
/// [`Error::Shape`] if there is no slice, or one whose pixels do not fill it.
pub fn montage(rows: &[Vec<Slice>], classes: &[u8]) -> Result<Vec<u8>> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side = |tiles: usize| tiles * (TILE + GAP) + GAP;
    let (width, height) = (side(columns), side(rows.len()));
    if columns == 0 {
        return Err(Error::shape("montage", "there is no slice to show"));
    }
    let mut pixels = vec![24u8; width * height * 3];
    for (row, slices) in rows.iter().enumerate() {
        for (column, slice) in slices.iter().enumerate() {
            let sound = slice.width > 0 && slice.height > 0 && slice.pixel.iter().all(|mm| *mm > 0.0);
            let area = slice.width * slice.height;
            if !sound || slice.image.len() != area || slice.label.len() != area {
                return Err(Error::shape("montage", format!("a slice of {} × {} pixels", slice.width, slice.height)));
            }
            let origin = (side(row) * width + side(column)) * 3;
            draw(slice, classes, &mut pixels[origin..], width);
        }
    }
    encode(&pixels, width, height)
}

/// Draws a slice into a tile; `pixels` begins at the tile's first and has `stride` pixels a line.
fn draw(slice: &Slice, classes: &[u8], pixels: &mut [u8], stride: usize) {
    let millimetres = [slice.width as f64 * slice.pixel[0], slice.height as f64 * slice.pixel[1]];
    let scale = TILE as f64 / millimetres[0].max(millimetres[1]);
    let extent = millimetres.map(|side| ((side * scale).round() as usize).clamp(1, TILE));
    let margin = extent.map(|side| (TILE - side) / 2);
    let source = |x: usize, y: usize| {
        let column = ((x as f64 + 0.5) * slice.width as f64 / extent[0] as f64) as usize;
        let row = ((y as f64 + 0.5) * slice.height as f64 / extent[1] as f64) as usize;
        row.min(slice.height - 1) * slice.width + column.min(slice.width - 1)
    };
    for y in 0..extent[1] {
        for x in 0..extent[0] {
            let here = source(x, y);
            let class = slice.label[here];
            let edge = (x + 1 < extent[0] && slice.label[source(x + 1, y)] != class)
                || (y + 1 < extent[1] && slice.label[source(x, y + 1)] != class);
            // The edge belongs to the class on either side that is not background.
            let colour = if edge {
                let neighbours = [class, slice.label[source((x + 1).min(extent[0] - 1), y)]];
                let below = slice.label[source(x, (y + 1).min(extent[1] - 1))];
                let class = neighbours.into_iter().chain([below]).max().unwrap_or(1).max(1);
                COLOURS[classes.iter().position(|&known| known == class).unwrap_or(class as usize - 1) % COLOURS.len()]
            } else {
                [slice.image[here]; 3]
            };
            let place = ((margin[1] + y) * stride + margin[0] + x) * 3;
            pixels[place..place + 3].copy_from_slice(&colour);
        }
    }
}

/// Red, green and blue (`[height, width, 3]`) as a PNG.
fn encode(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let refuse = |problem: String| Error::shape("png", problem);
    let size = |n: usize| u32::try_from(n).map_err(|_| refuse(format!("{n} pixels in a row are too many")));
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size(width)?, size(height)?);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|error| refuse(error.to_string()))?;
    writer.write_image_data(pixels).map_err(|error| refuse(error.to_string()))?;
    writer.finish().map_err(|error| refuse(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice of 2 × 1 pixels, one background and dark, one of class 2 and bright, 10 mm × 20 mm each.
    fn slice() -> Slice {
        Slice { width: 2, height: 1, pixel: [10.0, 20.0], image: vec![50, 200], label: vec![0, 2], ..Slice::default() }
    }

    #[test]
    fn tiles_keep_proportions_and_outlines_their_class() {
        let bytes = montage(&[vec![slice()], vec![slice(), slice()]], &[1, 2]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let side = (2 * TILE + 3 * GAP) as u32;
        assert_eq!((info.width, info.height), (side, side));
        let at = |x: usize, y: usize| &pixels[(y * side as usize + x) * 3..][..3];
        // 20 mm × 20 mm: the tile is full; its left half is dark, its right half bright, the outline between them.
        assert_eq!(at(GAP, GAP), [50; 3]);
        assert_eq!(at(GAP + TILE - 1, GAP + TILE - 1), [200; 3]);
        assert_eq!(at(GAP + TILE / 2 - 1, GAP + 7), COLOURS[1]);
        assert_eq!(at(GAP + TILE + GAP + 3, GAP), [24; 3], "no second tile in the first row");
        assert!(montage(&[], &[]).is_err());
        assert!(montage(&[vec![Slice { image: vec![1], ..slice() }]], &[]).is_err());
    }
}
