//! Marching cubes on the CPU, a word of 32 slots at a time. The CUDA twin runs the same passes with the same tables.

use super::table::{EDGES, TRIANGLES};
use super::{Slots, WORD};
use crate::device::cpu::{Pool, SharedMut};

/// A field on the lattice `shape`; points beside it have the value `outside`.
#[derive(Clone, Copy)]
pub struct Field<'a, T> {
    /// Values, last axis fastest.
    pub values: &'a [T],
    /// Where inside begins: values above it.
    pub threshold: f32,
    /// Value beside the lattice, not above the threshold.
    pub outside: f32,
}

/// Pass 1: bit `i` of a word says whether the lattice point of its slot `i` is inside.
pub fn pack<T: Copy + Into<f32> + Sync>(pool: &Pool, slots: &Slots, field: Field<'_, T>, inside: &mut [u32]) {
    let width = slots.shape[2];
    by_plane(pool, slots, inside, |z, plane| {
        plane.fill(0);
        // Slot 0 of each axis is the layer before the lattice.
        let Some(z) = z.checked_sub(1) else { return };
        for (y, row) in plane.chunks_exact_mut(slots.words).enumerate().skip(1) {
            let values = &field.values[(z * slots.shape[1] + y - 1) * width..][..width];
            for (w, word) in row.iter_mut().enumerate() {
                let first = (w * WORD).max(1);
                let last = ((w + 1) * WORD).min(width + 1);
                for slot in first..last {
                    *word |= u32::from(values[slot - 1].into() > field.threshold) << (slot - w * WORD);
                }
            }
        }
    });
}

/// Pass 2: vertices and triangles of each word.
pub fn count(pool: &Pool, slots: &Slots, inside: &[u32], vertices: &mut [u32], triangles: &mut [u32]) {
    let bits = Bits { slots, inside };
    let triangles = SharedMut::new(triangles);
    by_plane(pool, slots, vertices, |z, vertices| {
        // SAFETY: planes are disjoint.
        let triangles = unsafe { triangles.slice(z * slots.plane(), slots.plane()) };
        for (i, (vertices, triangles)) in vertices.iter_mut().zip(triangles).enumerate() {
            let cells = bits.cells(z, i / slots.words, i % slots.words);
            *vertices = cells.crossed().iter().map(|word| word.count_ones()).sum();
            *triangles = ones(cells.mixed()).map(|slot| u32::from(TRIANGLES[cells.case(slot)][0])).sum();
        }
    });
}

/// Pass 3: counts become the indices of each word's first vertex and triangle. Returns both totals.
pub fn scan(counts: &mut [u32]) -> u64 {
    let mut total = 0u64;
    for count in counts {
        let here = u64::from(*count);
        // A total beyond u32 is refused by the caller before any index is used.
        *count = total as u32;
        total += here;
    }
    total
}

/// Pass 4: the positions `[vertices, 3]` on the owned edges.
pub fn place<T: Copy + Into<f32> + Sync>(
    pool: &Pool,
    slots: &Slots,
    field: Field<'_, T>,
    inside: &[u32],
    starts: &[u32],
    positions: &mut [f32],
) {
    let bits = Bits { slots, inside };
    let [depth, height, width] = slots.shape;
    let value =
        |[z, y, x]: [usize; 3]| match (1..=depth).contains(&z) && (1..=height).contains(&y) && (1..=width).contains(&x)
        {
            true => field.values[((z - 1) * height + y - 1) * width + x - 1].into(),
            false => field.outside,
        };
    let positions = SharedMut::new(positions);
    pool.for_each(slots.planes(), |z| {
        let range = slots.range(starts, z, positions.len() / 3);
        // SAFETY: the ranges of planes are disjoint.
        let mut out = unsafe { positions.slice(3 * range.start, 3 * range.len()) }.chunks_exact_mut(3);
        for i in 0..slots.plane() {
            let (y, w) = (i / slots.words, i % slots.words);
            let crossed = bits.cells(z, y, w).crossed();
            for slot in ones(crossed[0] | crossed[1] | crossed[2]) {
                let lower = [z, y, w * WORD + slot];
                for (axis, _) in crossed.iter().enumerate().filter(|(_, word)| *word >> slot & 1 == 1) {
                    let mut upper = lower;
                    upper[axis] += 1;
                    let mut position = lower.map(|index| index as f32 - 1.0);
                    position[axis] += fraction(value(lower), value(upper), field.threshold);
                    if let Some(out) = out.next() {
                        out.copy_from_slice(&position);
                    }
                }
            }
        }
    });
}

/// Where between `a` and `b` a line through both values meets the threshold. Subtractions and one division, each rounded
/// once: every device gives the same bits. The middle where that is no number in `[0, 1]` (values that are not finite).
fn fraction(a: f32, b: f32, threshold: f32) -> f32 {
    let fraction = (threshold - a) / (b - a);
    if (0.0..=1.0).contains(&fraction) { fraction } else { 0.5 }
}

/// Pass 5: the triangles `[triangles, 3]` as indices of vertices.
pub fn connect(
    pool: &Pool,
    slots: &Slots,
    inside: &[u32],
    vertex_starts: &[u32],
    triangle_starts: &[u32],
    triangles: &mut [u32],
) {
    let bits = Bits { slots, inside };
    let triangles = SharedMut::new(triangles);
    pool.for_each(slots.planes(), |z| {
        let range = slots.range(triangle_starts, z, triangles.len() / 3);
        // SAFETY: the ranges of planes are disjoint.
        let mut out = unsafe { triangles.slice(3 * range.start, 3 * range.len()) }.iter_mut();
        for i in 0..slots.plane() {
            let (y, w) = (i / slots.words, i % slots.words);
            let cells = bits.cells(z, y, w);
            let mixed = cells.mixed();
            if mixed == 0 {
                continue;
            }
            // The owners of the edges: four rows, and the slot after the last of each word.
            let owners: [[Owned; 2]; 4] = [0, 1, 2, 3]
                .map(|row| [0, 1].map(|next| bits.owned(z + (row >> 1), y + (row & 1), w + next, vertex_starts)));
            for slot in ones(mixed) {
                let row = &TRIANGLES[cells.case(slot)];
                for (&edge, out) in row[1..1 + 3 * usize::from(row[0])].iter().zip(out.by_ref()) {
                    let (corner, axis) = EDGES[usize::from(edge)];
                    let place = slot + usize::from(corner & 1);
                    *out = owners[usize::from(corner >> 1)][place / WORD].vertex(place % WORD, usize::from(axis));
                }
            }
        }
    });
}

/// Runs `work(z, words of the plane)` for each plane of slots.
fn by_plane(pool: &Pool, slots: &Slots, words: &mut [u32], work: impl Fn(usize, &mut [u32]) + Sync + Send) {
    let words = SharedMut::new(words);
    pool.for_each(slots.planes(), |z| {
        // SAFETY: planes are disjoint.
        work(z, unsafe { words.slice(z * slots.plane(), slots.plane()) });
    });
}

/// Positions of the set bits, lowest first.
fn ones(mut word: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (word != 0).then(|| word.trailing_zeros() as usize);
        word &= word.wrapping_sub(1);
        lowest
    })
}

/// The packed lattice.
#[derive(Clone, Copy)]
struct Bits<'a> {
    slots: &'a Slots,
    inside: &'a [u32],
}

impl Bits<'_> {
    /// A word of slots; nothing is inside beyond the last slot of an axis.
    fn word(&self, z: usize, y: usize, w: usize) -> u32 {
        self.slots.index(z, y, w).map_or(0, |index| self.inside[index])
    }

    /// The cells of a word's slots.
    fn cells(&self, z: usize, y: usize, w: usize) -> Cells {
        let mut corners = [0; 8];
        for row in 0..4 {
            let (z, y) = (z + (row >> 1), y + (row & 1));
            let here = self.word(z, y, w);
            corners[2 * row] = here;
            corners[2 * row + 1] = here >> 1 | self.word(z, y, w + 1) << 31;
        }
        Cells { corners }
    }

    /// The edges that a word's slots own.
    fn owned(&self, z: usize, y: usize, w: usize, starts: &[u32]) -> Owned {
        match self.slots.index(z, y, w) {
            Some(index) => Owned { crossed: self.cells(z, y, w).crossed(), start: starts[index] },
            None => Owned { crossed: [0; 3], start: 0 },
        }
    }
}

/// 32 cells: bit `i` of `corners[c]` says whether corner `c` of cell `i` is inside.
struct Cells {
    corners: [u32; 8],
}

impl Cells {
    /// Cells with corners on both sides.
    fn mixed(&self) -> u32 {
        let any = self.corners.iter().fold(0, |any, corner| any | corner);
        let all = self.corners.iter().fold(u32::MAX, |all, corner| all & corner);
        any & !all
    }

    /// For each axis, the slots whose owned edge along it is crossed.
    fn crossed(&self) -> [u32; 3] {
        [0, 1, 2].map(|axis| self.corners[0] ^ self.corners[4 >> axis])
    }

    fn case(&self, slot: usize) -> usize {
        (0..8).fold(0, |case, corner| case | ((self.corners[corner] >> slot & 1) as usize) << corner)
    }
}

/// The crossed edges that 32 slots own, and the index of their first vertex.
#[derive(Clone, Copy)]
struct Owned {
    crossed: [u32; 3],
    start: u32,
}

impl Owned {
    /// The vertex on the edge of `slot` along `axis`: vertices are ordered by slot, then axis.
    fn vertex(&self, slot: usize, axis: usize) -> u32 {
        let before = (1u32 << slot) - 1;
        let earlier_slots: u32 = self.crossed.iter().map(|word| (word & before).count_ones()).sum();
        let earlier_axes: u32 = self.crossed[..axis].iter().map(|word| word >> slot & 1).sum();
        self.start + earlier_slots + earlier_axes
    }
}
