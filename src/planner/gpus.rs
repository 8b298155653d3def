//! Well-known GPUs: their memory and what they can do at most, from their makers' data sheets.

use crate::device::CudaTarget;

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: &'static str,
    /// Its memory in GiB.
    pub gibibytes: u64,
}

const fn gpu(name: &'static str, gibibytes: u64) -> Gpu {
    Gpu { name, gibibytes }
}

/// By memory, then by age; all of compute capability 8.0 or newer.
pub const GPUS: [Gpu; 13] = [
    gpu("GeForce RTX 3070", 8),
    gpu("GeForce RTX 3080", 10),
    gpu("GeForce RTX 4070", 12),
    gpu("GeForce RTX 4080", 16),
    gpu("GeForce RTX 3090", 24),
    gpu("GeForce RTX 4090", 24),
    gpu("L4, A10, A30", 24),
    gpu("GeForce RTX 5090", 32),
    gpu("A100", 40),
    gpu("RTX A6000, L40S", 48),
    gpu("A100, H100", 80),
    gpu("H200", 141),
    gpu("B200", 180),
];

/// What a GPU can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its architecture.
    pub target: CudaTarget,
    /// What is meant, and where the figures are from.
    pub source: &'static str,
    /// Memory bandwidth in bytes a second.
    pub bandwidth: f64,
    /// Floating-point operations a second, a fused multiply-add being two: f32 without tensor cores.
    pub f32: f64,
    /// On tensor cores in tf32, without sparsity.
    pub tf32: f64,
    /// On tensor cores in bf16 with f32 sums, without sparsity.
    pub bf16: f64,
    /// Warp instructions a second: four schedulers a multiprocessor, each one a clock.
    pub issue: f64,
}

/// The place of an architecture in [`CudaTarget::KNOWN`].
const AMPERE: usize = 0;
const GA10X: usize = 1;
const ADA: usize = 2;
const HOPPER: usize = 3;
const BLACKWELL: usize = 5;

type Rates = [f64; 3];

const fn speed(name: &'static str, of: usize, source: &'static str, gigabytes: f64, [f32, tf32, bf16]: Rates) -> Speed {
    let (target, bandwidth, f32) = (CudaTarget::KNOWN[of].1, gigabytes * 1e9, f32 * 1e12);
    // A multiprocessor's f32 units make two operations each a clock, in which its schedulers issue four instructions.
    let lanes = if of == AMPERE { 64.0 } else { 128.0 };
    Speed { name, target, source, bandwidth, f32, tf32: tf32 * 1e12, bf16: bf16 * 1e12, issue: 2.0 * f32 / lanes }
}

/// GB/s, then TFLOP/s. Data sheets print tensor rates with sparsity, which counts zeros; half of that is meant here.
pub const SPEEDS: [Speed; 11] = [
    speed("rtx3090", GA10X, "GeForce RTX 3090, GA102 whitepaper", 936.0, [35.6, 35.6, 71.0]),
    speed("a6000", GA10X, "RTX A6000 data sheet, GA102 whitepaper", 768.0, [38.7, 77.4, 154.8]),
    speed("a100-40", AMPERE, "A100 SXM 40 GB data sheet", 1555.0, [19.5, 156.0, 312.0]),
    speed("a100", AMPERE, "A100 SXM 80 GB data sheet", 2039.0, [19.5, 156.0, 312.0]),
    speed("l4", ADA, "L4 data sheet", 300.0, [30.3, 60.0, 121.0]),
    speed("l40s", ADA, "L40S data sheet", 864.0, [91.6, 183.0, 362.0]),
    speed("rtx4090", ADA, "GeForce RTX 4090, Ada whitepaper", 1008.0, [82.6, 82.6, 165.2]),
    speed("h100-pcie", HOPPER, "H100 PCIe data sheet", 2000.0, [51.0, 378.0, 756.0]),
    speed("h100", HOPPER, "H100 SXM data sheet", 3350.0, [67.0, 494.5, 989.5]),
    speed("h200", HOPPER, "H200 SXM data sheet", 4800.0, [67.0, 494.5, 989.5]),
    speed("rtx5090", BLACKWELL, "GeForce RTX 5090, Blackwell whitepaper", 1792.0, [104.8, 104.8, 209.5]),
];

/// Share of a GPU's memory that is planned with: the rest is for the context, the modules and the display.
pub const USABLE: f64 = 0.95;

impl Speed {
    /// The GPU of this name, whatever the case of its letters.
    ///
    /// # Errors
    /// A line that names the nearest and lists all.
    pub fn named(name: &str) -> Result<Self, String> {
        let known = || crate::suggest::remedy(name, SPEEDS.iter().map(|speed| speed.name));
        let speed = SPEEDS.into_iter().find(|speed| speed.name.eq_ignore_ascii_case(name));
        speed.ok_or_else(|| format!("'{name}' is no GPU that is known here; {}", known()))
    }
}

impl Gpu {
    /// Its name and memory.
    pub fn title(&self) -> String {
        format!("{} ({} GB)", self.name, self.gibibytes)
    }

    /// Bytes that a plan may use, a multiple of the 2 MiB that memory comes in.
    pub fn usable(&self) -> u64 {
        ((self.gibibytes << 30) as f64 * USABLE) as u64 >> 21 << 21
    }
}
