//! The voxels of a scan and its masks, packed for the page's script, so that its slices can be scrolled.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::image::base64;

/// Most voxels that a page holds of one scan. A larger scan is cut to what its masks show, then thinned.
const MOST_VOXELS: usize = 3 << 18;

/// Share of the masks' box that is kept around it where a scan is cut.
const AROUND: f64 = 0.25;

/// A scan and its masks in the pictures' orientation: columns from the patient's right to the left, rows from anterior to
/// posterior, slices from superior to inferior.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// Voxels along columns, rows and slices.
    pub shape: [usize; 3],
    /// Where the first voxel lies among the scan's own, in this orientation.
    pub start: [usize; 3],
    /// Own voxels from one to the next.
    pub step: [usize; 3],
    /// The scan's own index of the first voxel along each axis, and by what it changes per own voxel: 1 or −1.
    pub own: [(usize, i64); 3],
    /// The position that the page begins with, in own voxels of this orientation.
    pub at: [usize; 3],
    /// Differences of neighbouring grey levels, zlib.
    image: Vec<u8>,
    /// Of each mask its classes, zlib.
    masks: Vec<Vec<u8>>,
}

/// One axis of a picture: the volume's axis, its length, and whether it runs against the index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Along {
    pub axis: usize,
    pub length: usize,
    pub mirrored: bool,
}

impl Along {
    /// The volume's index of an own voxel of the picture.
    fn index(self, position: usize) -> usize {
        if self.mirrored { self.length - 1 - position } else { position }
    }
}

/// Packs a volume of `shape` seen along `axes` (columns, rows, slices): grey levels from `grey`, and `masks`; `at` is the
/// volume's index that is shown first.
pub(super) fn pack(
    shape: [usize; 3],
    axes: [Along; 3],
    at: [usize; 3],
    grey: impl Fn(usize) -> u8,
    masks: &[&[u8]],
) -> Stack {
    let strides = [shape[1] * shape[2], shape[2], 1];
    let [low, high] = extent(shape, axes, masks);
    let sides = [0, 1, 2].map(|k| high[k] - low[k]);
    let mut step = [1usize; 3];
    let count = |step: [usize; 3]| [0, 1, 2].map(|k| sides[k].div_ceil(step[k]));
    while count(step).iter().product::<usize>() > MOST_VOXELS {
        // The axis with the most voxels is thinned first.
        let longest = (0..3).max_by_key(|&k| count(step)[k]).unwrap_or(0);
        step[longest] += 1;
    }
    let counts = count(step);
    let places = || {
        let index = move |k: usize, i: usize| {
            axes[k].index((low[k] + i * step[k] + step[k] / 2).min(high[k] - 1)) * strides[axes[k].axis]
        };
        (0..counts[2]).flat_map(move |z| {
            (0..counts[1]).flat_map(move |y| (0..counts[0]).map(move |x| index(0, x) + index(1, y) + index(2, z)))
        })
    };
    let mut before = 0u8;
    let image: Vec<u8> = places()
        .map(|place| {
            let value = grey(place);
            value.wrapping_sub(std::mem::replace(&mut before, value))
        })
        .collect();
    let own = [0, 1, 2].map(|k| (axes[k].index(0), if axes[k].mirrored { -1 } else { 1 }));
    Stack {
        shape: counts,
        start: low,
        step,
        own,
        at: [0, 1, 2].map(|k| axes[k].index(at[axes[k].axis])),
        image: deflated(&image),
        masks: masks.iter().map(|mask| deflated(&places().map(|place| mask[place]).collect::<Vec<_>>())).collect(),
    }
}

/// The box that is kept: all of a small scan, of a larger one what the masks show and some voxels around.
fn extent(shape: [usize; 3], axes: [Along; 3], masks: &[&[u8]]) -> [[usize; 3]; 2] {
    let whole = [[0; 3], axes.map(|along| along.length)];
    if shape.iter().product::<usize>() <= MOST_VOXELS {
        return whole;
    }
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for mask in masks {
        for (voxel, _) in mask.iter().enumerate().filter(|(_, class)| **class != 0) {
            let index = [voxel / (shape[1] * shape[2]), voxel / shape[2] % shape[1], voxel % shape[2]];
            for k in 0..3 {
                let position = axes[k].index(index[axes[k].axis]);
                (low[k], high[k]) = (low[k].min(position), high[k].max(position + 1));
            }
        }
    }
    if high[0] == 0 {
        return whole;
    }
    let around = |k: usize| ((high[k] - low[k]) as f64 * AROUND).ceil() as usize + 4;
    [[0, 1, 2].map(|k| low[k].saturating_sub(around(k))), [0, 1, 2].map(|k| (high[k] + around(k)).min(axes[k].length))]
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    // Writing to memory does not fail; an empty stack is one that does not scroll.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

impl Stack {
    /// As the page's script takes it.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "shape": self.shape,
            "start": self.start,
            "step": self.step,
            "own": self.own,
            "at": self.at,
            "image": base64(&self.image),
            "masks": self.masks.iter().map(|mask| base64(mask)).collect::<Vec<_>>(),
        })
    }

    /// What a reader must know of it: nothing where it is the whole scan.
    pub(super) fn note(&self) -> String {
        match self.step {
            [1, 1, 1] => String::new(),
            [x, y, z] => {
                format!(" Scrolled slices show every {x} × {y} × {z}th voxel of the part around the outlines.")
            }
        }
    }

    /// Bytes in the page.
    pub(super) fn bytes(&self) -> usize {
        (self.image.len() + self.masks.iter().map(Vec::len).sum::<usize>()) * 4 / 3
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    /// The page's columns run from right to left, its rows from anterior to posterior, its slices from superior to inferior:
    /// against all three indices of a volume in RAS.
    #[test]
    fn voxels_are_turned_and_come_back() {
        let shape = [2, 3, 2];
        let axes = [0, 1, 2].map(|axis| Along { axis, length: shape[axis], mirrored: true });
        let grey = |place: usize| (place * 20) as u8;
        let mask: Vec<u8> = (0..12).map(|place| u8::from(place == 11)).collect();
        let stack = pack(shape, axes, [1, 2, 1], grey, &[&mask]);
        assert_eq!((stack.shape, stack.start, stack.step, stack.at), ([2, 3, 2], [0; 3], [1; 3], [0; 3]));
        assert_eq!(stack.own, [(1, -1), (2, -1), (1, -1)]);
        // The first voxel of the page is the last of all three axes.
        assert_eq!(inflated(&stack.masks[0])[0], 1);
        let mut value = 0u8;
        let levels: Vec<u8> = inflated(&stack.image)
            .into_iter()
            .map(|difference| {
                value = value.wrapping_add(difference);
                value
            })
            .collect();
        let place = |x: usize, y: usize, z: usize| (1 - x) * 6 + (2 - y) * 2 + (1 - z);
        for (i, level) in levels.into_iter().enumerate() {
            assert_eq!(level, grey(place(i % 2, i / 2 % 3, i / 6)), "{i}");
        }
    }

    #[test]
    fn a_large_scan_is_cut_to_its_masks_and_thinned() {
        let shape = [200, 200, 100];
        let axes = [0, 1, 2].map(|axis| Along { axis, length: shape[axis], mirrored: axis == 2 });
        let inside = |voxel: usize| {
            let index = [voxel / 20_000, voxel / 100 % 200, voxel % 100];
            index[0] >= 50 && index[0] < 70 && index[1] >= 60 && index[1] < 80 && index[2] >= 10 && index[2] < 30
        };
        let small: Vec<u8> = (0..4_000_000).map(|voxel| u8::from(inside(voxel))).collect();
        let stack = pack(shape, axes, [60, 70, 20], |_| 0, &[&small]);
        // 20 voxels a side, and a quarter and four on each side; the last axis is mirrored, and its end is near.
        assert_eq!((stack.shape, stack.start, stack.step), ([38, 38, 38], [41, 51, 61], [1; 3]));
        let everywhere = vec![1u8; 4_000_000];
        let stack = pack(shape, axes, [60, 70, 20], |_| 0, &[&everywhere]);
        assert!(stack.shape.iter().product::<usize>() <= MOST_VOXELS && stack.step[0] > 1, "{stack:?}");
        assert!(stack.note().contains("every"));
        let nothing = vec![0u8; 4_000_000];
        assert_eq!(pack(shape, axes, [60, 70, 20], |_| 0, &[&nothing]).start, [0; 3]);
    }
}
