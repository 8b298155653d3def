//! What it costs to sum the gradients of a step over several GPUs: a model of NCCL's ring, not a measurement.
//!
//! Each of `n` GPUs sends and receives `2·(n − 1)/n` of the bytes, in `2·(n − 1)` rounds:
//!
//! `seconds = 2·(n − 1)/n · bytes / bandwidth + 2·(n − 1) · latency`

use serde::Serialize;

/// What joins two neighbours of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Bytes a second in one direction, by its maker's data sheet.
    pub bandwidth: f64,
    /// Seconds of a round without bytes: assumed, in the order of what NCCL's users report.
    pub latency: f64,
}

/// The fastest first. NVLink's bandwidth is half of what data sheets print, which count both directions.
pub const LINKS: [Link; 5] = [
    Link { name: "NVLink 4 (H100, H200)", bandwidth: 450e9, latency: 3e-6 },
    Link { name: "NVLink 3 (A100)", bandwidth: 300e9, latency: 3e-6 },
    Link { name: "PCIe 4.0 x16", bandwidth: 32e9, latency: 5e-6 },
    Link { name: "Ethernet 100 Gbit/s", bandwidth: 12.5e9, latency: 30e-6 },
    Link { name: "Ethernet 10 Gbit/s", bandwidth: 1.25e9, latency: 30e-6 },
];

/// Bytes of a parameter's gradient.
pub const GRADIENT_BYTES: u64 = 4;

/// Numbers of GPUs that are asked about.
pub const RANKS: [u32; 3] = [2, 4, 8];

impl Link {
    /// Seconds for a sum of so many bytes over so many GPUs.
    pub fn seconds(&self, bytes: u64, ranks: u32) -> f64 {
        let (bytes, rounds) = (bytes as f64, 2.0 * f64::from(ranks.max(1) - 1));
        rounds / f64::from(ranks.max(1)) * bytes / self.bandwidth + rounds * self.latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_sends_nearly_twice_the_bytes() {
        let link = Link { name: "", bandwidth: 1e9, latency: 1e-3 };
        assert_eq!(link.seconds(4_000_000_000, 1), 0.0);
        assert!((link.seconds(4_000_000_000, 2) - (4.0 + 0.002)).abs() < 1e-12);
        assert!((link.seconds(4_000_000_000, 4) - (6.0 + 0.006)).abs() < 1e-12);
        assert!(LINKS.is_sorted_by(|one, other| one.bandwidth > other.bandwidth));
    }
}
