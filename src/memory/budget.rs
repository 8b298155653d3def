//! How many bytes a device may use, and how bytes are written for people.

use super::control_group::memory_limit;

/// Share of the available memory that the engine may use by default; the rest is for the operating system.
const DEFAULT_SHARE: f64 = 0.9;

/// The CPU's default budget in bytes: 0.9 × the smallest of the control groups' limits and the physical memory.
///
/// Where neither can be read (other systems than Linux), 8 GiB.
pub fn default_cpu_budget() -> u64 {
    budget_of(|path| std::fs::read_to_string(path).ok())
}

fn budget_of(read: impl Fn(&str) -> Option<String>) -> u64 {
    let physical = read("/proc/meminfo").as_deref().and_then(physical_memory);
    let smaller = physical.into_iter().chain(memory_limit(read)).min().unwrap_or(8 << 30);
    (smaller as f64 * DEFAULT_SHARE) as u64
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn physical_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The process's largest resident set so far, in bytes (0 where the system does not tell).
pub fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

/// Has the allocator give freed blocks of a MiB and more back to the system. glibc else raises this bound to the size of the
/// largest block that was freed, and keeps smaller ones: the process would hold megabytes that no plan knows of.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number of the allocator. That it may refuse changes no result.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// `bytes` with a binary unit and three to four significant digits: `512 B`, `1.5 KiB`, `650.2 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written() {
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(1 << 20), "1.0 MiB");
        assert_eq!(format_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn the_smaller_of_machine_and_container_counts() {
        let of = |files: &[(&str, &str)]| {
            budget_of(|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| text.to_string()))
        };
        let (machine, container) = (("/proc/meminfo", "MemTotal: 4000 kB\n"), "/sys/fs/cgroup/memory.max");
        assert_eq!(of(&[machine]), 3_686_400);
        assert_eq!(of(&[machine, (container, "1000000\n")]), 900_000);
        assert_eq!(of(&[machine, (container, "max\n")]), 3_686_400);
        assert_eq!(of(&[]), 7_730_941_132);
        // Of this machine it is something that a machine has.
        assert!(cfg!(not(target_os = "linux")) || (1 << 20..1 << 50).contains(&default_cpu_budget()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_resident_peak_holds_what_was_touched() {
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        // Other tests run meanwhile, none of which touches terabytes.
        assert!((touched.len() as u64..1 << 40).contains(&resident_peak()), "{}", resident_peak());
    }

    #[test]
    fn physical_memory_is_found() {
        assert_eq!(physical_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(physical_memory("nonsense"), None);
    }
}
