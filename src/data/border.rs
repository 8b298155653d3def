//! The border map: voxels near a class boundary, of which training draws more points.
//!
//! As the official code makes it: Sobel gradient magnitude (reflecting edges) of the binary label, greater than 0, dilated
//! by a cube of 13 voxels. All arithmetic is on small whole numbers, so the map is exact.

use super::volume::Labels;
pub use crate::ops::border_map::cpu::border_map;

/// The voxels of a border map, as a list to draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorderPoints {
    /// Shape of the volume.
    pub shape: [usize; 3],
    /// Positions in C order, ascending as built.
    pub voxels: Vec<u32>,
}

impl BorderPoints {
    /// The border of all foreground of `labels`, which are class numbers; voxels that nobody has looked at are background,
    /// and no points.
    pub fn of(labels: &Labels) -> Self {
        let foreground =
            labels.voxels.iter().map(|&class| u8::from(class > 0 && class != Labels::IGNORED)).collect::<Vec<_>>();
        Self::from_map(&border_map(&foreground, labels.shape), labels.shape).known(labels)
    }

    /// Those of the points that somebody has looked at.
    pub fn known(mut self, labels: &Labels) -> Self {
        if labels.voxels.contains(&Labels::IGNORED) {
            self.voxels.retain(|&voxel| labels.voxels[voxel as usize] != Labels::IGNORED);
        }
        self
    }

    /// The voxels that are not 0 in a map.
    ///
    /// # Panics
    /// If `map.len()` is not the product of `shape`.
    pub fn from_map(map: &[u8], shape: [usize; 3]) -> Self {
        assert_eq!(map.len(), shape.iter().product::<usize>(), "map of {shape:?}");
        // Counted first: a list that grows takes up to twice its length.
        let mut voxels = Vec::with_capacity(map.iter().filter(|&&v| v > 0).count());
        voxels.extend((0u32..).zip(map).filter(|(_, v)| **v > 0).map(|(i, _)| i));
        Self { shape, voxels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_the_map() {
        let points = BorderPoints::from_map(&[0, 1, 1, 0, 0, 1], [1, 2, 3]);
        assert_eq!(points.voxels, [1, 2, 5]);
    }
}
