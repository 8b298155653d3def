//! One source, three instruction sets: every hot op is compiled for the baseline CPU, for AVX2 and for AVX-512, and the
//! best the machine has is chosen when a kernel is decoded.

use std::sync::OnceLock;

use super::warp::Warp;
use crate::decode::ir::{Instr, Op};

/// What the CPU offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The baseline of the target.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
}

/// The level in use: the best the CPU has, or less where `CUEMU_SIMD` is `portable` or `avx2`.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let limit = match std::env::var("CUEMU_SIMD").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            _ => Level::Avx512,
        };
        limit.min(best())
    })
}

#[cfg(target_arch = "x86_64")]
fn best() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> Level {
    Level::Portable
}

/// Picks among the three compilations of one op.
pub fn pick(portable: Op, avx2: Op, avx512: Op) -> Op {
    match level() {
        Level::Portable => portable,
        Level::Avx2 => avx2,
        Level::Avx512 => avx512,
    }
}

/// Compiles `function(arguments) -> output { body }` for every level and calls the one in use.
macro_rules! dispatched {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) -> $out {
            #[inline(always)]
            fn body($($arg: $ty),*) -> $out $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn avx2($($arg: $ty),*) -> $out { body($($arg),*) }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
                fn avx512($($arg: $ty),*) -> $out { body($($arg),*) }
                match $crate::exec::simd::level() {
                    // SAFETY: level() reports a level only where the CPU has its features.
                    $crate::exec::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::exec::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::exec::simd::Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use dispatched;

/// An [`Op`] whose body is compiled for every level: `op!(|w, i, m| body)` with the warp, the instruction and the mask of
/// active lanes; the body is true where the instruction traps.
macro_rules! op {
    (|$w:ident, $i:ident, $m:ident| $body:expr) => {{
        #[inline(always)]
        fn portable($w: &mut $crate::exec::warp::Warp, $i: &$crate::decode::ir::Instr, $m: u32) -> bool {
            $body
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn avx2(w: &mut $crate::exec::warp::Warp, i: &$crate::decode::ir::Instr, m: u32) -> bool {
            portable(w, i, m)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        fn avx512(w: &mut $crate::exec::warp::Warp, i: &$crate::decode::ir::Instr, m: u32) -> bool {
            portable(w, i, m)
        }
        #[cfg(not(target_arch = "x86_64"))]
        let chosen: $crate::decode::ir::Op = portable;
        #[cfg(target_arch = "x86_64")]
        let chosen = $crate::exec::simd::pick(portable, avx2, avx512);
        chosen
    }};
}
pub(crate) use op;

/// An op that does nothing; it stands for fences, hints and everything the scheduler does by itself.
pub fn nothing(_: &mut Warp, _: &Instr, _: u32) -> bool {
    false
}
