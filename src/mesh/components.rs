//! Small pieces of a segmentation, dropped before it is meshed.

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Components that were too small.
    pub components: usize,
    /// Voxels in them.
    pub voxels: usize,
    /// Components that stay.
    pub kept: usize,
    /// Voxels of the one that stays though it is too small, as all are.
    pub spared: usize,
}

/// Sets the voxels above `threshold` that lie in 6-connected components of fewer than `smallest` voxels to `threshold`,
/// which puts them outside. Where all are that small the largest stays, of equal ones the first: what is left of a structure
/// is never nothing. `values` are `shape`, last axis fastest.
///
/// What stays is meshed as before: no edge of the lattice joins two components.
///
/// # Panics
/// If `values` are not as many as the shape says.
pub fn drop_small<T: Copy + PartialOrd>(values: &mut [T], shape: [usize; 3], threshold: T, smallest: usize) -> Dropped {
    let [depth, height, width] = shape;
    assert_eq!(values.len(), depth * height * width, "values of another number than the shape's");
    let mut seen = vec![0u64; values.len().div_ceil(64)];
    let mut dropped = Dropped::default();
    let (mut component, mut largest) = (Vec::new(), Vec::new());
    for start in 0..values.len() {
        let fresh = |values: &[T], seen: &[u64], voxel: usize| {
            values[voxel] > threshold && seen[voxel / 64] >> (voxel % 64) & 1 == 0
        };
        if !fresh(values, &seen, start) {
            continue;
        }
        // A component's voxels in the order of discovery: those behind `next` still have neighbours to look at.
        component.clear();
        component.push(start);
        seen[start / 64] |= 1 << (start % 64);
        let mut next = 0;
        while let Some(&voxel) = component.get(next) {
            next += 1;
            let (z, y, x) = (voxel / (height * width), voxel / width % height, voxel % width);
            let neighbours = [
                (z > 0).then(|| voxel - height * width),
                (z + 1 < depth).then(|| voxel + height * width),
                (y > 0).then(|| voxel - width),
                (y + 1 < height).then(|| voxel + width),
                (x > 0).then(|| voxel - 1),
                (x + 1 < width).then(|| voxel + 1),
            ];
            for neighbour in neighbours.into_iter().flatten() {
                if fresh(values, &seen, neighbour) {
                    seen[neighbour / 64] |= 1 << (neighbour % 64);
                    component.push(neighbour);
                }
            }
        }
        if component.len() >= smallest {
            dropped.kept += 1;
            continue;
        }
        dropped.components += 1;
        dropped.voxels += component.len();
        // The largest so far is not dropped yet.
        if component.len() > largest.len() {
            std::mem::swap(&mut component, &mut largest);
        }
        component.iter().for_each(|&voxel| values[voxel] = threshold);
    }
    if dropped.kept > 0 || largest.is_empty() {
        largest.iter().for_each(|&voxel| values[voxel] = threshold);
    } else {
        let spared = largest.len();
        dropped = Dropped { components: dropped.components - 1, voxels: dropped.voxels - spared, kept: 1, spared };
    }
    dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_faces_and_the_size_decides() {
        // A row of three, a voxel that touches it by an edge only, and a pair apart.
        #[rustfmt::skip]
        let mask = [1, 1, 1, 0, 0,
                    0, 0, 0, 1, 0,
                    0, 0, 0, 0, 0,
                    0, 0, 0, 1, 1u8];
        let dropped = |smallest| {
            let mut mask = mask;
            (drop_small(&mut mask, [1, 4, 5], 0, smallest), mask.iter().map(|&v| usize::from(v)).sum::<usize>())
        };
        assert_eq!(dropped(0), (Dropped { components: 0, voxels: 0, kept: 3, spared: 0 }, 6));
        assert_eq!(dropped(2), (Dropped { components: 1, voxels: 1, kept: 2, spared: 0 }, 5));
        assert_eq!(dropped(3), (Dropped { components: 2, voxels: 3, kept: 1, spared: 0 }, 3));
        // All are too small: the largest stays.
        assert_eq!(dropped(4), (Dropped { components: 2, voxels: 3, kept: 1, spared: 3 }, 3));
    }

    #[test]
    fn where_all_are_too_small_the_first_of_the_largest_stays() {
        let mut mask = [0, 1, 0, 1, 1, 0, 1, 1, 0u8];
        let dropped = drop_small(&mut mask, [1, 1, 9], 0, 9);
        assert_eq!(dropped, Dropped { components: 2, voxels: 3, kept: 1, spared: 2 });
        assert_eq!(mask, [0, 0, 0, 1, 1, 0, 0, 0, 0]);
        assert_eq!(drop_small(&mut [0u8; 9], [1, 1, 9], 0, 9), Dropped::default());
    }

    #[test]
    fn probabilities_keep_their_values_elsewhere() {
        let mut values = [0.9, 0.5, 0.6, 0.7, 0.4, f32::NAN];
        drop_small(&mut values, [1, 1, 6], 0.5, 2);
        assert_eq!(values[..5], [0.5, 0.5, 0.6, 0.7, 0.4]);
    }

    /// Rows do not run into one another at the ends of the axes.
    #[test]
    fn no_neighbours_across_the_border() {
        let mut mask = [0, 0, 1, 1, 0, 0, 0, 0u8];
        assert_eq!(drop_small(&mut mask, [2, 2, 2], 0, 1).kept, 1);
        let mut mask = [0, 0, 0, 1, 1, 0, 0, 0u8];
        assert_eq!(drop_small(&mut mask, [2, 2, 2], 0, 1).kept, 2);
        let mut mask = [0, 0, 1, 1, 0, 0u8];
        assert_eq!(drop_small(&mut mask, [1, 2, 3], 0, 1).kept, 2);
    }
}
