//! The process holds no more than the ledger and a stated constant.

use std::process::Command;

const MIB: u64 = 1 << 20;

/// What the process needs beside the arena: the program itself, thread stacks, the GEMM crate's packing buffers.
const BESIDE: u64 = 64 * MIB;

#[test]
fn the_resident_set_agrees_with_the_ledger() {
    for model in [["--model", "oss-net-c", "--volume", "128x128x80"], ["--model", "unet3d", "--volume", "96x96x96"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_ossnet"))
            .args(["memory", "--device", "cpu", "--steps", "1", "--threads", "2", "--json"])
            .args(model)
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (ledger, resident) = (json["peak_bytes"].as_u64().unwrap(), json["resident_peak_bytes"].as_u64().unwrap());
        let allowed = ledger + ledger * 15 / 100 + BESIDE;
        assert!(resident > ledger * 85 / 100 && resident <= allowed, "{model:?}: ledger {ledger}, resident {resident}");
    }
}
