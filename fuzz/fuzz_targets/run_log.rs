//! What a run's process finds of its log and costs: opened at a step, whatever lies there.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ossnet::train::costs::Costs;
use ossnet::train::run_log::{RunLog, LOG};

/// A folder in memory.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir_in("/dev/shm").expect("room in memory")).path()
}

fuzz_target!(|bytes: &[u8]| {
    let folder = folder();
    let log = folder.join(LOG);
    std::fs::write(&log, bytes).expect("room in memory");
    std::fs::write(folder.join("o-net.costs.json"), bytes).expect("room in memory");
    drop(RunLog::open(folder, 3).expect("a log is no reason to stop"));
    // Every line that is left is a step's.
    let kept = std::fs::read_to_string(&log).expect("text");
    for line in kept.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("an object");
        assert!(value["step"].as_u64().is_some_and(|step| step <= 3), "{line}");
    }
    Costs::load(&folder.join("o-net.safetensors")).median_step_seconds();
});
