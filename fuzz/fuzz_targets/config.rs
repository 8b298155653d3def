//! The TOML file of a run: resolved, made a network of, written, and read again as the same.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ossnet::models::Architecture;
use ossnet::train::config::RunConfig;

fuzz_target!(|text: &str| {
    let path = Path::new("run.toml");
    if let Ok(config) = RunConfig::resolve(Some((path, text)), toml::Table::new(), false) {
        let _ = config.network(2, 3, [64, 64, 32]).map(|network| (network.check(), network.multiples(), network.title()));
        config.settings();
        let text = config.to_toml().expect("a configuration can be written");
        let again = RunConfig::resolve(Some((path, &text)), toml::Table::new(), false).expect("and read");
        // Text to text: a NaN is not equal to itself.
        assert_eq!(again.to_toml().expect("written"), text);
    }
});
