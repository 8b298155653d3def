//! What this machine's CPU can do at best, measured: the ceilings that a profile's rates are compared with.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Simd, WithSimd};

use crate::device::cpu::loops::by_elements;
use crate::device::{Device, cpu::Pool};
use crate::error::Result;
use crate::memory::Role;
use crate::tensor::Tensor;

/// Chains of multiply-adds that do not wait for each other: more than two units of four clocks each can hold.
const CHAINS: usize = 16;
/// Multiply-adds of one chain, each of a whole vector.
const ROUNDS: usize = 500_000;
/// Elements of each array that is streamed: 64 MiB, more than caches hold.
const STREAM: usize = 1 << 24;
/// The best of so many attempts counts.
const ATTEMPTS: usize = 5;

/// Ceilings of a processor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Floating-point operations a second in f32, a fused multiply-add being two.
    pub flops: f64,
    /// Bytes a second between the processor and its memory.
    pub bandwidth: f64,
}

/// Multiply-adds in registers; gives a sum, so that they are not left out.
struct Chains(usize);

impl WithSimd for Chains {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (factor, term) = (simd.splat_f32s(black_box(0.999)), simd.splat_f32s(black_box(0.001)));
        let mut chains = [term; CHAINS];
        for _ in 0..self.0 {
            for chain in &mut chains {
                *chain = simd.mul_add_e_f32s(*chain, factor, term);
            }
        }
        chains.into_iter().map(|chain| simd.reduce_sum_f32s(chain)).sum()
    }
}

/// Measures the CPU with `threads` threads (0: one for each core) in about half a second. It takes 192 MiB of memory and gives
/// them back.
///
/// # Errors
/// Threads or memory that the system refuses.
pub fn of_this_cpu(threads: usize) -> Result<Peaks> {
    let pool = Pool::start(threads)?;
    let (workers, simd) = (pool.threads(), pool.simd());
    let operations = (2 * simd.lanes() * CHAINS * ROUNDS * workers) as f64;
    let chains = || {
        pool.for_each(workers, |_| {
            black_box(simd.dispatch(Chains(ROUNDS)));
        });
    };
    let flops = operations / fastest(chains);

    let device = Device::cpu_with_pool(pool, 4 * 4 * STREAM as u64)?;
    let array = || Tensor::zeros(&device, &[STREAM], Role::Workspace);
    let (mut sums, first, second) = (array()?, array()?, array()?);
    let (first, second) = (first.data(), second.data());
    // Reading two arrays and writing a third; the written lines are read first, which counts: it happens.
    let triad = || {
        if let Some(pool) = device.pool() {
            by_elements(pool, sums.data_mut(), |start, part| {
                let sources = first[start..].iter().zip(&second[start..]);
                part.iter_mut().zip(sources).for_each(|(sum, (a, b))| *sum = a + 0.5 * b);
            });
        }
    };
    let bandwidth = (4 * 4 * STREAM) as f64 / fastest(triad);
    Ok(Peaks { flops, bandwidth })
}

/// Seconds of the fastest attempt; the first one, which makes pages and starts threads, is not counted.
fn fastest(mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for attempt in 0..=ATTEMPTS {
        let started = Instant::now();
        work();
        if attempt > 0 {
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::SimdLevel;

    #[test]
    fn chains_compute_what_they_say() {
        // x ← 0.999 x + 0.001 has its fixed point at 1: after n rounds from 0.001, 1 - 0.999^(n+1).
        for simd in SimdLevel::available() {
            let rounds = 3000;
            let value = 1.0 - 0.999f64.powi(rounds + 1);
            let expected = value * (CHAINS * simd.lanes()) as f64;
            let sum = f64::from(simd.dispatch(Chains(rounds as usize)));
            // Each round rounds twice at most, and errors shrink by 0.999: 2000 half ulps at the end.
            assert!((sum / expected - 1.0).abs() < 2000.0 * f64::from(f32::EPSILON), "{simd:?}: {sum} for {expected}");
        }
    }

    #[test]
    fn ceilings_are_those_of_a_computer() {
        let peaks = of_this_cpu(1).unwrap();
        assert!((1e8..1e13).contains(&peaks.flops), "{peaks:?}");
        assert!((1e8..1e13).contains(&peaks.bandwidth), "{peaks:?}");
    }
}
