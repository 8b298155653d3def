//! Who touched a word, and whether that is ordered before an access now.
//!
//! Threads of a block are ordered by vector clocks, one entry a warp: a barrier joins the clocks of the warps that take
//! part, `bar.warp.sync` advances the warp's own. An access is stamped with its warp's own entry; it is ordered before a
//! later access of warp `u` when `u`'s entry for that warp has moved past the stamp. Lanes of one warp are therefore
//! unordered until they synchronise, although this interpreter happens to run them together.
//!
//! Blocks are ordered only by release and acquire: a fence and then an atomic on an address releases what the block did
//! before; an atomic of another block on the same address, later, acquires it.

use std::collections::HashMap;

/// Warps a block has at most.
pub const WARPS: usize = 32;

/// One remembered access.
#[derive(Clone, Copy, Default)]
pub struct Access {
    /// Number of the block among all blocks ever run, from 1; zero for none.
    pub block: u32,
    /// The warp's own clock.
    pub clock: u32,
    /// Thread in the block.
    pub thread: u16,
    /// Which of the four bytes.
    pub bytes: u8,
    /// An atomic: two of them never race.
    pub atomic: bool,
    /// The block's count of releases.
    pub releases: u32,
}

/// The accesses remembered of one 4-byte word: the last write and two reads by different threads.
#[derive(Clone, Copy, Default)]
pub struct Cell {
    /// Last write.
    pub write: Access,
    /// Reads since.
    pub reads: [Access; 2],
}

/// The order of the accesses of one launch, as one block sees it.
pub struct Order {
    /// `clocks[u][w]`: what warp `u` knows of warp `w`.
    pub clocks: [[u32; WARPS]; WARPS],
    /// Number of the running block among all ever run.
    pub block: u32,
    /// First block of the launch: what older blocks did is ordered by the launch.
    pub first_block: u32,
    /// Releases of the running block so far.
    pub releases: u32,
    fenced: bool,
    released: HashMap<(u64, u32), u32>,
    acquired: Vec<u64>,
}

impl Default for Order {
    fn default() -> Order {
        Order {
            clocks: [[1; WARPS]; WARPS],
            block: 0,
            first_block: 1,
            releases: 0,
            fenced: false,
            released: HashMap::new(),
            acquired: Vec::new(),
        }
    }
}

impl Order {
    /// A launch begins; blocks are numbered from `first_block`.
    pub fn begin_launch(&mut self, first_block: u32) {
        (self.first_block, self.block) = (first_block, first_block.wrapping_sub(1));
        self.released.clear();
    }

    /// The next block begins: everything its warps knew of each other is void.
    pub fn begin_block(&mut self) {
        self.block += 1;
        let now = self.clocks.iter().flatten().max().map_or(1, |c| c + 1);
        self.clocks = [[now; WARPS]; WARPS];
        (self.releases, self.fenced) = (0, false);
        self.acquired.clear();
    }

    /// A barrier of the warps in `members` (a bit a warp).
    pub fn barrier(&mut self, members: u32) {
        let mut joined = [0; WARPS];
        for w in (0..WARPS).filter(|w| members >> w & 1 != 0) {
            self.clocks[w][w] += 1;
            for (j, c) in joined.iter_mut().zip(&self.clocks[w]) {
                *j = (*j).max(*c);
            }
        }
        for w in (0..WARPS).filter(|w| members >> w & 1 != 0) {
            self.clocks[w] = joined;
        }
    }

    /// The lanes of a warp synchronise.
    pub fn warp_sync(&mut self, warp: u32) {
        self.clocks[warp as usize][warp as usize] += 1;
    }

    /// A fence of the whole device.
    pub fn fence(&mut self) {
        self.fenced = true;
    }

    /// An atomic on `address`: it acquires, and after a fence releases.
    pub fn atomic(&mut self, address: u64) {
        if !self.acquired.contains(&address) {
            self.acquired.push(address);
        }
        if self.fenced {
            self.releases += 1;
            self.released.insert((address, self.block), self.releases);
        }
    }

    /// The stamp of an access made now.
    #[inline(always)]
    pub fn stamp(&self, thread: u32, bytes: u8, atomic: bool) -> Access {
        let warp = (thread / 32) as usize;
        Access {
            block: self.block,
            clock: self.clocks[warp][warp],
            thread: thread as u16,
            bytes,
            atomic,
            releases: self.releases,
        }
    }

    /// Whether a write that changes something races with what is remembered.
    #[inline(always)]
    pub fn races_with_write(&self, cell: &Cell, now: &Access) -> bool {
        self.unordered(&cell.write, now) || cell.reads.iter().any(|r| self.unordered(r, now))
    }

    /// Whether the remembered access `old` is not ordered before `now`.
    #[inline(always)]
    fn unordered(&self, old: &Access, now: &Access) -> bool {
        if old.block < self.first_block || old.bytes & now.bytes == 0 || (old.atomic && now.atomic) {
            return false;
        }
        if old.block == now.block {
            let (from, to) = ((old.thread / 32) as usize, (now.thread / 32) as usize);
            return old.thread != now.thread && self.clocks[to][from] <= old.clock;
        }
        !self.acquired.iter().any(|&a| self.released.get(&(a, old.block)).is_some_and(|&r| r > old.releases))
    }

    /// Remembers a read; gives the write it races with.
    #[inline(always)]
    pub fn read(&self, cell: &mut Cell, now: Access) -> Option<Access> {
        let race = self.unordered(&cell.write, &now).then_some(cell.write);
        let [last, before] = &mut cell.reads;
        if last.block != now.block || last.thread != now.thread {
            if self.unordered(last, &Access { bytes: 15, ..now }) {
                *before = *last;
            }
            *last = now;
        } else {
            let bytes = if last.clock == now.clock { last.bytes | now.bytes } else { now.bytes };
            *last = Access { bytes, ..now };
        }
        race
    }

    /// Remembers a write; gives the access it races with. A write that `changes` nothing does not race with a write.
    #[inline(always)]
    pub fn write(&self, cell: &mut Cell, now: Access, changes: bool) -> Option<Access> {
        let write = (changes && self.unordered(&cell.write, &now)).then_some(cell.write);
        let read = cell.reads.iter().find(|r| changes && self.unordered(r, &now)).copied();
        let last = &cell.write;
        let together = last.block == now.block && last.clock == now.clock && last.thread == now.thread;
        let bytes = if together { last.bytes } else { 0 };
        cell.write = Access { bytes: bytes | now.bytes, ..now };
        write.or(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> Order {
        let mut o = Order::default();
        o.begin_launch(1);
        o.begin_block();
        o
    }

    #[test]
    fn a_barrier_orders_warps() {
        let (mut o, mut cell) = (started(), Cell::default());
        assert!(o.write(&mut cell, o.stamp(0, 15, false), true).is_none());
        assert_eq!(o.read(&mut cell.clone(), o.stamp(40, 15, false)).map(|a| a.thread), Some(0));
        o.barrier(0b11);
        assert!(o.read(&mut cell, o.stamp(40, 15, false)).is_none());
        assert!(o.write(&mut cell, o.stamp(0, 15, false), true).is_some(), "read by 40, written by 0, no barrier");
    }

    #[test]
    fn lanes_need_a_warp_barrier_and_bytes_matter() {
        let (mut o, mut cell) = (started(), Cell::default());
        o.write(&mut cell, o.stamp(0, 0b0001, false), true);
        assert!(o.read(&mut cell.clone(), o.stamp(1, 0b0010, false)).is_none(), "different bytes");
        assert!(o.read(&mut cell.clone(), o.stamp(1, 0b0001, false)).is_some());
        o.warp_sync(0);
        assert!(o.read(&mut cell, o.stamp(1, 0b0001, false)).is_none());
    }

    /// Thread 0 wrote the whole word in a launch before, at the same time of its clock: that is over.
    #[test]
    fn bytes_of_an_earlier_launch_are_not_this_ones() {
        let (mut o, mut cell) = (started(), Cell::default());
        o.write(&mut cell, o.stamp(0, 15, false), true);
        o.begin_launch(2);
        o.begin_block();
        assert!(o.write(&mut cell, o.stamp(0, 0b0001, false), true).is_none());
        assert!(o.write(&mut cell, o.stamp(1, 0b0010, false), true).is_none(), "different bytes");
    }

    #[test]
    fn blocks_need_release_and_acquire() {
        for fence in [false, true] {
            let (mut o, mut cell) = (started(), Cell::default());
            o.write(&mut cell, o.stamp(0, 15, false), true);
            if fence {
                o.fence();
            }
            o.atomic(64);
            o.begin_block();
            assert!(o.read(&mut cell.clone(), o.stamp(0, 15, false)).is_some(), "nothing acquired yet");
            o.atomic(64);
            assert_eq!(o.read(&mut cell.clone(), o.stamp(0, 15, false)).is_none(), fence);
        }
    }

    #[test]
    fn atomics_do_not_race_with_each_other() {
        let (o, mut cell) = (started(), Cell::default());
        o.write(&mut cell, o.stamp(0, 15, true), true);
        assert!(o.write(&mut cell, o.stamp(40, 15, true), true).is_none());
        assert!(o.read(&mut cell, o.stamp(70, 15, false)).is_some());
    }
}
