//! The points of a volume that one training step looks at.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::border::BorderPoints;
use super::volume::Labels;
use crate::rng::Rng;
use crate::{Error, Result};

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
    /// Share of the points divided evenly between the classes that the labels hold, each uniform among its class's voxels.
    pub class_share: f32,
    /// Which voxels the uniform points reach.
    pub reach: Reach,
}

/// The ways to draw points, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplingRule {
    /// Every voxel as likely as any other.
    Uniform,
    /// Half of the points near a class border.
    #[default]
    Border,
    /// Half of the points divided evenly between the classes, background among them.
    Class,
    /// The official code's: half near the border, the rest uniform but never on the last index of an axis.
    Reference,
}

impl SamplingRule {
    /// All of them.
    pub const ALL: [SamplingRule; 4] = [Self::Uniform, Self::Border, Self::Class, Self::Reference];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Border => "border",
            Self::Class => "class",
            Self::Reference => "reference",
        }
    }

    /// The sampling of `points` points a volume, of which `share` are not uniform (one half by the official default).
    pub fn sampling(self, points: usize, share: f32) -> Sampling {
        let uniform = Sampling::uniform(points);
        match self {
            Self::Uniform => uniform,
            Self::Border => Sampling { border_share: share, ..uniform },
            Self::Class => Sampling { class_share: share, ..uniform },
            Self::Reference => Sampling { border_share: share, reach: Reach::Reference, ..uniform },
        }
    }
}

impl fmt::Display for SamplingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplingRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|rule| rule.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::Usage(format!("'{text}' is no way to sample; choose one of {names}"))
        })
    }
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
        Self { points: 1 << 14, border_share: 0.5, class_share: 0.0, reach: Reach::Whole }
    }
}

impl Sampling {
    /// `points` points, all uniform.
    pub fn uniform(points: usize) -> Self {
        Self { points, border_share: 0.0, class_share: 0.0, reach: Reach::Whole }
    }

    /// The points at which the published scores of a BraTS subject were taken: 2¹⁷, uniform but never on the last index.
    pub const PUBLISHED_BRATS: Sampling =
        Sampling { points: 1 << 17, border_share: 0.0, class_share: 0.0, reach: Reach::Reference };

    /// The points at which the published scores of a LiTS volume were taken: 2¹⁴, 40 % of them near the border.
    pub const PUBLISHED_LITS: Sampling =
        Sampling { points: 1 << 14, border_share: 0.4, class_share: 0.0, reach: Reach::Reference };

    /// Draws the points of a volume: those near the border first, then those by class, then the uniform ones. Always
    /// [`Sampling::points`]; where `labels` (class numbers) say [`Labels::IGNORED`], none, unless they say it everywhere.
    ///
    /// # Panics
    /// If an axis has no voxels, or `border` or `labels` belong to another shape.
    pub fn draw(
        &self,
        shape: [usize; 3],
        border: Option<&BorderPoints>,
        labels: Option<&Labels>,
        rng: &mut Rng,
    ) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.points);
        let share = |share: f32| (self.points as f64 * share as f64) as usize;
        if let Some(border) = border.filter(|_| self.border_share > 0.0) {
            assert_eq!(border.shape, shape, "border of another volume");
            let chosen = rng.choose(share(self.border_share).min(self.points), border.voxels.len());
            points.extend(chosen.into_iter().map(|i| unravel(border.voxels[i] as usize, shape)));
        }
        let ignoring = labels.filter(|labels| labels.voxels.contains(&Labels::IGNORED));
        if let Some(labels) = labels.filter(|_| self.class_share > 0.0) {
            assert_eq!(labels.shape, shape, "labels of another volume");
            let count = share(self.class_share).min(self.points - points.len());
            points.extend(by_class(labels, count, rng));
        }
        let bounds = shape.map(|n| match self.reach {
            Reach::Whole => n as u64,
            Reach::Reference => (n as u64 - 1).max(1),
        });
        let known = ignoring.map_or(Vec::new(), |labels| known(labels, bounds));
        match known.len() as u64 {
            0 => points.resize_with(self.points, || bounds.map(|bound| rng.below(bound) as u32)),
            count => points.resize_with(self.points, || unravel(known[rng.below(count) as usize] as usize, shape)),
        }
        points
    }
}

/// Positions of the voxels below `bounds` that somebody has looked at; of all such voxels if there are none below.
fn known(labels: &Labels, bounds: [u64; 3]) -> Vec<u32> {
    assert!(labels.len() <= u32::MAX as usize, "positions of {:?} voxels", labels.shape);
    let all = (0u32..).zip(&labels.voxels).filter(|(_, class)| **class != Labels::IGNORED).map(|(voxel, _)| voxel);
    let below = |voxel: &u32| (0..3).all(|k| u64::from(unravel(*voxel as usize, labels.shape)[k]) < bounds[k]);
    let inside: Vec<u32> = all.clone().filter(below).collect();
    if inside.is_empty() { all.collect() } else { inside }
}

/// `count` points, the same number (to one) of each class that `labels` hold, uniform within each; the classes take turns.
fn by_class(labels: &Labels, count: usize, rng: &mut Rng) -> Vec<Point> {
    let counts = labels.histogram();
    let is_known = |value: usize| value != usize::from(Labels::IGNORED);
    let held: Vec<usize> = (0..256).filter(|&value| counts[value] > 0 && is_known(value)).collect();
    if held.is_empty() {
        return Vec::new();
    }
    // Which voxel of its class each point is, then one pass over the volume to find them all.
    let mut wanted: Vec<(usize, u64, usize)> =
        (0..count).map(|i| held[i % held.len()]).enumerate().map(|(i, v)| (v, rng.below(counts[v]), i)).collect();
    wanted.sort_unstable();
    let mut next: Vec<usize> = vec![usize::MAX; 256];
    for (i, &(value, ..)) in wanted.iter().enumerate().rev() {
        next[value] = i;
    }
    let mut seen = [0u64; 256];
    let mut points = vec![[0; 3]; count];
    for (voxel, &value) in labels.voxels.iter().enumerate() {
        let value = value as usize;
        while let Some(&(class, rank, place)) = wanted.get(next[value]) {
            if class != value || rank != seen[value] {
                break;
            }
            points[place] = unravel(voxel, labels.shape);
            next[value] += 1;
        }
        seen[value] += 1;
    }
    points
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
        let points = sampling.draw(labels.shape, Some(&border), None, &mut Rng::new(1));
        assert_eq!(points.len(), 1000);
        let near: HashSet<u32> = border.voxels.iter().copied().collect();
        let first: HashSet<u32> = points[..500].iter().map(|&p| ravel(p, labels.shape) as u32).collect();
        assert_eq!(first.len(), 500);
        assert!(first.is_subset(&near));
        assert_eq!(labels.at(&points).len(), 1000);
        assert_eq!(points, sampling.draw(labels.shape, Some(&border), None, &mut Rng::new(1)));
        assert_ne!(points, sampling.draw(labels.shape, Some(&border), None, &mut Rng::new(2)));
    }

    #[test]
    fn a_small_border_is_taken_whole() {
        let border = BorderPoints { shape: [4, 4, 4], voxels: vec![3, 9] };
        let sampling = Sampling { points: 100, ..Sampling::default() };
        let points = sampling.draw([4, 4, 4], Some(&border), None, &mut Rng::new(1));
        assert_eq!(points.len(), 100);
        assert_eq!(points[..2], [[0, 0, 3], [0, 2, 1]]);
    }

    #[test]
    fn the_last_index_is_drawn_unless_the_reference_rule_holds() {
        let mut sampling = Sampling::uniform(4000);
        let last = |sampling: &Sampling| {
            let points = sampling.draw([5, 3, 1], None, None, &mut Rng::new(3));
            [0, 1, 2].map(|k| points.iter().map(|p| p[k]).max().unwrap())
        };
        assert_eq!(last(&sampling), [4, 2, 0]);
        sampling.reach = Reach::Reference;
        assert_eq!(last(&sampling), [3, 1, 0]);
    }

    /// Three classes of 8,000, 500 and 12 voxels get a third each; within a class, every voxel its share.
    #[test]
    fn classes_get_equal_numbers_of_points() {
        let shape = [23, 20, 20];
        let mut voxels = vec![0u8; 9200];
        voxels[300..800].fill(2);
        voxels[9000..9012].fill(5);
        let labels = Labels::new(shape, voxels);
        let sampling = SamplingRule::Class.sampling(6000, 1.0);
        let points = sampling.draw(shape, None, Some(&labels), &mut Rng::new(7));
        let drawn = labels.at(&points);
        let count = |value: u8| drawn.iter().filter(|&&v| v == value).count();
        assert_eq!((points.len(), count(0), count(2), count(5)), (6000, 2000, 2000, 2000));
        // Each of the twelve voxels is expected 166.7 times with standard deviation 12.4; the bound is five of them.
        for voxel in 9000..9012 {
            let times = points.iter().filter(|&&p| ravel(p, shape) == voxel).count();
            assert!((105..=228).contains(&times), "{times}");
        }
        // A half by class, the other half uniform.
        let half = SamplingRule::Class.sampling(6000, 0.5).draw(shape, None, Some(&labels), &mut Rng::new(7));
        let drawn = labels.at(&half[..3000]);
        assert_eq!(drawn.iter().filter(|&&v| v == 5).count(), 1000);
        assert!(labels.at(&half[3000..]).iter().filter(|&&v| v == 0).count() > 2500);
    }

    /// Of a volume of which every second plane was annotated, only those planes are drawn, by every rule.
    #[test]
    fn ignored_voxels_are_never_drawn() {
        let shape = [8, 6, 10];
        let class = |voxel: usize| match (voxel % 2, voxel % 20) {
            (1, _) => Labels::IGNORED,
            (_, 4) => 1,
            _ => 0,
        };
        let labels = Labels::new(shape, (0..480).map(class).collect());
        let border = BorderPoints::of(&labels);
        assert!(!border.voxels.is_empty() && border.voxels.iter().all(|voxel| voxel % 2 == 0));
        for rule in SamplingRule::ALL {
            let points = rule.sampling(3000, 0.5).draw(shape, Some(&border), Some(&labels), &mut Rng::new(4));
            assert_eq!(points.len(), 3000);
            assert!(!labels.at(&points).contains(&Labels::IGNORED), "{rule}");
            // 240 voxels are known; none of them is missed by 3000 draws of a uniform rule (each with 4e-6).
            let drawn: HashSet<usize> = points.iter().map(|&point| ravel(point, shape)).collect();
            assert!(rule != SamplingRule::Uniform || drawn.len() == 240, "{}", drawn.len());
        }
        // Without ignored voxels the draws are those of the volume alone.
        let plain = Labels::new(shape, vec![0; 480]);
        let uniform = |labels| Sampling::uniform(50).draw(shape, None, labels, &mut Rng::new(9));
        assert_eq!(uniform(Some(&plain)), uniform(None));
    }

    #[test]
    fn rules_have_names() {
        for rule in SamplingRule::ALL {
            assert_eq!(rule.to_string().parse::<SamplingRule>().unwrap(), rule);
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
        assert!("border-ish".parse::<SamplingRule>().unwrap_err().to_string().contains("uniform, border"));
        let official = SamplingRule::Reference.sampling(1 << 14, 0.5);
        assert_eq!((official.border_share, official.reach), (0.5, Reach::Reference));
    }

    #[test]
    fn coordinates() {
        let points = [[0, 1, 0], [4, 2, 0]];
        assert_eq!(normalised(&points, [5, 3, 1]), [[-1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]);
        assert_eq!(raw(&points)[1], [4.0, 2.0, 0.0]);
    }
}
