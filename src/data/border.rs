//! The border map: voxels near a class boundary, of which training draws more points.
//!
//! As the official code makes it: Sobel gradient magnitude (reflecting edges) of the binary label, greater than 0, dilated
//! by a cube of 13 voxels. All arithmetic is on small whole numbers, so the map is exact.

use super::volume::Labels;

/// How far the dilation reaches from a voxel, in voxels: a cube of side 13.
pub const REACH: usize = 6;

/// The border map of a binary label (0: outside): 1 near the border, else 0.
///
/// # Panics
/// If `label.len()` is not the product of `shape`.
pub fn border_map(label: &[u8], shape: [usize; 3]) -> Vec<u8> {
    assert_eq!(label.len(), shape.iter().product::<usize>(), "label of {shape:?}");
    let mut edge = vec![0u8; label.len()];
    let inside: Vec<i8> = label.iter().map(|&v| (v > 0) as i8).collect();
    for derivative in 0..3 {
        // At most 2·4·4 in magnitude: fits i8.
        let mut gradient = inside.clone();
        for axis in 0..3 {
            let taps = if axis == derivative { [-1, 0, 1] } else { [1, 2, 1] };
            gradient = filter(&gradient, shape, axis, taps);
        }
        edge.iter_mut().zip(&gradient).for_each(|(edge, &g)| *edge |= (g != 0) as u8);
    }
    for axis in 0..3 {
        edge = dilate(&edge, shape, axis, REACH);
    }
    edge
}

/// Lines along `axis` as (outer count, length, stride): element `i` of a line at `outer · length · stride + i · stride +
/// inner`, `inner < stride`.
fn lines(shape: [usize; 3], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Three-tap correlation along an axis; beyond an end the end is repeated (`reflect` of half-sample symmetry).
fn filter(values: &[i8], shape: [usize; 3], axis: usize, taps: [i8; 3]) -> Vec<i8> {
    let (outer, length, stride) = lines(shape, axis);
    let mut out = vec![0; values.len()];
    for block in 0..outer {
        let row = |i: usize| &values[(block * length + i) * stride..][..stride];
        for i in 0..length {
            let (before, here, after) = (row(i.saturating_sub(1)), row(i), row((i + 1).min(length - 1)));
            let out = &mut out[(block * length + i) * stride..][..stride];
            for (k, out) in out.iter_mut().enumerate() {
                *out = taps[0] * before[k] + taps[1] * here[k] + taps[2] * after[k];
            }
        }
    }
    out
}

/// 1 where any voxel within `reach` along an axis is 1: a running count of the window.
fn dilate(values: &[u8], shape: [usize; 3], axis: usize, reach: usize) -> Vec<u8> {
    let (outer, length, stride) = lines(shape, axis);
    let mut out = vec![0; values.len()];
    let mut count = vec![0u8; stride];
    for block in 0..outer {
        let at = |i: usize| (block * length + i) * stride;
        count.fill(0);
        for i in 0..length + reach {
            if i < length {
                count.iter_mut().zip(&values[at(i)..]).for_each(|(count, &v)| *count += v);
            }
            // The window of the voxel `reach` behind is now complete.
            if let Some(centre) = i.checked_sub(reach) {
                let out = &mut out[at(centre)..][..stride];
                out.iter_mut().zip(&count).for_each(|(out, &count)| *out = (count > 0) as u8);
                if let Some(gone) = centre.checked_sub(reach) {
                    count.iter_mut().zip(&values[at(gone)..]).for_each(|(count, &v)| *count -= v);
                }
            }
        }
    }
    out
}

/// The voxels of a border map, as a list to draw from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BorderPoints {
    /// Shape of the volume.
    pub shape: [usize; 3],
    /// Positions in C order, ascending as built.
    pub voxels: Vec<u32>,
}

impl BorderPoints {
    /// The border of all foreground of `labels`.
    pub fn of(labels: &Labels) -> Self {
        Self::from_map(&border_map(&labels.foreground(), labels.shape), labels.shape)
    }

    /// The voxels that are not 0 in a map.
    ///
    /// # Panics
    /// If `map.len()` is not the product of `shape`.
    pub fn from_map(map: &[u8], shape: [usize; 3]) -> Self {
        assert_eq!(map.len(), shape.iter().product::<usize>(), "map of {shape:?}");
        let voxels = (0u32..).zip(map).filter(|(_, v)| **v > 0).map(|(i, _)| i).collect();
        Self { shape, voxels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Straight from the definition: 27 taps, then a cube of 13.
    fn naive(label: &[u8], shape: [usize; 3]) -> Vec<u8> {
        let [a, b, c] = shape.map(|n| n as i64);
        let clamp = |x: i64, n: i64| x.clamp(0, n - 1);
        let at = |x: i64, y: i64, z: i64| label[((clamp(x, a) * b + clamp(y, b)) * c + clamp(z, c)) as usize] as i64;
        let mut edges = Vec::new();
        for (x, y, z) in (0..a).flat_map(|x| (0..b).flat_map(move |y| (0..c).map(move |z| (x, y, z)))) {
            let mut g = [0; 3];
            for d in 0..27 {
                let d = [d / 9 - 1, d / 3 % 3 - 1, d % 3 - 1];
                let v = at(x + d[0], y + d[1], z + d[2]);
                let smooth = d.map(|d| 2 - d.abs());
                g[0] += v * d[0] * smooth[1] * smooth[2];
                g[1] += v * d[1] * smooth[0] * smooth[2];
                g[2] += v * d[2] * smooth[0] * smooth[1];
            }
            if g != [0; 3] {
                edges.push([x, y, z]);
            }
        }
        let mut out = vec![0; label.len()];
        for (x, y, z) in (0..a).flat_map(|x| (0..b).flat_map(move |y| (0..c).map(move |z| (x, y, z)))) {
            let near = |e: &[i64; 3]| (e[0] - x).abs() <= 6 && (e[1] - y).abs() <= 6 && (e[2] - z).abs() <= 6;
            out[((x * b + y) * c + z) as usize] = edges.iter().any(near) as u8;
        }
        out
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut rng = Rng::new(1);
        for shape in [[17, 9, 20], [1, 25, 24], [3, 1, 40], [1, 1, 1], [30, 14, 2]] {
            let mut label = vec![0u8; shape.iter().product()];
            for _ in 0..3 {
                let place = rng.below(label.len() as u64) as usize;
                label[place] = 1;
            }
            assert_eq!(border_map(&label, shape), naive(&label, shape), "{shape:?}");
        }
        assert!(border_map(&[1; 64], [4, 4, 4]).iter().all(|&v| v == 0), "a full volume has no border");
    }

    #[test]
    fn points_are_the_map() {
        let points = BorderPoints::from_map(&[0, 1, 1, 0, 0, 1], [1, 2, 3]);
        assert_eq!(points.voxels, [1, 2, 5]);
    }
}
