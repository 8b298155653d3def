//! Calls that fail because a test wants to see what a program says then.
//!
//! `CUEMU_FAIL=cuInit=803,cuMemAddressReserve=801` makes these functions answer with these codes, always, and do nothing.

use std::collections::HashMap;
use std::sync::OnceLock;

/// `NAME=CODE` pairs, separated by commas; what is none is ignored.
fn parse(text: &str) -> HashMap<String, i32> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, code)| Some((name.trim().to_string(), code.trim().parse().ok()?))).collect()
}

/// The code that the function `name` is to answer with.
pub(crate) fn asked(name: &str) -> Option<i32> {
    static FAULTS: OnceLock<HashMap<String, i32>> = OnceLock::new();
    let faults = FAULTS.get_or_init(|| std::env::var("CUEMU_FAIL").map(|text| parse(&text)).unwrap_or_default());
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
