//! A warp's way to memory: state spaces, bounds and alignment, and the hand-over to checkers and counters.

use super::lanes::{LANES, active};
use super::warp::{Cache, Warp};
use crate::check::checker::Touch;
use crate::check::finding::FindingKind;
use crate::decode::ir::Instr;

/// Where shared memory appears in the generic address space.
pub const SHARED_WINDOW: u64 = 0x0000_7100_0000_0000;
/// Where local memory appears in the generic address space.
pub const LOCAL_WINDOW: u64 = 0x0000_7200_0000_0000;
/// Where the argument block appears in the generic address space.
pub const PARAM_WINDOW: u64 = 0x0000_7300_0000_0000;
/// Size of each window.
pub const WINDOW: u64 = 1 << 32;

/// A state space of an access; constants are global memory here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    /// Device memory.
    Global,
    /// The block's memory.
    Shared,
    /// The thread's memory.
    Local,
    /// The arguments.
    Param,
    /// Any of them, by window.
    Generic,
}

impl Space {
    /// From [`Instr::flags`].
    #[inline(always)]
    pub fn from_flags(flags: u8) -> Space {
        match flags & 7 {
            0 => Space::Global,
            1 => Space::Shared,
            2 => Space::Local,
            3 => Space::Param,
            _ => Space::Generic,
        }
    }

    /// The space and offset a generic address means.
    pub fn resolve(self, address: u64) -> (Space, u64) {
        match address {
            _ if self != Space::Generic => (self, address),
            SHARED_WINDOW..0x7101_0000_0000 => (Space::Shared, address - SHARED_WINDOW),
            LOCAL_WINDOW..0x7201_0000_0000 => (Space::Local, address - LOCAL_WINDOW),
            PARAM_WINDOW..0x7301_0000_0000 => (Space::Param, address - PARAM_WINDOW),
            _ => (Space::Global, address),
        }
    }
}

/// Flag of [`Instr::flags`]: the base register holds 64-bit addresses.
pub const WIDE_ADDRESS: u8 = 8;

impl Warp {
    /// The address of every lane: base register `i.a` plus `i.imm`.
    #[inline(always)]
    pub fn addresses(&self, i: &Instr) -> [u64; LANES] {
        let mut out = [0; LANES];
        if i.flags & WIDE_ADDRESS != 0 {
            let base = self.lanes::<u64>(i.a);
            for k in 0..LANES {
                out[k] = base[k].wrapping_add(i.imm as u64);
            }
        } else {
            let base = self.lanes::<u32>(i.a);
            for k in 0..LANES {
                out[k] = u64::from(base[k].wrapping_add(i.imm as u32));
            }
        }
        out
    }

    /// The allocation cache of a global access, filled for `address`; none where `address` is in no allocation.
    #[inline(always)]
    pub fn cached(&mut self, i: &Instr, address: u64) -> Option<Cache> {
        let cache = self.env().caches[i.target as usize];
        if address.wrapping_sub(cache.base) < cache.size { Some(cache) } else { self.refill(i, address) }
    }

    #[cold]
    fn refill(&mut self, i: &Instr, address: u64) -> Option<Cache> {
        // SAFETY: the launch holds the device's lock, so the table does not change while it runs.
        let memory = unsafe { &*self.env().memory };
        let index = memory.find(address, 1)?;
        let a = &memory.allocations[index];
        let cache = Cache { base: a.base, size: a.size, host: a.host, index };
        self.env().caches[i.target as usize] = cache;
        Some(cache)
    }

    #[cold]
    fn out_of_bounds(&mut self, space: Space, address: u64, bytes: u64, lane: usize) {
        let detail = match space {
            Space::Global => {
                // SAFETY: as in `refill`.
                let place = unsafe { &*self.env().memory }.describe(address);
                format!("{bytes} bytes at global address {address:#x}, {place}")
            }
            Space::Shared => format!("{bytes} bytes at {address:#x} of {} bytes of shared memory", self.shared_bytes),
            Space::Local => format!("{bytes} bytes at {address:#x} of {} bytes of local memory", self.local_bytes),
            _ => format!("{bytes} bytes at {address:#x} of {} bytes of arguments", self.param_bytes),
        };
        self.trap(FindingKind::OutOfBounds, lane, detail);
    }

    /// Host pointer to `bytes` bytes at one lane's address, after bounds and alignment; none where it traps. The space and
    /// offset it found come along, and for global memory the allocation.
    pub fn resolve(&mut self, i: &Instr, space: Space, address: u64, bytes: u64, lane: usize) -> Option<Target> {
        if address & (bytes.next_power_of_two().min(16) - 1) != 0 {
            self.trap(FindingKind::Misaligned, lane, format!("address {address:#x} for an access of {bytes} bytes"));
            return None;
        }
        let (space, at) = space.resolve(address);
        let within = |limit: u32| at.checked_add(bytes).is_some_and(|end| end <= u64::from(limit));
        // SAFETY: every pointer is offset only after the offset was checked against the length of its memory.
        let (host, index) = unsafe {
            match space {
                Space::Shared if within(self.shared_bytes) => (self.shared.add(at as usize), 0),
                Space::Local if within(self.local_bytes) => {
                    (self.local.add(lane * self.local_bytes as usize + at as usize), 0)
                }
                Space::Param if within(self.param_bytes) => (self.params.add(at as usize).cast_mut(), 0),
                Space::Global => match self.cached(i, at) {
                    Some(c) if at - c.base + bytes <= c.size => (c.host.add((at - c.base) as usize), c.index),
                    _ => {
                        self.out_of_bounds(space, at, bytes, lane);
                        return None;
                    }
                },
                _ => {
                    self.out_of_bounds(space, at, bytes, lane);
                    return None;
                }
            }
        };
        Some(Target { host, space, at, index })
    }

    /// Shows an access to the checkers.
    pub fn observe(&mut self, target: &Target, bytes: u64, lane: usize, touch: Touch) {
        let thread = self.index * LANES as u32 + lane as u32;
        let env = self.env();
        let Some(checker) = &mut env.checker else { return };
        let problem = match target.space {
            Space::Shared => checker.shared(target.at, bytes, thread, touch),
            Space::Local => checker.local(target.at, bytes, thread, touch),
            // SAFETY: the launch holds the device's lock; a checked launch has one worker.
            Space::Global => checker.global(unsafe { &mut *env.memory }, target.index, target.at, bytes, thread, touch),
            _ => None,
        };
        if let Some((kind, detail)) = problem {
            self.report(kind, lane, || detail);
        }
    }

    /// Counts the sectors or banks of one request, and the bytes it is the first to touch.
    pub fn count_traffic(&mut self, space: Space, addresses: &[u64; LANES], mask: u32, bytes: u64, store: bool) {
        let Some(first) = active(mask).next() else { return };
        let (resolved, _) = space.resolve(addresses[first]);
        let env = self.env();
        if let (Some(footprints), Space::Global) = (&mut env.footprints, resolved) {
            active(mask).for_each(|lane| footprints[usize::from(store)].add(addresses[lane], bytes));
        }
        let Some(traffic) = &mut env.traffic else { return };
        match resolved {
            Space::Global => traffic.global(addresses, mask, bytes, store),
            Space::Shared => traffic.shared(addresses, mask, bytes),
            _ => {}
        }
    }
}

/// A resolved address.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// On the host.
    pub host: *mut u8,
    /// Its space, never generic.
    pub space: Space,
    /// Its address in that space.
    pub at: u64,
    /// Its allocation, where it is global.
    pub index: usize,
}
