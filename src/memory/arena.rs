//! Best-fit allocation of offsets in one address range.
//!
//! The range is the device's budget. A request is rounded up to [`GRANULE`] bytes and takes the smallest hole between
//! blocks that holds it, the lowest of equals, or else the start of the free end of the range; freed neighbours merge at
//! once. The same sequence of requests therefore always gives the same offsets, whatever the budget: that is what lets a plan
//! predict a run's placement, and a budget of the bytes that it reserved hold the run. A step whose requests are known
//! beforehand has its blocks put where a [`layout`](super::layout) wants them ([`Arena::allocate_at`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes to which every request is rounded up: four cache lines, CUDA's own alignment.
pub const GRANULE: u64 = 256;

/// A piece of the address range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, a multiple of the granule.
    pub bytes: u64,
}

/// An allocator of offsets.
#[derive(Debug)]
pub struct Arena {
    capacity: u64,
    high_water: u64,
    /// Where the free end of the range begins: behind the last block.
    end: u64,
    /// Between blocks.
    holes: BTreeMap<u64, u64>,
    holes_by_size: BTreeSet<(u64, u64)>,
}

impl Arena {
    /// An empty arena over `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let capacity = capacity / GRANULE * GRANULE;
        Self { capacity, high_water: 0, end: 0, holes: BTreeMap::new(), holes_by_size: BTreeSet::new() }
    }

    /// Bytes in the range.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The highest end of any block so far: the bytes that had to be reserved, fragmentation included.
    pub fn reserved(&self) -> u64 {
        self.high_water
    }

    /// The largest request that could be met now.
    pub fn largest_hole(&self) -> u64 {
        self.holes_by_size.last().map_or(0, |(bytes, _)| *bytes).max(self.capacity - self.end)
    }

    /// A hash of the holes and of the free end, which decide where the next requests go.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        (self.end, &self.holes).hash(&mut hash);
        hash.finish()
    }

    /// What a request of `bytes` is rounded up to; `None` if that overflows.
    pub fn granted(bytes: u64) -> Option<u64> {
        bytes.max(1).checked_next_multiple_of(GRANULE)
    }

    /// Takes a block of at least `bytes`; `None` if no hole is large enough.
    pub fn allocate(&mut self, bytes: u64) -> Option<Block> {
        let wanted = Self::granted(bytes)?;
        if let Some(&(hole, offset)) = self.holes_by_size.range((wanted, 0)..).next() {
            self.remove_hole(offset, hole);
            if hole > wanted {
                self.insert_hole(offset + wanted, hole - wanted);
            }
            return Some(Block { offset, bytes: wanted });
        }
        let offset = self.end;
        self.end = offset.checked_add(wanted).filter(|&end| end <= self.capacity)?;
        self.high_water = self.high_water.max(self.end);
        Some(Block { offset, bytes: wanted })
    }

    /// Takes the block of `bytes` bytes at `offset`, both multiples of the granule; `None` if not all of it is free.
    pub fn allocate_at(&mut self, offset: u64, bytes: u64) -> Option<Block> {
        let end = offset.checked_add(bytes).filter(|&end| end <= self.capacity)?;
        if offset >= self.end {
            if offset > self.end {
                self.insert_hole(self.end, offset - self.end);
            }
            self.end = end;
            self.high_water = self.high_water.max(end);
            return Some(Block { offset, bytes });
        }
        let (hole, length) = self.holes.range(..=offset).next_back().map(|(&hole, &length)| (hole, length))?;
        let rest = (hole + length).checked_sub(end)?;
        self.remove_hole(hole, length);
        if hole < offset {
            self.insert_hole(hole, offset - hole);
        }
        if rest > 0 {
            self.insert_hole(end, rest);
        }
        Some(Block { offset, bytes })
    }

    /// Takes note that blocks reached up to `end`.
    pub fn reserve(&mut self, end: u64) {
        self.high_water = self.high_water.max(end);
    }

    /// Where the free end of the range begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Gives a block back.
    pub fn free(&mut self, block: Block) {
        let Block { mut offset, mut bytes } = block;
        if let Some((&before, &length)) = self.holes.range(..offset).next_back() {
            debug_assert!(before + length <= offset, "block freed twice");
            if before + length == offset {
                self.remove_hole(before, length);
                offset = before;
                bytes += length;
            }
        }
        if offset + bytes == self.end {
            self.end = offset;
            return;
        }
        if let Some(&length) = self.holes.get(&(offset + bytes)) {
            self.remove_hole(offset + bytes, length);
            bytes += length;
        }
        self.insert_hole(offset, bytes);
    }

    /// Takes back `block`, behind which no memory could be put, as if it had never been asked for: the bytes reserved are
    /// again `reserved`. The range ends at `capacity` from now on.
    pub fn refuse(&mut self, block: Block, reserved: u64, capacity: u64) {
        self.free(block);
        self.high_water = reserved;
        self.capacity = capacity / GRANULE * GRANULE;
    }

    fn insert_hole(&mut self, offset: u64, bytes: u64) {
        debug_assert!(bytes > 0, "a hole of no bytes");
        self.holes.insert(offset, bytes);
        self.holes_by_size.insert((bytes, offset));
    }

    fn remove_hole(&mut self, offset: u64, bytes: u64) {
        self.holes.remove(&offset);
        self.holes_by_size.remove(&(bytes, offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn merges_neighbours_and_reuses_the_best_hole() {
        let mut arena = Arena::new(16 * GRANULE);
        let blocks: Vec<_> = (0..4).map(|_| arena.allocate(4 * GRANULE).unwrap()).collect();
        assert_eq!(arena.allocate(1), None);
        arena.free(blocks[0]);
        arena.free(blocks[2]);
        arena.free(blocks[1]);
        assert_eq!(arena.largest_hole(), 12 * GRANULE);
        assert_eq!(arena.allocate(GRANULE), Some(Block { offset: 0, bytes: GRANULE }));
        arena.free(Block { offset: 0, bytes: GRANULE });
        arena.free(blocks[3]);
        assert_eq!(arena.largest_hole(), 16 * GRANULE);
        assert_eq!(arena.reserved(), 16 * GRANULE);
    }

    #[test]
    fn a_fingerprint_tells_where_the_next_block_goes() {
        let mut arena = Arena::new(16 * GRANULE);
        let empty = arena.fingerprint();
        let first = arena.allocate(GRANULE).unwrap();
        // There is no hole in either, and the next block goes elsewhere.
        let one = arena.fingerprint();
        assert_ne!(one, empty);
        let second = arena.allocate(GRANULE).unwrap();
        arena.free(first);
        let hole = arena.fingerprint();
        assert!(hole != one && hole != empty);
        arena.free(second);
        assert_eq!(arena.fingerprint(), empty);
    }

    #[test]
    fn a_block_is_put_where_it_is_wanted_if_all_of_it_is_free() {
        let mut arena = Arena::new(16 * GRANULE);
        let high = arena.allocate_at(6 * GRANULE, 2 * GRANULE).unwrap();
        assert_eq!((arena.reserved(), arena.end()), (8 * GRANULE, 8 * GRANULE));
        let middle = arena.allocate_at(2 * GRANULE, 2 * GRANULE).unwrap();
        assert_eq!(arena.allocate_at(3 * GRANULE, GRANULE), None);
        assert_eq!(arena.allocate_at(5 * GRANULE, 2 * GRANULE), None);
        assert_eq!(arena.allocate_at(7 * GRANULE, 2 * GRANULE), None);
        assert_eq!(arena.allocate_at(15 * GRANULE, 2 * GRANULE), None);
        // The holes that are left are found, and what is given back merges.
        assert_eq!(arena.allocate(2 * GRANULE), Some(Block { offset: 0, bytes: 2 * GRANULE }));
        assert_eq!(arena.allocate(2 * GRANULE), Some(Block { offset: 4 * GRANULE, bytes: 2 * GRANULE }));
        arena.free(middle);
        arena.free(high);
        [0, 4].iter().for_each(|n| arena.free(Block { offset: n * GRANULE, bytes: 2 * GRANULE }));
        assert_eq!(arena.fingerprint(), Arena::new(GRANULE).fingerprint());
        assert_eq!(arena.allocate_at(u64::MAX - GRANULE + 1, GRANULE), None);
    }

    /// Against one flag a granule: what is free, and what of it lies in which hole.
    #[test]
    fn holes_are_what_no_block_takes() {
        const COUNT: usize = 24;
        let (mut arena, mut taken, mut live) = (Arena::new(COUNT as u64 * GRANULE), [false; COUNT], Vec::new());
        let mut rng = Rng::new(11);
        let mut below = |bound: usize| rng.below(bound as u64) as usize;
        for _ in 0..4000 {
            let (at, length) = (below(COUNT), 1 + below(4));
            if below(2) == 0 && !live.is_empty() {
                let block: Block = live.swap_remove(at % live.len());
                taken[(block.offset / GRANULE) as usize..][..(block.bytes / GRANULE) as usize].fill(false);
                arena.free(block);
            } else {
                let free = at + length <= COUNT && taken[at..at + length].iter().all(|taken| !taken);
                let block = arena.allocate_at(at as u64 * GRANULE, length as u64 * GRANULE);
                assert_eq!(block.is_some(), free, "{length} at {at} of {taken:?}");
                if let Some(block) = block {
                    taken[at..at + length].fill(true);
                    live.push(block);
                }
            }
            let end = taken.iter().rposition(|&taken| taken).map_or(0, |last| last + 1);
            let mut holes = BTreeMap::new();
            for at in (0..end).filter(|&at| !taken[at]) {
                let begin = (0..=at).rev().take_while(|&k| !taken[k]).last().unwrap();
                *holes.entry(begin as u64 * GRANULE).or_insert(0) += GRANULE;
            }
            assert_eq!((arena.end(), &arena.holes), (end as u64 * GRANULE, &holes));
            assert!(arena.holes_by_size.iter().map(|&(bytes, at)| (at, bytes)).collect::<BTreeMap<_, _>>() == holes);
        }
    }

    #[test]
    fn a_refused_block_was_never_asked_for() {
        let mut arena = Arena::new(16 * GRANULE);
        let first = arena.allocate(2 * GRANULE).unwrap();
        let (reserved, layout) = (arena.reserved(), arena.fingerprint());
        let refused = arena.allocate(8 * GRANULE).unwrap();
        arena.refuse(refused, reserved, 6 * GRANULE);
        assert_eq!((arena.reserved(), arena.fingerprint()), (2 * GRANULE, layout));
        assert_eq!((arena.capacity(), arena.largest_hole()), (6 * GRANULE, 4 * GRANULE));
        assert_eq!(arena.allocate(5 * GRANULE), None);
        assert_eq!(arena.allocate(4 * GRANULE), Some(Block { offset: first.bytes, bytes: 4 * GRANULE }));
    }

    /// Traffic in an ample range is placed in the same way in a range that just holds it.
    #[test]
    fn placement_does_not_depend_on_the_capacity() {
        let traffic = |capacity: u64| {
            let (mut arena, mut live, mut offsets) = (Arena::new(capacity), Vec::new(), Vec::new());
            let mut state = 7u64;
            for _ in 0..3000 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let draw = state >> 33;
                if live.len() < 5 || draw.is_multiple_of(2) && live.len() < 60 {
                    let block = arena.allocate(1 + draw % 50_000).unwrap();
                    offsets.push(block.offset);
                    live.push(block);
                } else {
                    arena.free(live.swap_remove(draw as usize % live.len()));
                }
            }
            (offsets, arena.reserved())
        };
        let (offsets, reserved) = traffic(1 << 40);
        assert_eq!(traffic(reserved), (offsets, reserved));
    }

    #[test]
    fn random_traffic_never_overlaps_and_always_returns_to_one_hole() {
        let mut arena = Arena::new(1 << 20);
        let mut live: Vec<Block> = Vec::new();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let draw = state >> 33;
            if !draw.is_multiple_of(3) || live.is_empty() {
                if let Some(block) = arena.allocate(draw % 9000) {
                    assert!(block.offset + block.bytes <= arena.capacity());
                    for other in &live {
                        assert!(
                            block.offset + block.bytes <= other.offset || other.offset + other.bytes <= block.offset
                        );
                    }
                    live.push(block);
                }
            } else {
                let index = draw as usize % live.len();
                arena.free(live.swap_remove(index));
            }
        }
        live.drain(..).for_each(|block| arena.free(block));
        assert_eq!(arena.largest_hole(), arena.capacity());
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let mut arena = Arena::new(1 << 20);
        assert_eq!(arena.allocate(u64::MAX), None);
        assert_eq!(arena.allocate(u64::MAX - 100), None);
        assert_eq!(Arena::granted(u64::MAX), None);
    }
}
