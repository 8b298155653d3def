//! PTX text: parsed and decoded by the emulator.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(module) = cuemu::ptx::parse(text) {
        let _ = cuemu::decode::module::decode(&module, |_| Ok(0x1000));
    }
});
