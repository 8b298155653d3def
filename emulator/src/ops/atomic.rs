//! Atomics: lanes in ascending order, so that even float sums are the same every run.

use super::memory::{address, space};
use super::minifloat::{widen_bf16, widen_f16};
use super::{Decoded, scalar, unknown};
use crate::check::checker::Touch;
use crate::decode::builder::Builder;
use crate::decode::ir::{Class, Instr, Work};
use crate::exec::access::Space;
use crate::exec::lanes::active;
use crate::exec::simd::nothing;
use crate::exec::warp::Warp;
use crate::ptx::ast::{Instruction, Operand, Type};

/// Flag: nothing is returned.
const SILENT: u8 = 16;

/// Decodes the family.
pub fn decode(b: &mut Builder, i: &Instruction) -> Decoded {
    let silent = i.family() == "red";
    let ty = scalar(i)?;
    let (space, wide) = (space(i), ty.bits() == 64);
    const KNOWN: [&str; 27] = [
        "global",
        "shared",
        "shared::cta",
        "relaxed",
        "acquire",
        "release",
        "acq_rel",
        "cta",
        "gpu",
        "sys",
        "noftz",
        "add",
        "and",
        "or",
        "xor",
        "min",
        "max",
        "exch",
        "cas",
        "inc",
        "dec",
        "async",
        "u32",
        "s32",
        "u64",
        "s64",
        "b32",
    ];
    super::only(i, &KNOWN)?;
    let Some(name) = i
        .opcode
        .iter()
        .find(|p| ["add", "and", "or", "xor", "min", "max", "exch", "cas", "inc", "dec"].contains(&p.as_str()))
    else {
        return unknown(i);
    };
    let (destination, rest) = if silent { (None, &i.operands[..]) } else { (i.operands.first(), &i.operands[1..]) };
    let [place, sources @ ..] = rest else { return Err("operands are missing".into()) };
    if sources.len() != if name == "cas" { 2 } else { 1 } {
        return Err("wrong number of operands".into());
    }
    let mut instr = Instr::new(nothing);
    address(b, &mut instr, place, space)?;
    let mut slots = [0; 2];
    for (slot, source) in slots.iter_mut().zip(sources) {
        *slot = if wide { b.src::<u64>(source)? } else { b.src::<u32>(source)? };
    }
    (instr.b, instr.c) = (slots[0], slots[1]);
    match destination {
        None | Some(Operand::Ignored) => instr.flags |= SILENT,
        Some(d) => instr.d = if wide { b.dst::<u64>(d)? } else { b.dst::<u32>(d)? },
    }
    macro_rules! on {
        ($t:ty, $f:expr) => {{
            fn run(w: &mut Warp, i: &Instr, m: u32) -> bool {
                update::<$t>(w, i, m, $f)
            }
            run
        }};
    }
    instr.run = match (name.as_str(), ty) {
        ("add", Type::U(32) | Type::S(32)) => on!(u32, |x, y, _| x.wrapping_add(y)),
        ("add", Type::U(64) | Type::S(64)) => on!(u64, |x, y, _| x.wrapping_add(y)),
        ("add", Type::F(32)) => on!(u32, |x, y, _| (f32::from_bits(x) + f32::from_bits(y)).to_bits()),
        ("add", Type::F(64)) => on!(u64, |x, y, _| (f64::from_bits(x) + f64::from_bits(y)).to_bits()),
        ("add", Type::F16x2) => on!(u32, |x, y, _| {
            let sum = |p: u32, q: u32| {
                super::half::to_f16(f64::from(widen_f16(p & 0xffff)) + f64::from(widen_f16(q & 0xffff)))
            };
            sum(x, y) | sum(x >> 16, y >> 16) << 16
        }),
        ("add", Type::Bf16x2) => on!(u32, |x, y, _| {
            let sum = |p: u32, q: u32| {
                super::half::to_bf16(f64::from(widen_bf16(p & 0xffff)) + f64::from(widen_bf16(q & 0xffff)))
            };
            sum(x, y) | sum(x >> 16, y >> 16) << 16
        }),
        ("add", Type::F(16)) => on!(u16, |x, y, _| {
            super::half::to_f16(f64::from(widen_f16(x.into())) + f64::from(widen_f16(y.into()))) as u16
        }),
        ("add", Type::Bf16) => on!(u16, |x, y, _| {
            super::half::to_bf16(f64::from(widen_bf16(x.into())) + f64::from(widen_bf16(y.into()))) as u16
        }),
        ("and", Type::B(32)) => on!(u32, |x, y, _| x & y),
        ("and", Type::B(64)) => on!(u64, |x, y, _| x & y),
        ("or", Type::B(32)) => on!(u32, |x, y, _| x | y),
        ("or", Type::B(64)) => on!(u64, |x, y, _| x | y),
        ("xor", Type::B(32)) => on!(u32, |x, y, _| x ^ y),
        ("xor", Type::B(64)) => on!(u64, |x, y, _| x ^ y),
        ("min", Type::U(32)) => on!(u32, |x, y, _| x.min(y)),
        ("max", Type::U(32)) => on!(u32, |x, y, _| x.max(y)),
        ("min", Type::S(32)) => on!(u32, |x, y, _| (x as i32).min(y as i32) as u32),
        ("max", Type::S(32)) => on!(u32, |x, y, _| (x as i32).max(y as i32) as u32),
        ("min", Type::U(64)) => on!(u64, |x, y, _| x.min(y)),
        ("max", Type::U(64)) => on!(u64, |x, y, _| x.max(y)),
        ("min", Type::S(64)) => on!(u64, |x, y, _| (x as i64).min(y as i64) as u64),
        ("max", Type::S(64)) => on!(u64, |x, y, _| (x as i64).max(y as i64) as u64),
        ("exch", Type::B(32)) => on!(u32, |_, y, _| y),
        ("exch", Type::B(64)) => on!(u64, |_, y, _| y),
        ("cas", Type::B(16)) => on!(u16, |x, y, z| if x == y { z } else { x }),
        ("cas", Type::B(32)) => on!(u32, |x, y, z| if x == y { z } else { x }),
        ("cas", Type::B(64)) => on!(u64, |x, y, z| if x == y { z } else { x }),
        ("inc", Type::U(32)) => on!(u32, |x, y, _| if x >= y { 0 } else { x + 1 }),
        ("dec", Type::U(32)) => on!(u32, |x, y, _| if x == 0 || x > y { y } else { x - 1 }),
        _ => return unknown(i),
    };
    // An atomic on a block's own memory meets no other block.
    b.atomics |= Space::from_flags(instr.flags) != Space::Shared;
    let shared = Space::from_flags(instr.flags) == Space::Shared;
    let class = if shared { Class::SharedAtomic } else { Class::Atomic };
    Ok((instr, Work { class, flops: 0, bytes: ty.bytes(), store: true }))
}

/// A word atomics work on.
trait Word: Copy {
    fn get(w: &Warp, slot: u32, lane: usize) -> Self;
    fn set(self, w: &mut Warp, slot: u32, lane: usize);
}

macro_rules! word {
    ($($t:ty => $r:ty),*) => {$(
        impl Word for $t {
            fn get(w: &Warp, slot: u32, lane: usize) -> Self { w.lanes::<$r>(slot)[lane] as $t }
            fn set(self, w: &mut Warp, slot: u32, lane: usize) { w.lanes_mut::<$r>(slot)[lane] = self.into() }
        }
    )*};
}
word!(u16 => u32, u32 => u32, u64 => u64);

fn update<T: Word>(w: &mut Warp, i: &Instr, m: u32, f: impl Fn(T, T, T) -> T) -> bool {
    let (space, at, bytes) = (Space::from_flags(i.flags), w.addresses(i), size_of::<T>() as u64);
    if w.watched {
        w.count_traffic(space, &at, m, bytes, true);
    }
    for lane in active(m) {
        let Some(target) = w.resolve(i, space, at[lane], bytes, lane) else { return true };
        if w.watched {
            w.observe(&target, bytes, lane, Touch::Atomic);
        }
        let place = target.host.cast::<T>();
        // SAFETY: `resolve` checked bounds and alignment; the launch owns the memory, and kernels with atomics run on one
        // worker.
        let old = unsafe { place.read() };
        let new = f(old, T::get(w, i.b, lane), if i.c == 0 { old } else { T::get(w, i.c, lane) });
        // SAFETY: as above.
        unsafe { place.write(new) };
        if i.flags & SILENT == 0 {
            old.set(w, i.d, lane);
        }
    }
    false
}
