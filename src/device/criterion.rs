//! Bytes as a measurement of criterion (feature `criterion`): benches whose reports, baselines and regressions are of memory instead of
//! seconds. `benches/memory.rs` is an example.
//!
//! ```no_run
//! use criterion::{Criterion, criterion_group, criterion_main};
//! use ossnet::device::Device;
//! use ossnet::memory::Role;
//! use ossnet::device::criterion::{PeakBytes, iter, peak_of};
//!
//! fn buffers(criterion: &mut Criterion<PeakBytes>) {
//!     let device = Device::cpu(1, 1 << 30).unwrap();
//!     criterion.bench_function("two buffers", |bencher| {
//!         iter(bencher, || peak_of(&device, || [1 << 20, 2 << 20].map(|bytes| device.allocate(bytes, Role::Transient).unwrap())))
//!     });
//! }
//!
//! criterion_group! { name = all; config = Criterion::default().with_measurement(PeakBytes); targets = buffers }
//! criterion_main!(all);
//! ```

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Bencher, Throughput};

use super::Device;

/// Measures bytes. What is measured states its own: see [`iter`].
pub struct PeakBytes;

/// Calls `peak`, which returns the most bytes that one pass of the work held, as often as criterion asks.
pub fn iter(bencher: &mut Bencher<'_, PeakBytes>, mut peak: impl FnMut() -> u64) {
    bencher.iter_custom(|iterations| (0..iterations).map(|_| peak()).sum());
}

/// The most bytes that the engine holds on `device` while `work` is done.
pub fn peak_of<T>(device: &Device, work: impl FnOnce() -> T) -> u64 {
    device.ledger(|ledger| ledger.reset_peak());
    drop(work());
    device.ledger(|ledger| ledger.peak().by_role.total())
}

impl Measurement for PeakBytes {
    type Intermediate = ();
    type Value = u64;

    // There is nothing to read before and after the work.
    fn start(&self) {}

    fn end(&self, (): ()) -> u64 {
        0
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, bytes: &u64) -> f64 {
        *bytes as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &BinaryUnits
    }
}

/// Bytes in KiB, MiB or GiB.
struct BinaryUnits;

impl BinaryUnits {
    /// The unit for a typical value, and its bytes.
    fn unit(typical: f64) -> (f64, &'static str) {
        let units = [(1024.0, "KiB"), ((1u64 << 20) as f64, "MiB"), ((1u64 << 30) as f64, "GiB")];
        units.into_iter().rev().find(|(bytes, _)| typical >= *bytes).unwrap_or((1.0, "B"))
    }
}

impl ValueFormatter for BinaryUnits {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (bytes, name) = Self::unit(typical);
        values.iter_mut().for_each(|value| *value /= bytes);
        name
    }

    fn scale_throughputs(&self, _typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        // Bytes held for each element that the step works on.
        if let Throughput::Elements(count) = throughput {
            values.iter_mut().for_each(|value| *value /= *count as f64);
        }
        "bytes an element"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Role;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let device = Device::cpu(1, 1 << 20).unwrap();
        let one = || device.allocate(4096, Role::Transient).unwrap();
        assert_eq!(peak_of(&device, || (one(), one())), 8192);
        let one_after_the_other = || {
            drop(one());
            drop(one());
        };
        assert_eq!(peak_of(&device, one_after_the_other), 4096);
    }

    #[test]
    fn bytes_have_binary_units() {
        let mut values = [1536.0, 512.0];
        assert_eq!((BinaryUnits.scale_values(2048.0, &mut values), values), ("KiB", [1.5, 0.5]));
    }
}
