//! The register file seen as 32 lanes, and functions of one lane mapped over them.
//!
//! A register is 32 consecutive 32-bit or 64-bit words; operands are byte offsets into the file, checked when the kernel
//! is decoded. Maps read whole chunks into local arrays before they write, so that the compiler may vectorise although
//! source and destination can be the same register.

use super::warp::Warp;
use crate::decode::ir::Instr;

/// Lanes in a warp.
pub const LANES: usize = 32;

/// A type a lane of a register can be read as.
pub trait Lane: Copy + Default {
    /// True for the 64-bit types.
    const WIDE: bool = size_of::<Self>() == 8;
}
impl Lane for u32 {}
impl Lane for i32 {}
impl Lane for f32 {}
impl Lane for u64 {}
impl Lane for i64 {}
impl Lane for f64 {}

/// How many lanes are computed between reading and writing.
const CHUNK: usize = 16;

impl Warp {
    /// The 32 lanes of the register at `slot`.
    #[inline(always)]
    pub fn lanes<T: Lane>(&self, slot: u32) -> &[T; LANES] {
        // SAFETY: decoding gives out only slots inside the file, aligned to 64 bytes and of the width of T; every bit
        // pattern is a value of T. The interpreter is single threaded over a warp.
        unsafe { &*self.regs.add(slot as usize).cast() }
    }

    /// The 32 lanes of the register at `slot`, to be written.
    #[inline(always)]
    pub fn lanes_mut<T: Lane>(&mut self, slot: u32) -> &mut [T; LANES] {
        // SAFETY: as in `lanes`; `&mut self` makes the borrow exclusive.
        unsafe { &mut *self.regs.add(slot as usize).cast() }
    }

    /// The predicate at `slot`, a bit a lane.
    #[inline(always)]
    pub fn pred(&self, slot: u32) -> u32 {
        // SAFETY: predicate slots are 4-byte aligned words inside the file.
        unsafe { *self.regs.add(slot as usize).cast::<u32>() }
    }

    /// Writes the lanes in `mask` of the predicate at `slot`.
    #[inline(always)]
    pub fn set_pred(&mut self, slot: u32, mask: u32, value: u32) {
        // SAFETY: as in `pred`.
        let word = unsafe { &mut *self.regs.add(slot as usize).cast::<u32>() };
        *word = (*word & !mask) | (value & mask);
    }

    /// Writes the lanes in `mask` of the register at `slot`.
    #[inline(always)]
    pub fn write<T: Lane>(&mut self, slot: u32, mask: u32, values: &[T; LANES]) {
        let lanes = self.lanes_mut::<T>(slot);
        if mask == !0 {
            *lanes = *values;
        } else {
            for k in 0..LANES {
                lanes[k] = if mask >> k & 1 != 0 { values[k] } else { lanes[k] };
            }
        }
    }

    #[inline(always)]
    fn chunk<T: Lane>(&self, slot: u32, at: usize) -> [T; CHUNK] {
        let mut out = [T::default(); CHUNK];
        out.copy_from_slice(&self.lanes::<T>(slot)[at..at + CHUNK]);
        out
    }

    #[inline(always)]
    fn put<T: Lane>(&mut self, slot: u32, at: usize, mask: u32, values: [T; CHUNK]) {
        let lanes = &mut self.lanes_mut::<T>(slot)[at..at + CHUNK];
        if mask == !0 {
            lanes.copy_from_slice(&values);
        } else {
            for k in 0..CHUNK {
                lanes[k] = if mask >> (at + k) & 1 != 0 { values[k] } else { lanes[k] };
            }
        }
    }
}

/// `d = f(a)` in the lanes of `m`. Never traps.
#[inline(always)]
pub fn map1<D: Lane, A: Lane>(w: &mut Warp, i: &Instr, m: u32, f: impl Fn(A) -> D) -> bool {
    for at in (0..LANES).step_by(CHUNK) {
        let a = w.chunk::<A>(i.a, at);
        let mut out = [D::default(); CHUNK];
        for k in 0..CHUNK {
            out[k] = f(a[k]);
        }
        w.put(i.d, at, m, out);
    }
    false
}

/// `d = f(a, b)` in the lanes of `m`. Never traps.
#[inline(always)]
pub fn map2<D: Lane, A: Lane, B: Lane>(w: &mut Warp, i: &Instr, m: u32, f: impl Fn(A, B) -> D) -> bool {
    for at in (0..LANES).step_by(CHUNK) {
        let (a, b) = (w.chunk::<A>(i.a, at), w.chunk::<B>(i.b, at));
        let mut out = [D::default(); CHUNK];
        for k in 0..CHUNK {
            out[k] = f(a[k], b[k]);
        }
        w.put(i.d, at, m, out);
    }
    false
}

/// `d = f(a, b, c)` in the lanes of `m`. Never traps.
#[inline(always)]
pub fn map3<D: Lane, A: Lane, B: Lane, C: Lane>(w: &mut Warp, i: &Instr, m: u32, f: impl Fn(A, B, C) -> D) -> bool {
    for at in (0..LANES).step_by(CHUNK) {
        let (a, b, c) = (w.chunk::<A>(i.a, at), w.chunk::<B>(i.b, at), w.chunk::<C>(i.c, at));
        let mut out = [D::default(); CHUNK];
        for k in 0..CHUNK {
            out[k] = f(a[k], b[k], c[k]);
        }
        w.put(i.d, at, m, out);
    }
    false
}

/// The bits of `f(a, b)` over the lanes.
#[inline(always)]
pub fn compare<A: Lane>(w: &Warp, i: &Instr, f: impl Fn(A, A) -> bool) -> u32 {
    let (a, b) = (w.lanes::<A>(i.a), w.lanes::<A>(i.b));
    let mut bits = 0;
    for k in 0..LANES {
        bits |= u32::from(f(a[k], b[k])) << k;
    }
    bits
}

/// The numbers of the set bits of `mask`, ascending.
#[inline(always)]
pub fn active(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            lane
        })
    })
}
