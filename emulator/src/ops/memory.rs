//! Loads and stores.
//!
//! Unwatched accesses to global and shared memory take a fast path: one bounds and alignment test for the whole warp,
//! then a copy (lanes side by side), a broadcast (all the same) or a gather. Everything else, and everything under the
//! checkers, goes lane by lane.

use super::{Decoded, unknown};
use crate::check::checker::{Lanes, Touch};
use crate::decode::builder::{Builder, Symbol, Width};
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::access::{Space, WIDE_ADDRESS};
use crate::exec::lanes::{LANES, Lane, active};
use crate::exec::simd::{nothing, op};
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

/// Flag: the data registers have 64-bit lanes.
const WIDE_DATA: u8 = 16;
/// Flag: loaded integers are sign extended.
const SIGNED: u8 = 32;
/// Flag: 16-bit registers.
const NARROW_DATA: u8 = 64;

/// Modifiers that change caching or ordering but not what one thread sees.
const HINTS: [&str; 20] = [
    "nc",
    "ca",
    "cg",
    "cs",
    "cv",
    "lu",
    "wb",
    "wt",
    "volatile",
    "weak",
    "relaxed",
    "acquire",
    "release",
    "cta",
    "gpu",
    "sys",
    "cluster",
    "evict_first",
    "evict_last",
    "param::entry",
];

/// The space an opcode names.
pub fn space(i: &Instruction) -> Space {
    for part in &i.opcode[1..] {
        match part.as_str() {
            "global" | "const" => return Space::Global,
            "shared" | "shared::cta" => return Space::Shared,
            "local" => return Space::Local,
            "param" | "param::entry" => return Space::Param,
            _ => {}
        }
    }
    Space::Generic
}

/// Sets base register, offset, space and cache of an address operand.
pub fn address(b: &mut Builder, instr: &mut Instr, operand: &Operand, space: Space) -> Result<(), String> {
    let Operand::Address(base, offset) = operand else { return Err("an address in brackets is due".into()) };
    let narrow = match base.as_ref() {
        Operand::Name(name) => match b.register(name) {
            Some(register) => register.width != Width::W64,
            None => false,
        },
        _ => false,
    };
    instr.imm = *offset;
    instr.flags |= space as u8;
    instr.target = b.cache();
    if narrow {
        instr.a = b.src::<u32>(base)?;
    } else {
        // A generic access by symbol means the symbol's own space.
        if let (Space::Generic, Operand::Name(name)) = (space, base.as_ref()) {
            match b.symbols.get(name) {
                Some(Symbol::Shared(_)) => instr.flags = instr.flags & !7 | Space::Shared as u8,
                Some(Symbol::Local(_)) => instr.flags = instr.flags & !7 | Space::Local as u8,
                Some(Symbol::Param(_)) => instr.flags = instr.flags & !7 | Space::Param as u8,
                _ => {}
            }
        }
        instr.a = b.src::<u64>(base)?;
        instr.flags |= WIDE_ADDRESS;
    }
    Ok(())
}

/// The class of an access to `space`.
fn class(space: Space, i: &Instruction) -> Class {
    match space {
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param => Class::Constant,
        _ if i.has("const") => Class::Constant,
        _ => Class::Global,
    }
}

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    if !matches!(i.family(), "ld" | "ldu" | "st") {
        return Ok((Instr::new(nothing), Work::new(Class::Control, 0)));
    }
    let spaces = ["global", "const", "shared", "shared::cta", "local", "param", "param::entry", "v2", "v4"];
    for part in &i.opcode[1..] {
        let hint = HINTS.contains(&part.as_str()) || part.starts_with("L1::") || part.starts_with("L2::");
        if !hint && !spaces.contains(&part.as_str()) && Type::parse(part).is_none() {
            return unknown(i);
        }
    }
    let (ty, space) = (super::scalar(i)?, space(i));
    let count = if i.has("v4") {
        4
    } else if i.has("v2") {
        2
    } else {
        1
    };
    let store = i.family() == "st";
    let [first, second] = super::operands::<2>(i)?;
    let (data, place) = if store { (second, first) } else { (first, second) };
    let data: Vec<Operand> = match data {
        Operand::Vector(parts) => parts.clone(),
        one => vec![one.clone()],
    };
    if data.len() != count {
        return Err(format!("{} registers for a vector of {count}", data.len()));
    }
    let width = data
        .iter()
        .find_map(|d| b.any(d).ok())
        .map_or(if ty.bits() == 64 { Width::W64 } else { Width::W32 }, |r| r.width);
    let bytes = ty.bytes();
    let signed = matches!(ty, Type::S(_));
    let mut instr = Instr { n: count as u8, c: bytes, ..Instr::new(nothing) };
    instr.flags = (u8::from(width == Width::W64) * WIDE_DATA)
        | (u8::from(signed) * SIGNED)
        | (u8::from(width == Width::W16) * NARROW_DATA);
    address(b, &mut instr, place, space)?;
    for (slot, operand) in instr.x.iter_mut().zip(&data) {
        *slot = match (store, width == Width::W64) {
            (true, true) => b.src::<u64>(operand)?,
            (true, false) => b.src::<u32>(operand)?,
            (false, true) => b.dst::<u64>(operand)?,
            (false, false) => b.dst::<u32>(operand)?,
        };
    }
    let param_constant = space == Space::Param
        && matches!(place, Operand::Address(base, _) if matches!(base.as_ref(), Operand::Name(n) if b.register(n).is_none()));
    if param_constant
        && !store
        && count == 1
        && let Operand::Address(base, offset) = place
        && let Operand::Name(name) = base.as_ref()
    {
        instr.imm = b.symbol_value(name).unwrap_or(0) as i64 + offset;
    }
    instr.run = match (store, bytes, width == Width::W64, count) {
        (false, _, _, 1) if param_constant => op!(|w, i, m| load_param(w, i, m)),
        (false, 4, false, 1) => op!(|w, i, m| load::<u32, u32, 1>(w, i, m)),
        (false, 4, false, 2) => op!(|w, i, m| load::<u32, u32, 2>(w, i, m)),
        (false, 4, false, 4) => op!(|w, i, m| load::<u32, u32, 4>(w, i, m)),
        (false, 8, true, 1) => op!(|w, i, m| load::<u64, u64, 1>(w, i, m)),
        (false, 8, true, 2) => op!(|w, i, m| load::<u64, u64, 2>(w, i, m)),
        (false, 1, false, 1) if !signed => op!(|w, i, m| load::<u8, u32, 1>(w, i, m)),
        (false, 2, false, 1) if !signed => op!(|w, i, m| load::<u16, u32, 1>(w, i, m)),
        (true, 4, false, 1) => op!(|w, i, m| save::<u32, u32, 1>(w, i, m)),
        (true, 4, false, 2) => op!(|w, i, m| save::<u32, u32, 2>(w, i, m)),
        (true, 4, false, 4) => op!(|w, i, m| save::<u32, u32, 4>(w, i, m)),
        (true, 8, true, 1) => op!(|w, i, m| save::<u64, u64, 1>(w, i, m)),
        (true, 1, false, 1) => op!(|w, i, m| save::<u8, u32, 1>(w, i, m)),
        (true, 2, false, 1) => op!(|w, i, m| save::<u16, u32, 1>(w, i, m)),
        (false, ..) => load_lanes,
        (true, ..) => save_lanes,
    };
    let work = Work { class: class(Space::from_flags(instr.flags), i), flops: 0, bytes: bytes * count as u32, store };
    Ok((instr, work))
}

/// An element in memory and its form in a register lane.
trait Element<R>: Copy + Default + PartialEq {
    fn widen(self) -> R;
    fn cut(lane: R) -> Self;
}

macro_rules! element {
    ($($e:ty => $r:ty),*) => {$(
        impl Element<$r> for $e {
            #[inline(always)]
            fn widen(self) -> $r { self.into() }
            #[inline(always)]
            fn cut(lane: $r) -> Self { lane as $e }
        }
    )*};
}
element!(u8 => u32, u16 => u32, u32 => u32, u64 => u64);

/// Where a warp's lanes access memory: host base and byte offsets, all checked; inactive lanes repeat an active one.
struct Plan {
    host: *mut u8,
    space: Space,
    /// The allocation, where it is global.
    index: usize,
    offsets: [u64; LANES],
    /// Lane `k` is `k` elements after lane 0.
    consecutive: bool,
    /// All lanes are at one place.
    uniform: bool,
}

/// Plans a fast access of `bytes` bytes a lane; none where the slow path must look (or will trap).
#[inline(always)]
fn plan(w: &mut Warp, i: &Instr, m: u32, bytes: u64) -> Option<Plan> {
    let mut at = w.addresses(i);
    let first = at[m.trailing_zeros() as usize];
    if m != !0 {
        for k in 0..LANES {
            at[k] = if m >> k & 1 != 0 { at[k] } else { first };
        }
    }
    let named = Space::from_flags(i.flags);
    let (space, within) = named.resolve(first);
    let (host, origin, size, index) = match space {
        Space::Shared => (w.shared, first - within, u64::from(w.shared_bytes), 0),
        Space::Global => {
            let cache = w.cached(i, first)?;
            (cache.host, cache.base, cache.size, cache.index)
        }
        _ => return None,
    };
    let limit = size.checked_sub(bytes)?;
    let start = first.wrapping_sub(origin);
    let step = bytes;
    let zero = at[0].wrapping_sub(origin);
    let (mut outside, mut low, mut apart, mut differ) = (false, 0, 0, 0);
    for k in 0..LANES {
        let offset = at[k].wrapping_sub(origin);
        outside |= offset > limit;
        low |= at[k];
        apart |= offset ^ zero.wrapping_add(k as u64 * step);
        differ |= offset ^ start;
        at[k] = offset;
    }
    if outside || low & (bytes - 1) != 0 {
        return None;
    }
    Some(Plan { host, space, index, offsets: at, consecutive: apart == 0 && m == !0, uniform: differ == 0 })
}

/// Shows a planned access to the checkers and counters; false, with nothing counted, where its lanes must be looked at one
/// by one.
fn watch(w: &mut Warp, plan: &Plan, m: u32, bytes: u64, write: Option<u32>) -> bool {
    let lanes = Lanes {
        offsets: &plan.offsets,
        mask: m,
        bytes,
        consecutive: plan.consecutive,
        uniform: plan.uniform,
        thread: w.index * LANES as u32,
    };
    let env = w.env();
    let fine = match (&mut env.checker, plan.space) {
        (None, _) => true,
        (Some(checker), Space::Shared) => checker.shared_warp(&lanes, write),
        // SAFETY: the launch holds the device's lock; a checked launch has one worker.
        (Some(checker), _) => checker.global_warp(unsafe { &mut *env.memory }, plan.index, &lanes, write),
    };
    if fine {
        // Allocations begin at whole sectors, so offsets count like addresses.
        w.count_traffic(plan.space, &plan.offsets, m, bytes, write.is_some());
    }
    fine
}

#[inline(always)]
fn load<E: Element<R>, R: Lane, const N: usize>(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let bytes = (size_of::<E>() * N) as u64;
    let Some(plan) = plan(w, i, m, bytes) else { return load_lanes(w, i, m) };
    if w.watched && !watch(w, &plan, m, bytes, None) {
        return load_lanes(w, i, m);
    }
    // SAFETY: `plan` checked bounds and alignment of every lane's offset for N elements.
    let element = |k: usize, v: usize| unsafe { plan.host.add(plan.offsets[k] as usize).cast::<E>().add(v).read() };
    for v in 0..N {
        let mut out = [R::default(); LANES];
        if N == 1 && plan.consecutive {
            // SAFETY: 32 elements from the first lane's on are in bounds, because the last lane's is.
            let all = unsafe { plan.host.add(plan.offsets[0] as usize).cast::<[E; LANES]>().read_unaligned() };
            for k in 0..LANES {
                out[k] = all[k].widen();
            }
        } else if plan.uniform {
            out = [element(0, v).widen(); LANES];
        } else {
            for k in 0..LANES {
                out[k] = element(k, v).widen();
            }
        }
        w.write(i.x[v], m, &out);
    }
    false
}

#[inline(always)]
fn save<E: Element<R>, R: Lane, const N: usize>(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let bytes = (size_of::<E>() * N) as u64;
    let Some(plan) = plan(w, i, m, bytes) else { return save_lanes(w, i, m) };
    if w.watched {
        let mut changes = 0;
        for k in active(m) {
            for v in 0..N {
                // SAFETY: as in `load`.
                let there = unsafe { plan.host.add(plan.offsets[k] as usize).cast::<E>().add(v).read() };
                changes |= u32::from(there != E::cut(w.lanes::<R>(i.x[v])[k])) << k;
            }
        }
        if !watch(w, &plan, m, bytes, Some(changes)) {
            return save_lanes(w, i, m);
        }
    }
    if N == 1 && plan.consecutive {
        let lanes = w.lanes::<R>(i.x[0]);
        let mut out = [E::default(); LANES];
        for k in 0..LANES {
            out[k] = E::cut(lanes[k]);
        }
        // SAFETY: as in `load`.
        unsafe { plan.host.add(plan.offsets[0] as usize).cast::<[E; LANES]>().write_unaligned(out) };
        return false;
    }
    for k in active(m) {
        for v in 0..N {
            let value = E::cut(w.lanes::<R>(i.x[v])[k]);
            // SAFETY: as in `load`.
            unsafe { plan.host.add(plan.offsets[k] as usize).cast::<E>().add(v).write(value) };
        }
    }
    false
}

/// Spreads a value of the argument block.
#[inline(always)]
fn load_param(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let at = i.imm as u64;
    if at + u64::from(i.c) > u64::from(w.param_bytes) {
        return load_lanes(w, i, m);
    }
    let mut bytes = [0; 8];
    // SAFETY: the range was just checked.
    unsafe { std::ptr::copy_nonoverlapping(w.params.add(at as usize), bytes.as_mut_ptr(), i.c as usize) };
    let value = extended(u64::from_le_bytes(bytes), i);
    if i.flags & WIDE_DATA != 0 {
        w.write(i.x[0], m, &[value; LANES]);
    } else {
        w.write(i.x[0], m, &[value as u32; LANES]);
    }
    false
}

/// Sign extension of a loaded value, as far as its register reaches.
#[inline(always)]
fn extended(value: u64, i: &Instr) -> u64 {
    let shift = 64 - 8 * i.c.min(8);
    let value = if i.flags & SIGNED != 0 { ((value << shift) as i64 >> shift) as u64 } else { value };
    if i.flags & NARROW_DATA != 0 { value & 0xffff } else { value }
}

fn load_lanes(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let (space, at, each) = (Space::from_flags(i.flags), w.addresses(i), u64::from(i.c));
    let bytes = each * u64::from(i.n);
    if w.watched {
        w.count_traffic(space, &at, m, bytes, false);
    }
    for lane in active(m) {
        let Some(target) = w.resolve(i, space, at[lane], bytes, lane) else { return true };
        if w.watched {
            w.observe(&target, bytes, lane, Touch::Read);
        }
        for v in 0..usize::from(i.n) {
            let mut raw = [0; 8];
            // SAFETY: `resolve` checked all of the vector's bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(target.host.add(v * each as usize), raw.as_mut_ptr(), each as usize);
            }
            let value = extended(u64::from_le_bytes(raw), i);
            if i.flags & WIDE_DATA != 0 {
                w.lanes_mut::<u64>(i.x[v])[lane] = value;
            } else {
                w.lanes_mut::<u32>(i.x[v])[lane] = value as u32;
            }
        }
    }
    false
}

fn save_lanes(w: &mut Warp, i: &Instr, m: u32) -> bool {
    let (space, at, each) = (Space::from_flags(i.flags), w.addresses(i), i.c as usize);
    let bytes = each * usize::from(i.n);
    if w.watched {
        w.count_traffic(space, &at, m, bytes as u64, true);
    }
    for lane in active(m) {
        let Some(target) = w.resolve(i, space, at[lane], bytes as u64, lane) else { return true };
        let mut raw = [0; 32];
        for v in 0..usize::from(i.n) {
            let value = if i.flags & WIDE_DATA != 0 {
                w.lanes::<u64>(i.x[v])[lane]
            } else {
                u64::from(w.lanes::<u32>(i.x[v])[lane])
            };
            raw[v * each..(v + 1) * each].copy_from_slice(&value.to_le_bytes()[..each]);
        }
        // SAFETY: `resolve` checked the range.
        let there = unsafe { std::slice::from_raw_parts_mut(target.host, bytes) };
        if w.watched {
            let changes = *there != raw[..bytes];
            w.observe(&target, bytes as u64, lane, Touch::Write(changes));
        }
        there.copy_from_slice(&raw[..bytes]);
    }
    false
}
