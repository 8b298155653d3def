//! Well-known GPUs and their memory, from their makers' data sheets.

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

/// By memory, then by age.
pub const GPUS: [Gpu; 14] = [
    gpu("GeForce RTX 3070", 8),
    gpu("GeForce RTX 3080", 10),
    gpu("GeForce RTX 4070", 12),
    gpu("Tesla T4", 16),
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

/// Share of a GPU's memory that is planned with: the rest is for the context, the modules and the display.
pub const USABLE: f64 = 0.95;

impl Gpu {
    /// Bytes that a plan may use.
    pub fn usable(&self) -> u64 {
        ((self.gibibytes << 30) as f64 * USABLE) as u64
    }
}
