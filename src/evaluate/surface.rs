//! Distances between the surfaces of two masks, with the semantics of DeepMind's
//! [surface-distance](https://github.com/google-deepmind/surface-distance) (Nikolov et al. 2021).
//!
//! A surface lies between voxels: at every corner of the voxel grid whose eight neighbours are not all alike there are
//! surface elements, triangles of marching cubes, whose area in mm² follows from the neighbourhood and the spacing
//! (`surfels`). The distance of an element is that of its corner to the nearest corner of the other surface. Beyond the
//! volume's faces is background. Percentiles, averages and overlaps weigh each element by its area.

use super::edt::squared_distances;
use super::surfels::SURFELS;

/// Elements of both surfaces, each with its distance in mm to the other surface and its area in mm², nearest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Surfaces {
    /// Of the true surface. Distances are infinite if nothing was predicted.
    pub truth: Vec<(f64, f64)>,
    /// Of the predicted surface. Distances are infinite if there is no true one.
    pub predicted: Vec<(f64, f64)>,
}

impl Surfaces {
    /// Of two masks of `shape`, voxels `spacing` mm apart.
    ///
    /// # Panics
    /// If a mask's length is not the product of `shape`.
    pub fn between(truth: &[bool], predicted: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Self {
        let Some(bounds) = Bounds::around(truth, predicted, shape) else { return Self::default() };
        let codes = [truth, predicted].map(|mask| bounds.codes(mask, shape));
        let corners = bounds.corners();
        let distances = codes.each_ref().map(|codes| {
            let border: Vec<bool> = codes.iter().map(|&code| is_border(code)).collect();
            squared_distances(&border, corners, spacing)
        });
        let areas = areas(spacing);
        let elements = |own: usize| {
            let mut elements: Vec<(f64, f64)> = codes[own]
                .iter()
                .zip(&distances[1 - own])
                .filter(|(code, _)| is_border(**code))
                .map(|(&code, &square)| (square.sqrt(), areas[usize::from(code)]))
                .collect();
            elements.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            elements
        };
        Self { truth: elements(0), predicted: elements(1) }
    }

    /// The larger of the two directed distances below which `share` of a surface's area lies; `share` 0.95 is HD95, 1 the
    /// Hausdorff distance. Infinite if exactly one surface is empty, 0 if both are.
    pub fn hausdorff(&self, share: f64) -> f64 {
        if self.truth.is_empty() && self.predicted.is_empty() {
            return 0.0;
        }
        percentile(&self.truth, share).max(percentile(&self.predicted, share))
    }

    /// Mean distance over the true surface, and over the predicted one; NaN where that surface is empty.
    pub fn averages(&self) -> [f64; 2] {
        [&self.truth, &self.predicted].map(|elements| moment(elements) / area(elements))
    }

    /// Average symmetric surface distance: the mean over both surfaces together. Infinite if exactly one is empty, 0 if
    /// both are.
    pub fn average(&self) -> f64 {
        match (self.truth.is_empty(), self.predicted.is_empty()) {
            (true, true) => 0.0,
            (false, false) => {
                (moment(&self.truth) + moment(&self.predicted)) / (area(&self.truth) + area(&self.predicted))
            }
            _ => f64::INFINITY,
        }
    }

    /// Surface Dice: the share of both surfaces' area that lies within `tolerance` mm of the other surface; 1 if both are
    /// empty.
    pub fn dice(&self, tolerance: f64) -> f64 {
        let total = area(&self.truth) + area(&self.predicted);
        let near = |elements: &[(f64, f64)]| {
            let near = elements.iter().filter(|(distance, _)| *distance <= tolerance);
            near.fold(0.0, |sum, (_, area)| sum + area)
        };
        if total == 0.0 { 1.0 } else { (near(&self.truth) + near(&self.predicted)) / total }
    }
}

/// Area of some elements in mm².
pub fn area(elements: &[(f64, f64)]) -> f64 {
    elements.iter().map(|(_, area)| area).sum()
}

fn moment(elements: &[(f64, f64)]) -> f64 {
    elements.iter().map(|(distance, area)| distance * area).sum()
}

/// The distance of the first element with which `share` of the area is reached.
fn percentile(elements: &[(f64, f64)], share: f64) -> f64 {
    let (total, mut sum) = (area(elements), 0.0);
    let reached = elements.iter().find(|(_, area)| {
        sum += area;
        sum / total >= share
    });
    reached.or(elements.last()).map_or(f64::INFINITY, |(distance, _)| *distance)
}

fn is_border(code: u8) -> bool {
    code != 0 && code != 255
}

/// Area in mm² of the elements of each neighbourhood.
fn areas(spacing: [f64; 3]) -> [f64; 256] {
    let faces = [spacing[1] * spacing[2], spacing[0] * spacing[2], spacing[0] * spacing[1]];
    SURFELS.map(|digits| {
        let triangles = digits.as_bytes().chunks_exact(3);
        let side = |k: usize, normal: &[u8]| f64::from(normal[k] - b'0') / 8.0 * faces[k];
        triangles.map(|normal| (0..3).map(|k| side(k, normal).powi(2)).sum::<f64>().sqrt()).sum()
    })
}

/// The box around the voxels of both masks.
struct Bounds {
    first: [usize; 3],
    /// Voxels along each axis.
    sides: [usize; 3],
}

impl Bounds {
    fn around(truth: &[bool], predicted: &[bool], shape: [usize; 3]) -> Option<Self> {
        let voxels = shape.iter().product::<usize>();
        assert_eq!([truth.len(), predicted.len()], [voxels; 2], "masks of {shape:?}");
        let (mut first, mut last) = (shape, [0; 3]);
        for voxel in (0..voxels).filter(|&voxel| truth[voxel] || predicted[voxel]) {
            let place = [voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]];
            for k in 0..3 {
                first[k] = first[k].min(place[k]);
                last[k] = last[k].max(place[k]);
            }
        }
        (first[0] < shape[0]).then(|| Self { first, sides: [0, 1, 2].map(|k| last[k] - first[k] + 1) })
    }

    /// Corners of the box's voxels along each axis.
    fn corners(&self) -> [usize; 3] {
        self.sides.map(|side| side + 1)
    }

    /// For each corner which of its eight voxels are inside; the one before it on every axis is the highest bit.
    fn codes(&self, mask: &[bool], shape: [usize; 3]) -> Vec<u8> {
        let [a, b, c] = self.corners();
        let mut codes = vec![0; a * b * c];
        for i in 0..self.sides[0] {
            for j in 0..self.sides[1] {
                let row = ((self.first[0] + i) * shape[1] + self.first[1] + j) * shape[2] + self.first[2];
                for k in (0..self.sides[2]).filter(|k| mask[row + k]) {
                    // The voxel is one of the eight around each of its own eight corners.
                    for corner in 0..8 {
                        let [x, y, z] = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
                        codes[((i + x) * b + j + y) * c + k + z] |= 1 << corner;
                    }
                }
            }
        }
        codes
    }
}
