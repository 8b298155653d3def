//! The points of a volume that one training step looks at.

use super::border::BorderPoints;
use super::volume::Labels;
use crate::rng::Rng;

/// A voxel index.
pub type Point = [u32; 3];

/// How many points, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Points a volume.
    pub points: usize,
    /// Share of the points taken near the border, without repetition (all of the border if it has fewer); the rest are
    /// uniform. 0: all uniform.
    pub border_share: f32,
    /// Which voxels the uniform points reach.
    pub reach: Reach,
}

/// Which voxels uniform points reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Every voxel.
    #[default]
    Whole,
    /// All but the last index of each axis, as `(rand·(n−1))` rounded down never gives it (the official code's rule).
    Reference,
}

impl Default for Sampling {
    /// 2¹⁴ points, half of them near the border.
    fn default() -> Self {
        Self { points: 1 << 14, border_share: 0.5, reach: Reach::Whole }
    }
}

impl Sampling {
    /// `points` points, all uniform.
    pub fn uniform(points: usize) -> Self {
        Self { points, border_share: 0.0, reach: Reach::Whole }
    }

    /// Draws the points of a volume: those near the border first, then the uniform ones. Always [`Sampling::points`].
    ///
    /// # Panics
    /// If an axis has no voxels, or `border` belongs to another shape.
    pub fn draw(&self, shape: [usize; 3], border: Option<&BorderPoints>, rng: &mut Rng) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.points);
        if let Some(border) = border.filter(|_| self.border_share > 0.0) {
            assert_eq!(border.shape, shape, "border of another volume");
            let wanted = (self.points as f64 * self.border_share as f64) as usize;
            let chosen = rng.choose(wanted.min(self.points), border.voxels.len());
            points.extend(chosen.into_iter().map(|i| unravel(border.voxels[i] as usize, shape)));
        }
        let bounds = shape.map(|n| match self.reach {
            Reach::Whole => n as u64,
            Reach::Reference => (n as u64 - 1).max(1),
        });
        points.resize_with(self.points, || bounds.map(|bound| rng.below(bound) as u32));
        points
    }
}

/// The voxel at a position in C order.
pub fn unravel(position: usize, [_, b, c]: [usize; 3]) -> Point {
    [(position / (b * c)) as u32, (position / c % b) as u32, (position % c) as u32]
}

/// The position in C order of a voxel.
pub fn ravel([i, j, k]: Point, [_, b, c]: [usize; 3]) -> usize {
    (i as usize * b + j as usize) * c + k as usize
}

/// Voxel indices as the decoder takes them by default: each axis from −1 (first voxel) to 1 (last); 0 on an axis of one
/// voxel.
pub fn normalised(points: &[Point], shape: [usize; 3]) -> Vec<[f32; 3]> {
    let scale = shape.map(|n| 2.0 / (n as f32 - 1.0));
    let place = |i: u32, k: usize| if shape[k] > 1 { i as f32 * scale[k] - 1.0 } else { 0.0 };
    points.iter().map(|p| [place(p[0], 0), place(p[1], 1), place(p[2], 2)]).collect()
}

/// Voxel indices as numbers, which is what official checkpoints take.
pub fn raw(points: &[Point]) -> Vec<[f32; 3]> {
    points.iter().map(|p| p.map(|i| i as f32)).collect()
}

impl Labels {
    /// The classes at `points`.
    ///
    /// # Panics
    /// If a point lies outside.
    pub fn at(&self, points: &[Point]) -> Vec<u8> {
        points.iter().map(|&p| self.voxels[ravel(p, self.shape)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ball() -> (Labels, BorderPoints) {
        let shape = [24, 20, 22];
        let inside = |p: Point| p.iter().zip([12i64, 10, 11]).map(|(&i, c)| (i as i64 - c).pow(2)).sum::<i64>() < 9;
        let labels = Labels::new(shape, (0..24 * 20 * 22).map(|i| inside(unravel(i, shape)) as u8).collect());
        let border = BorderPoints::of(&labels);
        (labels, border)
    }

    #[test]
    fn half_of_the_points_lie_near_the_border_without_repetition() {
        let (labels, border) = ball();
        let sampling = Sampling { points: 1000, ..Sampling::default() };
        let points = sampling.draw(labels.shape, Some(&border), &mut Rng::new(1));
        assert_eq!(points.len(), 1000);
        let near: HashSet<u32> = border.voxels.iter().copied().collect();
        let first: HashSet<u32> = points[..500].iter().map(|&p| ravel(p, labels.shape) as u32).collect();
        assert_eq!(first.len(), 500);
        assert!(first.is_subset(&near));
        assert_eq!(labels.at(&points).len(), 1000);
        assert_eq!(points, sampling.draw(labels.shape, Some(&border), &mut Rng::new(1)));
        assert_ne!(points, sampling.draw(labels.shape, Some(&border), &mut Rng::new(2)));
    }

    #[test]
    fn a_small_border_is_taken_whole() {
        let border = BorderPoints { shape: [4, 4, 4], voxels: vec![3, 9] };
        let sampling = Sampling { points: 100, ..Sampling::default() };
        let points = sampling.draw([4, 4, 4], Some(&border), &mut Rng::new(1));
        assert_eq!(points.len(), 100);
        assert_eq!(points[..2], [[0, 0, 3], [0, 2, 1]]);
    }

    #[test]
    fn the_last_index_is_drawn_unless_the_reference_rule_holds() {
        let mut sampling = Sampling::uniform(4000);
        let last = |sampling: &Sampling| {
            let points = sampling.draw([5, 3, 1], None, &mut Rng::new(3));
            [0, 1, 2].map(|k| points.iter().map(|p| p[k]).max().unwrap())
        };
        assert_eq!(last(&sampling), [4, 2, 0]);
        sampling.reach = Reach::Reference;
        assert_eq!(last(&sampling), [3, 1, 0]);
    }

    #[test]
    fn coordinates() {
        let points = [[0, 1, 0], [4, 2, 0]];
        assert_eq!(normalised(&points, [5, 3, 1]), [[-1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]);
        assert_eq!(raw(&points)[1], [4.0, 2.0, 0.0]);
    }
}
