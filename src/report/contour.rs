//! Outlines of masks, along the edges of their pixels.

use std::fmt::Write;

/// The outline of `mask` (`[height, width]`, classes with 0 as background) as SVG path data in pixels.
///
/// Every edge between two pixels of different classes is drawn once; outside the picture everything is background.
/// Edges that continue one another make one segment, so the path is as long as the outline has corners.
///
/// # Panics
/// If `mask` is not `width · height` long.
pub(super) fn outline(mask: &[u8], width: usize, height: usize) -> String {
    assert_eq!(mask.len(), width * height, "a mask of another size than its slice");
    // Class of the pixel whose indices are one less than `row` and `column`; the frame is background.
    let class = |row: usize, column: usize| match (row, column) {
        (0, _) | (_, 0) => 0,
        (row, column) if row > height || column > width => 0,
        (row, column) => mask[(row - 1) * width + column - 1],
    };
    let mut path = String::new();
    for y in 0..=height {
        for (start, length) in runs(width, |x| class(y, x + 1) != class(y + 1, x + 1)) {
            let _ = write!(path, "M{start} {y}h{length}");
        }
    }
    for x in 0..=width {
        for (start, length) in runs(height, |y| class(y + 1, x) != class(y + 1, x + 1)) {
            let _ = write!(path, "M{x} {start}v{length}");
        }
    }
    path
}

/// Start and length of every maximal run of positions below `end` that are `set`.
fn runs(end: usize, set: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for position in (0..end).filter(|&position| set(position)) {
        match runs.last_mut() {
            Some((start, length)) if *start + *length == position => *length += 1,
            _ => runs.push((position, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_outline() {
        assert_eq!(outline(&[0; 6], 3, 2), "");
        assert_eq!(outline(&[], 0, 0), "");
    }

    #[test]
    fn a_pixel_has_four_edges() {
        assert_eq!(outline(&[0, 0, 0, 0, 1, 0, 0, 0, 0], 3, 3), "M1 1h1M1 2h1M1 1v1M2 1v1");
    }

    #[test]
    fn a_mask_that_fills_the_picture_is_closed_by_its_frame() {
        assert_eq!(outline(&[1; 6], 3, 2), "M0 0h3M0 2h3M0 0v2M3 0v2");
    }

    #[test]
    fn classes_are_separated_by_one_edge() {
        assert_eq!(outline(&[1, 2], 2, 1), "M0 0h2M0 1h2M0 0v1M1 0v1M2 0v1");
    }

    #[test]
    fn a_hole_and_a_corner_touch_are_drawn() {
        let ring = [1, 1, 1, 1, 0, 1, 1, 1, 1];
        assert_eq!(outline(&ring, 3, 3), "M0 0h3M1 1h1M1 2h1M0 3h3M0 0v3M1 1v1M2 1v1M3 0v3");
        let diagonal = [1, 0, 0, 1];
        assert_eq!(outline(&diagonal, 2, 2), "M0 0h1M0 1h2M1 2h1M0 0v1M1 0v2M2 1v1");
    }
}
