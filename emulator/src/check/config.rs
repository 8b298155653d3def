//! What to check and count, and in which order to run.

/// Settings of the emulator; they apply to launches made after they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Check undefined reads, races, barriers and copies. Bounds and alignment are always checked.
    pub checks: bool,
    /// Count sectors of global requests and bank conflicts of shared ones.
    pub traffic: bool,
    /// Count the different bytes of global memory that a launch touches.
    pub footprint: bool,
    /// A launch with a finding fails (`CUDA_ERROR_LAUNCH_FAILED`), not only with a fault.
    pub strict: bool,
    /// Launches are validated and counted, and do nothing: what a program asks of its device at sizes that nobody could emulate.
    pub idle: bool,
    /// Zero: blocks and warps run in order; otherwise in an order drawn from this seed.
    pub seed: u64,
    /// Backward jumps a warp may take between two barriers before it counts as hung.
    pub patience: u64,
    /// Host threads that run blocks of unchecked kernels without atomics; results do not depend on it.
    pub threads: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            checks: false,
            traffic: false,
            footprint: false,
            strict: false,
            idle: false,
            seed: 0,
            patience: 1 << 28,
            threads: 1,
        }
    }
}

impl Config {
    /// Everything on.
    pub fn checked() -> Config {
        Config { checks: true, traffic: true, ..Config::default() }
    }

    /// The defaults, changed by `CUEMU_CHECK`, `CUEMU_TRAFFIC`, `CUEMU_FOOTPRINT`, `CUEMU_STRICT`,
    /// `CUEMU_IDLE` (1 for on), `CUEMU_SEED` and `CUEMU_THREADS`.
    pub fn from_environment() -> Config {
        let on = |name: &str| std::env::var(name).is_ok_and(|v| v != "0" && !v.is_empty());
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
        Config {
            checks: on("CUEMU_CHECK"),
            traffic: on("CUEMU_TRAFFIC"),
            footprint: on("CUEMU_FOOTPRINT"),
            strict: on("CUEMU_STRICT"),
            idle: on("CUEMU_IDLE"),
            seed: number("CUEMU_SEED").unwrap_or(0),
            threads: number("CUEMU_THREADS").map_or(1, |n| n.clamp(1, 64) as u32),
            ..Config::default()
        }
    }
}
