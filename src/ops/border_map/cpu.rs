//! Border maps on the CPU: small filters along one axis after the other.

use std::ops::Range;

use super::REACH;

/// The border map of a binary label (0: outside): 1 near the border, else 0.
///
/// # Panics
/// If `label.len()` is not the product of `shape`.
pub fn border_map(label: &[u8], shape: [usize; 3]) -> Vec<u8> {
    assert_eq!(label.len(), shape.iter().product::<usize>(), "label of {shape:?}");
    let mut map = vec![0; label.len()];
    let Some(part) = near_foreground(label, shape) else { return map };
    let sides = part.clone().map(|side| side.len());
    let rows = || part[0].clone().flat_map(|i| part[1].clone().map(move |j| (i * shape[1] + j) * shape[2]));
    let cut: Vec<u8> = rows().flat_map(|row| &label[row..][part[2].clone()]).copied().collect();
    let found = whole_map(&cut, sides);
    for (row, found) in rows().zip(found.chunks_exact(sides[2])) {
        map[row..][part[2].clone()].copy_from_slice(found);
    }
    map
}

/// The box outside which no border voxel lies: around the foreground, and as much wider as an edge and its dilation reach. What it
/// is cut off from is background, which its repeated ends are too. `None` without foreground.
fn near_foreground(label: &[u8], shape: [usize; 3]) -> Option<[Range<usize>; 3]> {
    let mut found = shape.map(|side| side..0);
    for (row, values) in label.chunks_exact(shape[2].max(1)).enumerate() {
        let Some(first) = values.iter().position(|&value| value > 0) else { continue };
        let last = values.iter().rposition(|&value| value > 0).unwrap_or(first);
        for (range, [low, high]) in found.iter_mut().zip([[row / shape[1]; 2], [row % shape[1]; 2], [first, last]]) {
            *range = range.start.min(low)..range.end.max(high + 1);
        }
    }
    let wider =
        |(range, side): (Range<usize>, usize)| range.start.saturating_sub(REACH + 1)..(range.end + REACH + 1).min(side);
    (!found[0].is_empty()).then(|| [0, 1, 2].map(|k| wider((found[k].clone(), shape[k]))))
}

/// The map of all of `label`.
fn whole_map(label: &[u8], shape: [usize; 3]) -> Vec<u8> {
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
