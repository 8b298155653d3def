//! Calls that fail because a test wants to see what a program says then.
//!
//! `CUEMU_FAIL=cuInit=803,cuMemAddressReserve=801` makes these functions answer with these codes, always, and do nothing;
//! `CUEMU_DELAY=cuModuleLoadData=50` makes them take so many milliseconds more, as a compiler does.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

/// `NAME=CODE` pairs, separated by commas; what is none is ignored.
fn parse(text: &str) -> HashMap<String, i32> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, code)| Some((name.trim().to_string(), code.trim().parse().ok()?))).collect()
}

fn from_environment(variable: &str) -> HashMap<String, i32> {
    std::env::var(variable).map(|text| parse(&text)).unwrap_or_default()
}

/// The code that the function `name` is to answer with; waits before, if that is asked for.
pub(crate) fn asked(name: &str) -> Option<i32> {
    static ASKED: OnceLock<[HashMap<String, i32>; 2]> = OnceLock::new();
    let [faults, delays] = ASKED.get_or_init(|| ["CUEMU_FAIL", "CUEMU_DELAY"].map(from_environment));
    if let Some(&milliseconds) = if delays.is_empty() { None } else { delays.get(name) } {
        std::thread::sleep(Duration::from_millis(milliseconds.max(0) as u64));
    }
    if faults.is_empty() { None } else { faults.get(name).copied() }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn faults_are_pairs() {
        let faults = parse("cuInit=803, cuMemCreate=2,nonsense,cuX=y");
        assert_eq!((faults.len(), faults["cuInit"], faults["cuMemCreate"]), (2, 803, 2));
        assert!(parse("").is_empty());
    }
}
