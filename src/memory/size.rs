//! The one question that every size from a file, a flag or a checkpoint has to pass before memory is asked for: how many
//! bytes is it, and does the budget hold them?
//!
//! Rust's collections end the process where the system has no memory left, and a product of lengths that wraps would ask for
//! too little. Whoever allocates on the word of somebody else therefore asks here first.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{default_cpu_budget, format_bytes};

/// Bytes that the host's data may take; 0 until it is set.
static HOST: AtomicU64 = AtomicU64::new(0);

/// Sets what [`host_budget`] gives from now on: the user's `--memory-budget` for the CPU.
pub fn set_host_budget(bytes: u64) {
    HOST.store(bytes, Ordering::Relaxed);
}

/// The bytes that data on the host (scans, labels, meshes) may take: [`set_host_budget`]'s, else the default budget of the CPU.
pub fn host_budget() -> u64 {
    static DEFAULT: OnceLock<u64> = OnceLock::new();
    match HOST.load(Ordering::Relaxed) {
        0 => *DEFAULT.get_or_init(default_cpu_budget),
        bytes => bytes,
    }
}

/// The product of `factors`, in bytes, if it is at most [`host_budget`].
///
/// # Errors
/// Half a sentence that says how much it is and how much there may be.
pub fn within_host_budget(factors: &[usize]) -> Result<u64, String> {
    within(factors, host_budget())
}

/// The product of `factors`, in bytes, if it is at most `budget`.
///
/// # Errors
/// As for [`within_host_budget`].
pub fn within(factors: &[usize], budget: u64) -> Result<u64, String> {
    let bytes = factors.iter().try_fold(1u64, |product, &factor| product.checked_mul(factor as u64));
    match bytes {
        Some(bytes) if bytes <= budget => Ok(bytes),
        Some(bytes) => {
            Err(format!("takes {} of memory, and the budget is {}", format_bytes(bytes), format_bytes(budget)))
        }
        None => Err(format!("takes more memory than 64 bits count, and the budget is {}", format_bytes(budget))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_held_to_a_budget() {
        assert_eq!(within(&[1 << 10, 1 << 10], 1 << 20), Ok(1 << 20));
        assert_eq!(within(&[], 1), Ok(1));
        // A wrapped product would be 0 and 4.
        for factors in [&[1 << 32, 1 << 32][..], &[1 << 63, 2, 0, 4], &[1 << 62, 4, 4]] {
            assert!(within(factors, u64::MAX).unwrap_err().contains("more memory than 64 bits count"), "{factors:?}");
        }
        assert_eq!(within(&[usize::MAX, 0], 9), Ok(0));
        assert_eq!(within(&[3, 1024], 1024).unwrap_err(), "takes 3.0 KiB of memory, and the budget is 1.0 KiB");
    }
}
