//! Seconds of a step's planned ops: each at its operations or its bytes, whichever take longer.
//!
//! The rates order schedules of one step on one machine; they promise no wall time. On CUDA they are those of the roofline model.

use super::super::gpus::SPEEDS;
use super::super::roofline::{COMPOSITES, Kernels, LAUNCH, roofline};
use crate::device::Target;
use crate::device::cpu::SimdLevel;
use crate::memory::OpCost;
use crate::tape::Precision;

/// Operations a second and thread that ops reach on a CPU with vectors of eight or sixteen lanes, and without.
const FLOPS: [f64; 3] = [3e9, 25e9, 40e9];

/// Bytes a second that a thread moves, and that all threads move together.
const BYTES: [f64; 2] = [6e9, 24e9];

/// Seconds that a pass takes beside its work, for waking the threads.
const PASS: f64 = 5e-6;

/// Seconds of the ops in `work`, one after the other.
pub(super) fn seconds(work: &[OpCost], target: Target, precision: Precision) -> f64 {
    match target {
        Target::Cpu { threads, simd } => {
            let threads = threads.max(1) as f64;
            let flops = threads * FLOPS[[SimdLevel::Portable, SimdLevel::Avx2].iter().filter(|l| simd > **l).count()];
            let bytes = (threads * BYTES[0]).min(BYTES[1].max(BYTES[0]));
            let own = work.iter().filter(|work| !COMPOSITES.contains(&work.op));
            own.map(|work| (work.flops as f64 / flops).max(work.bytes as f64 / bytes) + PASS).sum()
        }
        Target::Cuda(cuda) => {
            let speed = SPEEDS.iter().find(|speed| speed.target == cuda).unwrap_or(&SPEEDS[0]);
            roofline(work, speed, precision, Kernels::Fused, None, LAUNCH).expected_seconds()
        }
    }
}
