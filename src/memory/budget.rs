//! How many bytes a device may use, and how bytes are written and read by people.

/// Share of the available memory that the engine may use by default; the rest is for the operating system.
const DEFAULT_SHARE: f64 = 0.9;

/// The CPU's default budget in bytes: 0.9 × the smaller of the control group's limit and the physical memory.
///
/// Where neither can be read (other systems than Linux), 8 GiB.
pub fn default_cpu_budget() -> u64 {
    let physical = read("/proc/meminfo").as_deref().and_then(physical_memory);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let group = limits.iter().find_map(|path| read(path)?.trim().parse::<u64>().ok());
    let smaller = physical.into_iter().chain(group).min().unwrap_or(8 << 30);
    (smaller as f64 * DEFAULT_SHARE) as u64
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn physical_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `bytes` with a binary unit and three to four significant digits: `512 B`, `1.5 KiB`, `650.2 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Reads `8GiB`, `512 MiB`, `1.5G`, `4096`; K, M, G and T are binary.
///
/// # Errors
/// The reason, without the flag's name, if the text is not a positive size.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let value: f64 = number.parse().map_err(|_| format!("'{text}' is not a size; write for example 8GiB"))?;
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => return Err(format!("unknown unit '{other}'; use B, KiB, MiB, GiB or TiB")),
    };
    let bytes = value * (1u64 << shift) as f64;
    if bytes >= 1.0 && bytes < u64::MAX as f64 {
        Ok(bytes as u64)
    } else {
        Err(format!("'{text}' is out of range; write for example 8GiB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        assert_eq!(parse_bytes("8GiB"), Ok(8 << 30));
        assert_eq!(parse_bytes(" 1.5 k "), Ok(1536));
        assert_eq!(parse_bytes("77"), Ok(77));
        for bad in ["", "GiB", "-1", "1.2.3", "5 parsecs", "0", "99999999999999999999T"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(1 << 20), "1.0 MiB");
        assert_eq!(format_bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn physical_memory_is_found() {
        assert_eq!(physical_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(physical_memory("nonsense"), None);
    }
}
